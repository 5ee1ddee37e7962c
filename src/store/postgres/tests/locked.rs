//! Locks of others: a topic that somebody holds fails alone, and is not waited for again and again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::faults::behind_a_proxy;
use super::proxy::Way;
use super::server::{self, Database, Held};
use super::{accepted, now, settings, try_open, until};
use crate::domain::Topic;
use crate::store::contract::{append, batch, read_all, topic, verdicts};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::schema::TOPICS_LOCK;
use crate::store::{AppendError, Batch, Engine, StoreError, Writer};

/// How long a commit waits for a lock that nobody is known to hold; far more than anything else takes here.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// How often something is done that must not wait for a lock.
pub(super) const TIMES: usize = 10;

/// A node and its writer on a database with topics a, b and c.
pub(super) fn with_topics(database: &Database, topic_limit: Option<u64>) -> (PostgresStore, Box<dyn Writer>) {
    with_patience(database, topic_limit, PATIENCE)
}

/// The same with another patience.
pub(super) fn with_patience(
    database: &Database,
    topic_limit: Option<u64>,
    patience: Duration,
) -> (PostgresStore, Box<dyn Writer>) {
    let mut settings = settings(&database.url());
    settings.store.lock_timeout = patience;
    settings.limits.topics = topic_limit;
    let store = try_open(&settings).unwrap();
    let mut writer = store.open_writer().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| batch(name, &[("1", "{}")]));
    writer.append(&[&a, &b, &c], now()).unwrap();
    (store, writer)
}

pub(super) fn hold_topic(database: &Database, name: &str) -> Held {
    database.hold(&format!("SELECT FROM sekali.topics WHERE topic = '{name}' FOR UPDATE"))
}

/// A new event of each of these topics.
pub(super) fn new(id: &str, topics: &[&str]) -> Vec<Batch> {
    topics.iter().map(|name| batch(name, &[(id, "{}")])).collect()
}

/// Which topics the writer says are locked of a group with a new event of each of these.
fn locked(writer: &mut dyn Writer, id: &str, topics: &[&str]) -> BTreeSet<Topic> {
    let batches = new(id, topics);
    match writer.append(&batches.iter().collect::<Vec<_>>(), now()) {
        Err(AppendError::Locked { topics }) => topics,
        other => panic!("{other:?}"),
    }
}

fn names(topics: &[&str]) -> BTreeSet<Topic> {
    topics.iter().map(|name| topic(name)).collect()
}

/// Waits until a new event of a topic is accepted.
fn until_accepted(writer: &mut dyn Writer, name: &str) {
    until("it is accepted", || writer.append(&[&batch(name, &[("late", "{}")])], now()).is_ok());
}

pub(super) fn takes(what: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    what();
    begun.elapsed()
}

/// Does something many times, and checks that it does not wait for a lock: a wait makes each time
/// as long as [`PATIENCE`], and a busy machine makes few of them so long.
pub(super) fn never_waits(mut what: impl FnMut(usize)) {
    let waits = (0..TIMES).filter(|time| takes(|| what(*time)) >= PATIENCE).count();
    assert!(waits < TIMES / 2, "{waits} of {TIMES} took as long as a lock is waited for");
}

#[test]
fn topics_that_somebody_holds_are_named_and_nothing_of_their_group_is_stored() {
    // invariant 5: nothing of a group that failed is stored.
    let Some(database) = Database::fresh() else { return };
    let (store, mut writer) = with_topics(&database, None);
    let held = ["b", "c"].map(|name| hold_topic(&database, name));
    assert_eq!(locked(&mut *writer, "2", &["c", "a", "b", "new"]), names(&["b", "c"]));
    assert_eq!(read_all(&*store.reader(), "a").len(), 1);
    let others = new("2", &["new", "a"]);
    let stored = verdicts(writer.append(&[&others[0], &others[1]], now()));
    assert_eq!(stored, [[accepted(1)], [accepted(2)]]);
    never_waits(|_| {
        for _ in 0..5 {
            // Known by now: they keep nobody waiting, neither with others nor alone.
            assert_eq!(locked(&mut *writer, "3", &["a", "b", "c"]), names(&["b", "c"]));
            assert_eq!(locked(&mut *writer, "3", &["b"]), names(&["b"]));
        }
    });
    drop(held);
    let all = new("4", &["a", "b", "c"]);
    until("all are seen free", || writer.append(&[&all[0], &all[1], &all[2]], now()).is_ok());
    let last = ["a", "b", "c"].map(|name| read_all(&*store.reader(), name).len());
    assert_eq!(last, [3, 2, 2], "nothing of what was refused is stored");
}

