//! The one way to wait: for a condition, with a deadline.

use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;

/// Far longer than anything takes on a busy machine; only a test that fails waits for so long.
const DEADLINE: Duration = Duration::from_mins(2);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until the condition holds; panics with `what` where it never does.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain until {what}");
        sleep(PAUSE).await;
    }
}
