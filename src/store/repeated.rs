//! What is known of the events that were repeated most recently: a bounded list in memory, stored in the background.
//!
//! Memory answers, the file only brings it back after a start: what came since it was stored last is lost by a kill.

use std::mem;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use jiff::Timestamp;
use lru::LruCache;

use super::sources::Repeat;
use crate::domain::Topic;

/// How often what has changed is stored: a few seconds of it may be lost by a kill, and a commit that stores the whole list
/// stays a small part of the writer's time.
const STORED_EVERY: Duration = Duration::from_secs(5);

/// The repeats of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeats {
    /// Duplicates of it since it came onto the list.
    pub duplicates: u64,
    /// Those of them with another payload.
    pub conflicts: u64,
    /// When the last one came.
    pub last_at: Timestamp,
    /// Who sent the last one.
    pub last_source: String,
    /// Whether the payload of the last one was another.
    pub last_conflict: bool,
}

/// An event by its topic and seq.
pub(super) type Place = (Topic, u64);

/// What has to be written.
#[derive(Debug)]
pub(super) struct Changes {
    /// Whether the list is written anew, in place of all that is stored of it.
    pub(super) anew: bool,
    /// Events, each with what is known of it; with nothing where it has left the list.
    pub(super) events: Vec<(Place, Option<Repeats>)>,
}

/// The list.
#[derive(Debug)]
pub(super) struct Repeated {
    /// `None` where the list is switched off.
    events: Option<LruCache<Place, Known, RandomState>>,
    /// Events that have left the list and are stored: no more than the list has, as only what was on it is stored.
    dropped: Vec<Place>,
    changed: bool,
    /// Whether what is stored may be something else than what was taken: no commit has said yet that it is.
    unsettled: bool,
    stored_at: Option<Instant>,
    /// Whether the list holds what the store holds.
    loaded: bool,
}

#[derive(Debug)]
struct Known {
    repeats: Repeats,
    /// Whether the store holds this event, as it is or as it was.
    stored: bool,
    changed: bool,
}

/// Counts repeats of one topic on the list.
pub(super) struct Counter<'l> {
    list: &'l mut Repeated,
    /// The topic, and the seq that is looked for.
    place: Place,
    now: Timestamp,
}

impl Repeated {
    /// A list of so many events; 0 switches it off.
    pub(super) fn new(events: usize) -> Self {
        Self {
            events: NonZeroUsize::new(events).map(|most| LruCache::with_hasher(most, RandomState::default())),
            dropped: Vec::new(),
            changed: false,
            unsettled: false,
            stored_at: None,
            loaded: false,
        }
    }

    /// Where repeats of a topic's events that come now are counted.
    pub(super) fn entry(&mut self, topic: &Topic, now: Timestamp) -> Counter<'_> {
        Counter { list: self, place: (topic.clone(), 0), now }
    }

    /// What is known of an event.
    pub(super) fn of(&self, place: &Place) -> Option<Repeats> {
        Some(self.events.as_ref()?.peek(place)?.repeats.clone())
    }

    /// Whether there is something to store, and it was not done just before.
    pub(super) fn is_due(&self) -> bool {
        (self.changed || self.unsettled) && self.stored_at.is_none_or(|at| at.elapsed() >= STORED_EVERY)
    }

    /// What has to be stored, if it is due: the whole list where it is not known what became of what was taken before.
    pub(super) fn take(&mut self) -> Option<Changes> {
        if !self.is_due() {
            return None;
        }
        let anew = mem::replace(&mut self.unsettled, true);
        (self.changed, self.stored_at) = (false, Some(Instant::now()));
        let mut events: Vec<_> =
            mem::take(&mut self.dropped).into_iter().map(|place| (place, None)).collect();
        if anew {
            events.clear();
        }
        for (place, known) in self.events.iter_mut().flatten() {
            if mem::take(&mut known.changed) || anew {
                known.stored = true;
                events.push((place.clone(), Some(known.repeats.clone())));
            }
        }
        Some(Changes { anew, events })
    }

    /// What was taken is stored. Where this is not said, the next [`Repeated::take`] gives the whole list.
    pub(super) fn stored(&mut self) {
        self.unsettled = false;
    }

    /// Lets the next [`Repeated::take`] give all that has changed: nothing may come after it.
    pub(super) fn hurry(&mut self) {
        self.stored_at = None;
    }

    /// Knows nothing any more: all that the store holds is another's.
    pub(super) fn forget(&mut self) {
        let most = self.events.as_ref().map_or(0, |events| events.cap().get());
        *self = Self::new(most);
    }

    /// Begins with what the store holds, the event that was repeated last coming last.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub(super) fn load<E>(
        &mut self,
        stored: impl FnOnce() -> Result<Vec<(Place, Repeats)>, E>,
    ) -> Result<(), E> {
        if mem::replace(&mut self.loaded, true) {
            return Ok(());
        }
        for (place, repeats) in stored()? {
            let known = Known { repeats, stored: true, changed: false };
            match &mut self.events {
                // One that was repeated meanwhile is newer than what is stored of it.
                Some(events) if !events.contains(&place) => {
                    if let Some((left, Known { stored: true, .. })) = events.push(place, known) {
                        self.dropped.push(left);
                        self.changed = true;
                    }
                }
                Some(_) => {}
                None => break,
            }
        }
        Ok(())
    }
}

