//! Rows that were changed since they were stored: never an answer, and nothing that keeps others from theirs.

use jiff::Timestamp;

use super::doctor::{SEAL_KEYS, harm, inspect, rebuild, stopped};
use super::{index, open, open_sealing, outsider, settings};
use crate::domain::Verdict;
use crate::store::contract::{append, batch, event, topic, wait};
use crate::store::sqlite::{Fault, SqliteStore};
use crate::store::{Engine, Finding, Key, Order, PageQuery, Repeat, StoreError};

// invariant 5: what is damaged under one request fails that request and no other.
#[test]
fn a_damaged_row_keeps_nothing_from_being_stored_and_is_told_when_it_is_read() {
    for damaging in [
        r#"UPDATE events SET payload = '{"n":1}' WHERE pos = 1"#,
        "DELETE FROM events WHERE pos = 1",
        "UPDATE events SET seq = 9, checksum = NULL WHERE pos = 1",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let mut writer = store.open_writer().unwrap();
        append(&mut *writer, &batch("a", &[("1", "{}"), ("2", "{}")]));
        outsider(&directory).execute_batch(damaging).unwrap();
        let sent = batch("a", &[("1", r#"{"n":1}"#), ("3", "{}"), ("2", "{ }")]);
        let found = writer.append(&[&sent], Timestamp::UNIX_EPOCH).unwrap().concat();
        assert!(matches!(found[0], Finding::Differs { seq: 1, .. }), "{damaging}: {found:?}");
        assert_eq!(found[1].verdict(), Some(Verdict::Accepted { seq: 3 }), "{damaging}");
        assert!(matches!(found[2], Finding::Differs { seq: 2, .. }), "{damaging}: {found:?}");
        let keys = ["1", "2"].map(|id| Key { topic: topic("a"), event_id: id.to_owned() });
        let read = wait(store.reader().payloads(&keys));
        assert!(matches!(read[0], Err(StoreError::Damaged(_))), "{damaging}: {read:?}");
        assert_eq!(read[1].as_ref().unwrap().json, "{}", "{damaging}: one that is whole is read beside it");
    }
}

#[test]
fn rows_that_start_up_reads_are_verified_before_the_store_is_ready() {
    let directory = tempfile::tempdir().unwrap();
    append(&mut *open(&directory).open_writer().unwrap(), &batch("a", &[("1", "{}"), ("2", "{}")]));
    outsider(&directory).execute_batch("UPDATE events SET source = 'other' WHERE pos = 2").unwrap();
    let refused = SqliteStore::open(&settings(directory.path())).map(drop).unwrap_err().to_string();
    assert!(refused.contains("the row at position 2 does not match its checksum"), "{refused}");
    assert!(refused.contains("`sekali doctor`"), "{refused}");
}

#[test]
fn small_tables_are_verified_before_the_store_is_ready() {
    for (damaging, words) in [
        ("UPDATE totals SET accepted = 3", "count 3 accepted events, and there are 2"),
        ("DELETE FROM events WHERE pos = 2", "count 2 accepted events, and there are 1"),
        ("UPDATE topics SET duplicates = 7", "count 0 duplicates, and there are 7"),
        ("DELETE FROM topics", "count 1 topics, and there are 0"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        append(&mut *open(&directory).open_writer().unwrap(), &batch("a", &[("1", "{}"), ("2", "{}")]));
        outsider(&directory).execute_batch(&format!("PRAGMA foreign_keys = 0; {damaging}")).unwrap();
        let refused = SqliteStore::open(&settings(directory.path())).map(drop).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn a_topic_whose_name_was_changed_is_found_before_the_store_is_ready() {
    let directory = tempfile::tempdir().unwrap();
    append(&mut *open(&directory).open_writer().unwrap(), &batch("a-topic-of-mine", &[("1", "{}")]));
    let path = directory.path().join("made/sekali.db");
    let mut file = std::fs::read(&path).unwrap();
    let places: Vec<_> = (0..file.len()).filter(|at| file[*at..].starts_with(b"a-topic-of-mine")).collect();
    assert_eq!(places.len(), 2, "in the table and in the index of names");
    for at in places {
        file[at] = b'b';
        std::fs::write(&path, &file).unwrap();
        let refused = SqliteStore::open(&settings(directory.path())).map(drop).unwrap_err().to_string();
        assert!(refused.contains("the table of topics"), "{refused}");
        file[at] = b'a';
    }
}

// invariant 3: with another secret every key would be new.
#[test]
fn a_secret_that_was_changed_is_found_and_the_index_is_built_anew() {
    let directory = tempfile::tempdir().unwrap();
    let open = || open_sealing(&settings(directory.path()), 10).unwrap();
    index::append_many(&mut *open().open_writer().unwrap(), 0..100);
    outsider(&directory).execute_batch("UPDATE secrets SET index_key = randomblob(16)").unwrap();
    let store = open();
    index::check_all(&store, &mut *store.open_writer().unwrap(), 100);
}

// invariant 5: nor does damage under counts that wait keep other events from being stored.
#[test]
fn repeats_of_a_damaged_topic_stop_nobody() {
    for damaging in [
        "PRAGMA foreign_keys = 0; DELETE FROM topics WHERE name = 'a'",
        "UPDATE topics SET last_seq = 9 WHERE name = 'a'",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        append(&mut *store.open_writer().unwrap(), &batch("a", &[("1", "{}")]));
        append(&mut *store.open_writer().unwrap(), &batch("other", &[("1", "{}")]));
        let mut writer = store.open_writer().unwrap();
        outsider(&directory).execute_batch(damaging).unwrap();
        let repeat = Repeat { source: "test", seq: 1, conflict: false, late: 1 };
        store.tally().count(&topic("a"), Timestamp::UNIX_EPOCH, [repeat, repeat].into_iter());
        writer.flush(Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(append(&mut *writer, &batch("b", &[("1", "{}")])), [Verdict::Accepted { seq: 1 }]);
        assert_eq!(wait(store.reader().totals()).counts.duplicates, 0, "{damaging}");
    }
}

#[test]
fn a_change_of_any_column_of_a_row_is_named_and_a_rebuild_keeps_its_key() {
    for change in [
        "topic = 2",
        "received_at = received_at + 1",
        "event_id = '13'",
        "timestamp = replace(timestamp, '1', '2')",
        "source = source || 'x'",
        r#"payload = '{"n":1}'"#,
        "checksum = checksum + 1",
    ] {
        let directory = stopped(300);
        harm(&directory, &format!("UPDATE events SET {change} WHERE pos = 13"));
        for report in [inspect(&directory), rebuild(&directory)] {
            let named = |fault: &Fault| fault.what.contains("position 13: it does not match its checksum");
            assert_eq!(report.faults.iter().filter(|fault| named(fault)).count(), 1, "{change}: {report:?}");
        }
        let store = open_sealing(&settings(directory.path()), SEAL_KEYS).unwrap();
        let known = append(&mut *store.open_writer().unwrap(), &batch("topic 0", &[("12", "{}")]));
        assert_eq!(known, [Verdict::Duplicate { seq: 5, conflict: false }], "{change}");
    }
}

/// What every event of a store of so many has to be: its topic, id and seq.
fn expected(count: u64) -> impl Iterator<Item = (String, String, u64)> {
    (0..count).map(|number| (format!("topic {}", number % 3), number.to_string(), number / 3 + 1))
}

/// Asks a store that may be damaged for everything that it has; gives how many answers were errors. Whatever it
/// answers must be right.
fn ask_everything(store: &SqliteStore, count: u64) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut errors = 0;
    let Ok(mut writer) = store.open_writer() else { return 1 };
    for (name, id, seq) in expected(count) {
        let key = Key { topic: topic(&name), event_id: id.clone() };
        match runtime.block_on(store.reader().event(key.clone())) {
            Ok(found) => {
                let found = found.unwrap_or_else(|| panic!("{name} {id} is answered as unknown"));
                let sent = event(&name, &id, "{}");
                assert_eq!((found.seq, &found.event), (seq, &sent), "{name} {id}");
            }
            Err(_) => errors += 1,
        }
        match runtime.block_on(store.reader().lookup(vec![key])) {
            Ok(found) => assert_eq!(found[0].as_ref().map(|found| found.seq), Some(seq), "{name} {id}"),
            Err(_) => errors += 1,
        }
        match writer.append(&[&batch(&name, &[(&id, "{}")])], Timestamp::UNIX_EPOCH) {
            Ok(decided) => {
                let verdict = Verdict::Duplicate { seq, conflict: false };
                assert_eq!(decided[0][0].verdict(), Some(verdict), "{name} {id}");
            }
            Err(_) => errors += 1,
        }
    }
    for name in 0..3 {
        let whole = PageQuery {
            topic: topic(&format!("topic {name}")),
            first: 1,
            last: u64::MAX,
            limit: usize::MAX,
            order: Order::Ascending,
        };
        match runtime.block_on(store.reader().page(whole)) {
            Ok(page) => assert_eq!(page.events.len() as u64, count / 3, "topic {name}"),
            Err(_) => errors += 1,
        }
    }
    errors
}

/// Flips bits anywhere in the file: the store refuses to open, or answers with errors, or everything is right.
/// `SEKALI_FLIPS` says how many, `SEKALI_FLIPS_SEED` repeats them.
#[test]
#[expect(clippy::print_stdout, reason = "the figures of a long run")]
fn a_flipped_bit_anywhere_is_an_error_or_nothing_and_never_a_wrong_answer() {
    const EVENTS: u64 = 90;
    let flips = std::env::var("SEKALI_FLIPS").map_or(60, |flips| flips.parse().unwrap());
    let seed =
        std::env::var("SEKALI_FLIPS_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let mut rng = fastrand::Rng::with_seed(seed);
    let directory = stopped(EVENTS);
    let path = directory.path().join("made/sekali.db");
    let whole = std::fs::read(&path).unwrap();
    let (mut refused, mut errors, mut nothing) = (0, 0, 0);
    for _ in 0..flips {
        let (at, bit) = (rng.usize(..whole.len()), rng.u8(..8));
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << bit;
        std::fs::write(&path, flipped).unwrap();
        let outcome = std::panic::catch_unwind(|| {
            open_sealing(&settings(directory.path()), SEAL_KEYS).map(|store| ask_everything(&store, EVENTS))
        });
        match outcome.unwrap_or_else(|_| panic!("SEKALI_FLIPS_SEED={seed}: bit {bit} of byte {at}")) {
            Err(_) => refused += 1,
            Ok(0) => nothing += 1,
            Ok(_) => errors += 1,
        }
        for left in ["made/sekali.db-wal", "made/sekali.db-shm"] {
            let _ = std::fs::remove_file(directory.path().join(left));
        }
    }
    assert_eq!(refused + errors + nothing, flips);
    assert!(refused + errors > 0, "the flips are those of what is used");
    println!("{flips} flips: {refused} stores refused, {errors} with errors, {nothing} without");
}
