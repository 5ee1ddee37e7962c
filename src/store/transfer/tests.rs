//! Copies between every two engines: whole, broken off, repeated.

mod refusals;

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use rusqlite::Connection;
use tempfile::TempDir;

use super::{TransferError, Transferred, transfer};
use crate::config::{Overrides, Settings, load};
use crate::domain::{Second, StoredEvent, Verdict};
use crate::store::contract::{append_and_compare, event_from, read_all, topic, wait};
use crate::store::postgres::tests::server::Database;
use crate::store::{
    Batch, Doctor, Engine, Finding, Progress, Repeat, Repeats, StoreError, TopicSources, Totals, Writer, open,
};

/// Topics of the stores that are copied, not in the order of their bytes.
const TOPICS: [&str; 5] = ["z", "größe", "a", "A", "b"];

/// Groups that are appended to each of them.
const GROUPS: i64 = 12;

/// Where a store is.
enum Place {
    File(TempDir),
    Shared(Database),
}

/// All that can be read of a store.
#[derive(Debug, PartialEq)]
struct Content {
    totals: Totals,
    topics: Vec<TopicSources>,
    events: Vec<Vec<StoredEvent>>,
    repeats: Vec<Option<Repeats>>,
}

impl Place {
    fn file() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    /// Every two engines of which there is a server; says so where there is none.
    fn pairs() -> Vec<[Self; 2]> {
        let mut pairs = vec![[Self::file(), Self::file()]];
        if let [Some(one), Some(other)] = [Database::fresh(), Database::fresh()] {
            pairs.push([Self::file(), Self::Shared(one)]);
            pairs.push([Self::Shared(other), Self::file()]);
        }
        if let [Some(one), Some(other)] = [Database::fresh(), Database::fresh()] {
            pairs.push([Self::Shared(one), Self::Shared(other)]);
        }
        pairs
    }

    fn url(&self) -> String {
        match self {
            Self::File(directory) => format!("sqlite:{}", directory.path().join("made/log.db").display()),
            Self::Shared(database) => database.url(),
        }
    }

    fn settings(&self) -> Settings {
        let overrides = Overrides { store: Some(self.url()), ..Overrides::default() };
        let mut settings = load(None, &overrides).unwrap();
        // So that there are runs, and merges of them.
        settings.store.seal_keys = 3;
        settings
    }

    fn open(&self) -> Arc<dyn Engine> {
        open(&self.settings()).unwrap()
    }

