//! How long after its event a duplicate came: in buckets, from whole seconds.

use std::ops::AddAssign;

use jiff::Timestamp;

/// A second since 1970, UTC, as coarse as lateness needs it: 4 bytes in each slot of a hot cache. Times before 1970 and
/// after 2106 are those ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Second(pub u32);

/// The upper ends of the buckets, in seconds, each included; the last bucket has none. The steps are those in which people
/// choose a window: 1 s, 10 s, 1 min, 5 min, 1 h, 6 h, 1 d, 7 d, 30 d.
pub const LATE_SECONDS: [u32; 9] = [1, 10, 60, 300, 3_600, 21_600, 86_400, 604_800, 2_592_000];

/// Buckets, the one without an end included.
pub const LATE_BUCKETS: usize = LATE_SECONDS.len() + 1;

/// How late duplicates came. Those that an older version of the store counted are in no bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lateness {
    /// Duplicates in each bucket alone, not in those below it.
    pub buckets: [u64; LATE_BUCKETS],
    /// The seconds of all of them together.
    pub seconds: u64,
}

impl Second {
    /// The second that a moment is in.
    #[must_use]
    pub fn of(moment: Timestamp) -> Self {
        Self(u32::try_from(moment.as_second().max(0)).unwrap_or(u32::MAX))
    }

    /// The seconds from here to a later second; 0 where the clock was set back between them.
    #[must_use]
    pub fn until(self, later: Self) -> u32 {
        later.0.saturating_sub(self.0)
    }
}

impl Lateness {
    /// Counts a duplicate that came so many seconds after its event.
    pub fn count(&mut self, seconds: u32) {
        let bucket = LATE_SECONDS.partition_point(|end| *end < seconds);
        self.buckets[bucket] += 1;
        self.seconds += u64::from(seconds);
    }
}

impl AddAssign for Lateness {
    fn add_assign(&mut self, other: Self) {
        for (sum, more) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += more;
        }
        self.seconds += other.seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_includes_its_end() {
        let mut late = Lateness::default();
        for seconds in [0, 1, 2, 10, 11, 2_592_000, 2_592_001, u32::MAX] {
            late.count(seconds);
        }
        assert_eq!(late.buckets, [2, 2, 1, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(late.seconds, 24 + 2 * 2_592_000 + 1 + u64::from(u32::MAX));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_late() {
        let at = |second| Second::of(Timestamp::from_second(second).unwrap());
        assert_eq!((at(100).until(at(90)), at(90).until(at(100))), (0, 10));
        assert_eq!((at(-5), at(253_402_207_199)), (Second(0), Second(u32::MAX)));
    }
}
