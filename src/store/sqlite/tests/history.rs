//! Histories: a store that was restored tells cursors of the events that it lost from those that it has.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tempfile::TempDir;

use super::{open, open_sealing, outsider, settings};
use crate::config::Durability;
use crate::domain::{HistoryId, Kinship};
use crate::store::contract::{append, batch, topic, wait};
use crate::store::sqlite::mark::{Left, Mark, Marker};
use crate::store::sqlite::{Doctor, SqliteStore, copy};
use crate::store::{Engine, HISTORIES_MAX};

/// Stores these ids in a topic and stops cleanly.
fn publish(store: SqliteStore, name: &str, ids: &[&str]) -> HistoryId {
    let events: Vec<_> = ids.iter().map(|id| (*id, "{}")).collect();
    let mut writer = store.open_writer().unwrap();
    append(&mut *writer, &batch(name, &events));
    writer.flush(Timestamp::UNIX_EPOCH).unwrap();
    writer.close().unwrap();
    let history = wait(store.reader().history());
    drop(store);
    history
}

fn kinship(store: &SqliteStore, name: &str, history: &HistoryId) -> Kinship {
    wait(store.reader().kinship(topic(name), history.clone()))
}

fn file(directory: &TempDir) -> PathBuf {
    directory.path().join("made/sekali.db")
}

fn back_up(directory: &TempDir, to: &Path) {
    copy(&settings(directory.path()), to, &|_| (), &Arc::default()).unwrap();
}

/// The mark that is left beside the store.
fn mark(directory: &TempDir) -> Mark {
    match Left::read(&file(directory)) {
        Left::Mark(mark) => mark,
        other => panic!("{other:?}"),
    }
}

/// Changes that mark.
fn change_mark(directory: &TempDir, change: impl FnOnce(&mut Mark)) {
    let mut mark = mark(directory);
    change(&mut mark);
    Marker::begin(&file(directory), mark);
}

/// A store of which a copy was made after two events, and that had two more, and another topic, then.
fn restored(seal_keys: usize, make: impl Fn(&TempDir, &Path)) -> (TempDir, SqliteStore, HistoryId) {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("copy.db");
    let start = || open_sealing(&settings(directory.path()), seal_keys).unwrap();
    let first = publish(start(), "a", &["1", "2"]);
    make(&directory, &at);
    publish(start(), "a", &["3", "4"]);
    assert_eq!(publish(start(), "b", &["1"]), first, "a clean restart is the same history");
    fs::rename(&at, file(&directory)).unwrap();
    let store = start();
    (directory, store, first)
}

#[test]
fn a_backup_that_is_served_begins_a_new_history_after_the_events_that_it_has() {
    // invariant 11: events 3 and 4 of the old history are not those of the new one.
    for seal_keys in [1 << 19, 2] {
        let (directory, store, first) = restored(seal_keys, back_up);
        let second = wait(store.reader().history());
        assert_ne!(second, first);
        assert_eq!(kinship(&store, "a", &first), Kinship::SharedUpTo(2));
        assert_eq!(kinship(&store, "b", &first), Kinship::SharedUpTo(0), "it has no event of b");
        publish(store, "a", &["5", "6", "7"]);
        let again = open_sealing(&settings(directory.path()), seal_keys).unwrap();
        assert_eq!(wait(again.reader().history()), second, "only its first start begins one");
        assert_eq!(kinship(&again, "a", &first), Kinship::SharedUpTo(2));
        assert_eq!(kinship(&again, "a", &second), Kinship::Same);
    }
}

#[test]
fn a_file_of_an_earlier_time_is_noticed_by_the_mark_beside_it() {
    for seal_keys in [1 << 19, 2] {
        let by_hand = |directory: &TempDir, to: &Path| {
            fs::copy(file(directory), to).unwrap();
        };
        let (_directory, store, first) = restored(seal_keys, by_hand);
        assert_ne!(wait(store.reader().history()), first);
        assert_eq!(kinship(&store, "a", &first), Kinship::SharedUpTo(2));
    }
}

#[test]
fn a_file_of_an_earlier_history_is_another_one_again() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("copy.db");
    let first = publish(open(&directory), "a", &["1", "2"]);
    fs::copy(file(&directory), &at).unwrap();
    let doctor = Doctor::open(&settings(directory.path())).unwrap();
    assert!(doctor.new_history(&|_| ()).unwrap().notes.iter().any(|note| note.contains(first.as_str())));
    drop(doctor);
    let second = publish(open(&directory), "a", &[]);
    assert_ne!(first, second, "the doctor asked for it");
    fs::rename(&at, file(&directory)).unwrap();
    // The file ends at the position of the mark: only the history tells that it is another file.
    let third = publish(open(&directory), "a", &["4", "5", "6"]);
    assert!(third != first && third != second);
}

