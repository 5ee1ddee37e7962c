//! Counts that wait in memory to be stored, twice a second: duplicates by topic and source, and rejected events.
//!
//! They are counted before the answer and stored within a second, yet a reader must count each exactly once,
//! whether it is still here, on its way, or stored. So each lot that the writer takes has an epoch, stored in
//! the same transaction, and a reader looks here first and into the store after that: the store's epoch
//! tells which of the lots it saw here are in the store already. Where one of them was stored in parts, it does not, and the
//! reader looks again.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use jiff::Timestamp;

use super::repeated::Repeated;
use super::sources::{Repeat, Sources};
use crate::domain::{Counts, Topic};

/// Sources of all topics together past which a lot is taken with the next commit: about 3 MiB, which a commit stores
/// in some 50 ms.
const MANY_SOURCES: usize = 16_384;

/// The most sources that wait: where the store cannot take them, further ones are counted with the others of their topic.
const MOST_SOURCES: usize = 2 * MANY_SOURCES;

/// Counts that wait in memory to be stored. Bounded by the topics that are repeated within half a second, and by
/// a number of sources.
#[derive(Debug)]
pub struct Tally {
    state: Mutex<State>,
    repeated: Mutex<Repeated>,
}

#[derive(Debug, Default)]
struct State {
    pending: Lot,
    /// What the writer took and did not yet report on.
    taken: Option<Arc<Lot>>,
    /// The epoch of the lot that was taken last.
    epoch: u64,
    /// The epoch of the last lot that left something behind.
    parted: u64,
}

/// Duplicates by topic and source, and events of no topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lot {
    pub(super) topics: HashMap<Topic, Sources, RandomState>,
    pub(super) rejected: u64,
    /// How many sources all topics have together.
    sources: usize,
}

/// What was not stored yet at one moment, to be read against a store's epoch.
#[derive(Debug)]
pub(super) struct Snapshot {
    pending: Lot,
    taken: Option<Arc<Lot>>,
    epoch: u64,
}

impl Tally {
    /// Nothing that waits, and a list of so many events that were repeated most recently.
    #[must_use]
    pub fn new(repeated: usize) -> Self {
        Self { state: Mutex::default(), repeated: Mutex::new(Repeated::new(repeated)) }
    }

