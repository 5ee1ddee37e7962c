//! What is known of keys without asking the store: a cache that may forget and never invents.
//!
//! A key is unknown, being committed (or compared), stored, or, when it was evicted, unknown again. What is said here of a
//! key holds for one payload, known by its digest; for any other payload the writer decides.
//!
//! invariant 7: it learns only durable verdicts, so that it may forget but never invents.

use std::collections::VecDeque;
#[cfg(not(test))]
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

#[cfg(not(test))]
use dashmap::DashMap;
use dashmap::Entry;
use foldhash::fast::FixedState;
use siphasher::sip128::SipHasher13;
use uuid::Uuid;

use super::reply::Reply;
// The same locks, which a model can schedule.
#[cfg(test)]
use super::tests::scheduled::{DashMap, Mutex};
use crate::domain::{Event, Second, Verdict};
use crate::store::Decision;

/// A key as a keyed hash of 128 bits, and a payload as one of 64: nobody can aim at a collision, and among the
/// payloads that one key is sent with none will come by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    id: u128,
    payload: u64,
}

/// Makes keys with a secret of this process.
#[derive(Clone)]
pub(super) struct Hasher(SipHasher13);

/// How many more keys all hot caches together may hold.
pub(super) struct Room(AtomicUsize);

/// What the cache says of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The key is stored, and this is the decision.
    Stored(Decision),
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
    /// The source that it names itself.
    pub(super) source: Box<str>,
}

enum State {
    Committing { payload: u64, waiters: Vec<Waiter> },
    Stored { payload: u64, seq: u64, stored_at: Second, conflict: bool },
}

/// The locks that a cache is spread over: its consumer asks while the writer and the comparer settle, and few of their moments
/// should meet. More would cost memory where consumers are many.
const LOCKS: usize = 4;

/// The hot cache of one lane: its consumer asks, the writer and the comparer settle.
pub(super) struct HotCache {
    /// By keys that are hashes with a secret already: to hash them once more needs none.
    states: DashMap<u128, State, FixedState>,
    /// The stored keys, the oldest first.
    stored: Mutex<VecDeque<u128>>,
    /// When they were stored: see [`HotCache::enter`].
    era: AtomicU64,
    capacity: usize,
    room: Arc<Room>,
}

impl Hasher {
    pub(super) fn new() -> Self {
        Self::of(Uuid::new_v4().as_bytes())
    }

