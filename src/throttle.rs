//! A throttle of lines in the log: so many in a period, however many requests cause them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The period of a line that tells a state.
const STATE_PERIOD: Duration = Duration::from_secs(10);

/// Lets so many lines pass in a period, and counts the others.
#[derive(Debug)]
pub struct Throttle {
    most: u32,
    period: Duration,
    window: Mutex<Window>,
}

/// The period that runs.
#[derive(Debug, Default)]
struct Window {
    begun: Option<Instant>,
    written: u32,
    /// Lines that were left out and not reported.
    omitted: u64,
}

impl Throttle {
    /// So many lines in a period, which begins with the first of them.
    #[must_use]
    pub fn new(most: u32, period: Duration) -> Self {
        Self { most, period, window: Mutex::default() }
    }

    /// Whether one more line may be written now. A caller that is told so writes it.
    pub fn admits(&self) -> bool {
        self.admits_at(Instant::now())
    }

    /// How many lines were left out since this was asked last.
    pub fn take_omitted(&self) -> u64 {
        std::mem::take(&mut self.window.lock().unwrap_or_else(PoisonError::into_inner).omitted)
    }

    fn admits_at(&self, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= self.period) {
            (window.begun, window.written) = (Some(now), 0);
        }
        let admitted = window.written < self.most;
        if admitted {
            window.written += 1;
        } else {
            window.omitted += 1;
        }
        admitted
    }
}

impl Default for Throttle {
    /// That of a line that tells a state: one at first, and one every ten seconds.
    fn default() -> Self {
        Self::new(1, STATE_PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_tells_a_state_comes_at_first_and_after_ten_seconds_again() {
        let (line, begun) = (Throttle::default(), Instant::now());
        let due = [0, 1, 9, 10, 11, 19, 20].map(|second| line.admits_at(begun + Duration::from_secs(second)));
        assert_eq!(due, [true, false, false, true, false, false, true]);
        assert_eq!((line.take_omitted(), line.take_omitted()), (4, 0));
    }

    #[test]
    fn so_many_lines_pass_in_a_period_and_the_others_are_counted() {
        let (lines, begun) = (Throttle::new(100, Duration::from_secs(1)), Instant::now());
        let admitted = |millisecond: u64, sent: usize| {
            let now = begun + Duration::from_millis(millisecond);
            (0..sent).filter(|_| lines.admits_at(now)).count()
        };
        assert_eq!([admitted(0, 70), admitted(999, 70), admitted(1_000, 70)], [70, 30, 70]);
        assert_eq!(lines.take_omitted(), 40);
        assert_eq!(
            [admitted(5_000, 300), admitted(4_000, 1)],
            [100, 0],
            "a clock that goes back opens no period"
        );
        assert_eq!(lines.take_omitted(), 201);
    }
}
