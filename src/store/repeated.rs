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
const STORED_EVERY: Duration = Duration::from_secs(2);

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

/// What has to be written of an event; nothing where it has left the list.
pub(super) type Change = (Place, Option<Repeats>);

/// The list.
#[derive(Debug)]
pub(super) struct Repeated {
    /// `None` where the list is switched off.
    events: Option<LruCache<Place, Known, RandomState>>,
    /// Events that have left the list and are stored.
    dropped: Vec<Place>,
    changed: bool,
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
pub(super) struct Counting<'l> {
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
            stored_at: None,
            loaded: false,
        }
    }

    /// Where repeats of a topic's events that come now are counted.
    pub(super) fn entry(&mut self, topic: &Topic, now: Timestamp) -> Counting<'_> {
        Counting { list: self, place: (topic.clone(), 0), now }
    }

    /// What is known of an event.
    pub(super) fn of(&self, place: &Place) -> Option<Repeats> {
        Some(self.events.as_ref()?.peek(place)?.repeats.clone())
    }

    /// Whether there is something to store, and it was not done just before.
    pub(super) fn is_due(&self) -> bool {
        self.changed && self.stored_at.is_none_or(|at| at.elapsed() >= STORED_EVERY)
    }

    /// What has to be stored, if it is due.
    pub(super) fn take(&mut self) -> Vec<Change> {
        if !self.is_due() {
            return Vec::new();
        }
        (self.changed, self.stored_at) = (false, Some(Instant::now()));
        let mut changes: Vec<Change> =
            mem::take(&mut self.dropped).into_iter().map(|place| (place, None)).collect();
        for (place, known) in self.events.iter_mut().flatten() {
            if mem::take(&mut known.changed) {
                known.stored = true;
                changes.push((place.clone(), Some(known.repeats.clone())));
            }
        }
        changes
    }

    /// Lets the next [`Repeated::take`] give all that has changed: nothing may come after it.
    pub(super) fn hurry(&mut self) {
        self.stored_at = None;
    }

    /// What was taken is not stored, or that is not known: it is to be stored again.
    pub(super) fn put_back(&mut self, changes: Vec<Change>) {
        let Some(events) = &mut self.events else { return };
        for (place, change) in changes {
            match (change, events.peek_mut(&place)) {
                (Some(_), Some(known)) => known.changed = true,
                // Its row may be there.
                _ => self.dropped.push(place),
            }
            self.changed = true;
        }
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

impl Counting<'_> {
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
