//! What `bench` sends: every event is a function of the seed and its index, so that the verification can make
//! it again instead of keeping it.

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::{Builder, Uuid};

/// Half of the duplicates repeat one of so many events, the newest ones: what a producer's retries look like.
const RECENT: u64 = 2000;
const SOURCE: &str = "sekali-bench";
const TIMESTAMP: &str = "2026-01-01T00:00:00Z";

/// The events of one run.
#[derive(Debug)]
pub(super) struct Plan {
    seed: u64,
    topics: Vec<String>,
}

/// One event, without its topic's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    /// Which topic of the run.
    pub(super) topic: usize,
    /// A random UUID.
    pub(super) id: Uuid,
    /// The payload's text.
    pub(super) payload: String,
}

/// The order in which events are sent, as their indexes: a new event is the next index, a duplicate an earlier
/// one. The number of duplicates is exact.
#[derive(Debug)]
pub(super) struct Schedule {
    random: fastrand::Rng,
    /// Events still to be sent.
    left: u64,
    /// Duplicates among them.
    duplicates_left: u64,
    /// New events sent so far.
    sent: u64,
    /// Whether the next duplicate repeats a recent event.
    recent: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    event_id: String,
    timestamp: &'a str,
    source: &'a str,
    payload: &'a RawValue,
}

impl Plan {
    /// The events of this seed in so many topics, whose names no run had before.
    pub(super) fn new(seed: u64, topics: usize) -> Self {
        let run = Uuid::new_v4().simple();
        Self { seed, topics: (0..topics).map(|topic| format!("bench-{run}-{topic}")).collect() }
    }

    /// The names of the topics.
    pub(super) fn topics(&self) -> &[String] {
        &self.topics
    }

    /// The event of this index.
    pub(super) fn event(&self, index: u64) -> Made {
        // An odd factor spreads neighbouring indexes over all seeds, and no two meet.
        let mut random = fastrand::Rng::with_seed(self.seed ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        let (cents, customer) = (random.u32(..1_000_000), random.u32(..));
        let payload = format!(
            "{{\"n\":{index},\"amount\":{}.{:02},\"customer\":\"{customer:08x}\"}}",
            cents / 100,
            cents % 100
        );
        Made {
            topic: random.usize(..self.topics.len()),
            id: Builder::from_random_bytes(bytes).into_uuid(),
            payload,
        }
    }

    /// The event as one line of JSON, about 220 bytes.
    pub(super) fn line(&self, event: &Made) -> serde_json::Result<Vec<u8>> {
        let payload: &RawValue = serde_json::from_str(&event.payload)?;
        let topic = &self.topics[event.topic];
        serde_json::to_vec(&Line {
            topic,
            event_id: event.id.to_string(),
            timestamp: TIMESTAMP,
            source: SOURCE,
            payload,
        })
    }

    /// Whether a stored event is this one, in every field that was sent.
    pub(super) fn is_same(&self, event: &Made, stored: &crate::api::Event<'_>) -> bool {
        stored.topic == self.topics[event.topic]
            && stored.timestamp == TIMESTAMP
            && stored.source == SOURCE
            && stored.payload.get() == event.payload
    }
}

impl Schedule {
    /// `events` in all, of which `percent` in a hundred, rounded down, are duplicates. The first event cannot
    /// be one.
    pub(super) fn new(seed: u64, events: u64, percent: u64) -> Self {
        let duplicates = (events * percent / 100).min(events.saturating_sub(1));
        let random = fastrand::Rng::with_seed(seed);
        Self { random, left: events, duplicates_left: duplicates, sent: 0, recent: false }
    }

    /// New events in all.
    pub(super) fn unique(&self) -> u64 {
        self.sent + self.left - self.duplicates_left
    }

    fn repeat(&mut self) -> u64 {
        self.duplicates_left -= 1;
        self.recent = !self.recent;
        let oldest = if self.recent { self.sent.saturating_sub(RECENT) } else { 0 };
        self.random.u64(oldest..self.sent)
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let last = self.left.checked_sub(1)?;
        // Taking each of the places that are left with the same chance makes the number of duplicates exact.
        let repeat = self.sent > 0 && self.random.u64(..self.left) < self.duplicates_left;
        self.left = last;
        if repeat {
            return Some(self.repeat());
        }
        self.sent += 1;
        Some(self.sent - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn shape(events: u64, percent: u64) -> (usize, u64) {
        let schedule = Schedule::new(7, events, percent);
        let promised = schedule.unique();
        let sent: Vec<_> = schedule.collect();
        let mut new = 0;
        for index in &sent {
            assert!(*index <= new, "a duplicate repeats an event that was sent");
            new += u64::from(*index == new);
        }
        assert_eq!(new, promised);
        (sent.len(), sent.len() as u64 - new)
    }

    #[test]
    fn the_share_of_duplicates_is_exact() {
        for (events, percent, duplicates) in [
            (5000, 20, 1000),
            (5000, 0, 0),
            (999, 33, 329),
            (1000, 100, 999),
            (1, 50, 0),
            (0, 50, 0),
            (3, 99, 2),
        ] {
            assert_eq!(shape(events, percent), (usize::try_from(events).unwrap(), duplicates));
        }
    }

    #[test]
    fn duplicates_are_recent_ones_and_old_ones() {
        let (mut sent, mut recent, mut old) = (0, 0, 0);
        for index in Schedule::new(1, 100_000, 20) {
            match index {
                new if new == sent => sent += 1,
                _ if index + RECENT >= sent => recent += 1,
                _ => old += 1,
            }
        }
        assert!(recent > 10_000 && old > 8_000, "{recent} {old}");
    }

    #[test]
    fn events_depend_on_the_seed_and_the_index_only() {
        let (plan, again) = (Plan::new(1, 4), Plan::new(1, 4));
        assert_eq!(plan.event(5), again.event(5));
        assert_ne!(plan.event(5), Plan::new(2, 4).event(5));
        assert_ne!(plan.topics(), again.topics(), "a run has topics of its own");
        let ids: HashSet<_> = (0..10_000).map(|index| plan.event(index).id).collect();
        assert_eq!(ids.len(), 10_000);
        assert_eq!(plan.event(5).id.get_version_num(), 4);
    }

    #[test]
    fn a_line_has_about_220_bytes_and_holds_the_payload_as_it_is() {
        let plan = Plan::new(1, 4);
        let event = plan.event(1234);
        let line = String::from_utf8(plan.line(&event).unwrap()).unwrap();
        assert!((200..=260).contains(&line.len()), "{} {line}", line.len());
        assert!(line.contains(&event.payload), "{line}");
    }
}
