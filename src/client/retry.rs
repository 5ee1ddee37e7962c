//! Sending again: with growing, jittered delays, for as long as the caller has patience.

use std::future::Future;
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};

use super::error::ClientError;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// How long transient errors are tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// No attempt begins later than this after the first.
    pub give_up_after: Duration,
}

impl Retry {
    /// Sends until there is an answer, a final error, or no patience left; `failed` hears of every attempt that
    /// is followed by another.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn run<T, Sent: Future<Output = Result<T, ClientError>>>(
        self,
        send: impl FnMut() -> Sent,
        failed: impl FnMut(&ClientError, Duration),
    ) -> Result<T, ClientError> {
        let started = Instant::now();
        let delays = ExponentialBuilder::new()
            .with_min_delay(FIRST_DELAY)
            .with_max_delay(LONGEST_DELAY)
            .without_max_times()
            .with_jitter();
        let patient = |error: &ClientError, delay: Option<Duration>| {
            let wanted = delay?.max(error.retry_after().unwrap_or_default());
            Some(wanted).filter(|wait| started.elapsed() + *wait <= self.give_up_after)
        };
        send.retry(delays).when(ClientError::is_transient).adjust(patient).notify(failed).await
    }
}
