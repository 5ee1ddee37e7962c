//! What a consumer knows of keys without asking the store: a cache that may forget and never invents.
//!
//! A key is unknown, being committed, stored, or, when it was evicted, unknown again. What is said here of a
//! key holds for one payload, known by its digest; for any other payload the writer decides.
//!
//! invariant 7: it learns only durable verdicts, so that it may forget but never invents.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use siphasher::sip128::SipHasher13;
use uuid::Uuid;

use super::reply::Reply;
use crate::domain::{Event, Verdict};

/// A key and a payload as keyed hashes: 128 bits that nobody can aim at, so that equal hashes mean equal texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    id: u128,
    payload: u128,
}

/// Makes keys with a secret of this process.
#[derive(Clone)]
pub(super) struct Hasher(SipHasher13);

/// How many more keys all hot caches together may hold.
pub(super) struct Room(AtomicUsize);

/// What the cache says of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The key is stored, and this is the verdict.
    Stored(Verdict),
    /// The same event is being committed; the asker waits for its verdict.
    Waits,
    /// Nothing yet: it is marked now, and whoever passes it on settles it.
    Marked,
    /// Nothing that can be used: the writer decides, nobody waits for it.
    Nothing,
}

/// Who waits for the verdict of an event that another request sent first.
pub(super) struct Waiter {
    pub(super) reply: Reply,
    pub(super) index: u32,
}

enum State {
    Committing { payload: u128, waiters: Vec<Waiter> },
    Stored { payload: u128, seq: u64, conflict: bool },
}

/// The hot cache of one consumer.
pub(super) struct HotCache {
    states: DashMap<u128, State, RandomState>,
    /// The stored keys, the oldest first.
    stored: VecDeque<u128>,
    capacity: usize,
    room: Arc<Room>,
}

impl Hasher {
    pub(super) fn new() -> Self {
        Self(SipHasher13::new_with_key(Uuid::new_v4().as_bytes()))
    }

    pub(super) fn key(&self, event: &Event) -> Key {
        let hash = |text: &str| self.0.hash(text.as_bytes()).as_u128();
        Key { id: hash(event.event_id()), payload: hash(event.payload()) }
    }

    /// Which of so many lanes an id belongs to: always the same one.
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is less than `lanes`")]
    pub(super) fn lane(&self, event_id: &str, lanes: usize) -> u32 {
        if lanes == 1 { 0 } else { (self.0.hash(event_id.as_bytes()).as_u128() % lanes as u128) as u32 }
    }
}

impl Room {
    pub(super) fn new(keys: usize) -> Self {
        Self(AtomicUsize::new(keys))
    }

    fn take(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn give_back(&self, keys: usize) {
        self.0.fetch_add(keys, Ordering::Relaxed);
    }
}

impl HotCache {
    /// A cache of up to `capacity` stored keys, as far as there is room; 0 switches it off.
    pub(super) fn new(capacity: usize, room: Arc<Room>) -> Self {
        // Only its consumer uses it, so the fewest shards that the map allows do.
        let states = DashMap::with_capacity_and_hasher_and_shard_amount(0, RandomState::default(), 2);
        Self { states, stored: VecDeque::new(), capacity, room }
    }

    /// What is known of an event. An unknown key is marked as being committed; whoever asks for it meanwhile,
    /// with the same payload, waits.
    pub(super) fn ask(&self, key: Key, waiter: impl FnOnce() -> Waiter) -> Known {
        if self.capacity == 0 {
            return Known::Nothing;
        }
        let Some(mut state) = self.states.get_mut(&key.id) else {
            self.states.insert(key.id, State::Committing { payload: key.payload, waiters: Vec::new() });
            return Known::Marked;
        };
        match state.value_mut() {
            State::Stored { payload, seq, conflict } if *payload == key.payload => {
                Known::Stored(Verdict::Duplicate { seq: *seq, conflict: *conflict })
            }
            State::Committing { payload, waiters } if *payload == key.payload => {
                waiters.push(waiter());
                Known::Waits
            }
            _ => Known::Nothing,
        }
    }

    /// Settles an event that was marked: with its verdict once that is durable, with `None` where the commit
    /// failed or is unknown. Gives back who waits for it.
    ///
    /// invariant 2: nothing is known as stored, and nobody who waits is told so, before this is called.
    pub(super) fn settle(&mut self, key: Key, verdict: Option<Verdict>) -> Vec<Waiter> {
        let mut waiters = Vec::new();
        if let Some((_, State::Committing { waiters: waiting, .. })) = self.states.remove(&key.id) {
            waiters = waiting;
        } else {
            debug_assert!(false, "a marked key stays marked until it is settled");
        }
        if let Some(verdict) = verdict {
            self.learn(key, verdict);
        }
        waiters
    }

    /// Remembers the durable verdict of an event, unless the key is being committed.
    pub(super) fn learn(&mut self, key: Key, verdict: Verdict) {
        let (seq, conflict) = match verdict {
            Verdict::Accepted { seq } => (seq, false),
            Verdict::Duplicate { seq, conflict } => (seq, conflict),
            Verdict::Refused(_) => return,
        };
        let known = State::Stored { payload: key.payload, seq, conflict };
        if let Some(mut state) = self.states.get_mut(&key.id) {
            if matches!(*state, State::Stored { .. }) {
                *state = known;
            }
            return;
        }
        if self.make_room() {
            self.stored.push_back(key.id);
            self.states.insert(key.id, known);
        }
    }

