//! The SQLite engine: the contract, the oracle, and what only a file can do.

mod damage;
mod doctor;
mod history;
mod index;
mod sources;
mod times;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::{Doctor, SqliteStore, schema};
use crate::config::{Durability, Overrides, Settings, StoreUrl, load};
use crate::domain::{Counts, Verdict};
use crate::store::contract::{self, append, append_and_compare, batch, read_all, topic, wait};
use crate::store::{AppendError, Batch, Engine, MemoryStore, Order, PageQuery, Repeat, StoreError};

fn settings(directory: &Path) -> Settings {
    let mut settings = load(None, &Overrides::default()).unwrap();
    settings.store.url = StoreUrl::Sqlite(directory.join("made/sekali.db"));
    settings.store.lock_timeout = Duration::from_millis(50);
    settings
}

fn open(directory: &TempDir) -> SqliteStore {
    SqliteStore::open(&settings(directory.path())).unwrap()
}

/// A store that seals so many keys together, fewer than a configuration may say.
fn open_sealing(settings: &Settings, seal_keys: usize) -> Result<SqliteStore, StoreError> {
    let mut sealing = settings.clone();
    sealing.store.seal_keys = seal_keys;
    SqliteStore::open(&sealing)
}

/// The doctor of such a store.
fn doctor_sealing(directory: &TempDir, seal_keys: usize) -> Result<Doctor, StoreError> {
    let mut sealing = settings(directory.path());
    sealing.store.seal_keys = seal_keys;
    Doctor::open(&sealing)
}

/// Another program's connection to the same file.
fn outsider(directory: &TempDir) -> Connection {
    Connection::open(directory.path().join("made/sekali.db")).unwrap()
}

#[test]
fn the_sqlite_engine_keeps_the_contract() {
    for (durability, seal_keys) in
        [(Durability::Full, 1 << 19), (Durability::Relaxed, 1 << 19), (Durability::Full, 2)]
    {
        let directories = tempfile::tempdir().unwrap();
        let number = std::cell::Cell::new(0);
        contract::check(&|topic_limit| {
            number.set(number.get() + 1);
            let mut settings = settings(&directories.path().join(number.get().to_string()));
            settings.limits.topics = topic_limit;
            settings.store.durability = durability;
            Arc::new(open_sealing(&settings, seal_keys).unwrap())
        });
    }
}

#[test]
fn sqlite_is_compiled_as_this_workspace_says() {
    let connection = Connection::open_in_memory().unwrap();
    let mut options = connection.prepare("PRAGMA compile_options").unwrap();
    let options: Vec<String> = options.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(
        options.iter().any(|option| option == "DEFAULT_MEMSTATUS=0"),
        "see .cargo/config.toml: {options:?}"
    );
}

// invariant 10: one owner.
#[test]
fn a_second_owner_is_refused_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(&directory);
    let second = SqliteStore::open(&settings(directory.path()));
    assert!(matches!(second, Err(StoreError::Owned { path }) if path.ends_with("made/sekali.db")));
    drop(first);
    open(&directory);
}

#[test]
fn an_owner_that_is_about_to_go_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(&directory);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let second = std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            ready.send(()).unwrap();
            SqliteStore::open(&settings(directory.path())).map(drop)
        });
        is_ready.recv().unwrap();
        drop(first);
        second.join().unwrap()
    });
    second.unwrap();
}

#[test]
fn a_symbolic_link_is_the_same_store() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(&directory);
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(directory.path().join("made/sekali.db"), &link).unwrap();
    let mut linked = settings(directory.path());
    linked.store.url = StoreUrl::Sqlite(link);
    assert!(matches!(SqliteStore::open(&linked), Err(StoreError::Owned { .. })));
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(&directory));
    let newer = schema::VERSION + 1;
    outsider(&directory).pragma_update(None, "user_version", newer).unwrap();
    let refused = SqliteStore::open(&settings(directory.path()));
    assert!(matches!(refused, Err(StoreError::Newer { found, .. }) if found == newer));
    outsider(&directory).pragma_update(None, "user_version", schema::VERSION).unwrap();
    open(&directory);
}