#[test]
fn an_unclean_stop_begins_a_new_history_only_where_the_machine_may_have_lost_events() {
    for (durability, other_boot, begins) in [
        (Durability::Full, true, false),
        (Durability::Relaxed, false, false),
        (Durability::Relaxed, true, true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path());
        settings.store.durability = durability;
        let killed = SqliteStore::open(&settings).unwrap();
        append(&mut *killed.open_writer().unwrap(), &batch("a", &[("1", "{}"), ("2", "{}")]));
        let first = wait(killed.reader().history());
        // Without a clean end, as a kill.
        drop(killed);
        if other_boot {
            change_mark(&directory, |mark| mark.booted = "another".to_owned());
        }
        let again = SqliteStore::open(&settings).unwrap();
        let now = wait(again.reader().history());
        assert_eq!(now != first, begins, "{durability:?}, {other_boot}");
        let expected = if begins { Kinship::SharedUpTo(2) } else { Kinship::Same };
        assert_eq!(kinship(&again, "a", &first), expected);
    }
}

#[test]
fn a_cursor_of_any_remembered_history_resumes_up_to_the_least_that_was_kept_since() {
    let directory = tempfile::tempdir().unwrap();
    let doctor = || {
        Doctor::open(&settings(directory.path())).unwrap().new_history(&|_| ()).unwrap();
    };
    let mut histories = Vec::new();
    for number in 1..=5 {
        histories.push(publish(open(&directory), "a", &[&number.to_string()]));
        doctor();
    }
    let store = open(&directory);
    for (history, last_seq) in histories.iter().zip(1..) {
        assert_eq!(kinship(&store, "a", history), Kinship::SharedUpTo(last_seq));
    }
    drop(store);
    // The third was restored from what the second had after one event.
    outsider(&directory).execute_batch("UPDATE forks SET last_seq = 1 WHERE history = 2").unwrap();
    let store = open(&directory);
    let shared: Vec<_> = histories.iter().map(|history| kinship(&store, "a", history)).collect();
    assert_eq!(shared, [1, 1, 3, 4, 5].map(Kinship::SharedUpTo));
    drop(store);
    for _ in 0..HISTORIES_MAX - 5 {
        doctor();
        drop(open(&directory));
    }
    let store = open(&directory);
    assert_eq!(kinship(&store, "a", &histories[0]), Kinship::Unknown, "it is forgotten");
    assert_eq!(kinship(&store, "a", &histories[4]), Kinship::SharedUpTo(5));
    let rows = "SELECT (SELECT count(*) FROM histories) || ' ' || (SELECT count(*) FROM forks)";
    let kept: String = outsider(&directory).query_row(rows, [], |row| row.get(0)).unwrap();
    assert_eq!(kept, format!("{HISTORIES_MAX} {}", HISTORIES_MAX - 1));
}

#[test]
fn the_mark_says_how_far_a_running_server_has_synced() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let mut writer = store.open_writer().unwrap();
    let mark = || mark(&directory);
    assert_eq!((mark().last_pos, mark().running), (0, true));
    append(&mut *writer, &batch("a", &[("1", "{}"), ("2", "{}")]));
    // Nothing is to be stored any more; the mark follows all the same.
    while mark().last_pos < 2 {
        writer.flush(Timestamp::UNIX_EPOCH).unwrap();
        std::thread::yield_now();
    }
    append(&mut *writer, &batch("a", &[("3", "{}")]));
    writer.flush(Timestamp::UNIX_EPOCH).unwrap();
    writer.close().unwrap();
    assert_eq!((mark().last_pos, mark().running), (3, false));
}

#[test]
fn a_store_that_cannot_record_its_new_history_is_not_served() {
    let (directory, store, _) = restored(1 << 19, back_up);
    drop(store);
    outsider(&directory).execute_batch("UPDATE histories SET ended = 1").unwrap();
    let locker = outsider(&directory);
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(SqliteStore::open(&settings(directory.path())).is_err());
    locker.execute_batch("ROLLBACK").unwrap();
    open(&directory);
}
