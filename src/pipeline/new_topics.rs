//! New topics that each address makes: at most `limits.new_topics_per_minute`.
//!
//! A topic is a row for ever, so a stranger with a few kilobytes of compressed names could fill a disk.
//! Whether a topic is new is decided by the writer:
//!
//! 1. Each address may make as many topics as the limit says, at once or over a minute. What it made
//!    counts less as time goes by, and nothing after a minute.
//! 2. After a commit the topics that got their first event (seq 1) are counted for the address that
//!    brought it. As long as an address has enough left for a whole group, nothing else is done.
//! 3. Otherwise the writer asks the store which topics of the address are new, before the commit, and
//!    refuses the batches of those that are too many. Batches of topics that exist are never refused.
//!
//! The limit is exact where a store has one writer. Several writers of a node may each admit what is left
//! at the same moment; what they admit too much is missing in the next minute.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::Topic;

/// The time over which an address may make as many topics as the limit says.
const MINUTE: Duration = Duration::from_mins(1);

/// The longest wait that a refused client is told: by then everything that its address made is forgotten.
const WAIT_MAX: u32 = 60;

/// The new topics of an address, as far as they still count.
#[derive(Debug, Default)]
pub(super) struct Made(Mutex<Option<Counted>>);

#[derive(Debug, Clone, Copy)]
struct Counted {
    topics: f64,
    at: Instant,
}

/// The limit of new topics, for each address.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewTopics {
    per_minute: f64,
}

impl Made {
    /// Whether nothing of it counts any more. Several writers may have admitted twice the limit.
    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        self.lock().is_none_or(|counted| now.saturating_duration_since(counted.at) > MINUTE * 2)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NewTopics {
    /// The limit, where there is one.
    pub(super) fn limit(per_minute: Option<u32>) -> Option<Self> {
        per_minute.map(|topics| Self { per_minute: topics.into() })
    }

    /// Counts topics that an address made.
    pub(super) fn count(self, made: &Made, topics: u32, now: Instant) {
        let mut counted = made.lock();
        *counted = Some(Counted { topics: self.counting(*counted, now) + f64::from(topics), at: now });
    }

    /// The batches of a group that are refused, by their places, each with the seconds after which the
    /// client may try again. A batch is given as its topic and what its address made. `missing` says of
    /// topics which of them the store does not hold.
    pub(super) fn refused(
        self,
        group: &[(&Topic, &Made)],
        now: Instant,
        missing: impl FnOnce(&[&Topic]) -> Vec<bool>,
    ) -> HashMap<usize, u32> {
        let is_tight = |(_, made): &(&Topic, &Made)| self.left(made, now) < as_f64(group.len());
        let (tight, free): (Vec<usize>, Vec<usize>) =
            (0..group.len()).partition(|place| is_tight(&group[*place]));
        if tight.is_empty() {
            return HashMap::new();
        }
        let topics: Vec<_> = tight.iter().map(|place| group[*place].0).collect();
        let new = missing(&topics);
        // A topic that somebody may make exists for everybody else in the group.
        let mut made_here: HashSet<&Topic> = free.iter().map(|place| group[*place].0).collect();
        let mut left_of: HashMap<*const Made, f64> = HashMap::new();
        let mut refused = Vec::new();
        for (place, _) in tight.iter().zip(new).filter(|(_, is_new)| *is_new) {
            let (topic, made) = group[*place];
            let left = left_of.entry(made).or_insert_with(|| self.left(made, now));
            if made_here.contains(topic) {
                continue;
            }
            if *left >= 1.0 {
                made_here.insert(topic);
            } else {
                refused.push(*place);
            }
            *left -= 1.0;
        }
        let wait = |place: &usize| self.wait(left_of[&std::ptr::from_ref(group[*place].1)]);
        refused.iter().map(|place| (*place, wait(place))).collect()
    }

    /// How many topics the address may make now.
    fn left(self, made: &Made, now: Instant) -> f64 {
        self.per_minute - self.counting(*made.lock(), now)
    }

    fn counting(self, counted: Option<Counted>, now: Instant) -> f64 {
        let Some(Counted { topics, at }) = counted else { return 0.0 };
        let passed = now.saturating_duration_since(at).as_secs_f64() / MINUTE.as_secs_f64();
        (topics - passed * self.per_minute).max(0.0)
    }

    /// The seconds after which an address that lacks so many has all of them.
    fn wait(self, left: f64) -> u32 {
        let seconds = -left / self.per_minute * MINUTE.as_secs_f64();
        let whole = Duration::try_from_secs_f64(seconds.ceil()).map_or(u64::MAX, |wait| wait.as_secs());
        u32::try_from(whole).unwrap_or(WAIT_MAX).clamp(1, WAIT_MAX)
    }
}

/// A number of batches, of which a group has far fewer than 2^52.
fn as_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: NewTopics = NewTopics { per_minute: 60.0 };