#[test]
fn however_many_topics_are_locked_others_wait_for_few_of_them() {
    let Some(database) = Database::fresh() else { return };
    let (proxy, mut settings) = behind_a_proxy(&database);
    settings.store.lock_timeout = PATIENCE;
    let store = try_open(&settings).unwrap();
    let mut writer = store.open_writer().unwrap();
    let many: Vec<_> = (0..300).map(|number| format!("many {number}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let made = new("1", &many);
    writer.append(&made.iter().collect::<Vec<_>>(), now()).unwrap();
    let _held = database.hold("SELECT FROM sekali.topics WHERE topic LIKE 'many %' FOR UPDATE");
    assert_eq!(locked(&mut *writer, "2", &many), names(&many));
    proxy.sent();
    let took = takes(|| many.iter().for_each(|name| drop(locked(&mut *writer, "2", &[name]))));
    // After one that was waited for, none is for four times as long, however long that takes in
    // all.
    let commits = |sent: &String| sent.split(", ").filter(|message| *message == "COMMIT").count();
    let tries: usize = proxy.sent().iter().map(commits).sum();
    assert!(tries as u128 <= 2 + took.as_millis() / 40, "{tries} tries in {took:?}");
}

#[test]
fn a_topic_that_was_locked_is_waited_for_in_full_once_it_was_seen_free() {
    let Some(database) = Database::fresh() else { return };
    let (_store, mut writer) = with_topics(&database, None);
    let held = hold_topic(&database, "b");
    assert_eq!(locked(&mut *writer, "2", &["b"]), names(&["b"]));
    drop(held);
    until_accepted(&mut *writer, "b");
    let _held = hold_topic(&database, "b");
    let took = takes(|| drop(locked(&mut *writer, "3", &["b"])));
    assert!(took >= PATIENCE, "{took:?}");
}

/// Others that lock topic a one after the other, as nodes that always have something to commit to it, while something is done.
pub(super) fn while_others_commit<T>(database: &Database, what: impl FnOnce() -> T) -> T {
    let stop = Arc::new(AtomicBool::new(false));
    let others = [(); 3].map(|()| {
        let (url, stop) = (database.url(), Arc::clone(&stop));
        thread::spawn(move || {
            server::blocking(async move {
                let client = server::connect(&url).await.unwrap();
                let commit = "BEGIN; SELECT FROM sekali.topics WHERE topic = 'a' FOR NO KEY UPDATE; \
                    SELECT pg_sleep(0.02); COMMIT";
                while !stop.load(Ordering::Relaxed) {
                    client.batch_execute(commit).await.unwrap();
                }
            });
        })
    });
    let done = what();
    stop.store(true, Ordering::Relaxed);
    for other in others {
        other.join().unwrap();
    }
    done
}

#[test]
fn a_topic_that_was_locked_is_had_in_the_end_also_where_others_always_commit_to_it() {
    let Some(database) = Database::fresh() else { return };
    let (_store, mut writer) = with_topics(&database, None);
    let held = hold_topic(&database, "a");
    assert_eq!(locked(&mut *writer, "2", &["a"]), names(&["a"]));
    drop(held);
    while_others_commit(&database, || until_accepted(&mut *writer, "a"));
}

/// Does something, and lets go of a lock once that has waited for it for so long.
pub(super) fn until_it_has_waited<T: Send>(
    database: &Database,
    held: Held,
    (lock, wait): (&str, Duration),
    what: impl FnOnce() -> T + Send,
) -> T {
    // In a transaction: a connection that is being made meets locks too, while it prepares its statements.
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = '{lock}'
            AND xact_start < query_start
            AND clock_timestamp() - query_start > interval '{} ms'",
        wait.as_millis()
    );
    thread::scope(|scope| {
        let done = scope.spawn(what);
        until("it has waited", || done.is_finished() || database.run(&waiting) != "0");
        assert!(!done.is_finished(), "it does not wait for so long");
        drop(held);
        done.join().unwrap()
    })
}

/// A wait for a table that is longer than one for a topic that is known to be locked.
pub(super) const FOR_A_TABLE: (&str, Duration) = ("relation", Duration::from_millis(50));

/// Of which a tenth, for tables, is much longer than that.
pub(super) const LONG_PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_table_that_is_locked_for_a_moment_fails_nothing_beside_a_topic_that_is_held() {
    let Some(database) = Database::fresh() else { return };
    let (_store, mut writer) = with_patience(&database, None, LONG_PATIENCE);
    let _held = hold_topic(&database, "b");
    let moment = database.hold("LOCK TABLE sekali.sources IN SHARE MODE");
    // It waits for the topic first, and then asks what it was that it did not get.
    let seen = until_it_has_waited(&database, moment, FOR_A_TABLE, || locked(&mut *writer, "2", &["a", "b"]));
    assert_eq!(seen, names(&["b"]));
}

#[test]
fn a_topic_that_others_commit_to_is_had_in_the_end_beside_one_that_is_held_for_long() {
    let Some(database) = Database::fresh() else { return };
    let (_store, mut writer) = with_topics(&database, None);
    let [busy, _held] = ["a", "b"].map(|name| hold_topic(&database, name));
    assert_eq!(locked(&mut *writer, "2", &["a", "b"]), names(&["a", "b"]));
    drop(busy);
    while_others_commit(&database, || {
        until("a is accepted, whatever is tried of b", || {
            // As the pipeline splits a group: b always comes first.
            let _ = writer.append(&[&batch("b", &[("late", "{}")])], now());
            writer.append(&[&batch("a", &[("late", "{}")])], now()).is_ok()
        });
    });
}

#[test]
fn a_topic_that_somebody_else_makes_fails_alone() {
    let Some(database) = Database::fresh() else { return };
    let (_store, mut writer) = with_topics(&database, None);
    let held = database.hold("INSERT INTO sekali.topics VALUES ('new', 0, 0, 0, 0)");
    assert_eq!(locked(&mut *writer, "2", &["a", "new"]), names(&["new"]));
    never_waits(|time| {
        let (id, seq) = (format!("again {time}"), time as u64 + 2);
        assert_eq!(append(&mut *writer, &batch("a", &[(&id, "{}")])), [accepted(seq)]);
        assert_eq!(locked(&mut *writer, "2", &["new"]), names(&["new"]));
        assert_eq!(locked(&mut *writer, "2", &["new"]), names(&["new"]));
    });
    // It was not made after all.
    drop(held);
    until_accepted(&mut *writer, "new");
}

#[test]
fn new_topics_that_wait_for_the_lock_of_their_number_fail_alone() {
    let Some(database) = Database::fresh() else { return };
    let (_store, mut first) = with_topics(&database, Some(9));
    append(&mut *first, &batch("d", &[("1", "{}")]));
    // It does not know the topics yet, and would take that lock for each of them.
    let (_other, mut writer) = with_topics(&database, Some(9));
    let _held = database.hold(&format!("SELECT pg_advisory_xact_lock({TOPICS_LOCK})"));
    assert_eq!(locked(&mut *writer, "2", &["d", "a", "new"]), names(&["new"]));
    never_waits(|time| {
        let (others, seq) = (new(&format!("again {time}"), &["d", "a"]), time as u64 + 2);
        assert_eq!(verdicts(writer.append(&[&others[0], &others[1]], now())), [[accepted(seq)]; 2]);
    });
}

#[test]
fn a_lock_of_a_whole_table_fails_every_group_and_is_waited_for_in_full_once() {
    let Some(database) = Database::fresh() else { return };
    let (_store, mut writer) = with_topics(&database, None);
    let whole = ["sekali.topics IN EXCLUSIVE", "sekali.topics IN SHARE", "sekali.events IN SHARE"];
    for (locks, seq) in whole.into_iter().zip(2..) {
        let held = database.hold(&format!("LOCK TABLE {locks} MODE"));
        let group = new(locks, &["a", "b", "new"]);
        let group: Vec<_> = group.iter().collect();
        let refused = |writer: &mut dyn Writer| {
            let refused = writer.append(&group, now());
            assert!(matches!(refused, Err(AppendError::Failed(StoreError::Unavailable(_)))), "{refused:?}");
        };
        refused(&mut *writer);
        never_waits(|time| {
            if time % 3 < 2 {
                return refused(&mut *writer);
            }
            let probed = writer.probe(now());
            assert!(matches!(probed, Err(AppendError::Failed(_))), "{locks}: {probed:?}");
        });
        drop(held);
        // A connection whose making has met the lock says so once.
        until("it can be written to", || writer.probe(now()).is_ok());
        assert_eq!(verdicts(writer.append(&group, now()))[1], [accepted(seq)], "{locks}");
    }
}

#[test]
fn a_topic_is_waited_for_in_full_once_a_table_that_was_locked_is_seen_free() {
    let Some(database) = Database::fresh() else { return };
    let (_store, mut writer) = with_topics(&database, None);
    let whole = database.hold("LOCK TABLE sekali.events IN SHARE MODE");
    assert!(matches!(writer.append(&[&batch("a", &[("2", "{}")])], now()), Err(AppendError::Failed(_))));
    drop(whole);
    // The connection for counts may have met the lock while it was made: that is said once.
    until("it can be written to", || writer.probe(now()).is_ok());
    let _held = hold_topic(&database, "a");
    let took = takes(|| drop(locked(&mut *writer, "2", &["a"])));
    assert!(took >= PATIENCE, "{took:?}");
}

#[test]
fn a_lock_of_which_no_topic_can_be_named_fails_the_group_and_is_waited_for_in_full_once() {
    let Some(database) = Database::fresh() else { return };
    let (_store, mut writer) = with_topics(&database, None);
    let held = database.hold("SELECT FROM sekali.sources WHERE topic = 'a' FOR UPDATE");
    let group = new("2", &["a", "b"]);
    let group: Vec<_> = group.iter().collect();
    let refused = writer.append(&group, now());
    assert!(matches!(refused, Err(AppendError::Failed(StoreError::Unavailable(_)))), "{refused:?}");
    never_waits(|_| assert!(writer.append(&group, now()).is_err()));
    drop(held);
    assert_eq!(verdicts(writer.append(&group, now())), [[accepted(2)], [accepted(2)]]);
}

#[test]
fn an_unknown_outcome_stays_unknown_where_its_topic_is_locked() {
    // invariant 5: the run before may hold the lock, and be stored yet.
    let Some(database) = Database::fresh() else { return };
    let (proxy, mut settings) = behind_a_proxy(&database);
    settings.store.lock_timeout = Duration::from_secs(1);
    let store = Arc::new(try_open(&settings).unwrap());
    let mut writer = store.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("1", "{}")]));
    let _held = hold_topic(&database, "a");
    proxy.set(Way::LoseNode);
    let group = new("2", &["a", "b"]);
    let refused = writer.append(&[&group[0], &group[1]], now());
    assert!(matches!(refused, Err(AppendError::Unknown(_))), "{refused:?}");
}

#[test]
fn a_commit_that_nothing_holds_up_sends_nothing_for_locks_of_others() {
    let Some(database) = Database::fresh() else { return };
    let (proxy, settings) = behind_a_proxy(&database);
    let store = try_open(&settings).unwrap();
    let mut writer = store.open_writer().unwrap();
    for (topics, id) in [(&["a", "b"][..], "1"), (&["a"], "2")] {
        let group = new(id, topics);
        let group: Vec<_> = group.iter().collect();
        writer.append(&group, now()).unwrap();
        proxy.sent();
        // Repeats are not written: the topics are known, locked, and looked into.
        writer.append(&group, now()).unwrap();
        // Plans may have been renewed just before that.
        let from_begin = |sent: String| sent.find("BEGIN ISOLATION").map(|at| sent[at..].to_owned());
        let commits: Vec<_> = proxy.sent().into_iter().filter_map(from_begin).collect();
        assert_eq!(commits, ["BEGIN ISOLATION LEVEL READ COMMITTED, B, E, S, B, E, S, COMMIT"]);
    }
}
