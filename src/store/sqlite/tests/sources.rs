//! Counts by source and repeats of single events, over kills, seals, restarts and older versions.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::doctor::{SEAL_KEYS, harm, names, rebuild, stopped};
use super::{left_by_a_kill, open, open_sealing, outsider, settings};
use crate::domain::{Counts, Second, Verdict};
use crate::store::contract::{append, batch, event_from, topic, wait};
use crate::store::sqlite::{Cure, Part, SqliteStore};
use crate::store::{Batch, Decision, Engine, Finding, Repeat, TopicSources, Writer};

/// Appends events of two topics, whose ids are these numbers; of three sources, one of which sends all repeats.
fn append_mixed(writer: &mut dyn Writer, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let (name, source) = (format!("topic {}", number % 2), ["x", "y"][(number / 2 % 2) as usize]);
        let id = number.to_string();
        let events = vec![event_from(source, &name, &id, "{}"), event_from("z", &name, &id, "{}")];
        append(writer, &Batch { topic: topic(&name), events });
    }
}

/// What is counted of a topic, by source.
fn found(store: &SqliteStore, name: &str) -> (TopicSources, BTreeMap<String, (u64, u64)>) {
    let found = wait(store.reader().sources(topic(name))).unwrap();
    let counts = found.named.iter().map(|(name, of)| (name.clone(), (of.accepted, of.duplicates))).collect();
    (found, counts)
}

// invariant 4: what is counted by source goes with what is stored, whenever it ends.
#[test]
fn what_each_source_sent_is_exact_after_a_kill_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sealing(&settings(directory.path()), 10).unwrap();
    let mut writer = store.open_writer().unwrap();
    for round in 1..=30 {
        // Now within a seal or a merge, now behind one; what waits is stored in some of the rounds.
        append_mixed(&mut *writer, (round - 1) * 7..round * 7);
        if round % 3 == 0 {
            writer.flush(Timestamp::UNIX_EPOCH).unwrap();
        }
        let left = left_by_a_kill(&directory);
        let again = open_sealing(&settings(left.path()), 10).unwrap();
        for (store, is_whole) in [(&store, true), (&again, round % 3 == 0)] {
            let mut accepted = 0;
            for name in ["topic 0", "topic 1"] {
                let (found, sources) = found(store, name);
                let parity = u64::from(name.ends_with('1'));
                let of = |third: u64| {
                    (0..round * 7).filter(|n| n % 2 == parity && n / 2 % 2 == third).count() as u64
                };
                let sum = found.topic.counts;
                accepted += sum.accepted;
                let repeats = if is_whole { sum.accepted } else { sum.duplicates };
                let expected = [("x", (of(0), 0)), ("y", (of(1), 0)), ("z", (0, repeats))];
                let expected = expected.map(|(name, counts)| (name.to_owned(), counts));
                let expected: BTreeMap<_, _> = expected.into_iter().filter(|(_, of)| *of != (0, 0)).collect();
                assert_eq!((sources, found.other.counts()), (expected, Counts::default()), "round {round}");
            }
            assert_eq!(accepted, round * 7);
        }
    }
}

#[test]
fn a_store_of_an_older_version_counts_by_source_from_now_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sealing(&settings(directory.path()), 10).unwrap();
    append_mixed(&mut *store.open_writer().unwrap(), 0..100);
    store.open_writer().unwrap().flush(Timestamp::UNIX_EPOCH).unwrap();
    drop(store);
    let old = "DROP TABLE sources; DROP TABLE times; DROP TABLE repeats; DROP TABLE copies;
        DROP TABLE histories; DROP TABLE forks; PRAGMA user_version = 3";
    outsider(&directory).execute_batch(old).unwrap();
    let again = open_sealing(&settings(directory.path()), 10).unwrap();
    let mut writer = again.open_writer().unwrap();
    append_mixed(&mut *writer, 100..140);
    let (found, sources) = found(&again, "topic 0");
    assert_eq!(found.topic.counts, Counts { accepted: 70, duplicates: 70, ..Counts::default() });
    let (other, new) = (found.other.counts(), sources["x"].0 + sources["y"].0);
    // What was not sealed when the old version stopped has sources, which its rows tell.
    assert!((40..=50).contains(&other.accepted) && new == 70 - other.accepted, "{other:?} {sources:?}");
    assert_eq!((other.duplicates, sources["z"]), (50, (0, 20)));
    // When old events were stored is known from their rows.
    let decided = writer.append(&[&batch("topic 0", &[("0", "{}")])], Timestamp::from_second(50).unwrap());
    let found = decided.unwrap()[0][0];
    assert!(matches!(found, Finding::Decided(Decision { stored_at: Second(1), .. })), "{found:?}");
}