    /// Makes room for one more stored key, evicting the oldest one where there is no other.
    fn make_room(&mut self) -> bool {
        if self.stored.len() < self.capacity && self.room.take() {
            return true;
        }
        match self.stored.pop_front() {
            Some(oldest) => self.states.remove(&oldest).is_some(),
            None => false,
        }
    }
}

impl Drop for HotCache {
    fn drop(&mut self) {
        self.room.give_back(self.stored.len());
    }
}

/// The verdict of an event that waited for an equal one with this verdict.
pub(super) fn repeated(first: Verdict) -> Verdict {
    match first {
        Verdict::Accepted { seq } => Verdict::Duplicate { seq, conflict: false },
        Verdict::Duplicate { .. } | Verdict::Refused(_) => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::pipeline::Budget;

    const ACCEPTED: Verdict = Verdict::Accepted { seq: 7 };

    fn key(id: u128, payload: u128) -> Key {
        Key { id, payload }
    }

    fn waiter() -> Waiter {
        let (reply, _) = Reply::new(1, Budget::new(1, 1).permit(), Arc::new(Metrics::new()));
        Waiter { reply, index: 0 }
    }

    fn cache(capacity: usize, room: usize) -> HotCache {
        HotCache::new(capacity, Arc::new(Room::new(room)))
    }

    fn duplicate(seq: u64, conflict: bool) -> Known {
        Known::Stored(Verdict::Duplicate { seq, conflict })
    }

    #[test]
    fn an_unknown_key_is_marked_then_waited_for_then_stored() {
        let mut cache = cache(9, 9);
        assert_eq!(cache.ask(key(1, 1), waiter), Known::Marked);
        assert_eq!(cache.ask(key(1, 1), waiter), Known::Waits);
        assert_eq!(cache.settle(key(1, 1), Some(ACCEPTED)).len(), 1);
        assert_eq!(cache.ask(key(1, 1), waiter), duplicate(7, false));
    }

    #[test]
    fn another_payload_is_left_to_the_writer_in_every_state() {
        let mut cache = cache(9, 9);
        cache.ask(key(1, 1), waiter);
        assert_eq!(cache.ask(key(1, 2), waiter), Known::Nothing);
        cache.learn(key(1, 2), Verdict::Duplicate { seq: 7, conflict: true });
        assert_eq!(cache.ask(key(1, 1), waiter), Known::Waits, "it is still being committed");
        cache.settle(key(1, 1), Some(ACCEPTED));
        assert_eq!(cache.ask(key(1, 2), waiter), Known::Nothing);
        cache.learn(key(1, 2), Verdict::Duplicate { seq: 7, conflict: true });
        assert_eq!(cache.ask(key(1, 2), waiter), duplicate(7, true));
        assert_eq!(cache.ask(key(1, 1), waiter), Known::Nothing);
    }

    #[test]
    fn a_failed_commit_leaves_nothing_behind() {
        let mut cache = cache(9, 9);
        cache.ask(key(1, 1), waiter);
        cache.ask(key(1, 1), waiter);
        assert_eq!(cache.settle(key(1, 1), None).len(), 1, "who waited fails with it");
        assert_eq!(cache.ask(key(1, 1), waiter), Known::Marked);
    }

    #[test]
    fn the_oldest_key_goes_first_where_capacity_or_room_ends() {
        for (capacity, room) in [(2, 9), (9, 2)] {
            let mut cache = cache(capacity, room);
            for id in 1..=3 {
                cache.ask(key(id, 0), waiter);
                cache.settle(key(id, 0), Some(ACCEPTED));
            }
            assert_eq!(cache.states.len(), 2);
            assert_eq!(cache.ask(key(2, 0), waiter), duplicate(7, false));
            assert_eq!(cache.ask(key(1, 0), waiter), Known::Marked);
        }
    }

    #[test]
    fn room_is_shared_and_given_back() {
        let room = Arc::new(Room::new(1));
        let mut first = HotCache::new(9, Arc::clone(&room));
        let mut second = HotCache::new(9, Arc::clone(&room));
        first.learn(key(1, 0), ACCEPTED);
        second.learn(key(1, 0), ACCEPTED);
        assert_eq!((first.states.len(), second.states.len()), (1, 0));
        drop(first);
        second.learn(key(1, 0), ACCEPTED);
        assert_eq!(second.states.len(), 1);
    }

    #[test]
    fn a_cache_of_no_keys_is_off() {
        let mut off = cache(0, 9);
        assert_eq!(off.ask(key(1, 1), waiter), Known::Nothing);
        off.learn(key(1, 1), ACCEPTED);
        assert_eq!(off.states.len(), 0);
        let mut no_room = cache(9, 0);
        no_room.ask(key(1, 1), waiter);
        no_room.settle(key(1, 1), Some(ACCEPTED));
        assert_eq!(no_room.states.len(), 0);
    }
}
