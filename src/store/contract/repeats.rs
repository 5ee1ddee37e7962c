//! What every engine must say of duplicates.

use std::sync::Arc;

use super::{append_and_compare, at, event_from, topic, wait};
use crate::domain::Lateness;
use crate::store::{Batch, Engine, Repeat, Repeats, SourceCounts, Writer};

/// Appends events of sources at a second, each as source, id and payload.
fn send(engine: &dyn Engine, writer: &mut dyn Writer, second: i64, events: &[(&str, &str, &str)]) {
    let event = |(source, id, payload): &(&str, &str, &str)| event_from(source, "a", id, payload);
    let batch = Batch { topic: topic("a"), events: events.iter().map(event).collect() };
    append_and_compare(engine, writer, (&batch, second));
}

pub(super) fn explains_duplicates(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    let engine = make(None);
    let reader = engine.reader();
    let mut writer = engine.open_writer().unwrap();
    assert_eq!(wait(reader.sources(topic("a"))), None);
    send(
        &*engine,
        &mut *writer,
        1_000,
        &[("x", "1", "{}"), ("y", "2", "{}"), ("x", "3", "{}"), ("x", "3", "{}")],
    );
    // Within 10 s and 5 min of the events, one of them by another source and with another payload.
    send(&*engine, &mut *writer, 1_007, &[("x", "1", "{}"), ("z", "2", r#"{"n":1}"#), ("y", "4", "{}")]);
    send(&*engine, &mut *writer, 1_300, &[("y", "2", "{}"), ("y", "5", "{}")]);
    let cached = Repeat { source: "x", seq: 1, conflict: false, late: 3_600 };
    engine.tally().count(&topic("a"), at(4_600), [cached].into_iter());
    let late = |seconds: &[u32]| {
        let mut lateness = Lateness::default();
        for late in seconds {
            lateness.count(*late);
        }
        lateness
    };
    let counts = |accepted, conflicts, lateness: Lateness| {
        let duplicates = lateness.buckets.iter().sum();
        SourceCounts { accepted, duplicates, conflicts, lateness }
    };
    let expected = [
        ("x".to_owned(), counts(2, 0, late(&[0, 7, 3_600]))),
        ("y".to_owned(), counts(3, 0, late(&[300]))),
        ("z".to_owned(), counts(0, 1, late(&[7]))),
    ];
    let check = |moment| {
        let found = wait(reader.sources(topic("a"))).unwrap();
        assert_eq!(found.named, expected, "{moment}");
        assert_eq!(found.other, SourceCounts::default(), "{moment}");
        assert_eq!(Some(found.topic), wait(reader.topic(topic("a"))), "{moment}");
    };
    check("before the counts are stored");
    writer.flush(at(4_601)).unwrap();
    check("after they were stored");
    drop(writer);
    let mut writer = engine.open_writer().unwrap();
    check("after the writer was opened again");
    // Sources come and go, and memory and answers stay bounded.
    for number in 0..100 {
        let (source, id) = (format!("source {number}"), format!("of {number}"));
        send(&*engine, &mut *writer, 5_000, &[(&source, &id, "{}"), (&source, &id, "{}")]);
        writer.flush(at(5_000)).unwrap();
    }
    let many = wait(reader.sources(topic("a"))).unwrap();
    assert_eq!(many.named.len(), 50, "limits.sources");
    assert_eq!(
        many.named.iter().find(|(name, _)| name == "x"),
        Some(&expected[0]),
        "the first keep their names"
    );
    let mut sum = many.other.counts();
    assert!(sum.accepted > 0 && sum.duplicates > 0, "the rest is counted as one");
    many.named.iter().for_each(|(_, counts)| sum += counts.counts());
    assert_eq!(sum, many.topic.counts, "and nothing is lost");
    assert_eq!((sum.accepted, sum.duplicates, sum.conflicts), (105, 105, 1));
}

pub(super) fn knows_repeats(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    let engine = make(None);
    let reader = engine.reader();
    let mut writer = engine.open_writer().unwrap();
    send(&*engine, &mut *writer, 1, &[("x", "1", "{}"), ("x", "2", "{}")]);
    let known = |seq| wait(reader.repeats(topic("a"), seq));
    assert_eq!((known(1), known(2), wait(reader.repeats(topic("b"), 1))), (None, None, None));
    send(&*engine, &mut *writer, 2, &[("x", "2", "{}"), ("y", "2", r#"{"n":1}"#)]);
    let mut expected = Repeats {
        duplicates: 2,
        conflicts: 1,
        last_at: at(2),
        last_source: "y".to_owned(),
        last_conflict: true,
    };
    assert_eq!((known(1), known(2)), (None, Some(expected.clone())));
    let cached = Repeat { source: "z", seq: 2, conflict: false, late: 2 };
    engine.tally().count(&topic("a"), at(3), [cached].into_iter());
    (expected.duplicates, expected.last_at, expected.last_conflict) = (3, at(3), false);
    "z".clone_into(&mut expected.last_source);
    assert_eq!(known(2), Some(expected.clone()));
    writer.close().unwrap();
    let _writer = engine.open_writer().unwrap();
    assert_eq!((known(1), known(2)), (None, Some(expected)), "after the writer was opened again");
}
