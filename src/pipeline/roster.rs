//! Which consumers are alive, and which of them has been idle longest: decided without an actor.

use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use lru::LruCache;

use crate::domain::Topic;

/// Which lane of which topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LaneId {
    pub(super) topic: Topic,
    pub(super) number: u32,
}

/// The members by lane, in the order of their last use.
pub(super) struct Roster<M>(LruCache<LaneId, Entry<M>, RandomState>);

struct Entry<M> {
    member: M,
    used_at: Instant,
}

impl<M> Roster<M> {
    pub(super) fn new() -> Self {
        Self(LruCache::unbounded_with_hasher(RandomState::default()))
    }

    /// Adds the member of a lane that has none.
    pub(super) fn add(&mut self, lane: LaneId, member: M, now: Instant) {
        let before = self.0.put(lane, Entry { member, used_at: now });
        debug_assert!(before.is_none(), "a lane has one member");
    }

    /// The member of a lane, which is used now.
    pub(super) fn touch(&mut self, lane: &LaneId, now: Instant) -> Option<&M> {
        let entry = self.0.get_mut(lane)?;
        entry.used_at = now;
        Some(&entry.member)
    }

    /// Takes out the member of a lane.
    pub(super) fn remove(&mut self, lane: &LaneId) -> Option<M> {
        self.0.pop(lane).map(|entry| entry.member)
    }

    /// Takes out the member whose last use is longest ago.
    pub(super) fn remove_longest_idle(&mut self) -> Option<M> {
        self.0.pop_lru().map(|(_, entry)| entry.member)
    }

    /// Takes out a member that was not used for `idle`.
    pub(super) fn remove_idle(&mut self, idle: Duration, now: Instant) -> Option<M> {
        let (_, longest_idle) = self.0.peek_lru()?;
        if now.duration_since(longest_idle.used_at) < idle { None } else { self.remove_longest_idle() }
    }

    /// How many members there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Every member.
    pub(super) fn iter(&self) -> impl Iterator<Item = &M> {
        self.0.iter().map(|(_, entry)| &entry.member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(name: &str) -> LaneId {
        LaneId { topic: Topic::parse(name).unwrap(), number: 0 }
    }

    #[test]
    fn the_longest_idle_member_is_the_one_used_longest_ago() {
        let now = Instant::now();
        let mut roster = Roster::new();
        for name in ["a", "b", "c"] {
            roster.add(lane(name), name, now);
        }
        assert_eq!(roster.len(), 3);
        assert_eq!(roster.touch(&lane("a"), now), Some(&"a"));
        assert_eq!(roster.remove_longest_idle(), Some("b"));
        assert_eq!(roster.remove(&lane("c")), Some("c"));
        assert_eq!(roster.remove_longest_idle(), Some("a"));
        assert_eq!(roster.remove_longest_idle(), None);
        assert_eq!(roster.touch(&lane("a"), now), None);
    }

    #[test]
    fn a_member_is_idle_only_after_its_time() {
        let (now, idle) = (Instant::now(), Duration::from_secs(10));
        let mut roster = Roster::new();
        roster.add(lane("a"), "a", now);
        roster.add(lane("b"), "b", now);
        roster.touch(&lane("a"), now + Duration::from_secs(5));
        assert_eq!(roster.remove_idle(idle, now + Duration::from_secs(9)), None);
        assert_eq!(roster.remove_idle(idle, now + Duration::from_secs(10)), Some("b"));
        assert_eq!(roster.remove_idle(idle, now + Duration::from_secs(10)), None);
        assert_eq!(roster.remove_idle(idle, now + Duration::from_secs(15)), Some("a"));
    }
}