#[test]
fn the_database_of_another_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("made")).unwrap();
    outsider(&directory).execute_batch("CREATE TABLE other (a)").unwrap();
    let before = std::fs::read(directory.path().join("made/sekali.db")).unwrap();
    assert!(matches!(SqliteStore::open(&settings(directory.path())), Err(StoreError::Foreign { .. })));
    let after = std::fs::read(directory.path().join("made/sekali.db")).unwrap();
    assert!(before == after, "it is left as it was, its journal mode included");
    std::fs::write(directory.path().join("made/sekali.db"), "no database at all, but long enough").unwrap();
    assert!(SqliteStore::open(&settings(directory.path())).is_err());
}

// invariant 9: nothing to recover after a clean stop.
#[test]
fn everything_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let sent = batch("a", &[("1", r#"{"n":1}"#), ("2", "{}"), ("1", "{}")]);
    let first = open(&directory);
    let mut writer = first.open_writer().unwrap();
    append_and_compare(&first, &mut *writer, (&sent, 1));
    writer.flush(Timestamp::UNIX_EPOCH).unwrap();
    writer.close().unwrap();
    drop(first);
    assert!(!directory.path().join("made/sekali.db-wal").exists(), "a clean stop leaves nothing to recover");

    let again = open(&directory);
    let mut writer = again.open_writer().unwrap();
    let events: Vec<_> = read_all(&*again.reader(), "a").into_iter().map(|stored| stored.event).collect();
    assert_eq!(events, sent.events[..2]);
    assert_eq!(
        append(&mut *writer, &batch("a", &[("2", "{}")])),
        [Verdict::Duplicate { seq: 2, conflict: false }]
    );
    let totals = wait(again.reader().totals());
    assert_eq!(totals.counts, Counts { accepted: 2, duplicates: 2, conflicts: 1, rejected: 0 });
}

#[test]
fn a_topic_of_which_no_event_is_known_yet_does_not_end_the_list() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    append(&mut *store.open_writer().unwrap(), &batch("z", &[("1", "{}")]));
    // As a commit leaves it that is not taken over into memory yet.
    outsider(&directory).execute_batch("INSERT INTO topics VALUES (7, 'a', 0, 0, 0, 0)").unwrap();
    let names = |after: Option<&str>| {
        let page = wait(store.reader().topics(after.map(str::to_owned), 1));
        page.into_iter().map(|found| found.topic.to_string()).collect::<Vec<_>>()
    };
    assert_eq!((names(None), names(Some("z"))), (vec!["z".to_owned()], vec![]));
    assert_eq!(wait(store.reader().topic(topic("a"))), None);
}

// invariant 9: a kill needs no hand.
#[test]
fn everything_acknowledged_is_there_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let killed = open(&directory);
    let mut writer = killed.open_writer().unwrap();
    let sent = batch("a", &[("1", "{}"), ("2", "{}")]);
    append(&mut *writer, &sent);
    let left = left_by_a_kill(&directory);
    assert!(std::fs::metadata(left.path().join("made/sekali.db-wal")).unwrap().len() > 0);
    let again = open(&left);
    assert_eq!(read_all(&*again.reader(), "a").len(), 2);
    let verdicts = append(&mut *again.open_writer().unwrap(), &batch("a", &[("2", "{}"), ("3", "{}")]));
    assert_eq!(verdicts, [Verdict::Duplicate { seq: 2, conflict: false }, Verdict::Accepted { seq: 3 }]);
}

#[test]
fn a_locked_store_refuses_in_time_and_takes_the_same_event_later() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let mut writer = store.open_writer().unwrap();
    let event = batch("a", &[("1", "{}")]);
    let locker = outsider(&directory);
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = Instant::now();
    let refused = writer.append(&[&event], Timestamp::UNIX_EPOCH);
    assert!(matches!(refused, Err(AppendError::Failed(StoreError::Unavailable(_)))), "{refused:?}");
    // A twelve hundredth of that, on a machine that is not busy.
    assert!(begun.elapsed() < Duration::from_mins(1), "it waits for lock_timeout and no longer");
    assert_eq!(read_all(&*store.reader(), "a"), [], "reads go on");
    locker.execute_batch("ROLLBACK").unwrap();
    assert_eq!(append(&mut *writer, &event), [Verdict::Accepted { seq: 1 }]);
}