    /// Counts repeats of a topic's events that came now. There has to be one.
    pub fn count<'a>(&self, topic: &Topic, now: Timestamp, repeats: impl Iterator<Item = Repeat<'a>>) {
        let mut state = self.lock();
        let mut repeated = self.repeated();
        let mut list = repeated.entry(topic, now);
        state.pending.change(topic, |sources, limit| {
            for repeat in repeats {
                sources.count(repeat, limit);
                list.count(repeat);
            }
        });
    }

    /// Counts events that were not valid.
    pub fn reject(&self, events: u64) {
        self.lock().pending.rejected += events;
    }

    /// What waits, or is not known to be stored: when nothing more is stored, so much is lost at most.
    #[must_use]
    pub fn waiting(&self) -> Counts {
        let state = self.lock();
        let mut sum = state.pending.sum();
        sum += state.taken.as_ref().map(|taken| taken.sum()).unwrap_or_default();
        sum
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().pending == Lot::default()
    }

    /// The topics of which something waits.
    pub(super) fn topics(&self) -> Vec<Topic> {
        self.lock().pending.topics.keys().cloned().collect()
    }

    /// Whether so much waits that it should not wait for its time.
    pub(super) fn is_large(&self) -> bool {
        self.lock().pending.sources >= MANY_SOURCES
    }

    /// The events that were repeated most recently.
    pub(super) fn repeated(&self) -> MutexGuard<'_, Repeated> {
        self.repeated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to count for a store whose last stored epoch is this one: what the last writer took is settled.
    pub(super) fn resume(&self, stored: u64) {
        let mut state = self.lock();
        if let Some(taken) = state.taken.take()
            && state.epoch > stored
        {
            state.pending.add(&taken);
        }
        state.epoch = state.epoch.max(stored);
    }

    /// Begins as a node that the store does not know. Of what was taken it will never tell what became: that may be lost, and is
    /// not counted twice.
    pub(super) fn begin_anew(&self) {
        self.lock().taken = None;
        self.repeated().forget();
    }

    /// Takes all that is pending for a transaction, with the epoch to store with it; `None` if nothing is.
    pub(super) fn take(&self) -> Option<(u64, Arc<Lot>)> {
        self.take_lot(mem::take)
    }

    /// The same without what is of other topics than these.
    pub(super) fn take_of(&self, topics: &HashSet<String>) -> Option<(u64, Arc<Lot>)> {
        self.take_lot(|pending| {
            let rest = pending.topics.extract_if(|topic, _| !topics.contains(topic.as_str())).collect();
            let rest = Lot { topics: rest, ..Lot::default() }.counted();
            mem::replace(pending, rest).counted()
        })
    }

    fn take_lot(&self, part: impl FnOnce(&mut Lot) -> Lot) -> Option<(u64, Arc<Lot>)> {
        let mut state = self.lock();
        debug_assert!(state.taken.is_none(), "the writer settles one lot before it takes the next");
        let lot = Arc::new(part(&mut state.pending));
        if *lot == Lot::default() {
            return None;
        }
        state.epoch += 1;
        if state.pending != Lot::default() {
            state.parted = state.epoch;
        }
        state.taken = Some(Arc::clone(&lot));
        Some((state.epoch, lot))
    }

    /// The lot that was taken is stored.
    pub(super) fn stored(&self) {
        self.lock().taken = None;
    }

    /// The lot that was taken is known not to be stored. Its epoch is not used again, because a reader may
    /// have seen it.
    pub(super) fn put_back(&self) {
        let mut state = self.lock();
        if let Some(taken) = state.taken.take() {
            state.pending.add(&taken);
        }
    }

    /// What is not stored now. Take it before the read transaction begins.
    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        Snapshot { pending: state.pending.clone(), taken: state.taken.clone(), epoch: state.epoch }
    }

    /// As [`Tally::snapshot`], of one topic alone: many others may wait.
    pub(super) fn snapshot_of(&self, topic: &Topic) -> Snapshot {
        let state = self.lock();
        let taken = state.taken.as_ref().map(|taken| Arc::new(taken.only(topic)));
        Snapshot { pending: state.pending.only(topic), taken, epoch: state.epoch }
    }

    /// Whether the epoch of a store, which was read after the snapshot was taken, tells what of it is stored. It does not where
    /// a lot after it has left something behind: a new snapshot will.
    pub(super) fn tells(&self, snapshot: &Snapshot, stored: u64) -> bool {
        stored <= snapshot.epoch || self.lock().parted <= snapshot.epoch
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is whole, also where its thread panics afterwards.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Tally {
    /// As many events as config/default.toml says.
    fn default() -> Self {
        Self::new(10_000)
    }
}

impl Snapshot {
    /// What a store with this epoch does not contain of it, where the epoch tells that.
    pub(super) fn missing_from(self, stored: u64) -> Lot {
        let mut lot = if stored > self.epoch { Lot::default() } else { self.pending };
        if let Some(taken) = self.taken
            && stored < self.epoch
        {
            lot.add(&taken);
        }
        lot
    }
}

impl Lot {
    /// Changes the sources of a topic, of which there may be so many then.
    fn change(&mut self, topic: &Topic, change: impl FnOnce(&mut Sources, usize)) {
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.clone(), Sources::default());
        }
        let Some(sources) = self.topics.get_mut(topic) else { return };
        let others = self.sources - sources.named();
        change(sources, MOST_SOURCES.saturating_sub(others));
        self.sources = others + sources.named();
    }

    /// One topic alone.
    fn only(&self, topic: &Topic) -> Self {
        let mut lot = Self::default();
        if let Some(sources) = self.topics.get(topic) {
            lot.sources = sources.named();
            lot.topics.insert(topic.clone(), sources.clone());
        }
        lot
    }

    /// With the number of its sources as they are.
    fn counted(mut self) -> Self {
        self.sources = self.topics.values().map(Sources::named).sum();
        self
    }

    /// The counts of one topic.
    pub(super) fn of(&self, topic: &Topic) -> Counts {
        self.topics.get(topic).map(Sources::sum).unwrap_or_default()
    }

    /// Adds the sources of a topic to what is stored of them.
    pub(super) fn add_to(&self, topic: &Topic, stored: &mut Sources, limit: usize) {
        let waiting = self.topics.get(topic).into_iter().flat_map(Sources::iter);
        waiting.for_each(|(name, counts)| stored.add(name, counts, limit));
    }

    /// The counts of everything together.
    pub(super) fn sum(&self) -> Counts {
        let mut sum = Counts { rejected: self.rejected, ..Counts::default() };
        for sources in self.topics.values() {
            sum += sources.sum();
        }
        sum
    }

    fn add(&mut self, other: &Self) {
        self.rejected += other.rejected;
        for (topic, sources) in &other.topics {
            self.change(topic, |sum, limit| sources.iter().for_each(|(name, of)| sum.add(name, of, limit)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_of_other_topics_than_those_that_are_taken_waits_on() {
        let tally = Tally::new(10);
        let [a, b] = ["a", "b"].map(Topic::trusted);
        for (topic, source) in [(&a, "x"), (&b, "x"), (&b, "y")] {
            let repeat = Repeat { source, seq: 1, conflict: false, late: 0 };
            tally.count(topic, Timestamp::UNIX_EPOCH, [repeat].into_iter());
        }
        tally.reject(7);
        let taken = |names: &[&str]| tally.take_of(&names.iter().map(|name| (*name).to_owned()).collect());
        let (_, lot) = taken(&["b"]).unwrap();
        assert_eq!((lot.of(&a).duplicates, lot.of(&b).duplicates, lot.rejected, lot.sources), (0, 2, 7, 2));
        tally.stored();
        assert!(taken(&["b"]).is_none());
        assert_eq!(tally.lock().pending.sources, 1);
        let (_, rest) = tally.take().unwrap();
        assert_eq!(
            (rest.of(&a).duplicates, rest.of(&b).duplicates, rest.rejected, rest.sources),
            (1, 0, 0, 1)
        );
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Reject,
        Repeat,
        Take,
        TakeOfNoTopic,
        Stored,
        PutBack,
        Lost { stored: bool },
        Look,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Reject),
            Just(Step::Repeat),
            Just(Step::Take),
            Just(Step::TakeOfNoTopic),
            Just(Step::Stored),
            Just(Step::PutBack),
            any::<bool>().prop_map(|stored| Step::Lost { stored }),
            Just(Step::Look),
        ]
    }

    /// A store of two numbers and its epoch, as a transaction would leave it.
    #[derive(Default, Clone, Copy)]
    struct Stored {
        counts: [u64; 2],
        epoch: u64,
    }

    impl Stored {
        /// Its counts with those of a lot.
        fn with(&self, lot: &Lot) -> [u64; 2] {
            let Counts { rejected, duplicates, .. } = lot.sum();
            [self.counts[0] + rejected, self.counts[1] + duplicates]
        }
    }

    #[test]
    fn a_snapshot_of_a_topic_has_all_of_it_and_nothing_of_others() {
        let (tally, [one, other]) = (Tally::new(0), ["one", "other"].map(|name| Topic::parse(name).unwrap()));
        for source in ["x", "y"] {
            for topic in [&one, &other] {
                let repeat = Repeat { source, seq: 1, conflict: false, late: 1 };
                tally.count(topic, Timestamp::UNIX_EPOCH, [repeat].into_iter());
            }
            tally.reject(1);
            // The first is on its way, the second waits.
            if source == "x" {
                tally.take();
            }
        }
        for stored in 0..3 {
            let [all, of_one] =
                [tally.snapshot(), tally.snapshot_of(&one)].map(|all| all.missing_from(stored));
            assert_eq!(of_one.topics.get(&one), all.topics.get(&one), "epoch {stored}");
            assert!(!of_one.topics.contains_key(&other));
        }
    }

    proptest! {
        /// Whatever happens between a look into the tally and a look into the store, the sum never counts an
        /// event twice and never misses one that was counted before the look.
        #[test]
        fn a_reader_counts_everything_exactly_once(steps in prop::collection::vec(step(), 1..60)) {
            let tally = Tally::new(0);
            let (mut store, mut counted) = (Stored::default(), [0; 2]);
            let mut in_transaction: Option<Stored> = None;
            let mut looks: Vec<(Snapshot, [u64; 2])> = Vec::new();
            let repeat = Repeat { source: "x", seq: 1, conflict: false, late: 0 };
            for step in steps {
                match (step, in_transaction) {
                    (Step::Reject, _) => { tally.reject(1); counted[0] += 1; }
                    (Step::Repeat, _) => {
                        tally.count(&Topic::trusted("t"), Timestamp::UNIX_EPOCH, [repeat].into_iter());
                        counted[1] += 1;
                    }
                    (Step::Take | Step::TakeOfNoTopic, None) => {
                        let is_all = matches!(step, Step::Take);
                        let taken = if is_all { tally.take() } else { tally.take_of(&HashSet::new()) };
                        in_transaction = taken.map(|(epoch, lot)| Stored { counts: store.with(&lot), epoch });
                    }
                    (Step::Stored, Some(after)) => { store = after; tally.stored(); in_transaction = None; }
                    (Step::PutBack, Some(_)) => { tally.put_back(); in_transaction = None; }
                    (Step::Lost { stored }, Some(after)) => {
                        if stored { store = after; }
                        tally.resume(store.epoch);
                        in_transaction = None;
                    }
                    (Step::Look, _) => looks.push((tally.snapshot(), counted)),
                    _ => {}
                }
                // A commit is visible in the store a moment before the tally knows of it.
                let visible = in_transaction.unwrap_or(store);
                for seen in [store, visible] {
                    let snapshot = tally.snapshot();
                    prop_assert!(tally.tells(&snapshot, seen.epoch));
                    prop_assert_eq!(seen.with(&snapshot.missing_from(seen.epoch)), counted);
                }
            }
            for (snapshot, counted_then) in looks {
                if !tally.tells(&snapshot, store.epoch) { continue; }
                let sums = store.with(&snapshot.missing_from(store.epoch));
                for (sum, (then, now)) in sums.into_iter().zip(counted_then.into_iter().zip(counted)) {
                    prop_assert!((then..=now).contains(&sum), "{} not in {}..={}", sum, then, now);
                }
            }
        }
    }
}
