//! The writer of a store, which is opened again after an unknown outcome: at once the first time,
//! with backoff while that fails.
//!
//! To open a store reads all that its writer holds in memory, and may take seconds. So it is not
//! tried for each batch: until the next try is due, every group is refused without one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::health::Health;
use crate::store::{Engine, Space, StoreError, Writer};

/// The time between the first two tries; each later one waits for twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// The longest wait where the store may come back by itself: its disk, its database, the way to it.
const PASSING_WAIT: Duration = Duration::from_secs(2);

/// The longest wait where somebody must mend the store first.
const FINAL_WAIT: Duration = Duration::from_mins(1);

/// A writer that is open, or when it is opened again.
pub(super) struct Opening {
    engine: Arc<dyn Engine>,
    writer: Option<Box<dyn Writer>>,
    /// Whether a transaction of this writer succeeded, or of the one before it.
    is_proven: bool,
    backoff: Backoff,
    /// Why there is no writer.
    reason: String,
    health: Health,
}

impl Opening {
    pub(super) fn new(engine: Arc<dyn Engine>, health: Health) -> Self {
        let (backoff, reason) = (Backoff::default(), String::new());
        Self { engine, writer: None, is_proven: true, backoff, reason, health }
    }

    /// Opens the writer for the first time.
    ///
    /// # Errors
    /// When the store cannot be opened for writing.
    pub(super) fn begin(&mut self) -> Result<(), StoreError> {
        self.writer = Some(self.engine.open_writer()?);
        Ok(())
    }

    /// The space that the store takes and has.
    pub(super) fn space(&self) -> Option<Space> {
        self.engine.space()
    }

    /// The writer, opened again where it is not open and a try is due.
    ///
    /// # Errors
    /// Why there is none. Nothing was tried where the next try is not due.
    pub(super) fn open(&mut self) -> Result<&mut dyn Writer, String> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None if self.backoff.is_due(Instant::now()) => self.reopen()?,
            None => return Err(self.reason.clone()),
        };
        Ok(&mut **self.writer.insert(writer))
    }

    fn reopen(&mut self) -> Result<Box<dyn Writer>, String> {
        let begun = Instant::now();
        let (opened, longest) = match catch_unwind(AssertUnwindSafe(|| self.engine.open_writer())) {
            Ok(Err(error @ StoreError::Unavailable(_))) => (Err(error), PASSING_WAIT),
            Ok(opened) => (opened, FINAL_WAIT),
            // Most likely it panics each time, and says so in the log each time.
            Err(_) => (Err(StoreError::Unavailable("to open it panicked".to_owned())), FINAL_WAIT),
        };
        match opened {
            Ok(writer) => {
                self.is_proven = false;
                self.health.opened();
                // The last writer may have left more than was announced.
                self.engine.news().look_again();
                Ok(writer)
            }
            Err(error) => {
                self.health.not_opened(&error);
                self.wait(format!("the store cannot be opened for writing: {error}"), begun, longest);
                Err(self.reason.clone())
            }
        }
    }

    /// Drops the writer after an unknown outcome. The next one is opened at once if this one has
    /// ever stored anything; otherwise opening it again is no cure, and waits.
    pub(super) fn give_up(&mut self, error: &StoreError) {
        self.writer = None;
        if !self.is_proven {
            self.wait(format!("the store is opened again soon: {error}"), Instant::now(), PASSING_WAIT);
        }
    }

    fn wait(&mut self, reason: String, begun: Instant, longest: Duration) {
        self.reason = reason;
        self.backoff.failed(begun, Instant::now(), longest);
    }

    /// A transaction of the writer succeeded.
    pub(super) fn succeeded(&mut self) {
        self.is_proven = true;
        self.backoff = Backoff::default();
    }

    /// Makes the next try due now.
    pub(super) fn hurry(&mut self) {
        self.backoff = Backoff::default();
    }

    /// How long the last commit of the writer waited for the disk, as [`Writer::sync_time`] says.
    pub(super) fn sync_time(&self) -> Option<Duration> {
        self.writer.as_ref()?.sync_time()
    }

    /// Gives the writer away, where it is open.
    pub(super) fn take(&mut self) -> Option<Box<dyn Writer>> {
        self.writer.take()
    }
}

/// When the next try is due.
#[derive(Debug, Default)]
struct Backoff {
    due: Option<Instant>,
    /// The wait that ends then.
    wait: Duration,
}

impl Backoff {
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| now >= due)
    }

    /// A try failed. The next one waits for at least as long as this one took, so that tries take
    /// half of the thread's time at most.
    fn failed(&mut self, begun: Instant, now: Instant, longest: Duration) {
        let took = now.saturating_duration_since(begun);
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, longest);
        self.due = Some(now + self.wait.max(took));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn each_try_waits_for_twice_as_long_up_to_a_limit() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        assert!(backoff.is_due(now), "nothing has failed");
        let mut waits = Vec::new();
        for _ in 0..8 {
            backoff.failed(now, now, PASSING_WAIT);
            let due = backoff.due.unwrap();
            assert!(!backoff.is_due(due.checked_sub(milliseconds(1)).unwrap()) && backoff.is_due(due));
            waits.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
        backoff.failed(now, now, FINAL_WAIT);
        assert_eq!(backoff.due, Some(now + milliseconds(4_000)), "it became final");
        backoff.failed(now, now, PASSING_WAIT);
        assert_eq!(backoff.due, Some(now + PASSING_WAIT), "it may come back by itself again");
    }

    #[test]
    fn a_try_that_took_long_is_not_followed_by_the_next_at_once() {
        let (mut backoff, begun) = (Backoff::default(), Instant::now());
        let ended = begun + milliseconds(7_000);
        backoff.failed(begun, ended, PASSING_WAIT);
        assert_eq!(backoff.due, Some(ended + milliseconds(7_000)));
    }
}
