//! Which runs to merge, and when: so many of one size become one, for ever fewer filters to ask. And how fast: a run
//! is written while the log grows, in step with it, so that no commit is much longer than the others.

use std::ops::Range;

/// Runs that become one. Eight keep each key written about log8(runs) times more, and the filters to ask for
/// each key at no more than seven a size.
const FAN_IN: usize = 8;

/// The runs to merge next, as a range of the given levels: the first [`FAN_IN`] neighbours of one level, the
/// smallest level first. `levels` are those of the runs in the order of the log, which merging keeps; runs that are
/// being merged have none.
pub(in crate::store) fn next_merge(levels: &[Option<u8>]) -> Option<Range<usize>> {
    let candidates = levels
        .windows(FAN_IN)
        .enumerate()
        .filter(|(_, run)| run[0].is_some() && run.iter().all(|level| *level == run[0]));
    candidates.min_by_key(|(at, run)| (run[0], *at)).map(|(at, _)| at..at + FAN_IN)
}

/// How many slices of a run are due, so that it is whole in time.
#[derive(Debug)]
pub(in crate::store) struct Pace {
    /// Slices of the run, about.
    slices: u64,
    /// Events that may come until it is whole.
    events: u64,
    /// Events that came.
    seen: u64,
    /// Slices that were written.
    written: u64,
}

impl Pace {
    /// For a run of about so many slices, to be whole when so many events have come.
    pub(in crate::store) fn new(slices: u64, events: u64) -> Self {
        Self { slices, events: events.max(1), seen: 0, written: 0 }
    }

    /// The slices that are due with so many further events. Past the end of its time they grow on, so that also a run
    /// that has more slices than was said becomes whole.
    pub(in crate::store) fn due(&self, events: usize) -> usize {
        let due = (self.seen + events as u64) * self.slices / self.events;
        usize::try_from(due.saturating_sub(self.written)).unwrap_or(usize::MAX)
    }

    /// So many events and slices were committed.
    pub(in crate::store) fn committed(&mut self, events: usize, slices: usize) {
        self.seen += events as u64;
        self.written += slices as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(levels: &[u8]) -> Option<Range<usize>> {
        next_merge(&levels.iter().copied().map(Some).collect::<Vec<_>>())
    }

    #[test]
    fn eight_of_a_size_become_one() {
        assert_eq!(next(&[0; 7]), None);
        assert_eq!(next(&[0; 9]), Some(0..8));
        assert_eq!(next(&[1, 0, 0, 0, 0, 0, 0, 0, 0]), Some(1..9));
        assert_eq!(next(&[1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Some(8..16), "small ones first");
        assert_eq!(next(&[1, 1, 1, 1, 0, 1, 1, 1, 1]), None, "only neighbours: runs stay in order of time");
    }

    #[test]
    fn what_is_being_merged_is_left_alone() {
        let mut levels = vec![Some(0); 17];
        levels[3] = None;
        assert_eq!(next_merge(&levels), Some(4..12));
        levels[4..12].fill(None);
        assert_eq!(next_merge(&levels), None);
    }

    #[test]
    fn a_run_is_written_in_step_with_the_log_and_is_whole_in_time() {
        let mut pace = Pace::new(1_000, 50_000);
        let mut most = 0;
        for _ in 0..50 {
            let due = pace.due(1_000);
            most = most.max(due);
            pace.committed(1_000, due);
        }
        assert_eq!((pace.written, most), (1_000, 20));
        assert_eq!(pace.due(100), 2, "what was not foreseen follows at the same pace");
        pace.committed(100, 0);
        assert_eq!(pace.due(0), 2, "what was not there in time is still due");
    }

    #[test]
    fn the_number_of_runs_stays_small_and_each_key_is_merged_seldom() {
        let (mut levels, mut written) = (Vec::new(), 0_u64);
        for _ in 0..4_096 {
            levels.push(0);
            while let Some(range) = next(&levels) {
                let level = levels[range.start];
                written += (FAN_IN as u64).pow(u32::from(level) + 1);
                levels.splice(range, [level + 1]);
            }
            assert!(levels.len() <= 4 * 7);
        }
        assert_eq!(levels, [4]);
        assert_eq!(written, 4 * 4_096, "each of 4,096 runs was written again once a level");
    }
}
