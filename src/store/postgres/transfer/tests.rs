//! A database that is copied while nodes write to it: what the server sees of the copy.

use tokio_postgres::types::ToSql;

use super::{COPY_LOCK, EVENTS, PostgresOrigin, PostgresTarget, Shared};
use crate::config::{PostgresUrl, Settings, StoreUrl};
use crate::store::contract::{append, event_from, topic};
use crate::store::postgres::tests::server::Database;
use crate::store::postgres::tests::{node, now, settings};
use crate::store::transfer::{BATCH_BYTES, BATCH_EVENTS, Done, Origin};
use crate::store::{Batch, Engine, StoreError, Writer};

fn open<T>(database: &Database, open: fn(&Settings, &PostgresUrl) -> Result<T, StoreError>) -> T {
    let settings = settings(&database.url());
    let StoreUrl::Postgres(url) = &settings.store.url else { unreachable!() };
    open(&settings, url).unwrap()
}

fn origin(database: &Database) -> PostgresOrigin {
    let mut origin = open(database, PostgresOrigin::open);
    origin.begin(Done::default()).unwrap();
    origin
}

/// Appends so many events to a topic, of which none was appended before with this prefix.
fn fill(writer: &mut dyn Writer, name: &str, prefix: &str, count: usize) {
    let event = |id| event_from("x", name, &format!("{prefix} {id}"), "{}");
    append(writer, &Batch { topic: topic(name), events: (0..count).map(event).collect() });
}

/// How many transactions of clients are open that began before this moment, and see what was there then. A vacuum has one too.
fn older_than(database: &Database, moment: &str) -> String {
    database.run(&format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND xact_start < '{moment}' AND backend_xmin IS NOT NULL AND backend_type = 'client backend'"
    ))
}

#[test]
fn no_transaction_of_a_copy_lasts_before_the_last_one_which_has_little_to_do() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    let mut writer = store.open_writer().unwrap();
    for name in ["a", "b", "c"] {
        fill(&mut *writer, name, "before", 4 * BATCH_EVENTS);
    }
    let mut origin = origin(&database);
    let moment = || database.run("SELECT clock_timestamp()");
    let (mut steps, mut given) = (0, 0);
    loop {
        let begun = moment();
        let events = origin.next().unwrap();
        assert_eq!(older_than(&database, &begun), "0", "step {steps}");
        if events.is_empty() {
            break;
        }
        (steps, given) = (steps + 1, given + events.len());
        if steps == 11 {
            // A round more: so many are not left for the last transaction.
            fill(&mut *writer, "b", "meanwhile", 2 * BATCH_EVENTS);
            fill(&mut *writer, "new", "meanwhile", 2 * BATCH_EVENTS);
        }
    }
    assert_eq!(given, 16 * BATCH_EVENTS);

    fill(&mut *writer, "b", "rest", 1);
    origin.settle().unwrap();
    let totals = origin.end().totals().unwrap();
    fill(&mut *writer, "b", "after", 1);
    assert_eq!(older_than(&database, &moment()), "1", "it is seen where it is");
    let rest = origin.next().unwrap();
    assert_eq!(rest[0].event.event_id(), "rest 0");
    assert_eq!((rest.len(), origin.next().unwrap().len()), (1, 0));
    assert_eq!(totals.counts.accepted, 16 * BATCH_EVENTS as u64 + 1);
    assert_eq!(origin.end().totals().unwrap(), totals);
}

#[test]
fn a_copy_comes_to_its_last_transaction_also_where_nodes_write_as_fast_as_it_reads() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    let mut writer = store.open_writer().unwrap();
    fill(&mut *writer, "a", "before", 5 * BATCH_EVENTS);
    let mut origin = origin(&database);
    let steps = (0..100).find(|step| {
        fill(&mut *writer, "a", &format!("{step}"), 2 * BATCH_EVENTS);
        origin.next().unwrap().is_empty()
    });
    assert!(steps.is_some_and(|steps| steps > 5), "{steps:?}");
}

#[test]
fn large_events_are_read_as_many_at_once_as_belong_into_one_transaction() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    let mut writer = store.open_writer().unwrap();
    let payload = format!("\"{}\"", "x".repeat(BATCH_BYTES * 2 / 5));
    for name in ["a", "b"] {
        let events = ["1", "2"].map(|id| event_from("x", name, id, &payload));
        writer.append(&[&Batch { topic: topic(name), events: events.to_vec() }], now()).unwrap();
    }
    let mut origin = origin(&database);
    let mut next = || {
        let events = origin.next().unwrap();
        events.iter().map(|it| format!("{} {}", it.event.topic(), it.seq)).collect::<Vec<_>>()
    };
    assert_eq!(next(), ["a 1", "a 2", "b 1"]);
    assert_eq!(next(), ["b 2"]);
    assert!(next().is_empty());
}

#[test]
fn the_events_of_a_copy_are_found_by_the_primary_key_and_no_others_are_read() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    let mut writer = store.open_writer().unwrap();
    for name in ["a", "b", "c"] {
        fill(&mut *writer, name, "before", 500);
    }
    database.run("ANALYZE sekali.events");
    let shared = open(&database, Shared::connect);
    let (topics, first, last, bytes) = (vec!["a", "c"], vec![5_i64, 9], vec![6_i64, 11], 1_000_i64);
    let values: &[&(dyn ToSql + Sync)] = &[&topics, &first, &last, &bytes];
    let explained = format!("EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) {}", *EVENTS);
    let rows = shared.ask(shared.client.query(&explained, values)).unwrap();
    let plan = rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n");
    let scan = plan.split("on events e").nth(1).unwrap();
    assert!(plan.contains("Index Scan using events_pkey on events e"), "{plan}");
    assert!(scan.contains("seq >= asked.first") && scan.contains("seq <= asked.last"), "{plan}");
    assert!(!plan.contains("Seq Scan") && !plan.contains("Removed by Filter"), "{plan}");
}

#[test]
fn what_a_copy_has_locked_is_free_as_soon_as_it_is_done() {
    let Some(database) = Database::fresh() else { return };
    let next = open(&database, Shared::connect);
    for copies in 0..50 {
        drop(open(&database, PostgresTarget::open));
        let is_free = "SELECT pg_try_advisory_lock($1)";
        let row = next.ask(next.client.query_one(is_free, &[&COPY_LOCK])).unwrap();
        assert!(row.get::<_, bool>(0), "after {copies}");
        next.execute("SELECT pg_advisory_unlock_all()").unwrap();
    }
}