    /// With this secret.
    pub(super) fn of(secret: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(secret))
    }

    pub(super) fn key(&self, event: &Event) -> Key {
        let hash = |text: &str| self.0.hash(text.as_bytes());
        Key { id: hash(event.event_id()).as_u128(), payload: hash(event.payload()).h1 }
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

    /// How many more there may be.
    pub(super) fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
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
        let states = DashMap::with_capacity_and_hasher_and_shard_amount(0, FixedState::default(), LOCKS);
        Self { states, stored: Mutex::default(), era: AtomicU64::new(0), capacity, room }
    }

    /// Forgets what is stored if that was known in another era of the store, which may be another store by now. What is
    /// being committed stays: whoever passed it on settles it.
    pub(super) fn enter(&self, era: u64) {
        if self.era.load(Ordering::Relaxed) != era {
            self.forget(era);
        }
    }

    #[cold]
    fn forget(&self, era: u64) {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let before = stored.len();
        let is_stored = |_: &u128, state: &State| matches!(state, State::Stored { .. });
        // One that is just being settled keeps its place: it is of this era.
        stored.retain(|id| self.states.remove_if(id, is_stored).is_none());
        self.room.give_back(before - stored.len());
        self.era.store(era, Ordering::Relaxed);
    }

    /// What is known of an event. An unknown key is marked as being committed; whoever asks for it meanwhile,
    /// with the same payload, waits.
    pub(super) fn ask(&self, key: Key, waiter: impl FnOnce() -> Waiter) -> Known {
        if self.capacity == 0 {
            return Known::Nothing;
        }
        let mut entry = match self.states.entry(key.id) {
            Entry::Vacant(unknown) => {
                unknown.insert(State::Committing { payload: key.payload, waiters: Vec::new() });
                return Known::Marked;
            }
            Entry::Occupied(entry) => entry,
        };
        match entry.get_mut() {
            State::Stored { payload, seq, stored_at, conflict } if *payload == key.payload => {
                let verdict = Verdict::Duplicate { seq: *seq, conflict: *conflict };
                Known::Stored(Decision { verdict, stored_at: *stored_at })
            }
            State::Committing { payload, waiters } if *payload == key.payload => {
                waiters.push(waiter());
                Known::Waits
            }
            _ => Known::Nothing,
        }
    }

    /// Settles an event that was marked: with its decision once that is durable, with `None` where the commit
    /// failed or is unknown. Gives back who waits for it.
    ///
    /// invariant 2: nothing is known as stored, and nobody who waits is told so, before this is called.
    pub(super) fn settle(&self, key: Key, decision: Option<Decision>) -> Vec<Waiter> {
        let before = match decision.and_then(|decision| State::stored(key, decision)) {
            Some(known) => {
                // Held until the key is where its place says: others settle too, and evict the oldest one.
                let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
                // Room is made first: the oldest key may be behind the same lock as this one.
                if self.make_room(&mut stored) {
                    stored.push_back(key.id);
                    self.states.insert(key.id, known)
                } else {
                    self.forget_marked(key)
                }
            }
            None => self.forget_marked(key),
        };
        match before {
            Some(State::Committing { waiters, .. }) => waiters,
            Some(State::Stored { .. }) | None => {
                debug_assert!(false, "a marked key stays marked until it is settled");
                Vec::new()
            }
        }
    }

    /// Forgets one key, if it is stored.
    #[cold]
    pub(super) fn forget_one(&self, key: Key) {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if self.states.remove_if(&key.id, |_, state| matches!(state, State::Stored { .. })).is_some() {
            let before = stored.len();
            stored.retain(|id| *id != key.id);
            self.room.give_back(before - stored.len());
        }
    }

    /// Remembers the durable decision on an event whose key is known with another payload.
    pub(super) fn learn(&self, key: Key, decision: Decision) {
        if let Some(mut state) = self.states.get_mut(&key.id)
            && let State::Stored { .. } = *state
            && let Some(known) = State::stored(key, decision)
        {
            *state = known;
        }
    }

    fn forget_marked(&self, key: Key) -> Option<State> {
        self.states.remove(&key.id).map(|(_, state)| state)
    }

    /// Makes room for one more stored key, evicting the oldest one where there is no other.
    fn make_room(&self, stored: &mut VecDeque<u128>) -> bool {
        if stored.len() >= self.capacity || !self.room.take() {
            let Some(oldest) = stored.pop_front() else { return false };
            self.states.remove(&oldest);
        }
        true
    }
}

impl State {
    /// A decision as it is remembered; a refusal is none.
    fn stored(key: Key, Decision { verdict, stored_at }: Decision) -> Option<Self> {
        let (seq, conflict) = match verdict {
            Verdict::Accepted { seq } => (seq, false),
            Verdict::Duplicate { seq, conflict } => (seq, conflict),
            Verdict::Refused(_) => return None,
        };
        Some(Self::Stored { payload: key.payload, seq, stored_at, conflict })
    }
}

