//! The doctor: finds each kind of damage and names it, finds none where there is none, and mends the index.

use jiff::Timestamp;
use proptest::prelude::*;
use tempfile::TempDir;

use super::index::{append_many, check_all};
use super::{doctor_sealing, group, open_sealing, outsider, settings};
use crate::domain::Verdict;
use crate::store::contract::{append, append_and_compare, batch, event, read_all, topic, wait};
use crate::store::sqlite::{Cure, Doctor, Part, Report, SqliteStore, runs, schema};
use crate::store::{Batch, Engine, Order, PageQuery, StoreError};

/// Keys that these stores seal together.
pub(super) const SEAL_KEYS: usize = 10;

/// A stopped store of so many events in three topics, sealed in small runs, some of them merged.
pub(super) fn stopped(events: u64) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sealing(&settings(directory.path()), SEAL_KEYS).unwrap();
    let mut writer = store.open_writer().unwrap();
    append_many(&mut *writer, 0..events);
    writer.close().unwrap();
    directory
}

fn doctor(directory: &TempDir) -> Doctor {
    doctor_sealing(directory, SEAL_KEYS).unwrap()
}

pub(super) fn inspect(directory: &TempDir) -> Report {
    doctor(directory).inspect(&|_| ()).unwrap()
}

pub(super) fn rebuild(directory: &TempDir) -> Report {
    doctor(directory).rebuild_index(&|_| ()).unwrap()
}

/// The faults of a store of 300 events after this damage.
fn faults_of(damage: &str) -> Vec<(Part, Cure, String)> {
    let directory = stopped(300);
    assert_eq!(inspect(&directory).faults, []);
    harm(&directory, damage);
    inspect(&directory).faults.into_iter().map(|fault| (fault.part, fault.cure, fault.what)).collect()
}

/// Changes the file as a damaged disk would, past all rules of the tables.
pub(super) fn harm(directory: &TempDir, damage: &str) {
    outsider(directory)
        .execute_batch(&format!("PRAGMA ignore_check_constraints = 1; PRAGMA foreign_keys = 0; {damage}"))
        .unwrap();
}

/// Checks that this damage is one fault, in this part, with these words, and that this helps.
pub(super) fn names(damage: &str, part: Part, cure: Cure, words: &[&str]) {
    let faults = faults_of(damage);
    let [(in_part, with_cure, what)] = &faults[..] else { panic!("{damage}: {faults:#?}") };
    assert_eq!((*in_part, *with_cure), (part, cure), "{damage}: {what}");
    for word in words {
        assert!(what.contains(word), "{damage}: {word} in {what}");
    }
}

/// The first run of the directory: its first block.
const FIRST_RUN: &str = "(SELECT first_block FROM runs WHERE first_pos = 1)";

#[test]
fn a_flipped_byte_in_a_block_is_named_with_its_block_and_run() {
    let damage = format!("UPDATE blocks SET data = zeroblob(length(data)) WHERE id = {FIRST_RUN}");
    names(&damage, Part::Runs, Cure::RebuildIndex, &["the run at block", "does not match its checksum"]);
}

#[test]
fn a_missing_block_is_named_with_its_run() {
    let damage = format!("DELETE FROM blocks WHERE id = {FIRST_RUN}");
    names(&damage, Part::Runs, Cure::RebuildIndex, &["the run at block", "is missing"]);
}

#[test]
fn a_gap_in_the_directory_is_named_with_its_position() {
    let damage = "DELETE FROM runs WHERE first_pos = 1";
    names(damage, Part::Runs, Cure::RebuildIndex, &["a gap at position 1"]);
}

#[test]
fn a_directory_that_counts_wrongly_is_named() {
    for damage in [
        "UPDATE runs SET entries = 1 << 50 WHERE first_pos = 1",
        "UPDATE runs SET last_pos = 1 << 50 WHERE first_pos = (SELECT max(first_pos) FROM runs)",
        "UPDATE runs SET first_block = -5 WHERE first_pos = 1",
    ] {
        let faults = faults_of(damage);
        assert!(!faults.is_empty(), "{damage}");
        for (part, cure, what) in faults {
            assert_eq!((part, cure), (Part::Runs, Cure::RebuildIndex), "{damage}: {what}");
        }
    }
}