impl Counter<'_> {
    pub(super) fn count(&mut self, Repeat { source, seq, conflict, .. }: Repeat<'_>) {
        let Repeated { events: Some(events), dropped, changed, .. } = &mut *self.list else { return };
        self.place.1 = seq;
        *changed = true;
        if let Some(known) = events.get_mut(&self.place) {
            known.repeats.count(self.now, source, conflict);
            known.changed = true;
            return;
        }
        let mut known = Known { repeats: Repeats::none(self.now), stored: false, changed: true };
        known.repeats.count(self.now, source, conflict);
        if let Some((left, Known { stored: true, .. })) = events.push(self.place.clone(), known) {
            dropped.push(left);
        }
    }
}

impl Repeats {
    fn none(now: Timestamp) -> Self {
        Self { duplicates: 0, conflicts: 0, last_at: now, last_source: String::new(), last_conflict: false }
    }

    /// Both together: the last one is the last of the two.
    pub(super) fn and(self, other: Self) -> Self {
        let (duplicates, conflicts) = (self.duplicates + other.duplicates, self.conflicts + other.conflicts);
        let last = if other.last_at > self.last_at { other } else { self };
        Self { duplicates, conflicts, ..last }
    }

    fn count(&mut self, now: Timestamp, source: &str, conflict: bool) {
        self.duplicates += 1;
        self.conflicts += u64::from(conflict);
        (self.last_at, self.last_conflict) = (now, conflict);
        if self.last_source != source {
            source.clone_into(&mut self.last_source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const LIST: u64 = 10;
    const LIST_EVENTS: usize = 10;

    fn repeat(list: &mut Repeated, seqs: std::ops::Range<u64>) {
        let topic = Topic::parse("a").unwrap();
        for seq in seqs {
            let repeat = Repeat { source: "x", seq, conflict: false, late: 1 };
            list.entry(&topic, Timestamp::UNIX_EPOCH).count(repeat);
        }
        list.hurry();
    }

    fn write(table: &mut BTreeMap<u64, Repeats>, changes: Changes) {
        if changes.anew {
            table.clear();
        }
        for ((_, seq), change) in changes.events {
            match change {
                Some(repeats) => table.insert(seq, repeats),
                None => table.remove(&seq),
            };
        }
    }

    /// The list is always being repeated anew, so that all that was stored leaves it.
    #[test]
    fn what_waits_is_bounded_while_nothing_can_be_stored_and_the_table_is_the_list_afterwards() {
        let (mut list, mut table) = (Repeated::new(LIST_EVENTS), BTreeMap::new());
        repeat(&mut list, 0..LIST);
        write(&mut table, list.take().unwrap());
        list.stored();
        assert_eq!(table.len() as u64, LIST);
        for round in 1..100 {
            repeat(&mut list, round * LIST..(round + 1) * LIST);
            // Whether it was stored is not known: in some rounds it was.
            let changes = list.take().unwrap();
            assert!(changes.events.len() as u64 <= 2 * LIST, "{} changes", changes.events.len());
            if round % 3 == 0 {
                write(&mut table, changes);
            }
            assert!(list.dropped.len() as u64 <= LIST, "{} wait to be deleted", list.dropped.len());
        }
        list.hurry();
        write(&mut table, list.take().unwrap());
        list.stored();
        list.hurry();
        assert!(list.take().is_none(), "it is stored");
        let listed: BTreeMap<_, _> =
            list.events.iter().flatten().map(|((_, seq), known)| (*seq, known.repeats.clone())).collect();
        assert_eq!(table, listed);
        assert_eq!(table.into_keys().collect::<Vec<_>>(), (99 * LIST..100 * LIST).collect::<Vec<_>>());
    }
}