    fn topics(names: impl IntoIterator<Item = u32>) -> Vec<Topic> {
        names.into_iter().map(|name| Topic::parse(&name.to_string()).unwrap()).collect()
    }

    /// The places that are refused of batches of these topics from one address, where the store holds
    /// the topics below 1,000; and the longest wait.
    fn refused(made: &Made, names: &[Topic], now: Instant) -> (Vec<usize>, Option<u32>) {
        let group: Vec<_> = names.iter().map(|name| (name, made)).collect();
        let missing = |asked: &[&Topic]| {
            asked.iter().map(|topic| topic.as_str().parse::<u32>().unwrap() >= 1_000).collect()
        };
        let refused = LIMIT.refused(&group, now, missing);
        let mut places: Vec<_> = refused.keys().copied().collect();
        places.sort_unstable();
        (places, refused.into_values().max())
    }

    #[test]
    fn an_address_makes_as_many_as_the_limit_and_topics_that_exist_are_never_refused() {
        let (made, now) = (Made::default(), Instant::now());
        assert_eq!(refused(&made, &topics(1_000..1_060), now), (vec![], None));
        let many = topics((1_000..1_070).chain(0..500));
        assert_eq!(refused(&made, &many, now), ((60..70).collect(), Some(10)));
        LIMIT.count(&made, 60, now);
        assert_eq!(refused(&made, &topics([7, 1_000, 8]), now), (vec![1], Some(1)));
        assert_eq!(refused(&Made::default(), &topics([1_000]), now), (vec![], None), "another address");
    }

    #[test]
    fn what_was_made_counts_less_and_less() {
        let (made, now) = (Made::default(), Instant::now());
        LIMIT.count(&made, 60, now);
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(refused(&made, &topics(1_000..1_010), at(5)).0, [5, 6, 7, 8, 9]);
        LIMIT.count(&made, 5, at(5));
        assert_eq!(refused(&made, &topics(1_000..2_000), at(5)).1, Some(60), "a minute at most");
        assert_eq!(refused(&made, &topics(1_000..1_060), at(66)), (vec![], None));
        assert!(!made.is_forgotten(at(66)) && made.is_forgotten(at(126)));
        assert!(Made::default().is_forgotten(now));
    }

    #[test]
    fn a_topic_that_is_several_times_in_a_group_counts_once() {
        let (made, now) = (Made::default(), Instant::now());
        LIMIT.count(&made, 59, now);
        assert_eq!(refused(&made, &topics([1_000, 1_000, 1_001, 1_000]), now).0, [2]);
        // Another address makes it in the same group.
        let (name, other) = (&topics([1_000])[0], Made::default());
        LIMIT.count(&made, 1, now);
        let refused = LIMIT.refused(&[(name, &made), (name, &other)], now, |asked| vec![true; asked.len()]);
        assert!(refused.is_empty(), "{refused:?}");
    }
}
