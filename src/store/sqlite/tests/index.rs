//! The sealed index of a file: found again from every level, after every kill, fault and damage.

use std::ops::Range;

use jiff::Timestamp;
use tempfile::TempDir;

use super::{doctor_sealing, left_by_a_kill, open, open_sealing, outsider, settings};
use crate::domain::Verdict;
use crate::store::contract::{append, batch, read_all, topic, wait};
use crate::store::sqlite::{SqliteStore, runs};
use crate::store::{AppendError, Batch, Engine, Order, PageQuery, StoreError, Writer};

/// Appends a new event to one of three topics, so many times, each in a commit of its own.
pub(super) fn append_many(writer: &mut dyn Writer, numbers: Range<u64>) {
    for number in numbers {
        let name = format!("topic {}", number % 3);
        let verdicts = append(writer, &batch(&name, &[(&number.to_string(), "{}")]));
        assert_eq!(verdicts, [Verdict::Accepted { seq: number / 3 + 1 }], "{number}");
    }
}

/// Every event is known under its seq, none is new, and every topic reads back whole, from either end.
pub(super) fn check_all(store: &SqliteStore, writer: &mut dyn Writer, count: u64) {
    for number in 0..count {
        let name = format!("topic {}", number % 3);
        let verdicts = append(writer, &batch(&name, &[(&number.to_string(), "{}")]));
        assert_eq!(verdicts, [Verdict::Duplicate { seq: number / 3 + 1, conflict: false }], "{number}");
    }
    for name in 0..3 {
        let events = read_all(&*store.reader(), &format!("topic {name}"));
        let ids: Vec<_> =
            events.iter().map(|stored| stored.event.event_id().parse::<u64>().unwrap()).collect();
        assert_eq!(ids, (name..count).step_by(3).collect::<Vec<_>>());
        let query = PageQuery {
            topic: topic(&format!("topic {name}")),
            first: 3,
            last: ids.len() as u64 - 3,
            limit: usize::MAX,
            order: Order::Descending,
        };
        let page = wait(store.reader().page(query)).events;
        assert!(page.iter().rev().eq(&events[2..ids.len() - 3]), "topic {name} backwards");
    }
}

/// The levels of the runs in the directory, in the order of the log.
fn levels(directory: &TempDir) -> Vec<u8> {
    runs::directory(&outsider(directory)).unwrap().iter().map(|span| span.level).collect()
}

#[test]
fn keys_are_found_in_runs_of_every_level_and_after_every_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut count = 0;
    for round in 1..=4 {
        let store = open_sealing(&settings(directory.path()), 10).unwrap();
        let mut writer = store.open_writer().unwrap();
        append_many(&mut *writer, count..round * 400);
        count = round * 400;
        check_all(&store, &mut *writer, count);
    }
    // Which levels there are in the end is a matter of how far the threads that merge have come.
    let levels = levels(&directory);
    let is_merged = levels.iter().any(|level| *level > 0);
    assert!(levels.len() < 60 && is_merged, "160 runs of 10 keys were merged: {levels:?}");
}

// invariant 9: whatever was being sealed or merged when the process was killed.
#[test]
fn a_kill_at_any_moment_of_a_seal_or_a_merge_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sealing(&settings(directory.path()), 10).unwrap();
    let mut writer = store.open_writer().unwrap();
    for count in (0..900).step_by(30) {
        append_many(&mut *writer, count..count + 30);
        let left = left_by_a_kill(&directory);
        let again = open_sealing(&settings(left.path()), 10).unwrap();
        let mut next_writer = again.open_writer().unwrap();
        append_many(&mut *next_writer, count + 30..count + 90);
        check_all(&again, &mut *next_writer, count + 90);
    }
}

/// A group as several threads look for it: events of one topic with these numbers.
fn large_batch(numbers: impl Iterator<Item = u64>) -> Batch {
    let ids: Vec<_> = numbers.map(|number| number.to_string()).collect();
    batch("large", &ids.iter().map(|id| (id.as_str(), "{}")).collect::<Vec<_>>())
}