    /// Runs SQL in it, in which S. is the schema.
    fn run(&self, sql: &str) {
        match self {
            Self::File(directory) => {
                let connection = Connection::open(directory.path().join("made/log.db")).unwrap();
                connection.execute_batch(&sql.replace("S.", "")).unwrap();
            }
            Self::Shared(database) => drop(database.run(&sql.replace("S.", "sekali."))),
        }
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Appends groups of each topic at a second each, with repeats, conflicts, several sources, and a clock that is set back once.
fn fill(place: &Place, groups: std::ops::Range<i64>) {
    let engine = place.open();
    let mut writer = engine.open_writer().unwrap();
    for group in groups {
        let second = if group == 7 { 1_020 } else { 1_000 + 10 * group };
        let payload = format!(r#"{{"n":{group},"x":"{}"}}"#, "ü".repeat(20));
        let sent = [
            ("one", format!("{group}"), payload.as_str()),
            ("one", format!("{}", group / 2), r#"{"n":-1}"#),
            (["two", "three", "four"][usize::try_from(group % 3).unwrap()], format!("more {group}"), "{}"),
            ("late", "more 0".to_owned(), "{}"),
        ];
        let batches = TOPICS.map(|name| {
            let event = |(source, id, payload): &(&str, String, &str)| event_from(source, name, id, payload);
            Batch { topic: topic(name), events: sent.iter().map(event).collect() }
        });
        for batch in &batches {
            append_and_compare(&*engine, &mut *writer, (batch, second));
        }
    }
    engine.tally().reject(3);
    engine.tally().count(
        &topic("a"),
        at(5_000),
        [Repeat { source: "cached", seq: 2, conflict: true, late: 4_000 }].into_iter(),
    );
    writer.flush(at(5_000)).unwrap();
    writer.close().unwrap();
}

fn content(place: &Place) -> Content {
    let engine = place.open();
    let reader = engine.reader();
    // What was repeated comes back with the writer.
    let _writer = engine.open_writer().unwrap();
    let counted = wait(reader.topics(None, 1_000));
    let names: Vec<_> = counted.into_iter().map(|counted| counted.topic).collect();
    let events: Vec<_> = names.iter().map(|name| read_all(&*reader, name.as_str())).collect();
    let all =
        names.iter().zip(&events).flat_map(|(name, events)| events.iter().map(move |it| (name, it.seq)));
    Content {
        totals: wait(reader.totals()),
        repeats: all.map(|(name, seq)| wait(reader.repeats(name.clone(), seq))).collect(),
        topics: names.iter().map(|name| wait(reader.sources(name.clone())).unwrap()).collect(),
        events,
    }
}

fn copy(from: &Place, to: &Place) -> Result<Transferred, TransferError> {
    transfer(&from.settings(), &to.settings(), &|_| (), &AtomicBool::new(false))
}

/// Copies until this says that it is enough.
fn copy_until(
    from: &Place,
    to: &Place,
    is_enough: impl Fn(Progress) -> bool,
) -> Result<Transferred, TransferError> {
    let stop = AtomicBool::new(false);
    let tell = |progress| stop.store(is_enough(progress), Ordering::Relaxed);
    transfer(&from.settings(), &to.settings(), &tell, &stop)
}

/// Checks that every key is known where it was copied to, since when, and that seqs go on.
fn goes_on(place: &Place, content: &Content) {
    let engine = place.open();
    let mut writer = engine.open_writer().unwrap();
    for events in &content.events {
        let name = topic(events[0].event.topic());
        let repeats =
            Batch { topic: name.clone(), events: events.iter().map(|it| it.event.clone()).collect() };
        let new = Batch { topic: name.clone(), events: vec![event_from("x", name.as_str(), "new", "{}")] };
        let decided = writer.append(&[&repeats, &new], at(9_000)).unwrap();
        for (stored, found) in events.iter().zip(&decided[0]) {
            let verdict = Verdict::Duplicate { seq: stored.seq, conflict: false };
            assert_eq!(*found, Finding::decided(verdict, Second::of(stored.received_at)), "{stored:?}");
        }
        let accepted = Verdict::Accepted { seq: events.len() as u64 + 1 };
        assert_eq!(decided[1][0].verdict(), Some(accepted));
    }
}

fn is_healthy(place: &Place) {
    if let Place::File(_) = place {
        let report = Doctor::open(&place.settings()).unwrap().inspect(&|_| ()).unwrap();
        // What a seal or a merge leaves that was not finished is no fault, and is noted.
        let is_half = report.notes.iter().any(|note| note.contains("half"));
        assert!(report.is_healthy() && !is_half, "{report:?}");
    }
}

#[test]
fn a_copy_is_the_same_store_and_a_second_one_copies_what_came_since() {
    for [from, to] in Place::pairs() {
        let pair = format!("{} to {}", from.url(), to.url());
        fill(&from, 0..GROUPS / 2);
        let first = content(&from);
        let copied = copy(&from, &to).unwrap();
        assert_eq!((copied.copied, copied.topics), (first.totals.counts.accepted, 5), "{pair}");
        assert!(copied.duplicates > copied.conflicts && copied.conflicts > 0 && copied.rejected == 3);
        assert_eq!(content(&to), first, "{pair}");
        is_healthy(&to);
        assert_eq!(copy(&from, &to).unwrap(), Transferred { copied: 0, ..copied }, "{pair}");
        assert_eq!(content(&to), first, "{pair}");

        fill(&from, GROUPS / 2..GROUPS);
        let second = content(&from);
        let more = copy(&from, &to).unwrap();
        let new = second.totals.counts.accepted - first.totals.counts.accepted;
        assert_eq!((more.copied, more.events), (new, second.totals.counts.accepted), "{pair}");
        assert_eq!(content(&to), second, "{pair}");
        is_healthy(&to);
        if let [Place::File(_), Place::File(directory)] = [&from, &to] {
            let store = Connection::open(directory.path().join("made/log.db")).unwrap();
            let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
            let marks = store.query_row("SELECT count(*) FROM times", [], count).unwrap();
            assert!(
                marks < 2 * GROUPS + 10,
                "{pair}: {marks} marks, as the events came about as they were stored"
            );
        }
        goes_on(&to, &second);
    }
}

/// Copies until this says that it is enough, which leaves half a copy; gives how many events are there then.
fn break_off(from: &Place, to: &Place, is_enough: impl Fn(Progress) -> bool) -> u64 {
    let done = Cell::new(0);
    let ended = copy_until(from, to, |progress| {
        done.set(progress.done);
        is_enough(progress)
    });
    assert!(matches!(ended, Err(TransferError::Interrupted)), "{ended:?}");
    let served = open(&to.settings()).map(drop);
    assert!(matches!(served, Err(StoreError::HalfCopied { .. })), "{served:?}");
    let onwards = copy(to, from);
    assert!(matches!(onwards, Err(TransferError::Origin(StoreError::HalfCopied { .. }))), "{onwards:?}");
    done.get()
}

#[test]
fn a_copy_that_was_broken_off_anywhere_goes_on_and_is_not_served_before() {
    for [from, to] in Place::pairs() {
        fill(&from, 0..GROUPS);
        let whole = content(&from);
        let (mut runs, mut done) = (0, 0);
        while done < whole.totals.counts.accepted {
            let transactions = Cell::new(-1);
            let now = break_off(&from, &to, |_| transactions.replace(transactions.get() + 1) == 1);
            assert!(now > done, "it goes on");
            (runs, done) = (runs + 1, now);
        }
        assert!(runs > 5, "{runs} runs");
        break_off(&from, &to, |progress| progress.stage == "counting");
        break_off(&from, &to, |progress| progress.stage == "comparing");
        if let Place::File(_) = to {
            let report = Doctor::open(&to.settings()).unwrap().inspect(&|_| ()).unwrap();
            let is_half = report.notes.iter().any(|note| note.contains("half a copy"));
            assert!(report.is_healthy() && is_half, "{report:?}");
        }
        assert_eq!(copy(&from, &to).unwrap().copied, 0);
        assert_eq!(content(&to), whole);
        is_healthy(&to);
        goes_on(&to, &whole);
    }
}

#[test]
fn what_changes_behind_a_copy_is_seen_before_it_is_called_whole() {
    for [from, to] in Place::pairs() {
        fill(&from, 0..4);
        let name = if let Place::File(_) = to { "name" } else { "topic" };
        let wrong = copy_until(&from, &to, |progress| {
            if progress.stage == "comparing" {
                to.run(&format!("UPDATE S.topics SET last_received_at = 0 WHERE {name} = 'b'"));
            }
            false
        });
        assert!(matches!(wrong, Err(TransferError::Wrong(_))), "{wrong:?}");
        let refused = open(&to.settings()).map(drop);
        assert!(matches!(refused, Err(StoreError::HalfCopied { .. })), "{refused:?}");
    }
}

/// Appends an event to an old topic and one to a new one, in one commit.
fn go_on(writer: &mut dyn Writer, number: u64) {
    let names = ["a".to_owned(), format!("new {number}")];
    let batches = names.each_ref().map(|name| {
        let event = event_from("x", name, &format!("meanwhile {number}"), "{}");
        Batch { topic: topic(name), events: vec![event] }
    });
    writer.append(&batches.each_ref(), at(8_000)).unwrap();
}

#[test]
fn nodes_go_on_while_their_database_is_copied_and_the_copy_is_of_one_moment() {
    for [from, to] in Place::pairs() {
        let Place::Shared(_) = from else { continue };
        fill(&from, 0..4);
        let engine = from.open();
        let writer = RefCell::new(engine.open_writer().unwrap());
        let sent = Cell::new(0);
        let append_one_more = || {
            sent.set(sent.get() + 1);
            go_on(&mut **writer.borrow_mut(), sent.get());
        };
        let broken_off = copy_until(&from, &to, |_| {
            append_one_more();
            sent.get() == 3
        });
        assert!(matches!(broken_off, Err(TransferError::Interrupted)), "{broken_off:?}");
        let copied = copy_until(&from, &to, |_| {
            append_one_more();
            false
        })
        .unwrap();

        // The same up to the moment that the copy is of.
        let same = Place::file();
        fill(&same, 0..4);
        let until_then = (copied.events - content(&same).totals.counts.accepted) / 2;
        assert!((4..sent.get()).contains(&until_then), "{until_then} of {}", sent.get());
        let shadow = same.open();
        let mut shadowing = shadow.open_writer().unwrap();
        (1..=until_then).for_each(|number| go_on(&mut *shadowing, number));
        drop((shadowing, shadow));
        assert_eq!(content(&to).topics, content(&same).topics);
        assert!(content(&to) == content(&same), "events and repeats too");

        drop((writer, engine));
        assert_eq!(copy(&from, &to).unwrap().copied, 2 * (sent.get() - until_then));
        assert!(content(&to) == content(&from));
        is_healthy(&to);
    }
}

#[test]
fn an_event_that_is_missing_in_a_database_is_named_and_nothing_is_called_whole() {
    let Some(database) = Database::fresh() else { return };
    let from = Place::Shared(database);
    fill(&from, 0..4);
    for seq in [8, 3, 1] {
        from.run(&format!("DELETE FROM S.events WHERE topic = 'b' AND seq = {seq}"));
        let text = copy(&from, &Place::file()).unwrap_err().to_string();
        assert!(text.contains(&format!("topic b: seq {seq} is missing")), "{text}");
    }
}

#[test]
fn a_connection_that_is_lost_breaks_the_copy_off_and_it_goes_on() {
    for is_target in [true, false] {
        let Some(database) = Database::fresh() else { return };
        let (file, shared) = (Place::file(), Place::Shared(database));
        let [from, to] = if is_target { [&file, &shared] } else { [&shared, &file] };
        fill(from, 0..GROUPS);
        let Place::Shared(database) = &shared else { unreachable!() };
        let lost = copy_until(from, to, |progress| {
            if progress.done > 20 {
                database.disconnect();
            }
            false
        });
        // What a connection was sent before it was lost may be the rest of all.
        if is_target || lost.is_err() {
            let text = lost.unwrap_err().to_string();
            assert!(text.contains("the same command goes on"), "{text}");
        }
        copy(from, to).unwrap();
        assert_eq!(content(to), content(from));
    }
}

#[test]
fn sources_past_the_limit_of_the_target_are_counted_together() {
    for [from, to] in Place::pairs() {
        fill(&from, 0..GROUPS);
        let mut few = to.settings();
        few.limits.sources = 2;
        transfer(&from.settings(), &few, &|_| (), &AtomicBool::new(false)).unwrap();
        let (there, here) = (content(&from), content(&to));
        for (there, here) in there.topics.iter().zip(&here.topics) {
            assert_eq!(here.topic, there.topic);
            let names: Vec<_> = here.named.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["late", "one"], "those that sent most");
            let mut other = there.other;
            for (name, counts) in &there.named {
                if !names.contains(&name.as_str()) {
                    other += *counts;
                }
            }
            assert_eq!(here.other, other);
        }
    }
}

#[test]
fn a_copy_names_the_server_of_its_history_before_any_node_writes_to_it() {
    // invariant 11: else a dump of the copy, restored after events were stored in the copy, would go unnoticed.
    let Some(database) = Database::fresh() else { return };
    let (from, to) = (Place::file(), Place::Shared(database));
    fill(&from, 0..2);
    copy(&from, &to).unwrap();
    let Place::Shared(database) = &to else { unreachable!() };
    let last = "SELECT server IS NOT NULL FROM sekali.histories ORDER BY number DESC LIMIT 1";
    assert_eq!(database.run(last), "t");
    let copied = content(&to);
    let current = "SELECT id FROM sekali.histories ORDER BY number DESC LIMIT 1";
    let before = database.run(current);
    goes_on(&to, &copied);
    assert_eq!(database.run(current), before, "the first node is on the same server");
}