/// Replaces what the first run has in its parts, with a checksum that fits.
fn replace_parts(change: impl FnOnce(&mut Vec<u8>)) -> Vec<String> {
    let directory = stopped(300);
    let connection = outsider(&directory);
    let run: i64 = connection.query_row(&format!("SELECT {FIRST_RUN}"), [], |row| row.get(0)).unwrap();
    let mut data: Vec<u8> =
        connection.query_row("SELECT data FROM parts WHERE run = ?1", [run], |row| row.get(0)).unwrap();
    change(&mut data);
    connection
        .execute("UPDATE runs SET checksum = ?2 WHERE first_block = ?1", (run, runs::checksum(&data)))
        .unwrap();
    connection.execute("UPDATE parts SET data = ?2 WHERE run = ?1", (run, data)).unwrap();
    drop(connection);
    inspect(&directory).faults.into_iter().map(|fault| fault.what).collect()
}

#[test]
fn a_filter_that_is_not_that_of_its_blocks_is_named() {
    let faults = replace_parts(|data| data[0] ^= 1);
    assert!(matches!(&faults[..], [what] if what.contains("its filter is not")), "{faults:?}");
}

#[test]
fn fences_that_are_not_those_of_the_blocks_are_named() {
    let faults = replace_parts(|data| *data.last_mut().unwrap() ^= 1);
    assert!(matches!(&faults[..], [what] if what.contains("its fences are not")), "{faults:?}");
}

#[test]
fn a_filter_without_its_checksum_is_named() {
    let damage = format!("UPDATE parts SET data = zeroblob(length(data)) WHERE run = {FIRST_RUN}");
    names(&damage, Part::Runs, Cure::RebuildIndex, &["the filter or the fences", "checksum"]);
}

#[test]
fn a_segment_with_a_wrong_position_is_named_with_topic_and_seq() {
    let damage = "UPDATE segments SET positions = CAST(x'02' || substr(positions, 2) AS BLOB) WHERE topic = 1 AND first_seq = 1";
    names(damage, Part::Segments, Cure::RebuildIndex, &["\"topic 0\"", "gives seq 1 position 2"]);
}

#[test]
fn segments_that_are_missing_or_none_are_named() {
    for (damage, words) in [
        ("DELETE FROM segments WHERE topic = 2 AND first_seq = 1", "where seq 1 follows"),
        ("DELETE FROM segments WHERE topic = 2", "seq 1 and those that follow are in no segment"),
        ("UPDATE segments SET first_seq = -1 WHERE topic = 2 AND first_seq = 1", "seq -1 cannot be read"),
        ("UPDATE segments SET positions = x'ff' WHERE topic = 2 AND first_seq = 1", "cannot be read"),
    ] {
        names(damage, Part::Segments, Cure::RebuildIndex, &["\"topic 1\"", words]);
    }
}

#[test]
fn a_row_with_a_wrong_seq_is_named_with_the_seq_that_it_had() {
    for (checksum, words) in [
        ("checksum", "it does not match its checksum, it was changed since it was stored"),
        ("NULL", "its seq was 5 since it was stored"),
    ] {
        let faults = faults_of(&format!("UPDATE events SET seq = 77, checksum = {checksum} WHERE pos = 13"));
        let what: Vec<_> = faults.iter().map(|(_, _, what)| what.as_str()).collect();
        let place = "topic \"topic 0\", seq 77, position 13";
        assert_eq!(what, [format!("{place}: seq 5 has to follow here"), format!("{place}: {words}")]);
    }
}

#[test]
fn a_missing_row_is_named_and_those_behind_it_are_not() {
    let faults = faults_of("DELETE FROM events WHERE pos = 13");
    let what: Vec<_> = faults.iter().map(|(part, _, what)| (*part, what.as_str())).collect();
    assert_eq!(
        what,
        [
            (Part::Rows, "topic \"topic 0\", seq 6, position 16: seq 5 has to follow here"),
            (Part::Totals, "accepted is 300, and there are 299 rows of events"),
            (Part::Rows, "position 13 has no row, and had one of seq 5"),
        ]
    );
}

#[test]
fn a_row_that_is_missing_before_the_last_one_is_no_fault_of_its_topic() {
    let faults = faults_of("DELETE FROM events WHERE pos = 295");
    assert!(faults[0].2.contains("seq 100, position 298: seq 99 has to follow here"), "{faults:?}");
    assert!(faults.iter().all(|(part, ..)| *part != Part::Topics), "{faults:?}");
}

