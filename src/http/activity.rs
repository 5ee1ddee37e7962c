//! The topics that are busiest of late: which of them have labels on `/metrics`.
//!
//! A sketch counts the events of the busiest topics and no others ("space saving": Metwally, Agrawal and
//! El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005). A topic
//! that is not among them takes the place of the least busy one and inherits its count, as the possible
//! error of its own. Only what is certain counts here: the count less that error. So a flood of topics
//! with an event each changes nothing for a topic that has some, whatever its name is. Counts are
//! halved every [`HALF_LIFE`], so that old traffic fades.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

/// The topics that are counted: about 300 bytes each. More topics than are ever shown, so that those with
/// labels are certain.
const COUNTED: usize = 4_096;

/// The time after which an event counts half.
const HALF_LIFE: Duration = Duration::from_mins(5);

/// The certain events of the busiest topics.
#[derive(Debug)]
pub(super) struct Activity {
    counted: HashMap<String, Counted, RandomState>,
    halved: Instant,
    /// The count that a new topic inherits. It rises to that of a topic which is dropped for it.
    floor: u64,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    events: u64,
    /// Of them, the events that may be of other topics.
    uncertain: u64,
}

impl Activity {
    /// Nothing happened yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { counted: HashMap::default(), halved: now, floor: 0 }
    }

    /// Counts events of topics, each with its number of events. A topic may come several times.
    pub(super) fn note<'a>(&mut self, topics: impl Iterator<Item = (&'a str, u64)>, now: Instant) {
        self.fade(now);
        topics.for_each(|(topic, events)| self.count(topic, events));
    }

    fn count(&mut self, topic: &str, events: u64) {
        let floor = self.floor;
        if let Some(counted) = self.counted.get_mut(topic) {
            counted.events = counted.events.saturating_add(events);
            return;
        }
        let counted = Counted { events: floor.saturating_add(events), uncertain: floor };
        self.counted.insert(topic.to_owned(), counted);
        if self.counted.len() > 2 * COUNTED {
            self.drop_least();
        }
    }

    /// The certain events of the topics that are counted, the busiest first.
    pub(super) fn busiest(&mut self, now: Instant) -> Vec<(String, u64)> {
        self.fade(now);
        let certain = self.counted.iter().map(|(topic, of)| (topic.clone(), of.events - of.uncertain));
        let mut busiest: Vec<_> = certain.filter(|(_, events)| *events > 0).collect();
        busiest
            .sort_unstable_by(|(one, events), (other, more)| more.cmp(events).then_with(|| one.cmp(other)));
        busiest
    }

    /// Drops half of the topics at once, those with the least events, so that one costs little.
    fn drop_least(&mut self) {
        let mut counts: Vec<_> = self.counted.values().map(|of| of.events).collect();
        let (_, bound, _) = counts.select_nth_unstable(COUNTED);
        self.floor = (*bound).max(self.floor);
        let floor = self.floor;
        self.counted.retain(|_, of| of.events > floor);
    }

    fn fade(&mut self, now: Instant) {
        while now.saturating_duration_since(self.halved) >= HALF_LIFE {
            self.halved += HALF_LIFE;
            self.floor /= 2;
            self.counted.retain(|_, of| {
                // Halved so that what is certain stays no more than it was.
                (of.events, of.uncertain) = (of.events / 2, of.uncertain.div_ceil(2).min(of.events / 2));
                of.events > of.uncertain
            });
            if self.counted.is_empty() {
                (self.floor, self.halved) = (0, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(busiest: Vec<(String, u64)>) -> Vec<String> {
        busiest.into_iter().map(|(topic, _)| topic).collect()
    }

    #[test]
    fn a_flood_of_topics_that_sort_first_does_not_hide_busy_ones() {
        let now = Instant::now();
        let mut activity = Activity::new(now);
        for number in 0..500_000_u32 {
            activity.note([(&*format!("!{number:06}"), 1)].into_iter(), now);
            if number % 1_000 == 0 {
                activity.note([("orders", 10)].into_iter(), now);
                activity.note([("zebras", 5)].into_iter(), now);
            }
        }
        assert_eq!(names(activity.busiest(now))[..2], ["orders", "zebras"]);
        assert!(activity.counted.len() <= 2 * COUNTED, "{}", activity.counted.len());
    }

    #[test]
    fn what_was_busy_long_ago_fades() {
        let now = Instant::now();
        let mut activity = Activity::new(now);
        activity.note([("old", 1_000)].into_iter(), now);
        let later = now + HALF_LIFE * 5;
        activity.note([("new", 100)].into_iter(), later);
        assert_eq!(activity.busiest(later), [("new".to_owned(), 100), ("old".to_owned(), 31)]);
        assert!(activity.busiest(later + HALF_LIFE * 20).is_empty());
        activity.note([("new", 1)].into_iter(), later + HALF_LIFE * 100_000);
    }
}
