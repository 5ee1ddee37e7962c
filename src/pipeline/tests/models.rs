//! Lanes with their hot caches and replies, under many orders of what consumers and the writer do: the very code, with
//! its real locks, in the turns that shuttle gives to its threads.
//!
//! `SEKALI_SCHEDULES=1000000` tries as many orders of each kind (default 1,500), `SEKALI_CRASH_SEED` repeats them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::thread;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::event;
use super::scheduled::{explore, moment};
use crate::domain::{Address, Event, Second, Topic, Verdict};
use crate::metrics::Metrics;
use crate::pipeline::hot_cache::{Hasher, HotCache, Known, Room, Waiter};
use crate::pipeline::lane::{Doubts, Lane, Part, Shared};
use crate::pipeline::messages::Share;
use crate::pipeline::reply::{Outcome, Reply};
use crate::pipeline::{Budget, PublishError};
use crate::store::{Batch, Decision, Finding};
use crate::testing::say::{given, say};

/// A decision of which nobody asks when.
fn decision(verdict: Verdict) -> Decision {
    Decision { verdict, stored_at: Second(1) }
}

/// Orders of each kind where nothing else is said.
const SCHEDULES: usize = 1_500;

/// How many turns a schedule of the second kind changes for the worse; most faults of this sort need two or three.
const DEPTH: usize = 3;

const TOPICS: [&str; 2] = ["a", "b"];
const IDS: [&str; 3] = ["1", "2", "3"];
const PAYLOADS: [&str; 2] = ["{}", "[]"];

/// Threads that ask, as consumers do, and what each asks for.
const ASKERS: usize = 2;
const REQUESTS: usize = 3;

/// What the store holds, who waits for an answer, and what may go wrong.
struct World {
    lanes: Vec<Arc<Lane>>,
    room: Arc<Room>,
    room_keys: usize,
    hasher: Hasher,
    metrics: Arc<Metrics>,
    era: Arc<AtomicU64>,
    faults: bool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// By topic and id: seq and payload.
    stored: HashMap<(String, String), (u64, String)>,
    /// Events of which somebody was told an error, or may be.
    failed: HashSet<(String, String)>,
    accepted: HashSet<(String, String)>,
    waiting: Vec<(Vec<Event>, oneshot::Receiver<Outcome>)>,
}

fn key(event: &Event) -> (String, String) {
    (event.topic().to_owned(), event.event_id().to_owned())
}

