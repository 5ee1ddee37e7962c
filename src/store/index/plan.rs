//! Which runs to merge, and when: so many of one size become one, for ever fewer filters to ask.

/// Runs that become one. Eight keep each key written about log8(runs) times more, and the filters to ask for
/// each key at no more than seven a size.
const FAN_IN: usize = 8;

/// The runs to merge next, as a range of the given levels: the first [`FAN_IN`] neighbours of one level, the
/// smallest level first. `levels` are those of the runs in the order of the log, which merging keeps.
pub(in crate::store) fn next_merge(levels: &[u8]) -> Option<std::ops::Range<usize>> {
    let candidates =
        levels.windows(FAN_IN).enumerate().filter(|(_, run)| run.iter().all(|level| *level == run[0]));
    candidates.min_by_key(|(at, run)| (run[0], *at)).map(|(at, _)| at..at + FAN_IN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_of_a_size_become_one() {
        assert_eq!(next_merge(&[0; 7]), None);
        assert_eq!(next_merge(&[0; 9]), Some(0..8));
        assert_eq!(next_merge(&[1, 0, 0, 0, 0, 0, 0, 0, 0]), Some(1..9));
        assert_eq!(
            next_merge(&[1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            Some(8..16),
            "small ones first"
        );
        assert_eq!(
            next_merge(&[1, 1, 1, 1, 0, 1, 1, 1, 1]),
            None,
            "only neighbours: runs stay in order of time"
        );
    }

    #[test]
    fn the_number_of_runs_stays_small_and_each_key_is_merged_seldom() {
        let (mut levels, mut written) = (Vec::new(), 0_u64);
        for _ in 0..4_096 {
            levels.push(0);
            while let Some(range) = next_merge(&levels) {
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