#[test]
fn texts_that_are_no_event_are_named_with_topic_seq_and_position() {
    for (column, value, words) in [
        ("source", "CAST(x'ff' AS TEXT)", "the source is no text"),
        ("source", "''", "the source is none"),
        ("timestamp", "'yesterday'", "the timestamp must be"),
        ("received_at", "9000000000000000000", "9000000000000000000"),
    ] {
        let damage = format!("UPDATE events SET {column} = {value} WHERE pos = 13");
        let place = ["\"topic 0\", seq 5, position 13", words];
        names(&damage, Part::Rows, Cure::Restore, &place);
    }
}

#[test]
fn a_payload_that_was_changed_is_found_even_where_it_is_still_json() {
    let damage = r#"UPDATE events SET payload = '{"n":1}' WHERE pos = 13"#;
    names(damage, Part::Rows, Cure::Restore, &["position 13: it does not match its checksum"]);
    let of_an_older_version = r#"UPDATE events SET payload = '{"n":1}', checksum = NULL WHERE pos = 13"#;
    names(of_an_older_version, Part::Rows, Cure::Restore, &["position 13: its payload was changed"]);
}

#[test]
fn an_event_that_is_stored_twice_is_named_with_both_places() {
    let recent =
        "INSERT INTO events SELECT 301, topic, 101, event_id, timestamp, source, payload, received_at, NULL
        FROM events WHERE pos = 13; UPDATE topics SET last_seq = 101 WHERE id = 1;
        UPDATE sources SET accepted = 101 WHERE topic = 1; UPDATE totals SET accepted = 301";
    let twice = ["event \"12\" is stored twice, as seq 5 (position 13)", "seq 101 (position 301)"];
    names(recent, Part::Rows, Cure::Restore, &twice);
    let sealed = faults_of("UPDATE events SET event_id = '12', checksum = NULL WHERE pos = 40");
    assert!(sealed.iter().any(|(_, _, what)| what.contains("event \"12\" is stored twice")), "{sealed:?}");
}

#[test]
fn counters_that_are_off_by_one_are_named_with_what_the_rows_say() {
    for (damage, words) in [
        ("UPDATE totals SET accepted = accepted + 1", "accepted is 301, and there are 300"),
        ("UPDATE totals SET topics = topics - 1", "topics is 2, and there are 3"),
        ("UPDATE totals SET duplicates = duplicates + 1", "duplicates is 1, and there are 0"),
    ] {
        names(damage, Part::Totals, Cure::Recount, &[words]);
    }
    // A busy machine seals later: how many events of the topic are sealed is what this store says.
    let sealed = "(SELECT count(*) FROM events WHERE topic = 2 AND pos <= (SELECT max(last_pos) FROM runs))";
    for (counted, words) in
        [(&*format!("{sealed} - 1"), "sealed events; "), ("101", "counts 101 sealed events")]
    {
        let damage = format!("UPDATE topics SET last_seq = {counted} WHERE id = 2");
        names(&damage, Part::Topics, Cure::Restore, &["\"topic 1\"", words, "end with seq 100"]);
    }
}

#[test]
fn rows_of_no_topic_and_topics_without_a_name_are_named() {
    let orphaned = faults_of("DELETE FROM topics WHERE id = 3");
    assert!(orphaned.iter().any(|(_, _, what)| what.contains("no topic has this number")), "{orphaned:?}");
    let damage = "UPDATE topics SET name = '' WHERE id = 3";
    names(damage, Part::Topics, Cure::Restore, &["number 3", "its name is none"]);
}

#[test]
fn many_faults_are_counted_and_the_first_are_named() {
    let directory = stopped(300);
    harm(&directory, "UPDATE events SET source = ''");
    let report = inspect(&directory);
    assert_eq!(report.faults.len(), 20);
    let rows = report.checked.iter().find(|checked| checked.part == Part::Rows).unwrap();
    assert_eq!((rows.amount, rows.faults), (300, 300));
}

#[test]
fn a_page_that_is_overwritten_is_named_and_does_not_end_the_check() {
    let directory = stopped(3_000);
    let path = directory.path().join("made/sekali.db");
    let mut file = std::fs::read(&path).unwrap();
    let at = file.windows(4).rposition(|bytes| bytes == b"test").unwrap() / 4096 * 4096;
    file[at..at + 4096].fill(0);
    std::fs::write(&path, file).unwrap();
    let report = inspect(&directory);
    assert!(report.faults.iter().any(|fault| fault.part == Part::File), "{:#?}", report.faults);
    assert!(report.faults.iter().any(|fault| fault.part == Part::Rows), "{:#?}", report.faults);
}