#[test]
fn the_repeats_of_single_events_survive_a_kill_but_for_the_last_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let mut few = settings(directory.path());
    few.store.repeated_keys = 3;
    let store = SqliteStore::open(&few).unwrap();
    let mut writer = store.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("1", "{}"), ("2", "{}"), ("3", "{}"), ("4", "{}"), ("5", "{}")]));
    let repeat = |seq, second| {
        let now = Timestamp::from_second(second).unwrap();
        let repeat = Repeat { source: "x", seq, conflict: false, late: 1 };
        store.tally().count(&topic("a"), now, [repeat].into_iter());
    };
    for (seq, second) in (1..=5).zip(10..) {
        repeat(seq, second);
    }
    writer.flush(Timestamp::UNIX_EPOCH).unwrap();
    repeat(4, 20);
    let known = |store: &SqliteStore| -> Vec<u64> {
        let times = |seq| wait(store.reader().repeats(topic("a"), seq)).map_or(0, |of| of.duplicates);
        (1..=5).map(times).collect()
    };
    assert_eq!(known(&store), [0, 0, 1, 2, 1], "the most recent three");
    let left = left_by_a_kill(&directory);
    few.store.url = crate::config::StoreUrl::Sqlite(left.path().join("made/sekali.db"));
    assert_eq!(known(&SqliteStore::open(&few).unwrap()), [0, 0, 1, 1, 1], "what was stored before");
    // Those that leave the list leave the file.
    repeat(1, 21);
    writer.close().unwrap();
    let rows = "SELECT group_concat(seq || ':' || duplicates) FROM (SELECT * FROM repeats ORDER BY seq)";
    let rows: String = outsider(&directory).query_row(rows, [], |row| row.get(0)).unwrap();
    assert_eq!(rows, "1:1,4:2,5:1");
}

#[test]
fn counts_by_source_that_do_not_make_up_those_of_the_topic_are_damage() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    append(&mut *store.open_writer().unwrap(), &batch("a", &[("1", "{}"), ("1", "{}")]));
    store.open_writer().unwrap().flush(Timestamp::UNIX_EPOCH).unwrap();
    outsider(&directory).execute_batch("UPDATE sources SET duplicates = 7").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let refused = runtime.block_on(store.reader().sources(topic("a"))).unwrap_err().to_string();
    assert!(refused.contains("by source of topic a") && refused.contains("`sekali doctor`"), "{refused}");
}

#[test]
fn counts_by_source_that_are_wrong_are_named_and_begin_anew() {
    for (damage, words) in [
        ("UPDATE sources SET accepted = accepted + 1 WHERE topic = 1", "are not those of the topic"),
        ("UPDATE sources SET duplicates = 1 << 60 WHERE topic = 1", "are not those of the topic"),
        ("DELETE FROM sources WHERE topic = 1", "are not those of the topic"),
        ("UPDATE sources SET source = char(10) WHERE topic = 1", "the source \"\\n\" is none"),
        ("INSERT INTO times VALUES (1000, 5)", "1 rows of times"),
        ("INSERT INTO times VALUES (7, -1)", "1 rows of times"),
        (
            "INSERT INTO repeats VALUES (1, 1, 1, 0, 5, CAST(x'ff' AS TEXT), 0)",
            "1 rows of repeats cannot be read",
        ),
        ("INSERT INTO repeats VALUES (99, 1, 1, 0, 5, 'x', 0)", "1 rows of repeats"),
    ] {
        names(damage, Part::Sources, Cure::BeginAnew, &[words]);
        let directory = stopped(300);
        harm(&directory, damage);
        // It stops nobody.
        let mut writer = open_sealing(&settings(directory.path()), SEAL_KEYS).unwrap().open_writer().unwrap();
        writer.flush(Timestamp::UNIX_EPOCH).unwrap();
        writer.close().unwrap();
        assert_eq!(rebuild(&directory).faults, [], "{damage}");
        let store = open_sealing(&settings(directory.path()), SEAL_KEYS).unwrap();
        let found = wait(store.reader().sources(topic("topic 0"))).unwrap();
        let mut sum = found.other.counts();
        found.named.iter().for_each(|(_, counts)| sum += counts.counts());
        assert_eq!(sum, found.topic.counts, "{damage}");
    }
}