impl World {
    fn new(metrics: &Arc<Metrics>, faults: bool) -> Arc<Self> {
        let (room_keys, hasher) = (thread_rng().gen_range(0..4), Hasher::of(&thread_rng().r#gen()));
        let (room, era) = (Arc::new(Room::new(room_keys)), Arc::<AtomicU64>::default());
        let shared = Shared {
            hasher: hasher.clone(),
            tally: Arc::default(),
            era: Arc::clone(&era),
            metrics: Arc::clone(metrics),
        };
        let lane = |name| {
            let cache = HotCache::new(thread_rng().gen_range(0..4), Arc::clone(&room));
            Arc::new(Lane::new(Topic::parse(name).unwrap(), cache, shared.clone()))
        };
        let lanes = TOPICS.into_iter().map(lane).collect();
        let (metrics, seen) = (Arc::clone(metrics), Mutex::default());
        Arc::new(Self { lanes, room, room_keys, hasher, metrics, era, faults, seen })
    }

    /// Asks the lanes for the events of a request; gives what they could not decide.
    fn ask(&self, events: Vec<Event>) -> Vec<(Batch, Part)> {
        let (reply, receiver) =
            Reply::new(events.len(), Budget::new(1, 1).permit(Address::UNKNOWN), Arc::clone(&self.metrics));
        self.seen.lock().unwrap().waiting.push((events.clone(), receiver));
        let mut shares: Vec<_> = self.lanes.iter().map(|_| Share::default()).collect();
        for (index, event) in (0..).zip(events) {
            let share = &mut shares[usize::from(event.topic() != TOPICS[0])];
            share.events.push(event);
            share.indexes.push(index);
        }
        let asked = self.lanes.iter().zip(shares).filter(|(_, share)| !share.events.is_empty());
        asked.filter_map(|(lane, share)| lane.decide(share, &reply)).collect()
    }

    /// Judges the answers that have come.
    ///
    /// invariants 1 and 2: what is said to be stored is stored at that moment.
    fn look(&self) {
        moment();
        let mut seen = self.seen.lock().unwrap();
        let waiting = std::mem::take(&mut seen.waiting);
        for (events, mut receiver) in waiting {
            match receiver.try_recv() {
                Ok(Ok(verdicts)) => seen.judge(&events, &verdicts),
                Ok(Err(error)) => {
                    let held = events.iter().any(|event| seen.failed.contains(&key(event)));
                    assert!(held, "nothing of {events:?} failed, and the answer is {error:?}");
                }
                Err(TryRecvError::Empty) => seen.waiting.push((events, receiver)),
                Err(TryRecvError::Closed) => panic!("no answer for {events:?}"),
            }
        }
    }

    /// What a writer does with one group: all of it is stored or not, then each part is settled, or left to be compared.
    fn commit(&self, group: Vec<(Batch, Part)>, comparer: &Sender<Doubts>) {
        let fate = if self.faults { thread_rng().gen_range(0..8) } else { 0 };
        let (is_stored, is_told) = match fate {
            0..5 => (true, true),
            5 | 6 => (true, false),
            _ => (false, false),
        };
        let mut outcomes = Vec::new();
        for (batch, _) in &group {
            let mut seen = self.seen.lock().unwrap();
            let findings = if is_stored { seen.store(batch) } else { Vec::new() };
            if !is_told {
                seen.fail(batch);
            }
            outcomes.push(findings);
        }
        for ((batch, part), findings) in group.into_iter().zip(outcomes) {
            self.look();
            let outcome = match fate {
                0..5 => Ok(findings),
                5 => Err(PublishError::Unavailable("on purpose".to_owned())),
                // Whoever held it has died.
                _ => continue,
            };
            if let Some(doubts) = part.settle(batch.events, outcome) {
                comparer.send(doubts).unwrap();
            }
        }
    }

    /// A comparer: settles some events at a time, of which a few cannot be compared, or dies. Now and then the store is
    /// another one by then.
    fn run_comparer(&self, from: &Receiver<Doubts>) {
        while let Ok(mut doubts) = from.recv() {
            while doubts.len() > 0 {
                self.look();
                let fate = if self.faults { thread_rng().gen_range(0..8) } else { 0 };
                if fate == 5 {
                    self.era.fetch_add(1, Ordering::SeqCst);
                }
                let has_changed = self.era.load(Ordering::SeqCst) > 0;
                let some = thread_rng().gen_range(1..=doubts.len());
                let mut outcomes = Vec::new();
                let mut seen = self.seen.lock().unwrap();
                for (seq, event) in doubts.events().take(some) {
                    let (stored, payload) = &seen.stored[&key(event)];
                    assert_eq!(*stored, seq);
                    let conflict = payload != event.payload();
                    if fate > 5 || has_changed {
                        seen.failed.insert(key(event));
                    }
                    let error = PublishError::Unavailable("on purpose".to_owned());
                    outcomes.push(if fate == 6 { Err(error) } else { Ok(conflict) });
                }
                if fate == 7 {
                    seen.failed.extend(doubts.events().map(|(_, event)| key(event)));
                    break;
                }
                drop(seen);
                doubts.settle(&outcomes);
            }
        }
    }

    /// A consumer: sends requests, of which a few are lost on their way to the writer.
    fn run_asker(&self, writer: &Sender<Vec<(Batch, Part)>>) {
        for _ in 0..REQUESTS {
            let events = (0..thread_rng().gen_range(1..4)).map(|_| any_event()).collect();
            let undecided = self.ask(events);
            if self.faults && thread_rng().gen_range(0..8) == 0 {
                for (batch, part) in undecided {
                    self.seen.lock().unwrap().fail(&batch);
                    self.look();
                    drop(part);
                }
            } else {
                writer.send(undecided).unwrap();
            }
            self.look();
        }
    }

    fn run_writer(&self, from: &Receiver<Vec<(Batch, Part)>>, comparer: &Sender<Doubts>) {
        while let Ok(mut group) = from.recv() {
            while let Ok(more) = from.try_recv() {
                group.extend(more);
            }
            self.commit(group, comparer);
        }
    }

    /// When nothing moves any more: everyone is answered, nothing is marked, and what is known is what is stored.
    fn check_at_rest(&self) {
        self.look();
        assert_eq!(self.seen.lock().unwrap().waiting.len(), 0, "somebody waits for ever");
        for (topic, id, payload) in all_events() {
            let asked = event(topic, id, payload);
            let left = self.ask(vec![asked.clone()]);
            self.look();
            let is_answered = self.seen.lock().unwrap().waiting.is_empty();
            assert_eq!(is_answered, left.is_empty(), "{asked:?} waits for a commit that nobody makes");
            for (batch, part) in left {
                self.seen.lock().unwrap().fail(&batch);
                drop(part);
            }
            self.look();
        }
    }

    /// When the caches are gone: as much room as there was.
    fn check_room(self: Arc<Self>) {
        let world = Arc::into_inner(self).expect("nobody else holds it");
        for lane in world.lanes {
            drop(Arc::into_inner(lane).expect("no part is left"));
        }
        let cache = HotCache::new(99, world.room);
        let keys: Vec<_> = (0..=world.room_keys)
            .map(|id| world.hasher.key(&event(TOPICS[0], &id.to_string(), PAYLOADS[0])))
            .collect();
        let nobody = || -> Waiter { panic!("nobody is being waited for") };
        for key in &keys {
            assert_eq!(cache.ask(*key, nobody), Known::Marked);
            cache.settle(*key, Some(decision(Verdict::Accepted { seq: 1 })));
        }
        let known = keys.into_iter().filter(|key| matches!(cache.ask(*key, nobody), Known::Stored(_)));
        assert_eq!(known.count(), world.room_keys, "room that was taken is given back, once");
    }
}

impl Seen {
    fn judge(&mut self, events: &[Event], verdicts: &[Verdict]) {
        for (event, verdict) in events.iter().zip(verdicts) {
            let Some((seq, payload)) = self.stored.get(&key(event)) else {
                panic!("{event:?} is not stored, and the answer is {verdict:?}");
            };
            let is_same = payload == event.payload();
            match verdict {
                Verdict::Accepted { seq: said } => {
                    assert!(is_same && said == seq, "{event:?} is {seq} {payload}, not {verdict:?}");
                    assert!(self.accepted.insert(key(event)), "{event:?} is accepted twice");
                }
                Verdict::Duplicate { seq: said, conflict } => {
                    assert!(
                        said == seq && *conflict != is_same,
                        "{event:?} is {seq} {payload}, not {verdict:?}"
                    );
                }
                Verdict::Refused(_) => panic!("nothing limits topics"),
            }
        }
    }

    /// Stores what is new of a batch, as every store does.
    fn store(&mut self, batch: &Batch) -> Vec<Finding> {
        let mut append = |event: &Event| {
            let topic = self.stored.keys().filter(|(topic, _)| topic == event.topic());
            let next = topic.count() as u64 + 1;
            if let Some((seq, payload)) = self.stored.get(&key(event)) {
                if payload != event.payload() {
                    return Finding::Differs { seq: *seq, stored_at: Second(1) };
                }
                return Finding::Decided(decision(Verdict::Duplicate { seq: *seq, conflict: false }));
            }
            self.stored.insert(key(event), (next, event.payload().to_owned()));
            Finding::Decided(decision(Verdict::Accepted { seq: next }))
        };
        batch.events.iter().map(&mut append).collect()
    }

    fn fail(&mut self, batch: &Batch) {
        self.failed.extend(batch.events.iter().map(key));
    }
}

fn all_events() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let with_ids = TOPICS.into_iter().flat_map(|topic| IDS.map(|id| (topic, id)));
    with_ids.flat_map(|(topic, id)| PAYLOADS.map(|payload| (topic, id, payload)))
}

fn any_event() -> Event {
    let pick = |from: &[&'static str]| from[thread_rng().gen_range(0..from.len())];
    event(pick(&TOPICS), pick(&IDS), pick(&PAYLOADS))
}

/// Consumers that ask, a writer that settles and a comparer that settles the rest, until everything is settled.
fn model(metrics: &Arc<Metrics>, faults: bool) {
    let world = World::new(metrics, faults);
    let (to_writer, from_askers) = channel();
    let askers: Vec<_> = (0..ASKERS)
        .map(|_| {
            let (world, to_writer) = (Arc::clone(&world), to_writer.clone());
            thread::spawn(move || world.run_asker(&to_writer))
        })
        .collect();
    drop(to_writer);
    let (to_comparer, from_writer) = channel();
    let comparing = Arc::clone(&world);
    let comparer = thread::spawn(move || comparing.run_comparer(&from_writer));
    world.run_writer(&from_askers, &to_comparer);
    drop(to_comparer);
    comparer.join().unwrap();
    for asker in askers {
        asker.join().unwrap();
    }
    world.check_at_rest();
    world.check_room();
}

/// Runs the model in random orders, and in orders that let one thread wait for long.
fn explore_both(faults: bool) {
    let schedules = given("SEKALI_SCHEDULES").unwrap_or(SCHEDULES);
    let seed = given("SEKALI_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    say(&format!("models: {schedules} schedules of each kind, SEKALI_CRASH_SEED={seed}"));
    let metrics = Arc::new(Metrics::new());
    let shared = Arc::clone(&metrics);
    explore(RandomScheduler::new_from_seed(seed, schedules), move || model(&shared, faults));
    explore(PctScheduler::new_from_seed(seed, DEPTH, schedules), move || model(&metrics, faults));
}

// invariant 2: in every order of steps a waiter is answered once, after the commit; invariant 7: what was forgotten is
// asked for again, and nothing is invented.
#[test]
fn in_any_order_everyone_is_answered_once_and_truly() {
    explore_both(false);
}

// invariant 5: in every order of steps an error reaches everyone who waits for what failed, and nobody else.
#[test]
fn in_any_order_a_failure_reaches_who_waits_for_it_and_leaves_nothing_behind() {
    explore_both(true);
}