#[test]
fn a_store_that_something_else_has_locked_opens_and_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(&directory);
    append(&mut *first.open_writer().unwrap(), &batch("a", &[("1", "{}")]));
    drop(first);
    let locker = outsider(&directory);
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(read_all(&*open(&directory).reader(), "a").len(), 1);
}

// invariant 4: events, keys and counters change together or not at all.
#[test]
fn a_failed_group_leaves_nothing_in_memory_and_loses_no_count() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let mut writer = store.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("1", "{}")]));
    // The second event of the group fails inside the transaction.
    outsider(&directory)
        .execute_batch(
            "CREATE TRIGGER fault BEFORE INSERT ON events WHEN new.event_id = 'bad'
             BEGIN SELECT raise(ABORT, 'fault'); END",
        )
        .unwrap();
    store.tally().reject(3);
    let (good, bad) = (batch("b", &[("1", "{}")]), batch("a", &[("2", "{}"), ("bad", "{}")]));
    assert!(matches!(writer.append(&[&good, &bad], Timestamp::UNIX_EPOCH), Err(AppendError::Failed(_))));
    assert_eq!(
        wait(store.reader().totals()).counts,
        Counts { accepted: 1, rejected: 3, ..Counts::default() }
    );
    outsider(&directory).execute_batch("DROP TRIGGER fault").unwrap();
    assert_eq!(append(&mut *writer, &bad), [Verdict::Accepted { seq: 2 }, Verdict::Accepted { seq: 3 }]);
    assert_eq!(append(&mut *writer, &good), [Verdict::Accepted { seq: 1 }]);
    let totals = wait(store.reader().totals());
    assert_eq!((totals.counts.accepted, totals.counts.rejected, totals.topics), (4, 3, 2));
}

// invariant 6: seqs have no gaps, and a gap is never passed over.
#[test]
fn a_gap_in_a_topic_is_damage_and_not_a_short_page() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let mut writer = store.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("1", "{}"), ("2", "{}"), ("3", "{}")]));
    outsider(&directory).execute_batch("DELETE FROM events WHERE seq = 2").unwrap();
    let query = PageQuery { topic: topic("a"), first: 1, last: 3, limit: 10, order: Order::Ascending };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let page = runtime.block_on(store.reader().page(query));
    assert!(matches!(&page, Err(StoreError::Damaged(what)) if what.contains("the row of seq 2")));
}

#[test]
fn the_write_ahead_log_stays_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let mut small = settings(directory.path());
    small.store.wal_bytes = 1 << 20;
    let store = SqliteStore::open(&small).unwrap();
    let mut writer = store.open_writer().unwrap();
    let payload = format!(r#"{{"x":"{}"}}"#, "x".repeat(100_000));
    for round in 0..60 {
        let ids: Vec<String> = (0..10).map(|event| format!("{round}-{event}")).collect();
        let events: Vec<_> = ids.iter().map(|id| (id.as_str(), payload.as_str())).collect();
        append(&mut *writer, &batch("a", &events));
    }
    let wal = std::fs::metadata(directory.path().join("made/sekali.db-wal")).unwrap().len();
    assert!(wal < 30 << 20, "60 MB were committed, and the log has {wal} bytes");
}

/// What a kill leaves on the disk: the files as they are, and nobody who tidies up.
fn left_by_a_kill(directory: &TempDir) -> TempDir {
    let left = tempfile::tempdir().unwrap();
    std::fs::create_dir(left.path().join("made")).unwrap();
    for file in ["sekali.db", "sekali.db-wal"] {
        let [from, to] = [directory, &left].map(|place| place.path().join("made").join(file));
        std::fs::copy(from, to).unwrap();
    }
    left
}

