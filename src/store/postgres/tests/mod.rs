//! The engine on a real server.

mod counting;
mod cut_off;
mod faults;
mod history;
mod locked;
mod nodes;
mod past;
mod proxy;
#[path = "../../../../tests/it/support/postgres.rs"]
#[expect(dead_code, reason = "what the tests through HTTP use of it")]
pub(in crate::store) mod server;
mod spread;
mod tls;

use std::cell::RefCell;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, SimpleQueryMessage};

use self::server::Database;
use super::PostgresStore;
use super::statements::{self, Topics};
use super::writer::PostgresWriter;
use crate::config::{Overrides, Settings, StoreUrl, load};
use crate::domain::Verdict;
use crate::store::{Engine, StoreError, contract};

pub(super) fn settings(url: &str) -> Settings {
    let overrides = Overrides { store: Some(url.to_owned()), ..Overrides::default() };
    let mut settings = load(None, &overrides).unwrap();
    // Only a test that says so is about them: a busy machine exceeds the defaults.
    settings.store.connect_timeout = Duration::from_mins(1);
    settings.store.statement_timeout = Duration::from_mins(1);
    settings
}

fn try_open(settings: &Settings) -> Result<PostgresStore, StoreError> {
    let StoreUrl::Postgres(url) = &settings.store.url else { unreachable!() };
    PostgresStore::open(settings, url)
}

/// One more node on a database.
pub(super) fn node(database: &Database) -> PostgresStore {
    try_open(&settings(&database.url())).unwrap()
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(1).unwrap()
}

fn accepted(seq: u64) -> Verdict {
    Verdict::Accepted { seq }
}

fn duplicate(seq: u64) -> Verdict {
    Verdict::Duplicate { seq, conflict: false }
}

/// Stores an event of topic a with the statement of a group commit, and gives its seq.
async fn store_by_hand(client: &Client, topics: Topics, id: &'static str) -> i64 {
    let text = |text: &'static str| vec![text];
    let (one, each) = ("a", text("a"));
    let topic: &(dyn ToSql + Sync) = match topics {
        Topics::Many => &each,
        Topics::One => &one,
    };
    let (id, time, source, payload) = (text(id), text("2026-01-01 00:00:00"), text("s"), text("{}"));
    let (digests, now, commit, sources) = (vec![0_i64], 1_i64, 7_i64, 50_i64);
    let values: &[&(dyn ToSql + Sync)] =
        &[topic, &id, &time, &source, &payload, &digests, &now, &commit, &sources];
    client.query(&statements::store(topics), values).await.unwrap()[0].get(1)
}

#[test]
fn the_postgres_engine_keeps_the_contract() {
    if server::server().is_none() {
        return;
    }
    let databases = RefCell::new(Vec::new());
    contract::check(&|topic_limit| {
        let database = Database::fresh().unwrap();
        let mut settings = settings(&database.url());
        settings.limits.topics = topic_limit;
        databases.borrow_mut().push(database);
        Arc::new(try_open(&settings).unwrap()) as Arc<dyn Engine>
    });
}

#[test]
fn ten_nodes_that_start_at_once_make_one_schema() {
    let Some(database) = Database::fresh() else { return };
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| node(&database).open_writer().unwrap().flush(now()).unwrap());
        }
    });
    assert_eq!(database.run("SELECT version FROM sekali.store"), "3");
    assert_eq!(
        database.run("SELECT count(*) FROM sekali.nodes"),
        "11",
        "each counts for itself, and one row for the past"
    );
}

#[test]
fn what_is_no_store_of_this_version_is_refused_and_left_alone() {
    let Some(database) = Database::fresh() else { return };
    drop(node(&database));
    database.run("UPDATE sekali.store SET version = 99");
    let refused = try_open(&settings(&database.url())).map(drop);
    assert!(matches!(refused, Err(StoreError::Newer { found: 99, known: 3 })), "{refused:?}");
    database.run("DROP SCHEMA sekali CASCADE; CREATE SCHEMA sekali; CREATE TABLE sekali.others ()");
    let refused = try_open(&settings(&database.url())).map(drop);
    assert!(matches!(refused, Err(StoreError::Foreign { .. })), "{refused:?}");
    assert_eq!(database.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'sekali'"), "1");
}

#[test]
fn a_schema_that_an_administrator_made_is_taken() {
    let Some(database) = Database::fresh() else { return };
    database.run("CREATE SCHEMA sekali");
    node(&database).open_writer().unwrap();
}

#[test]
fn plans_that_were_made_while_tables_were_small_are_made_again() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    let mut writer = PostgresWriter::open(&store.node).unwrap();
    let shared = &store.node.database;
    // Far longer than a busy machine takes between two lines.
    writer.session.planned_for = Duration::from_secs(20);
    let mut prepared = |age: Duration| {
        writer.session.planned_at = Instant::now().checked_sub(age).unwrap();
        contract::append(&mut writer, &contract::batch("a", &[("1", "{}")]));
        let names = "SELECT array_agg(name ORDER BY name) FROM pg_prepared_statements";
        // Asked without a statement that has a name of its own.
        let answer = shared.block_on(writer.session.client.simple_query(names)).unwrap();
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        row.unwrap()
    };
    let first = prepared(Duration::ZERO);
    let second = prepared(Duration::from_secs(30));
    assert_ne!(first, second);
    assert_eq!(prepared(Duration::from_secs(30)), second, "twice as long as those before them");
    assert_ne!(prepared(Duration::from_secs(50)), second);
}

#[test]
fn a_sample_has_what_there_is_and_nothing_else() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    let sample = contract::wait(store.reader().sample());
    assert!(sample.database_bytes > 0 && sample.own.is_none(), "{sample:?}");
}

#[test]
fn a_password_is_in_no_error() {
    // Nobody listens there.
    let settings =
        settings("postgres://me:secret@127.0.0.1:1/log?sslmode=verify-full&sslrootcert=/nothing/secret");
    let error = try_open(&settings).map(drop).unwrap_err().to_string();
    assert!(error.contains("/nothing/secret") && !error.contains(":secret"), "{error}");
    let settings = self::settings("postgres://me:secret@127.0.0.1:1/log");
    let error = try_open(&settings).map(drop).unwrap_err().to_string();
    assert!(error.contains("onnect") && !error.contains("secret"), "{error}");
}

/// Waits until something is so that other threads and processes make so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_mins(2), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
