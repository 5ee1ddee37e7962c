//! What is kept of nodes that are gone.

use std::time::Duration;

use jiff::Timestamp;

use super::server::Database;
use super::{node, now, settings, try_open, until};
use crate::store::contract::{append, batch, event_from, topic, wait};
use crate::store::postgres::{PostgresStore, past};
use crate::store::{Batch, Engine};

/// As if nobody had been heard of for long.
const LONG_AGO: &str = "UPDATE sekali.nodes SET seen = now() - interval '2 days'";

/// How many nodes are gone and not summed up yet.
const GONE: &str = "SELECT count(*) FROM sekali.nodes WHERE node <> 0 AND seen < now() - interval '1 day'";

/// What is known of the repeats that gone nodes saw.
const REPEATS: &str =
    "SELECT string_agg(concat_ws(' ', seq, duplicates, last_at, last_source), ', ' ORDER BY seq)
    FROM sekali.repeats WHERE node = 0";

#[test]
fn counts_of_nodes_that_are_long_gone_are_kept_in_one_row() {
    let Some(database) = Database::fresh() else { return };
    for rejected in [3, 4] {
        let gone = node(&database);
        let mut writer = gone.open_writer().unwrap();
        gone.tally().reject(rejected);
        writer.flush(now()).unwrap();
    }
    database.run(LONG_AGO);
    let store = node(&database);
    until("they are summed up", || database.run(GONE) == "0");
    assert_eq!(wait(store.reader().totals()).counts.rejected, 7);
    assert_eq!(database.run("SELECT rejected FROM sekali.nodes WHERE node = 0"), "7");
}

#[test]
fn repeats_that_gone_nodes_saw_are_kept_in_rows_of_their_own_as_many_as_a_node_has() {
    let Some(database) = Database::fresh() else { return };
    // One sees the first event repeated, the other both, and the first of them before that.
    for (repeated, source, from) in [(&["1"][..], "late", 9), (&["1", "2"], "early", 5)] {
        let store = node(&database);
        let mut writer = store.open_writer().unwrap();
        append(&mut *writer, &batch("a", &[("1", "{}"), ("2", "{}")]));
        for (id, second) in repeated.iter().zip(from..) {
            let event = event_from(source, "a", id, "{}");
            let repeat = Batch { topic: topic("a"), events: vec![event] };
            writer.append(&[&repeat], Timestamp::from_second(second).unwrap()).unwrap();
        }
        writer.close().unwrap();
    }
    database.run(LONG_AGO);
    let store = node(&database);
    until("they are summed up", || database.run(GONE) == "0");
    // The second node was told of two more when it sent both events again.
    assert_eq!(database.run(REPEATS), "1 3 9000000 late, 2 2 6000000 early", "whichever came to it first");
    assert_eq!(wait(store.reader().repeats(topic("a"), 1)).unwrap().duplicates, 3);
    drop(store);
    // A third one, which saw nothing, is gone as well; a list is shorter now.
    database.run("INSERT INTO sekali.nodes (node, fence, epoch, rejected, seen) VALUES (7, 0, 0, 0, now())");
    database.run(LONG_AGO);
    let mut few = settings(&database.url());
    few.store.repeated_keys = 1;
    let _store = try_open(&few).unwrap();
    until("it is summed up", || database.run(GONE) == "0");
    assert_eq!(database.run(REPEATS), "1 3 9000000 late", "those that were repeated last");
}

#[test]
fn a_node_starts_and_others_are_summed_up_however_much_they_left() {
    let Some(database) = Database::fresh() else { return };
    drop(node(&database));
    database.run(
        "INSERT INTO sekali.nodes (node, fence, epoch, rejected, seen) SELECT node, 0, 0, 1, now() FROM generate_series(1, 20) AS node;
         INSERT INTO sekali.repeats (topic, seq, node, duplicates, conflicts, last_at, last_source, last_conflict)
         SELECT 'a', seq, node, 1, 0, node, 's', false FROM generate_series(1, 20) AS node, generate_series(1, 500) AS seq",
    );
    // Nothing of theirs can be had meanwhile.
    let held = database.hold("SELECT FROM sekali.repeats FOR UPDATE");
    database.run(LONG_AGO);
    let mut impatient = settings(&database.url());
    impatient.store.statement_timeout = Duration::from_secs(10);
    impatient.store.lock_timeout = Duration::from_mins(1);
    let store = try_open(&impatient).unwrap();
    append(&mut *store.open_writer().unwrap(), &batch("a", &[("1", "{}")]));
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until("the first one is at hand", || database.run(waiting) == "1");
    assert_eq!(database.run(GONE), "20", "none yet");
    drop(held);
    until("they are summed up", || database.run(GONE) == "0");
    assert_eq!(database.run("SELECT rejected FROM sekali.nodes WHERE node = 0"), "20");
    assert_eq!(database.run("SELECT sum(duplicates) FROM sekali.repeats WHERE node = 0"), "10000");
}

#[test]
fn a_node_that_was_taken_for_gone_counts_on_and_nothing_twice() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    // Its fence is one of long ago, too: it counts up from this.
    let row = "INSERT INTO sekali.nodes (node, fence, epoch, rejected, seen) VALUES";
    database.run(&format!("{row} ({}, 0, 0, 0, now())", store.node.id));
    let mut writer = store.open_writer().unwrap();
    let mut repeat = || {
        append(&mut *writer, &batch("a", &[("1", "{}")]));
        store.tally().repeated().hurry();
        writer.flush(now())
    };
    // The first is no repeat yet.
    (0..3).for_each(|_| repeat().unwrap());
    // As after a day in which only this one was cut off.
    database.run(LONG_AGO);
    let other = node(&database);
    until("it is summed up", || database.run(GONE) == "0");
    assert!(repeat().is_err(), "it is told");
    // What it knows of repeats by then is another's, with the two that it was about to store.
    repeat().unwrap();
    repeat().unwrap();
    let known = |store: &PostgresStore| {
        let counts = wait(store.reader().topic(topic("a"))).unwrap().counts;
        (counts.duplicates, wait(store.reader().repeats(topic("a"), 1)).unwrap().duplicates)
    };
    assert_eq!((known(&store), known(&other)), ((5, 3), (5, 3)));
}

#[test]
fn one_node_at_a_time_sums_up_and_others_do_not_wait_for_it() {
    let Some(database) = Database::fresh() else { return };
    drop(node(&database));
    let held = database.hold(&format!("SELECT pg_advisory_xact_lock({})", past::PAST_LOCK));
    database.run("INSERT INTO sekali.nodes (node, fence, epoch, rejected, seen) VALUES (7, 0, 0, 1, now())");
    database.run(LONG_AGO);
    let store = node(&database);
    let sum_up = || store.node.database.block_on(past::sum_up(&store.node.database, 10)).unwrap();
    sum_up();
    assert_eq!(database.run(GONE), "1", "somebody else does it");
    drop(held);
    until("it is done by whoever comes next", || {
        sum_up();
        database.run(GONE) == "0"
    });
}