#[test]
fn the_write_ahead_log_stays_bounded_by_its_own_length_and_not_by_new_events() {
    let directory = tempfile::tempdir().unwrap();
    let mut small = settings(directory.path());
    small.store.wal_bytes = 1 << 20;
    let store = SqliteStore::open(&small).unwrap();
    let mut writer = store.open_writer().unwrap();
    let (event, other) = (batch("a", &[("1", "{}")]), batch("a", &[("1", r#"{"n":1}"#)]));
    for _ in 0..600 {
        append(&mut *writer, &event);
        append_and_compare(&store, &mut *writer, (&other, 1));
        store.tally().reject(1);
        writer.flush(Timestamp::UNIX_EPOCH).unwrap();
    }
    let wal = std::fs::metadata(directory.path().join("made/sekali.db-wal")).unwrap().len();
    assert!(wal < 3 << 20, "1,800 commits of a few pages, and the log has {wal} bytes");
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(u8, Vec<(u8, u8)>)>),
    Count(u8),
    Reject,
    Flush,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let events = prop::collection::vec((0..12_u8, 0..3_u8), 1..6);
    prop_oneof![
        6 => prop::collection::vec((0..4_u8, events), 1..4).prop_map(Step::Append),
        1 => (0..4_u8).prop_map(Step::Count),
        1 => Just(Step::Reject),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

fn group(batches: &[(u8, Vec<(u8, u8)>)]) -> Vec<Batch> {
    const PAYLOADS: [&str; 3] = [r#"{"n":1}"#, r#"{"n":1.0}"#, r#"{"n":2}"#];
    let make = |(name, events): &(u8, Vec<(u8, u8)>)| {
        let name = format!("topic {name}");
        let event = |(id, payload): &(u8, u8)| {
            let source = ["a", "b"][usize::from(id + payload) % 2];
            contract::event_from(source, &name, &id.to_string(), PAYLOADS[*payload as usize])
        };
        Batch { topic: topic(&name), events: events.iter().map(event).collect() }
    };
    batches.iter().map(make).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any history gives the same verdicts, events and counters as the memory engine.
    #[test]
    fn agrees_with_the_memory_engine(steps in prop::collection::vec(step(), 1..24)) {
        let directory = tempfile::tempdir().unwrap();
        let mut limited = settings(directory.path());
        limited.limits.topics = Some(3);
        let mut store = open_sealing(&limited, 5).unwrap();
        let oracle = MemoryStore::new(Some(3));
        let mut writer = store.open_writer().unwrap();
        let mut oracle_writer = oracle.open_writer().unwrap();
        for (step, second) in steps.iter().zip(1..) {
            match step {
                Step::Append(batches) => {
                    let batches = group(batches);
                    let group: Vec<_> = batches.iter().collect();
                    let now = Timestamp::from_second(second * second * 10).unwrap();
                    prop_assert_eq!(writer.append(&group, now).unwrap(), oracle_writer.append(&group, now).unwrap());
                }
                Step::Count(name) => {
                    let source = ["test", "a", "b"][usize::from(*name) % 3];
                    let repeat = |late| Repeat { source, seq: 1, conflict: late == 9, late };
                    let name = topic(&format!("topic {name}"));
                    if wait(oracle.reader().topic(name.clone())).is_some() {
                        for tally in [store.tally(), oracle.tally()] {
                            tally.count(&name, Timestamp::UNIX_EPOCH, [repeat(1), repeat(9), repeat(70)].into_iter());
                        }
                    }
                }
                Step::Reject => { store.tally().reject(1); oracle.tally().reject(1); }
                Step::Flush => { writer.flush(Timestamp::UNIX_EPOCH).unwrap(); }
                Step::Reopen => {
                    writer.flush(Timestamp::UNIX_EPOCH).unwrap();
                    drop(writer);
                    drop(store);
                    store = open_sealing(&limited, 5).unwrap();
                    writer = store.open_writer().unwrap();
                }
            }
            prop_assert_eq!(wait(store.reader().totals()), wait(oracle.reader().totals()));
            prop_assert_eq!(wait(store.reader().topics(None, 9)), wait(oracle.reader().topics(None, 9)));
            for number in 0..4 {
                let name = topic(&format!("topic {number}"));
                prop_assert_eq!(wait(store.reader().sources(name.clone())), wait(oracle.reader().sources(name)));
            }
        }
        for found in wait(oracle.reader().topics(None, 9)) {
            let name = found.topic.as_str();
            prop_assert_eq!(read_all(&*store.reader(), name), read_all(&*oracle.reader(), name));
        }
    }
}
