//! What every engine must do, as tests that run on each of them.

mod repeats;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use jiff::Timestamp;

use super::{
    AppendError, Batch, Engine, Finding, Key, MemoryStore, Order, PAGE_BYTES, PageQuery, Reader, Repeat,
    StoreError, Writer,
};
use crate::domain::{
    Counts, Event, HistoryId, Kinship, Parts, PayloadHasher, Refusal, Second, StoredEvent, Topic, Verdict,
};

/// A case of the contract: a sentence and its test, given a way to make an empty store with a topic limit.
type Case = (&'static str, fn(&dyn Fn(Option<u64>) -> Arc<dyn Engine>));

/// The contract.
pub(super) const CASES: [Case; 14] = [
    ("a new event is accepted with the next seq of its topic", accepts_in_order),
    ("a key is accepted once, in one group and over many", accepts_once),
    ("another value under the same key is a conflict, and the first stays", reports_conflicts),
    ("stored payloads are read in the order of their keys, a bounded part at a time", reads_payloads),
    ("the same id in two topics is two events", keeps_topics_apart),
    ("texts come back byte for byte", returns_bytes),
    ("pages follow seq from either end, within their bounds", pages),
    ("each page names the history of its seqs, and no other history shares any", names_its_history),
    ("keys are looked up in their order", looks_up),
    ("counters count what was decided, also without the store", counts),
    ("duplicates are counted by source and by how late they came", repeats::explains_duplicates),
    ("the events that were repeated most recently say how", repeats::knows_repeats),
    ("a clock that jumps changes the times shown and nothing else", ignores_clocks),
    ("a topic past the limit is refused and nothing of it is stored", limits_topics),
];

/// Runs the whole contract on an engine.
pub(super) fn check(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    for (sentence, case) in CASES {
        let passed = catch_unwind(AssertUnwindSafe(|| case(make)));
        assert!(passed.is_ok(), "the engine breaks the contract: {sentence}");
    }
}

#[test]
fn the_memory_engine_keeps_the_contract() {
    check(&|topic_limit| Arc::new(MemoryStore::new(topic_limit)));
}

/// Runs a read to its end.
pub(super) fn wait<T>(read: impl Future<Output = Result<T, StoreError>>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(read).unwrap()
}

pub(super) fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

pub(super) fn event(topic: &str, event_id: &str, payload: &str) -> Event {
    event_from("test", topic, event_id, payload)
}

/// An event of a source.
pub(super) fn event_from(source: &str, topic: &str, event_id: &str, payload: &str) -> Event {
    Event::pack(Parts { topic, event_id, timestamp: "2026-01-01 00:00:00", source, payload })
}

pub(super) fn batch(name: &str, events: &[(&str, &str)]) -> Batch {
    let events = events.iter().map(|(event_id, payload)| event(name, event_id, payload)).collect();
    Batch { topic: topic(name), events }
}

/// Appends one batch in a group of its own.
pub(super) fn append(writer: &mut dyn Writer, batch: &Batch) -> Vec<Verdict> {
    verdicts(writer.append(&[batch], at(1))).concat()
}

/// The verdicts on a group that was appended, of which nothing has to be compared.
pub(super) fn verdicts(found: Result<Vec<Vec<Finding>>, AppendError>) -> Vec<Vec<Verdict>> {
    let verdict = |finding: &Finding| finding.verdict().expect("its bytes are those that are stored");
    let verdicts = |findings: Vec<Finding>| findings.iter().map(verdict).collect();
    found.unwrap().into_iter().map(verdicts).collect()
}

/// Appends one batch at a second, in a group of its own. What has other bytes than what is stored is compared with
/// that, and counted, as the pipeline does it.
pub(crate) fn append_and_compare(
    engine: &dyn Engine,
    writer: &mut dyn Writer,
    (batch, second): (&Batch, i64),
) -> Vec<Verdict> {
    let (now, hasher) = (at(second), PayloadHasher::new(&[3; 16]));
    let findings = writer.append(&[batch], now).unwrap().concat();
    let digest = |payload: &str| hasher.digest(payload, |_| ());
    let judge = |(event, finding): (&Event, &Finding)| match *finding {
        Finding::Decided(decision) => decision.verdict,
        Finding::Differs { seq, stored_at } => {
            let key = Key { topic: batch.topic.clone(), event_id: event.event_id().to_owned() };
            // On a thread of its own: a caller may run in a runtime.
            let read = || wait(engine.reader().payloads(&[key])).pop().unwrap().unwrap();
            let stored = std::thread::scope(|scope| scope.spawn(read).join().unwrap());
            assert_eq!(stored.seq, seq);
            let conflict = digest(&stored.json) != digest(event.payload());
            let late = stored_at.until(Second::of(now));
            let repeat = Repeat { source: event.source(), seq, conflict, late };
            engine.tally().count(&batch.topic, now, [repeat].into_iter());
            Verdict::Duplicate { seq, conflict }
        }
    };
    batch.events.iter().zip(&findings).map(judge).collect()
}

/// All of a topic, in ascending order.
pub(super) fn read_all(reader: &dyn Reader, name: &str) -> Vec<StoredEvent> {
    let mut events: Vec<StoredEvent> = Vec::new();
    loop {
        let first = events.last().map_or(1, |last| last.seq + 1);
        let page = wait(reader.page(query(name, first, u64::MAX, 1_000, Order::Ascending))).events;
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}

fn query(name: &str, first: u64, last: u64, limit: usize, order: Order) -> PageQuery {
    PageQuery { topic: topic(name), first, last, limit, order }
}

fn key(name: &str, event_id: &str) -> Key {
    Key { topic: topic(name), event_id: event_id.to_owned() }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn accepted(seq: u64) -> Verdict {
    Verdict::Accepted { seq }
}

fn duplicate(seq: u64) -> Verdict {
    Verdict::Duplicate { seq, conflict: false }
}

fn conflict(seq: u64) -> Verdict {
    Verdict::Duplicate { seq, conflict: true }
}

fn seqs(page: &[StoredEvent]) -> Vec<u64> {
    page.iter().map(|stored| stored.seq).collect()
}

fn accepts_in_order(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    let engine = make(None);
    let mut writer = engine.open_writer().unwrap();
    assert_eq!(append(&mut *writer, &batch("a", &[("1", "{}"), ("2", "{}")])), [accepted(1), accepted(2)]);
    let (a, b) = (batch("a", &[("3", "{}")]), batch("b", &[("3", "{}")]));
    let verdicts = verdicts(writer.append(&[&a, &b, &batch("a", &[("4", "{}")])], at(2)));
    assert_eq!(verdicts, [vec![accepted(3)], vec![accepted(1)], vec![accepted(4)]]);
    assert_eq!(seqs(&read_all(&*engine.reader(), "a")), [1, 2, 3, 4]);
}

fn accepts_once(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    let engine = make(None);
    let mut writer = engine.open_writer().unwrap();
    let twice = batch("a", &[("x", "{}"), ("y", "{}"), ("x", "{}")]);
    assert_eq!(append(&mut *writer, &twice), [accepted(1), accepted(2), duplicate(1)]);
    let verdicts =
        verdicts(writer.append(&[&batch("a", &[("z", "{}")]), &batch("a", &[("z", "{}")])], at(2)));
    assert_eq!(verdicts, [vec![accepted(3)], vec![duplicate(3)]]);
    drop(writer);
    let mut writer = engine.open_writer().unwrap();
    assert_eq!(append(&mut *writer, &twice), [duplicate(1), duplicate(2), duplicate(1)]);
    assert_eq!(append(&mut *writer, &batch("a", &[("w", "{}")])), [accepted(4)], "no seq is left out");
}

fn reports_conflicts(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    let engine = make(None);
    let mut writer = engine.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("x", r#"{"n":1,"m":2}"#)]));
    let repeats = batch("a", &[("x", r#"{"n":2}"#), ("x", r#"{ "m":2.0, "n":1e0 }"#), ("x", r#"{"n":2}"#)]);
    let found = writer.append(&[&repeats], at(2)).unwrap().concat();
    assert!(found.iter().all(|finding| matches!(finding, Finding::Differs { seq: 1, .. })), "{found:?}");
    assert_eq!(wait(engine.reader().totals()).counts.duplicates, 0, "whoever compares counts");
    let compared = append_and_compare(&*engine, &mut *writer, (&repeats, 2));
    assert_eq!(compared, [conflict(1), duplicate(1), conflict(1)]);
    let stored = wait(engine.reader().event(key("a", "x"))).unwrap();
    assert_eq!(stored.event.payload(), r#"{"n":1,"m":2}"#);
    // Of one that is new in the same group, too.
    let pair = batch("a", &[("y", "{}"), ("y", "{ }"), ("y", "[1]")]);
    assert_eq!(
        append_and_compare(&*engine, &mut *writer, (&pair, 3)),
        [accepted(2), duplicate(2), conflict(2)]
    );
}

fn reads_payloads(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    let engine = make(None);
    let mut writer = engine.open_writer().unwrap();
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(PAGE_BYTES * 2 / 5));
    append(&mut *writer, &batch("a", &[("1", &large), ("2", "{ }"), ("3", &large), ("4", &large)]));
    append(&mut *writer, &batch("b", &[("1", "[1]")]));
    let reader = engine.reader();
    let read = |keys: &[Key]| -> Vec<_> {
        let found = wait(reader.payloads(keys)).into_iter();
        found.map(|found| found.map(|stored| (stored.seq, stored.json.len())).ok()).collect()
    };
    let whole = large.len();
    let all = [key("a", "1"), key("b", "1"), key("a", "2"), key("a", "4"), key("a", "3"), key("a", "2")];
    assert_eq!(read(&all), [Some((1, whole)), Some((1, 3)), Some((2, 3)), Some((4, whole))]);
    assert_eq!(read(&all[4..]), [Some((3, whole)), Some((2, 3))]);
    let huge = format!(r#"{{"x":"{}"}}"#, "x".repeat(PAGE_BYTES));
    append(&mut *writer, &batch("huge", &[("1", &huge)]));
    assert_eq!(read(&[key("huge", "1"), key("a", "2")]), [Some((1, huge.len()))], "one at least");
    let odd = [key("c", "1"), key("a", "2"), key("a", "9")];
    assert_eq!(read(&odd)[..2], [None, Some((2, 3))], "what is not there is said in its place");
    assert_eq!(read(&odd[2..]), [None]);
}

fn keeps_topics_apart(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    let engine = make(None);
    let mut writer = engine.open_writer().unwrap();
    assert_eq!(append(&mut *writer, &batch("a", &[("x", "{}")])), [accepted(1)]);
    assert_eq!(append(&mut *writer, &batch("A", &[("x", "{}"), ("X", "{}")])), [accepted(1), accepted(2)]);
    assert_eq!(wait(engine.reader().event(key("b", "x"))), None);
}

fn returns_bytes(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    let engine = make(None);
    let mut writer = engine.open_writer().unwrap();
    let payload = "{ \"b\":1e400,\n\"a\": 123456789012345678901234567890.10, \"☃\":\"\\u0041\\u0000\" }";
    let sent = Event::pack(Parts {
        topic: "größe",
        event_id: "id'\"; --",
        timestamp: "2026-01-01t00:00:00.123456789123Z",
        source: "söurce",
        payload,
    });
    append(&mut *writer, &Batch { topic: topic("größe"), events: vec![sent.clone()] });
    let stored = wait(engine.reader().event(key("größe", "id'\"; --"))).unwrap();
    assert_eq!(stored, StoredEvent { seq: 1, received_at: at(1), event: sent });
}

fn pages(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    let engine = make(None);
    let mut writer = engine.open_writer().unwrap();
    for number in 0..10 {
        append(&mut *writer, &batch("a", &[(&number.to_string(), "{}")]));
        append(&mut *writer, &batch("b", &[(&number.to_string(), "{}")]));
    }
    let reader = engine.reader();
    let page =
        |first, last, limit, order| seqs(&wait(reader.page(query("a", first, last, limit, order))).events);
    assert_eq!(page(1, u64::MAX, 3, Order::Ascending), [1, 2, 3]);
    assert_eq!(page(1, u64::MAX, 3, Order::Descending), [10, 9, 8]);
    assert_eq!(page(4, 6, 100, Order::Ascending), [4, 5, 6]);
    assert_eq!(page(0, 2, 100, Order::Descending), [2, 1]);
    assert_eq!(page(6, 4, 100, Order::Ascending), [0; 0]);
    assert_eq!(page(11, u64::MAX, 100, Order::Ascending), [0; 0]);
    assert_eq!(page(1 << 63, u64::MAX, 100, Order::Ascending), [0; 0]);
    assert_eq!(page(1, 10, 0, Order::Ascending), [0; 0]);
    assert_eq!(seqs(&read_all(&*reader, "unknown")), [0; 0]);

    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(PAGE_BYTES / 2));
    append(&mut *writer, &batch("large", &[("1", &large), ("2", &large), ("3", &large)]));
    let sizes = wait(reader.page(query("large", 1, u64::MAX, 100, Order::Ascending))).events;
    assert_eq!(seqs(&sizes), [1], "a page is bounded by bytes, and holds an event all the same");
    assert_eq!(seqs(&read_all(&*reader, "large")), [1, 2, 3]);
}

fn names_its_history(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    let engine = make(None);
    let mut writer = engine.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("1", "{}"), ("2", "{}")]));
    let reader = engine.reader();
    let history = wait(reader.history());
    for (name, first, events) in [("a", 1, 2), ("a", 3, 0), ("nothing", 1, 0)] {
        let page = wait(reader.page(query(name, first, u64::MAX, 10, Order::Ascending)));
        assert_eq!((page.events.len(), &page.history), (events, &history), "{name} from {first}");
    }
    drop(writer);
    drop(engine.open_writer().unwrap());
    assert_eq!(wait(reader.history()), history, "the same store, opened again");
    let kinship = |name: &str, history: &HistoryId| wait(reader.kinship(topic(name), history.clone()));
    assert_eq!(kinship("a", &history), Kinship::Same);
    assert_eq!(kinship("nothing", &history), Kinship::Same);
    assert_eq!(kinship("a", &history.successor()), Kinship::Unknown);
}

fn looks_up(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    let engine = make(None);
    let mut writer = engine.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("1", "{}"), ("2", "{}")]));
    let keys = vec![key("a", "2"), key("a", "3"), key("b", "1"), key("a", "1"), key("a", "\n")];
    let found = wait(engine.reader().lookup(keys));
    let seqs: Vec<_> = found.iter().map(|found| found.map(|found| found.seq)).collect();
    assert_eq!(seqs, [Some(2), None, None, Some(1), None]);
    assert_eq!(found[0].unwrap().received_at, at(1));
}

fn counts(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    let engine = make(None);
    let reader = engine.reader();
    let mut writer = engine.open_writer().unwrap();
    assert_eq!(wait(reader.totals()), super::Totals::default());
    let repeats = batch("b", &[("1", "{}"), ("2", "{}"), ("1", r#"{"a":1}"#), ("2", "{}")]);
    append_and_compare(&*engine, &mut *writer, (&repeats, 1));
    append(&mut *writer, &batch("a", &[("1", "{}")]));
    let answered = Counts { duplicates: 2, conflicts: 1, ..Counts::default() };
    let repeat = |conflict| Repeat { source: "test", seq: 1, conflict, late: 1 };
    engine.tally().count(&topic("a"), at(2), [repeat(true), repeat(false)].into_iter());
    engine.tally().reject(5);
    let check = |moment| {
        let totals = wait(reader.totals());
        let expected = Counts { accepted: 3, duplicates: 4, conflicts: 2, rejected: 5 };
        assert_eq!((totals.counts, totals.topics), (expected, 2), "{moment}");
        let a = wait(reader.topic(topic("a"))).unwrap();
        assert_eq!(a.counts, Counts { accepted: 1, ..answered }, "{moment}");
        let listed = wait(reader.topics(None, 10));
        assert_eq!(listed[0], a, "{moment}");
        assert_eq!((listed[1].first_seq, listed[1].last_seq), (1, 2), "{moment}");
        assert_eq!(listed[1].last_received_at, at(1), "{moment}");
    };
    check("before the counts are stored");
    writer.flush(at(9)).unwrap();
    check("after they were stored");
    drop(writer);
    let _writer = engine.open_writer().unwrap();
    check("after the writer was opened again");
    let names = |after: Option<&str>, limit| -> Vec<String> {
        let page = wait(reader.topics(after.map(str::to_owned), limit));
        page.iter().map(|found| found.topic.to_string()).collect()
    };
    assert_eq!(names(None, 1), ["a"]);
    assert_eq!(names(Some("a"), 10), ["b"]);
    assert_eq!(names(Some("b"), 10), [""; 0]);
    assert_eq!(wait(reader.topic(topic("c"))), None);
}

fn ignores_clocks(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    let engine = make(None);
    let reader = engine.reader();
    let mut writer = engine.open_writer().unwrap();
    // Among them the years 9999 and 1.
    let clock = [1_000, 1, 253_402_207_199, -1_000, -62_135_596_800, 1_000].map(at);
    for (seq, now) in (1..).zip(clock) {
        let group = batch("a", &[(&seq.to_string(), "{}"), ("1", "{}")]);
        assert_eq!(verdicts(writer.append(&[&group], now)), [[accepted(seq), duplicate(1)]], "{now}");
        let last = wait(reader.topic(topic("a"))).unwrap();
        assert_eq!(last.last_seq, seq, "{now}");
        assert_eq!(last.last_received_at, now);
        writer.flush(now).unwrap();
    }
    drop(writer);
    let mut writer = engine.open_writer().unwrap();
    assert_eq!(
        verdicts(writer.append(&[&batch("a", &[("2", "{}"), ("7", "{}")])], at(0))),
        [[duplicate(2), accepted(7)]]
    );
    let events = read_all(&*reader, "a");
    assert_eq!(seqs(&events), [1, 2, 3, 4, 5, 6, 7]);
    let times: Vec<_> = events.iter().map(|stored| stored.received_at).collect();
    assert_eq!(times, [&clock[..], &[at(0)]].concat());
}

fn limits_topics(make: &dyn Fn(Option<u64>) -> Arc<dyn Engine>) {
    let engine = make(Some(1));
    let mut writer = engine.open_writer().unwrap();
    let refused = Verdict::Refused(Refusal::TopicLimit);
    let names = [topic("z"), topic("b"), topic("z")];
    let missing = |writer: &mut dyn Writer| writer.missing(&names.each_ref()).unwrap();
    assert_eq!(missing(&mut *writer), [true, true, true]);
    // The first that comes, not the first by its name.
    let (z, b) = (batch("z", &[("1", "{}")]), batch("b", &[("1", "{}"), ("2", "{}")]));
    assert_eq!(verdicts(writer.append(&[&z, &b], at(1))), [vec![accepted(1)], vec![refused, refused]]);
    assert_eq!(append(&mut *writer, &b), [refused, refused]);
    assert_eq!(append(&mut *writer, &batch("z", &[("2", "{}")])), [accepted(2)]);
    assert_eq!(missing(&mut *writer), [false, true, false]);
    drop(writer);
    assert_eq!(missing(&mut *engine.open_writer().unwrap()), [false, true, false], "without its memory");
    assert_eq!(wait(engine.reader().topic(topic("b"))), None);
    let totals = wait(engine.reader().totals());
    assert_eq!(totals.topics, 1);
    assert_eq!(
        totals.counts,
        Counts { accepted: 2, rejected: 4, ..Counts::default() },
        "refused is rejected"
    );
}