#[test]
fn events_that_are_in_no_run_are_named_where_they_are_too_many() {
    let directory = stopped(300);
    harm(&directory, "DELETE FROM runs WHERE first_pos > 1");
    let report = inspect(&directory);
    assert!(
        matches!(&report.faults[..], [fault] if fault.what.contains("events are in no run")),
        "{report:#?}"
    );
    assert!(report.notes.iter().any(|note| note.contains("belong to no run")), "{:?}", report.notes);
    assert_eq!(rebuild(&directory).faults, []);
}

#[test]
fn what_a_kill_leaves_is_no_fault() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sealing(&settings(directory.path()), SEAL_KEYS).unwrap();
    let mut writer = store.open_writer().unwrap();
    for count in (0..600).step_by(30) {
        append_many(&mut *writer, count..count + 30);
        let report = inspect(&super::left_by_a_kill(&directory));
        assert_eq!(report.faults, [], "after {count}");
        assert!(report.notes.iter().any(|note| note.contains("not stopped cleanly")), "{:?}", report.notes);
    }
}

#[test]
fn a_store_that_runs_is_refused_and_so_is_what_is_no_store() {
    let directory = stopped(30);
    let running = SqliteStore::open(&settings(directory.path())).unwrap();
    let open = |directory: &TempDir| Doctor::open(&settings(directory.path())).map(drop);
    assert!(matches!(open(&directory), Err(StoreError::Owned { .. })));
    drop(running);
    harm(&directory, &format!("PRAGMA user_version = {}", schema::VERSION + 1));
    assert!(matches!(open(&directory), Err(StoreError::Newer { .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(open(&empty), Err(StoreError::Unavailable(_))));
    assert!(!empty.path().join("made").exists(), "nothing is made");
    std::fs::create_dir(empty.path().join("made")).unwrap();
    std::fs::write(empty.path().join("made/sekali.db"), "").unwrap();
    assert!(matches!(open(&empty), Err(StoreError::Foreign { .. })));
}

#[test]
fn an_older_schema_is_said_and_left_alone() {
    let directory = stopped(30);
    harm(&directory, "PRAGMA user_version = 1");
    let report = inspect(&directory);
    assert_eq!((report.schema_version, &report.faults[..]), (1, &[][..]));
    assert!(report.notes.iter().any(|note| note.contains("`sekali serve`")), "{:?}", report.notes);
    assert!(doctor(&directory).rebuild_index(&|_| ()).is_err());
    let version: i64 =
        outsider(&directory).pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 1);
}

#[test]
fn a_rebuild_mends_every_damage_of_the_index_and_all_answers_are_as_before() {
    for damage in [
        "UPDATE blocks SET data = zeroblob(length(data)) WHERE id % 2 = 0",
        "DELETE FROM blocks",
        "DELETE FROM runs WHERE first_pos = 1",
        "UPDATE runs SET level = 300",
        "UPDATE runs SET entries = 1 << 50",
        "UPDATE parts SET data = zeroblob(length(data))",
        "UPDATE segments SET positions = x'01'",
        "UPDATE segments SET first_seq = -first_seq",
        "DELETE FROM segments WHERE topic = 2",
    ] {
        let directory = stopped(300);
        harm(&directory, damage);
        assert!(!inspect(&directory).is_healthy(), "{damage}");
        assert_eq!(rebuild(&directory).faults, [], "{damage}");
        let store = open_sealing(&settings(directory.path()), SEAL_KEYS).unwrap();
        check_all(&store, &mut *store.open_writer().unwrap(), 300);
    }
}

// invariant 3: a key that no row tells any more is kept from the index that is dropped.
#[test]
fn a_rebuild_keeps_the_key_of_a_row_that_cannot_be_read() {
    let directory = stopped(300);
    let damage = "UPDATE events SET event_id = '' WHERE pos IN (13, 300)";
    harm(&directory, damage);
    for report in [inspect(&directory), rebuild(&directory), inspect(&directory), rebuild(&directory)] {
        let what: Vec<_> = report.faults.iter().map(|fault| fault.what.as_str()).collect();
        let place = |seq, pos| {
            format!("\"topic {}\", seq {seq}, position {pos}: the event_id is none", (pos - 1) % 3)
        };
        assert!(
            what.len() == 2 && what[0].contains(&place(5, 13)) && what[1].contains(&place(100, 300)),
            "{what:#?}"
        );
        let lost = report.notes.iter().filter(|note| note.contains("LOST: the keys of 1 events")).count();
        assert!(
            lost == 1 && report.notes.iter().any(|note| note.ends_with("begin with 300")),
            "{:?}",
            report.notes
        );
    }
    let store = open_sealing(&settings(directory.path()), SEAL_KEYS).unwrap();
    let mut writer = store.open_writer().unwrap();
    let kept = append(&mut *writer, &batch("topic 0", &[("12", "{}")]));
    assert_eq!(kept, [Verdict::Duplicate { seq: 5, conflict: false }]);
    let lost = append(&mut *writer, &batch("topic 2", &[("299", "{}")]));
    assert_eq!(lost, [Verdict::Accepted { seq: 101 }], "as the report says");
}

#[test]
fn a_rebuild_leaves_damaged_rows_and_serves_all_others() {
    let directory = stopped(300);
    harm(&directory, "DELETE FROM events WHERE pos = 13; UPDATE events SET seq = 9 WHERE pos = 41");
    let before: Vec<_> = inspect(&directory).faults.into_iter().map(|fault| fault.part).collect();
    let after = rebuild(&directory);
    assert!(after.faults.iter().all(|fault| fault.cure != Cure::RebuildIndex), "{:#?}", after.faults);
    assert!(before.contains(&Part::Rows) && !after.is_healthy());
    let store = open_sealing(&settings(directory.path()), SEAL_KEYS).unwrap();
    assert_eq!(read_all(&*store.reader(), "topic 2").len(), 100);
    let page =
        PageQuery { topic: topic("topic 0"), first: 6, last: 100, limit: 1_000, order: Order::Ascending };
    assert_eq!(wait(store.reader().page(page)).events.len(), 95, "all behind the one that is gone");
}

#[test]
fn damage_that_a_server_meets_says_what_helps() {
    let directory = stopped(300);
    let store = open_sealing(&settings(directory.path()), SEAL_KEYS).unwrap();
    let mut writer = store.open_writer().unwrap();
    harm(
        &directory,
        "UPDATE blocks SET data = zeroblob(length(data)); UPDATE segments SET first_seq = 0 WHERE first_seq = 1",
    );
    let known = batch("topic 0", &[("0", "{}")]);
    let refused = writer.append(&[&known], Timestamp::UNIX_EPOCH).unwrap_err().to_string();
    assert!(refused.contains("block ") && refused.contains("`sekali doctor --rebuild-index`"), "{refused}");
    let query = PageQuery { topic: topic("topic 0"), first: 1, last: 5, limit: 5, order: Order::Descending };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let refused = runtime.block_on(store.reader().page(query)).unwrap_err().to_string();
    assert!(refused.contains("segment ") && refused.contains("`sekali doctor --rebuild-index`"), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever was appended, and however often the store was opened again.
    #[test]
    fn a_store_that_nothing_damaged_is_healthy(
        rounds in prop::collection::vec(prop::collection::vec((0..5_u8, prop::collection::vec((0..90_u8, 0..3_u8), 1..9)), 0..40), 1..4),
    ) {
        let directory = tempfile::tempdir().unwrap();
        for batches in rounds {
            let store = open_sealing(&settings(directory.path()), SEAL_KEYS).unwrap();
            let mut writer = store.open_writer().unwrap();
            for batch in group(&batches) {
                append_and_compare(&store, &mut *writer, (&batch, 1));
            }
            writer.close().unwrap();
            drop(store);
            prop_assert_eq!(inspect(&directory).faults, []);
        }
        prop_assert_eq!(rebuild(&directory).faults, []);
        prop_assert_eq!(inspect(&directory).faults, []);
    }
}

/// Many topics, so that most segments are short, and a run of several blocks.
#[test]
fn a_store_of_many_topics_and_long_runs_is_healthy() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sealing(&settings(directory.path()), 1_000).unwrap();
    let mut writer = store.open_writer().unwrap();
    for number in 0..10_000 {
        let name = format!("{}", number % 700);
        let events = vec![event(&name, &number.to_string(), "{}")];
        append(&mut *writer, &Batch { topic: topic(&name), events });
    }
    writer.close().unwrap();
    drop(store);
    let doctor = doctor_sealing(&directory, 1_000).unwrap();
    assert_eq!(doctor.inspect(&|_| ()).unwrap().faults, []);
}
