//! New topics that each address makes: at most `limits.new_topics_per_minute`.
//!
//! A topic is a row for ever, so a stranger with a few kilobytes of compressed names could fill a disk.
//! Whether a topic is new is decided by a writer:
//!
//! 1. Each address may make as many topics as the limit says, at once or over a minute. What it made
//!    counts less as time goes by, and nothing after a minute.
//! 2. Before a commit the writer reserves a topic for each batch of an address, as if all of them
//!    were new, and asks no store. It does so only where the batches need no more than the rest of
//!    the limit, divided by the number of writers: so writers that commit at once always leave
//!    something to each other.
//! 3. Otherwise the writer asks the store which topics of the address are new, and reserves these
//!    alone. It refuses the batches of those that are too many, and never a batch of a topic that
//!    exists. Where the store cannot tell, it fails these batches. A topic whose stored data is damaged
//!    counts as one that exists: the commit fails its batches alone.
//! 4. After the commit each topic that got its first event (seq 1) is charged to the address that
//!    reserved it, and all other reservations are given back. So a failed commit costs nothing.
//!    Only where the outcome of the commit is unknown, each topic of it is charged.
//!
//! The bound is exact for each node, whatever the number of its writers: the rest of the limit is
//! the limit less all charges and reservations, under one lock for each address.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::domain::Topic;

/// The time over which an address may make as many topics as the limit says.
const MINUTE: Duration = Duration::from_mins(1);

/// The longest wait that a refused client is told: by then everything that its address made is forgotten.
const WAIT_MAX: u32 = 60;

/// The new topics of an address, as far as they still count.
#[derive(Debug, Default)]
pub(super) struct Made(Mutex<Account>);

#[derive(Debug, Clone, Copy, Default)]
struct Account {
    /// The topics that it made and when they were counted last.
    charged: Option<(f64, Instant)>,
    /// Topics of groups whose commit has no outcome yet.
    reserved: u32,
}

/// The limit of new topics, for each address.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewTopics {
    per_minute: f64,
    /// The writers that may commit at once.
    writers: f64,
}

/// What a commit did to the topic of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopicOutcome {
    /// The batch brought the first event of its topic.
    Made,
    /// The topic was there, or nothing was stored.
    Unchanged,
    /// It is unknown whether the batch is stored.
    Unknown,
}

/// The batches of a group that may be committed, and the topics that are reserved for them. Dropped
/// without [`Admission::settle`], as in a panic, it gives them back.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    limit: NewTopics,
    group: &'a [(&'a Topic, &'a Made)],
    /// Of each batch, the place of its address in `held`.
    address_of: Vec<usize>,
    held: Vec<Held<'a>>,
    /// The batches that are refused, by their places, each with the seconds after which the client
    /// may try again.
    refused: HashMap<usize, u32>,
    /// The batches without a reservation whose topic another batch of the group may make: the place
    /// of that one.
    relies_on: HashMap<usize, usize>,
}

/// The topics that are reserved for one address.
#[derive(Debug)]
struct Held<'a> {
    made: &'a Made,
    batches: u32,
    reserved: u32,
    is_tight: bool,
    /// Topics of it that were refused.
    missed: u32,
}

impl Made {
    /// Whether nothing of it counts any more. A topic that a store made against its word is charged
    /// past the limit, so that a minute may not be enough.
    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        let Account { charged, reserved } = *self.lock();
        let is_past = |(_, at)| now.saturating_duration_since(at) > MINUTE * 2;
        reserved == 0 && charged.is_none_or(is_past)
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NewTopics {
    /// The limit, where there is one, of a node with so many writers.
    pub(super) fn limit(per_minute: Option<u32>, writers: usize) -> Option<Self> {
        per_minute.map(|topics| Self { per_minute: topics.into(), writers: as_f64(writers.max(1)) })
    }

    /// Reserves the topics of a group, whose batches are given as their topics and what their
    /// addresses made. `missing` says of topics which of them the store does not hold.
    ///
    /// # Errors
    /// That of `missing`, with the places of the batches that are not decided: nothing is reserved
    /// for them, and no other batch relies on them.
    pub(super) fn admit<'a, E>(
        self,
        group: &'a [(&'a Topic, &'a Made)],
        now: Instant,
        missing: impl FnOnce(&[&Topic]) -> Result<Vec<bool>, E>,
    ) -> (Admission<'a>, Option<(E, Vec<usize>)>) {
        let mut admission = Admission::of(self, group);
        for held in &mut admission.held {
            held.is_tight = !self.reserve(held.made, held.batches, self.writers, now);
            held.reserved = if held.is_tight { 0 } else { held.batches };
        }
        let (tight, free): (Vec<usize>, Vec<usize>) =
            (0..group.len()).partition(|place| admission.held[admission.address_of[*place]].is_tight);
        if tight.is_empty() {
            return (admission, None);
        }
        let topics: Vec<_> = tight.iter().map(|place| group[*place].0).collect();
        match missing(&topics) {
            Ok(is_new) => {
                let new = tight.into_iter().zip(is_new).filter(|(_, is_new)| *is_new);
                admission.decide(new.map(|(place, _)| place), &free, now);
                (admission, None)
            }
            Err(error) => (admission, Some((error, tight))),
        }
    }