// The first `limits.sources` sources keep their names.
#[test]
fn a_source_that_was_named_stays_named_when_repeats_are_stored() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = settings(directory.path());
    one.limits.sources = 1;
    let store = SqliteStore::open(&one).unwrap();
    let mut writer = store.open_writer().unwrap();
    append(&mut *writer, &Batch { topic: topic("a"), events: vec![event_from("x", "a", "1", "{}")] });
    append(&mut *writer, &Batch { topic: topic("a"), events: vec![event_from("y", "a", "1", "{}")] });
    let before = found(&store, "a");
    assert_eq!(before.1, BTreeMap::from([("x".to_owned(), (1, 0))]));
    writer.flush(Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(found(&store, "a"), before);
}

// invariant 5: pages that only explain are no reason to refuse an event.
#[test]
fn a_store_opens_and_knows_its_events_where_a_table_that_explains_is_destroyed() {
    for table in ["sources", "times", "repeats"] {
        let directory = stopped(100);
        let connection = outsider(&directory);
        let sql =
            "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_schema WHERE name = ?1";
        let (page, size): (i64, i64) =
            connection.query_row(sql, [table], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let [start, end] = [page - 1, page].map(|page| usize::try_from(page * size).unwrap());
        drop(connection);
        let path = directory.path().join("made/sekali.db");
        let mut file = std::fs::read(&path).unwrap();
        file[start..end].fill(0xaa);
        std::fs::write(&path, file).unwrap();
        let store = open_sealing(&settings(directory.path()), SEAL_KEYS).unwrap();
        let mut writer = store.open_writer().unwrap();
        let known = append(&mut *writer, &batch("topic 0", &[("0", "{}")]));
        assert_eq!(known, [Verdict::Duplicate { seq: 1, conflict: false }], "{table}");
    }
}

// invariant 5: rows that only explain are no reason to refuse an event, nor a seal.
#[test]
fn damaged_rows_that_explain_stop_nobody() {
    for damage in [
        "UPDATE sources SET source = CAST(x'ff' AS TEXT)",
        "UPDATE sources SET accepted = 9223372036854775807, duplicates = 9223372036854775807",
    ] {
        let directory = stopped(100);
        let store = open_sealing(&settings(directory.path()), SEAL_KEYS).unwrap();
        let mut writer = store.open_writer().unwrap();
        harm(&directory, damage);
        append_mixed(&mut *writer, 1_000..1_060);
        writer.flush(Timestamp::UNIX_EPOCH).unwrap();
        let totals = wait(store.reader().totals()).counts;
        assert_eq!((totals.accepted, totals.duplicates), (160, 60), "{damage}");
    }
}

#[test]
fn counts_begin_anew_all_together_or_not_at_all() {
    let directory = stopped(100);
    harm(
        &directory,
        "UPDATE sources SET accepted = accepted + 1000; INSERT INTO times VALUES (1000, 5);
         CREATE TRIGGER refuse BEFORE DELETE ON times BEGIN SELECT RAISE(ABORT, 'no'); END",
    );
    let rows = || -> i64 {
        let sql = "SELECT sum(accepted) FROM sources";
        outsider(&directory).query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let before = rows();
    let faults = rebuild(&directory).faults;
    assert!(faults.iter().any(|fault| fault.part == Part::Sources), "{faults:?}");
    assert!(rows() >= before, "no topic has begun anew");
}
