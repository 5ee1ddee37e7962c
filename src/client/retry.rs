//! Sending again: with growing, jittered delays, for as long as the caller has patience.

use std::future::Future;
use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::error::ClientError;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// How long transient errors are tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// No attempt begins later than this after the first.
    pub give_up_after: Duration,
    /// Whether a server that cannot be reached at the first attempt is tried again: an address without a
    /// server is more likely wrong than early.
    pub unreachable_at_first: bool,
}

/// The attempts of one request, or of one read that can be resumed.
pub struct Attempts {
    retry: Retry,
    started: Instant,
    delays: ExponentialBackoff,
    failed: u32,
    answered: bool,
}

impl Retry {
    /// Transient errors are tried again for this long, whichever comes first.
    #[must_use]
    pub const fn of(give_up_after: Duration) -> Self {
        Self { give_up_after, unreachable_at_first: true }
    }

    /// The first attempt begins now.
    #[must_use]
    pub fn attempts(self) -> Attempts {
        Attempts { retry: self, started: Instant::now(), delays: delays(), failed: 0, answered: false }
    }

    /// Sends until there is an answer, a final error, or no patience left; `failed` hears of every attempt that
    /// is followed by another.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn run<T, Sent: Future<Output = Result<T, ClientError>>>(
        self,
        mut send: impl FnMut() -> Sent,
        mut failed: impl FnMut(&ClientError, Duration),
    ) -> Result<T, ClientError> {
        let mut attempts = self.attempts();
        loop {
            match send().await {
                Ok(answer) => return Ok(answer),
                Err(error) => attempts.wait(error, &mut failed).await?,
            }
        }
    }
}

impl Attempts {
    /// Waits until the next attempt after this error, of which `failed` hears before.
    ///
    /// # Errors
    /// The same error, where it is final or the patience is at its end.
    pub async fn wait(
        &mut self,
        error: ClientError,
        failed: &mut impl FnMut(&ClientError, Duration),
    ) -> Result<(), ClientError> {
        let Some(delay) = self.delay(&error) else { return Err(error) };
        failed(&error, delay);
        sleep(delay).await;
        Ok(())
    }

    /// Something came: the patience begins again, and the server was reached.
    pub fn progress(&mut self) {
        if self.failed > 0 || !self.answered {
            self.delays = delays();
            self.failed = 0;
        }
        self.answered = true;
        self.started = Instant::now();
    }

    /// How many attempts have failed since the first one or since something came.
    #[must_use]
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// How long to wait before the next attempt; `None` when there is none.
    fn delay(&mut self, error: &ClientError) -> Option<Duration> {
        let is_first = self.failed == 0 && !self.answered;
        self.failed += 1;
        let unreachable = matches!(error, ClientError::Unreachable { .. });
        if !error.is_transient() || (is_first && unreachable && !self.retry.unreachable_at_first) {
            return None;
        }
        // A server may ask for more time than there is: the last attempt is made at the end of it.
        let left = self.retry.give_up_after.saturating_sub(self.started.elapsed());
        let wanted = self.delays.next()?.max(error.retry_after().unwrap_or_default());
        Some(wanted.min(left)).filter(|_| !left.is_zero())
    }
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_DELAY)
        .with_max_delay(LONGEST_DELAY)
        .without_max_times()
        .with_jitter()
        .build()
}