impl Drop for HotCache {
    fn drop(&mut self) {
        let stored = self.stored.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.room.give_back(stored.len());
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

    const ACCEPTED: Decision = decision(Verdict::Accepted { seq: 7 });

    const fn decision(verdict: Verdict) -> Decision {
        Decision { verdict, stored_at: Second(1_795_000_000) }
    }

    fn key(id: u128, payload: u64) -> Key {
        Key { id, payload }
    }

    fn waiter() -> Waiter {
        let (reply, _) = Reply::new(
            1,
            Budget::new(1, 1).permit(crate::domain::Address::UNKNOWN),
            Arc::new(Metrics::new()),
        );
        Waiter { reply, index: 0, source: "test".into() }
    }

    fn cache(capacity: usize, room: usize) -> HotCache {
        HotCache::new(capacity, Arc::new(Room::new(room)))
    }

    fn duplicate(seq: u64, conflict: bool) -> Known {
        Known::Stored(decision(Verdict::Duplicate { seq, conflict }))
    }

    #[test]
    fn an_unknown_key_is_marked_then_waited_for_then_stored() {
        let cache = cache(9, 9);
        assert_eq!(cache.ask(key(1, 1), waiter), Known::Marked);
        assert_eq!(cache.ask(key(1, 1), waiter), Known::Waits);
        assert_eq!(cache.settle(key(1, 1), Some(ACCEPTED)).len(), 1);
        assert_eq!(cache.ask(key(1, 1), waiter), duplicate(7, false));
    }

    #[test]
    fn another_payload_is_left_to_the_writer_in_every_state() {
        let cache = cache(9, 9);
        cache.ask(key(1, 1), waiter);
        assert_eq!(cache.ask(key(1, 2), waiter), Known::Nothing);
        cache.learn(key(1, 2), decision(Verdict::Duplicate { seq: 7, conflict: true }));
        assert_eq!(cache.ask(key(1, 1), waiter), Known::Waits, "it is still being committed");
        cache.settle(key(1, 1), Some(ACCEPTED));
        assert_eq!(cache.ask(key(1, 2), waiter), Known::Nothing);
        cache.learn(key(1, 2), decision(Verdict::Duplicate { seq: 7, conflict: true }));
        assert_eq!(cache.ask(key(1, 2), waiter), duplicate(7, true));
        assert_eq!(cache.ask(key(1, 1), waiter), Known::Nothing);
    }

    #[test]
    fn a_failed_commit_leaves_nothing_behind() {
        let cache = cache(9, 9);
        cache.ask(key(1, 1), waiter);
        cache.ask(key(1, 1), waiter);
        assert_eq!(cache.settle(key(1, 1), None).len(), 1, "who waited fails with it");
        assert_eq!(cache.ask(key(1, 1), waiter), Known::Marked);
    }

    #[test]
    fn the_oldest_key_goes_first_where_capacity_or_room_ends() {
        for (capacity, room) in [(2, 9), (9, 2)] {
            let cache = cache(capacity, room);
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
    fn what_was_stored_in_another_era_is_forgotten_and_what_is_being_committed_is_not() {
        let room = Arc::new(Room::new(2));
        let cache = HotCache::new(9, Arc::clone(&room));
        cache.enter(1);
        for id in [1, 2] {
            cache.ask(key(id, 0), waiter);
            cache.settle(key(id, 0), Some(ACCEPTED));
        }
        cache.ask(key(3, 0), waiter);
        cache.enter(1);
        assert_eq!(cache.ask(key(1, 0), waiter), duplicate(7, false), "the same era");
        cache.enter(2);
        assert_eq!(cache.ask(key(1, 0), waiter), Known::Marked);
        assert_eq!(cache.ask(key(3, 0), waiter), Known::Waits);
        assert_eq!(cache.settle(key(3, 0), Some(ACCEPTED)).len(), 1);
        assert_eq!(cache.ask(key(3, 0), waiter), duplicate(7, false));
        assert_eq!(room.0.load(Ordering::Relaxed), 1, "room was given back");
    }

    #[test]
    fn room_is_shared_and_given_back() {
        let room = Arc::new(Room::new(1));
        let (first, second) = (HotCache::new(9, Arc::clone(&room)), HotCache::new(9, room));
        let store = |cache: &HotCache| {
            cache.ask(key(1, 0), waiter);
            cache.settle(key(1, 0), Some(ACCEPTED));
            cache.states.len()
        };
        assert_eq!((store(&first), store(&second)), (1, 0));
        drop(first);
        assert_eq!(store(&second), 1);
    }

    #[test]
    fn a_slot_stays_as_small_as_it_was() {
        assert_eq!(
            size_of::<State>(),
            32,
            "with what a million keys take: docs and config/default.toml say it"
        );
    }

    #[test]
    fn a_cache_of_no_keys_is_off() {
        let off = cache(0, 9);
        assert_eq!(off.ask(key(1, 1), waiter), Known::Nothing);
        off.learn(key(1, 1), ACCEPTED);
        assert_eq!(off.states.len(), 0);
        let no_room = cache(9, 0);
        no_room.ask(key(1, 1), waiter);
        no_room.settle(key(1, 1), Some(ACCEPTED));
        assert_eq!(no_room.states.len(), 0);
    }
}
