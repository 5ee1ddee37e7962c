//! A store that something else has locked for long, under load.

use std::time::Duration;

use tempfile::tempdir;

use super::producers::{BATCH, Plan, check, start};
use super::{lasting, memory, or_long};
use crate::support::{Locked, Process, alone, event, everything, say, until};

/// What waiting requests may take of the log's memory, in bytes.
const MORE: u64 = 48 << 20;

/// `store.lock_timeout`.
const PATIENCE: Duration = Duration::from_millis(300);

/// What a machine may add to an answer: less than the patience of a few commits.
const BUSY: Duration = Duration::from_millis(900);

// invariant 5: an error to the producer, never a success.
#[actix_web::test]
async fn a_store_that_is_locked_for_long_refuses_reads_on_and_heals() {
    let _alone = alone();
    let home = tempdir().unwrap();
    // A commit for each request, so that many wait behind each other.
    let config = format!(
        "[limits]\nin_flight_events = 2000\nbatch_events = 1000\n[store]\nlock_timeout = \"{}ms\"\ncommit_events = {BATCH}\n",
        PATIENCE.as_millis()
    );
    let process = Process::configured(home.path(), &config);
    process.publish(event("t", "1")).await.ok();
    let before = memory(&process);
    let locked = Locked::take(&home.path().join("log.db"));
    let refused = start(process.address(), Plan { name: "load", count: 16, pace: None, lasting: lasting() });
    until("the log is not ready", async || !process.is_ready().await).await;
    let mut most = 0;
    while refused.iter().any(|thread| !thread.is_finished()) {
        assert_eq!(everything(&process, "t").await.len(), 1, "reads go on");
        most = most.max(memory(&process));
    }
    let seen: Vec<_> = refused.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(seen.iter().all(|seen| seen.accepted == 0), "nothing is stored in a locked file");
    let mut times: Vec<_> = seen.iter().flat_map(|seen| &seen.refused_in).copied().collect();
    times.sort_unstable();
    let refusals = times.len();
    // Who waits for the locks of other commits does so each time; a busy machine makes some wait.
    let slow = times[or_long(refusals / 2, refusals - 1)];
    assert!(slow < PATIENCE + BUSY, "nobody waits for the lock of another commit: {slow:?}");
    drop(locked);
    until("the log is ready again", async || process.is_ready().await).await;
    let seen = super::producers::run(
        process.address(),
        Plan { name: "healed", count: 2, pace: None, lasting: lasting() / 4 },
    );
    assert!(seen.iter().all(|seen| seen.accepted > 0), "it has healed");
    check(&process, &seen).await;
    say(&format!(
        "locked for {:?}: {refusals} requests refused, memory {} MiB, then at most {} MiB",
        lasting(),
        before >> 20,
        most >> 20
    ));
    assert!(most < before + MORE, "from {before} to {most} bytes");
}