// invariant 3: whichever thread looks for a key, and wherever it is.
#[test]
fn a_large_group_is_decided_as_many_small_ones_are() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sealing(&settings(directory.path()), 1_000).unwrap();
    let mut writer = store.open_writer().unwrap();
    for first in (0..20_000).step_by(500) {
        append(&mut *writer, &large_batch(first..first + 500));
    }
    assert!(levels(&directory).contains(&1), "in runs of both levels and in none yet");
    // Each third one is new, and the others lie anywhere in the log.
    let number = |at: u64| if at.is_multiple_of(3) { 20_000 + at / 3 } else { at * 7_919 % 20_000 };
    let verdicts = append(&mut *writer, &large_batch((0..6_000).map(number)));
    for (at, verdict) in (0..).zip(verdicts) {
        let seq = number(at) + 1;
        let repeat = Verdict::Duplicate { seq, conflict: false };
        assert_eq!(verdict, if at.is_multiple_of(3) { Verdict::Accepted { seq } } else { repeat }, "{at}");
    }
}

#[test]
fn a_damaged_block_is_damage_whichever_thread_meets_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sealing(&settings(directory.path()), 1_000).unwrap();
    let mut writer = store.open_writer().unwrap();
    for first in (0..5_000).step_by(500) {
        append(&mut *writer, &large_batch(first..first + 500));
    }
    outsider(&directory).execute_batch("UPDATE blocks SET data = zeroblob(length(data))").unwrap();
    // All that are stored are in one of the four parts that threads take.
    for part in 0..4 {
        let number = |at: u64| if at / 512 == part { at } else { 100_000 + at };
        let group = large_batch((0..2_048).map(number));
        let refused = writer.append(&[&group], Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(matches!(refused, AppendError::Failed(StoreError::Damaged(_))), "{part}: {refused}");
    }
    // A filter says of one new key in 200 that its run may have it, and then a block is read.
    let mut new = (5_000..5_020).map(|id| writer.append(&[&large_batch(id..=id)], Timestamp::UNIX_EPOCH));
    let stored = new.find_map(Result::ok).unwrap();
    let first = Verdict::Accepted { seq: 5_001 };
    assert_eq!(stored[0][0].verdict(), Some(first), "nothing of the refused groups was stored");
}

// invariant 5: what a failed transaction wrote of the index is written again.
#[test]
fn failed_commits_leave_the_index_whole() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sealing(&settings(directory.path()), 10).unwrap();
    let mut writer = store.open_writer().unwrap();
    let fault = "CREATE TRIGGER fault BEFORE UPDATE ON totals WHEN new.accepted > old.accepted + 1
                 BEGIN SELECT raise(ABORT, 'fault'); END";
    outsider(&directory).execute_batch(fault).unwrap();
    for number in 0..600 {
        let doomed = batch("other", &[("1", "{}"), ("2", "{}")]);
        assert!(writer.append(&[&doomed], Timestamp::UNIX_EPOCH).is_err(), "it comes after the slices");
        append_many(&mut *writer, number..number + 1);
    }
    check_all(&store, &mut *writer, 600);
    drop(writer);
    drop(store);
    let again = open_sealing(&settings(directory.path()), 10).unwrap();
    check_all(&again, &mut *again.open_writer().unwrap(), 600);
    let levels = levels(&directory);
    assert!(levels.contains(&1), "runs were merged: {levels:?}");
}