    /// Reserves topics if they are no more than the rest of the limit, divided by `parts`.
    fn reserve(self, made: &Made, topics: u32, parts: f64, now: Instant) -> bool {
        let mut account = made.lock();
        let left = self.per_minute - self.counting(account.charged, now) - f64::from(account.reserved);
        let fits = f64::from(topics) * parts <= left;
        if fits {
            account.reserved += topics;
        }
        fits
    }

    /// Gives reserved topics back, and charges those of them that were made.
    fn settle(self, made: &Made, reserved: u32, charged: u32, now: Instant) {
        let mut account = made.lock();
        debug_assert!(account.reserved >= reserved, "topics are given back once");
        account.reserved -= reserved;
        if charged > 0 {
            // Another writer may have counted later than this one looked at the clock.
            let at = account.charged.map_or(now, |(_, at)| at.max(now));
            account.charged = Some((self.counting(account.charged, at) + f64::from(charged), at));
        }
    }

    fn counting(self, charged: Option<(f64, Instant)>, now: Instant) -> f64 {
        let Some((topics, at)) = charged else { return 0.0 };
        let passed = now.saturating_duration_since(at).as_secs_f64() / MINUTE.as_secs_f64();
        (topics - passed * self.per_minute).max(0.0)
    }

    /// The seconds after which an address may make the topics that it lacks.
    fn wait(self, held: &Held<'_>, now: Instant) -> u32 {
        // What other writers have reserved may come back at once.
        let used = self.counting(held.made.lock().charged, now) + f64::from(held.reserved);
        let lacks = used + f64::from(held.missed) - self.per_minute;
        let seconds = lacks.max(0.0) / self.per_minute * MINUTE.as_secs_f64();
        let whole = Duration::try_from_secs_f64(seconds.ceil()).map_or(u64::MAX, |wait| wait.as_secs());
        u32::try_from(whole).unwrap_or(WAIT_MAX).clamp(1, WAIT_MAX)
    }
}

impl<'a> Admission<'a> {
    /// Nothing is reserved and nothing is refused.
    fn of(limit: NewTopics, group: &'a [(&'a Topic, &'a Made)]) -> Self {
        let mut places: HashMap<*const Made, usize, RandomState> = HashMap::default();
        let (mut held, mut address_of): (Vec<Held<'_>>, _) = (Vec::new(), Vec::with_capacity(group.len()));
        for (_, made) in group {
            // The batches of a request stand in a row.
            let same =
                address_of.last().copied().filter(|last: &usize| std::ptr::eq(held[*last].made, *made));
            let place =
                same.unwrap_or_else(|| *places.entry(std::ptr::from_ref(*made)).or_insert(held.len()));
            if place == held.len() {
                held.push(Held { made, batches: 0, reserved: 0, is_tight: false, missed: 0 });
            }
            held[place].batches += 1;
            address_of.push(place);
        }
        Self { limit, group, address_of, held, refused: HashMap::new(), relies_on: HashMap::new() }
    }

    /// Reserves new topics of addresses for which not all batches are reserved, one by one, and
    /// refuses those that are too many. `free` are the batches of all other addresses.
    fn decide(&mut self, new: impl Iterator<Item = usize>, free: &[usize], now: Instant) {
        // A topic that one batch may make exists for the other batches of the group.
        let mut makers: HashMap<&Topic, usize> = HashMap::new();
        for place in free {
            makers.entry(self.group[*place].0).or_insert(*place);
        }
        let mut refused = Vec::new();
        for place in new {
            let topic = self.group[place].0;
            let held = &mut self.held[self.address_of[place]];
            if let Some(maker) = makers.get(topic) {
                self.relies_on.insert(place, *maker);
            } else if self.limit.reserve(held.made, 1, 1.0, now) {
                held.reserved += 1;
                makers.insert(topic, place);
            } else {
                held.missed += 1;
                refused.push(place);
            }
        }
        let wait = |place: usize| (place, self.limit.wait(&self.held[self.address_of[place]], now));
        self.refused = refused.into_iter().map(wait).collect();
    }

    /// The seconds after which a client may try again, for a batch that is refused.
    pub(super) fn refused(&self, place: usize) -> Option<u32> {
        self.refused.get(&place).copied()
    }

    /// Charges the topics that the commit made, or may have made, and gives the others back.
    pub(super) fn settle(mut self, outcome: impl Fn(usize) -> TopicOutcome, now: Instant) {
        let mut charged = vec![0; self.held.len()];
        // Several batches of a topic are one topic; of those that are known, one alone has made it.
        let mut unknown = HashSet::new();
        for (place, (topic, _)) in self.group.iter().enumerate() {
            let counts = match outcome(place) {
                TopicOutcome::Made => true,
                TopicOutcome::Unchanged => false,
                TopicOutcome::Unknown => unknown.insert(*topic),
            };
            if counts {
                let maker = self.relies_on.get(&place).copied().unwrap_or(place);
                charged[self.address_of[maker]] += 1;
            }
        }
        for (held, topics) in self.held.iter_mut().zip(charged) {
            self.limit.settle(held.made, std::mem::take(&mut held.reserved), topics, now);
        }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        for held in self.held.iter().filter(|held| held.reserved > 0) {
            self.limit.settle(held.made, held.reserved, 0, now);
        }
    }
}

/// A number of writers, of which there are few.
fn as_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests;
