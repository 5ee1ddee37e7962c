//! What one connection sends, in its order.
//!
//! Each connection has events of its own and repeats only these. With one request in flight a repeat then
//! either follows its first in the same request, or is sent when the first has been acknowledged: the verdict
//! on every single event is known before it is sent, whatever the connections do beside each other.

use std::collections::VecDeque;

/// One event of each so many is a repeat: 20 %.
const BLOCK: u64 = 5;

/// Half of the repeats are of one of so many events that the connection sent last: what retries look like.
const NEAR: usize = 2000;

/// An endless sequence of events.
#[derive(Debug, Clone)]
pub struct Lane {
    /// The number of its next event that is new.
    next: u64,
    /// Between the numbers of two of its new events; the lanes share all numbers out in turn.
    stride: u64,
    first: u64,
    sent: u64,
    /// The place of the repeat in this block.
    place: u64,
    /// Whether the next repeat is a near one.
    near: bool,
    /// Numbers that were sent last.
    recent: VecDeque<u64>,
    random: fastrand::Rng,
}

/// One event to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Its number in the plan.
    pub number: u64,
    /// Whether it has not been sent before.
    pub new: bool,
}

impl Lane {
    /// The lane of this index among so many.
    #[must_use]
    pub fn new(seed: u64, index: u64, lanes: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed ^ (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Self {
            next: index,
            stride: lanes,
            first: index,
            sent: 0,
            place: 0,
            near: false,
            recent: VecDeque::with_capacity(NEAR),
            random,
        }
    }

    /// A number that was sent before.
    fn repeat(&mut self) -> u64 {
        self.near = !self.near;
        if self.near {
            return self.recent[self.random.usize(..self.recent.len())];
        }
        let new_ones = (self.next - self.first) / self.stride;
        self.first + self.stride * self.random.u64(..new_ones)
    }
}

impl Iterator for Lane {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.sent.is_multiple_of(BLOCK) {
            // The very first event has nothing to repeat.
            self.place = self.random.u64(u64::from(self.sent == 0)..BLOCK);
        }
        let new = self.sent % BLOCK != self.place;
        self.sent += 1;
        let number = if new { self.next } else { self.repeat() };
        self.next += if new { self.stride } else { 0 };
        if self.recent.len() == NEAR {
            self.recent.pop_front();
        }
        self.recent.push_back(number);
        Some(Step { number, new })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn one_in_five_repeats_an_event_and_a_new_one_is_new() {
        let mut seen = HashMap::new();
        let (mut repeats, mut near) = (0, 0);
        for (place, step) in Lane::new(3, 1, 8).take(100_000).enumerate() {
            let before = seen.insert(step.number, place);
            assert_eq!(before.is_none(), step.new, "{step:?} at {place}");
            assert_eq!(step.number % 8, 1, "a lane has numbers of its own");
            repeats += usize::from(!step.new);
            near += usize::from(before.is_some_and(|at| place - at <= NEAR));
        }
        assert_eq!(repeats, 20_000);
        // The others are of any earlier event, and a few of those are near by chance.
        assert!((10_000..11_500).contains(&near), "{near} of {repeats} are near");
    }

    #[test]
    fn the_same_seed_makes_the_same_sequence() {
        let steps = |seed| Lane::new(seed, 0, 8).take(1000).collect::<Vec<_>>();
        assert_eq!(steps(1), steps(1));
        assert_ne!(steps(1), steps(2));
    }
}