#[test]
fn an_index_that_is_damaged_or_missing_is_built_again_from_the_rows() {
    let damages = [
        "DELETE FROM runs",
        "DELETE FROM parts WHERE number = 0",
        "UPDATE parts SET data = zeroblob(length(data))",
        "DELETE FROM runs WHERE first_pos = 1",
        "DELETE FROM runs; DELETE FROM parts; DELETE FROM blocks; DELETE FROM segments",
    ];
    for damage in damages {
        let directory = tempfile::tempdir().unwrap();
        let store = open_sealing(&settings(directory.path()), 10).unwrap();
        append_many(&mut *store.open_writer().unwrap(), 0..300);
        drop(store);
        assert!(!levels(&directory).is_empty());
        outsider(&directory).execute_batch(damage).unwrap();
        let again = open_sealing(&settings(directory.path()), 10).unwrap();
        check_all(&again, &mut *again.open_writer().unwrap(), 300);
    }
}

#[test]
fn a_store_of_the_first_version_gets_its_index_when_it_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    append_many(&mut *store.open_writer().unwrap(), 0..300);
    drop(store);
    let old = "ALTER TABLE events DROP COLUMN checksum; DROP TABLE secrets; DROP TABLE runs; DROP TABLE parts; DROP TABLE blocks; DROP TABLE segments; DROP TABLE sources; DROP TABLE times; DROP TABLE repeats; DROP TABLE copies; DROP TABLE histories; DROP TABLE forks;
        CREATE UNIQUE INDEX events_by_key ON events (topic, event_id);
        CREATE UNIQUE INDEX events_by_seq ON events (topic, seq); PRAGMA user_version = 1;";
    outsider(&directory).execute_batch(old).unwrap();
    let again = open_sealing(&settings(directory.path()), 10).unwrap();
    check_all(&again, &mut *again.open_writer().unwrap(), 300);
}

/// The filters of all runs are in the file, as they have to be at the next start.
fn check_directory(directory: &TempDir) {
    let connection = outsider(directory);
    for span in runs::directory(&connection).unwrap() {
        assert!(runs::load(&connection, span).is_ok(), "the run at block {}", span.first_block);
    }
}

#[test]
fn left_over_parts_never_meet_those_of_a_new_run() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sealing(&settings(directory.path()), 10).unwrap();
    append_many(&mut *store.open_writer().unwrap(), 0..300);
    drop(store);
    outsider(&directory).execute_batch("DELETE FROM runs; DELETE FROM blocks").unwrap();
    let again = open_sealing(&settings(directory.path()), 10).unwrap();
    append_many(&mut *again.open_writer().unwrap(), 300..400);
    drop(again);
    check_directory(&directory);
}

#[test]
fn an_index_of_more_events_than_there_are_is_damage_that_no_start_hides() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sealing(&settings(directory.path()), 10).unwrap();
    append_many(&mut *store.open_writer().unwrap(), 0..300);
    drop(store);
    outsider(&directory).execute_batch("DELETE FROM events WHERE pos > 100").unwrap();
    let refused = open_sealing(&settings(directory.path()), 10).map(drop).unwrap_err();
    assert!(refused.to_string().contains("count 300 accepted events, and there are 100"), "{refused}");
}

// invariant 3: a start that fails leaves what is known of keys that no row tells any more.
#[test]
fn a_damaged_index_is_not_dropped_before_another_one_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let open = || open_sealing(&settings(directory.path()), 10);
    append_many(&mut *open().unwrap().open_writer().unwrap(), 0..300);
    outsider(&directory)
        .execute_batch(
            "UPDATE parts SET data = zeroblob(length(data)); UPDATE events SET event_id = '' WHERE pos = 13",
        )
        .unwrap();
    assert!(matches!(open(), Err(StoreError::Damaged(_))), "a key that cannot be read must not become new");
    let report = doctor_sealing(&directory, 10).unwrap().rebuild_index(&|_| ()).unwrap();
    assert!(report.notes.iter().all(|note| !note.contains("LOST")), "{:?}", report.notes);
    let known = append(&mut *open().unwrap().open_writer().unwrap(), &batch("topic 0", &[("12", "{}")]));
    assert_eq!(known, [Verdict::Duplicate { seq: 5, conflict: false }]);
}
