//! Which consumers are alive, and which of them has been idle longest: decided without an actor.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::domain::Topic;

/// One of the lanes of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) topic: Topic,
    pub(super) number: u32,
}

/// The members by lane, in the order of their last use.
pub(super) struct Roster<M> {
    members: HashMap<Lane, Entry<M>>,
    /// The lane of each last use; uses are numbered.
    uses: BTreeMap<u64, Lane>,
    next_use: u64,
}

struct Entry<M> {
    member: M,
    last_use: u64,
    used_at: Instant,
}

impl<M> Roster<M> {
    pub(super) fn new() -> Self {
        Self { members: HashMap::new(), uses: BTreeMap::new(), next_use: 0 }
    }

    /// Adds the member of a lane that has none.
    pub(super) fn add(&mut self, lane: Lane, member: M, now: Instant) {
        let last_use = self.next_use();
        self.uses.insert(last_use, lane.clone());
        let before = self.members.insert(lane, Entry { member, last_use, used_at: now });
        debug_assert!(before.is_none(), "a lane has one member");
    }

    /// The member of a lane, which is used now.
    pub(super) fn touch(&mut self, lane: &Lane, now: Instant) -> Option<&M> {
        let this_use = self.next_use();
        let entry = self.members.get_mut(lane)?;
        if let Some(same_lane) = self.uses.remove(&entry.last_use) {
            self.uses.insert(this_use, same_lane);
        }
        (entry.last_use, entry.used_at) = (this_use, now);
        Some(&entry.member)
    }

    /// Takes out the member of a lane.
    pub(super) fn remove(&mut self, lane: &Lane) -> Option<M> {
        let entry = self.members.remove(lane)?;
        self.uses.remove(&entry.last_use);
        Some(entry.member)
    }

    /// Takes out the member whose last use is longest ago.
    pub(super) fn remove_longest_idle(&mut self) -> Option<M> {
        let lane = self.uses.first_key_value()?.1.clone();
        self.remove(&lane)
    }

    /// Takes out a member that was not used for `idle`.
    pub(super) fn remove_idle(&mut self, idle: Duration, now: Instant) -> Option<M> {
        let lane = self.uses.first_key_value()?.1.clone();
        let used_at = self.members.get(&lane)?.used_at;
        if now.duration_since(used_at) < idle { None } else { self.remove(&lane) }
    }

    /// Every member.
    pub(super) fn iter(&self) -> impl Iterator<Item = &M> {
        self.members.values().map(|entry| &entry.member)
    }

    fn next_use(&mut self) -> u64 {
        self.next_use += 1;
        self.next_use
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(name: &str) -> Lane {
        Lane { topic: Topic::parse(name).unwrap(), number: 0 }
    }

    #[test]
    fn the_longest_idle_member_is_the_one_used_longest_ago() {
        let now = Instant::now();
        let mut roster = Roster::new();
        for name in ["a", "b", "c"] {
            roster.add(lane(name), name, now);
        }
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
