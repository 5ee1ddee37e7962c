//! Lines in the log that tell a state: once in a while, however many requests meet it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time between two lines.
const AGAIN: Duration = Duration::from_secs(10);

/// Remembers when a line was written last.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether the line may be written now: at first, and ten seconds after the last time that it might. Who is told so
    /// writes it.
    pub fn is_due(&self) -> bool {
        self.is_due_at(Instant::now())
    }

    fn is_due_at(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= AGAIN);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_at_first_and_after_ten_seconds_again() {
        let (line, begun) = (Seldom::default(), Instant::now());
        let due = [0, 1, 9, 10, 11, 19, 20].map(|second| line.is_due_at(begun + Duration::from_secs(second)));
        assert_eq!(due, [true, false, false, true, false, false, true]);
    }
}
