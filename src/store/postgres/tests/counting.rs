//! Counts that wait in memory, beside locks of others: those of free topics are stored, and nobody waits for the rest.

use std::cell::Cell;

use super::locked::{
    FOR_A_TABLE, LONG_PATIENCE, PATIENCE, TIMES, hold_topic, never_waits, new, until_it_has_waited,
    while_others_commit, with_patience, with_topics,
};
use super::server::Database;
use super::{duplicate, now, until};
use crate::store::contract::{topic, verdicts, wait};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::reader::TOTALS;
use crate::store::{Engine, Repeat, Tally};

#[test]
fn counts_of_a_topic_that_was_locked_are_stored_in_the_end_also_where_others_always_commit_to_it() {
    let Some(database) = Database::fresh() else { return };
    let (store, mut writer) = with_topics(&database, None);
    let held = hold_topic(&database, "a");
    repeat(&store);
    writer.flush(now()).unwrap();
    assert!(!store.tally().is_empty());
    drop(held);
    while_others_commit(&database, || {
        until("they are stored", || {
            writer.flush(now()).unwrap();
            store.tally().is_empty()
        });
    });
}

#[test]
fn counts_of_other_topics_and_repeats_of_events_are_stored_while_one_topic_is_locked() {
    let Some(database) = Database::fresh() else { return };
    let (store, mut writer) = with_topics(&database, None);
    let held = hold_topic(&database, "b");
    let all = new("1", &["a", "b", "c"]);
    never_waits(|_| {
        repeat(&store);
        store.tally().count(&topic("b"), now(), [REPEAT].into_iter());
        store.tally().reject(1);
        store.tally().repeated().hurry();
        writer.flush(now()).unwrap();
    });
    let counted = "SELECT string_agg(topic || ' ' || duplicates, ', ' ORDER BY topic) FROM sekali.topics";
    assert_eq!(database.run(counted), format!("a {TIMES}, b 0, c 0"));
    assert_eq!(database.run("SELECT sum(rejected) FROM sekali.nodes"), TIMES.to_string());
    assert_eq!(database.run("SELECT string_agg(topic, ', ' ORDER BY topic) FROM sekali.repeats"), "a, b");
    drop(held);
    until("b is counted too", || {
        writer.flush(now()).unwrap();
        database.run(counted) == format!("a {TIMES}, b {TIMES}, c 0")
    });
    assert_eq!(verdicts(writer.append(&[&all[1]], now())), [[duplicate(1)]]);
}

#[test]
fn who_asks_for_counts_gets_an_answer_also_where_some_are_always_stored_without_the_others() {
    let Some(database) = Database::fresh() else { return };
    let (store, mut writer) = with_topics(&database, None);
    writer.flush(now()).unwrap();
    let _held = hold_topic(&database, "a");
    let looks = Cell::new(0);
    let waiting = |tally: &Tally| {
        looks.set(looks.get() + 1);
        let snapshot = tally.snapshot();
        for name in ["a", "b"] {
            tally.count(&topic(name), now(), [REPEAT].into_iter());
        }
        store.node.store_counts().unwrap();
        snapshot
    };
    let (rows, _) = wait(store.reader.counted_rows(waiting, TOTALS, &[&store.node.id]));
    assert_eq!((rows.len(), looks.get()), (1, 3));
}

#[test]
fn repeats_that_something_else_has_locked_are_stored_later_and_fail_nothing() {
    let Some(database) = Database::fresh() else { return };
    let (store, mut writer) = with_topics(&database, None);
    let mut flush = || {
        repeat(&store);
        store.tally().repeated().hurry();
        writer.flush(now()).unwrap();
    };
    flush();
    let held = database.hold("SELECT FROM sekali.repeats FOR UPDATE");
    never_waits(|_| flush());
    drop(held);
    flush();
    assert_eq!(database.run("SELECT duplicates FROM sekali.repeats"), (TIMES + 2).to_string());
}

#[test]
fn the_last_counts_wait_for_a_lock_as_a_commit_does() {
    let Some(database) = Database::fresh() else { return };
    let (store, mut writer) = with_topics(&database, None);
    let held = hold_topic(&database, "a");
    repeat(&store);
    writer.flush(now()).unwrap();
    // Longer than any but the last counts do.
    until_it_has_waited(&database, held, ("transactionid", PATIENCE / 4), || writer.close()).unwrap();
    assert_eq!(database.run("SELECT duplicates FROM sekali.topics WHERE topic = 'a'"), "1");
}

#[test]
fn a_table_that_is_locked_for_a_moment_fails_no_counts_after_a_topic_that_was_held() {
    let Some(database) = Database::fresh() else { return };
    let (store, mut writer) = with_patience(&database, None, LONG_PATIENCE);
    let held = hold_topic(&database, "a");
    repeat(&store);
    writer.flush(now()).unwrap();
    drop(held);
    let moment = database.hold("LOCK TABLE sekali.topics IN EXCLUSIVE MODE");
    // It is too early to wait for the topic again, and so it asks which are free.
    until_it_has_waited(&database, moment, FOR_A_TABLE, || writer.flush(now())).unwrap();
    assert!(store.tally().is_empty());
}

/// A repeat of the first event of topic a, which waits to be counted.
fn repeat(store: &PostgresStore) {
    store.tally().count(&topic("a"), now(), [REPEAT].into_iter());
}

const REPEAT: Repeat<'_> = Repeat { source: "test", seq: 1, conflict: false, late: 3 };
