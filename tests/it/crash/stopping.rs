//! SIGTERM under full load: what is in flight is answered, the exit code is 0, and the next start has nothing to do.

use std::time::{Duration, Instant};

use super::{CONFIG, Case, stop_and_examine};
use crate::support::{Process, say};
use tempfile::tempdir;

/// The bound of `server.shutdown_timeout` is 10 s; the rest is what a busy machine needs to end a
/// process.
const STOP_MAX: Duration = Duration::from_mins(1);

/// A start that has nothing to recover takes far less than this, except on a busy machine.
const START_MAX: Duration = Duration::from_mins(1);

// invariant 9: after a clean stop nothing needs recovery.
#[actix_web::test]
async fn a_stop_under_load_answers_what_is_in_flight_and_the_next_start_is_ready_at_once() {
    let mut case = Case::new("stops");
    let home = tempdir().unwrap();
    let (mut slowest_stop, mut slowest_start) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..case.rounds.div_ceil(4) {
        let started = Instant::now();
        let process = Process::configured(home.path(), CONFIG);
        assert!(process.is_ready().await);
        slowest_start = slowest_start.max(started.elapsed());
        case.check(&process).await;
        let load = case.send(&process, || true).await;
        let stopped = Instant::now();
        process.signal("TERM");
        let ended = process.ended().await;
        slowest_stop = slowest_stop.max(stopped.elapsed());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let left = std::fs::metadata(home.path().join("log.db-wal")).map_or(0, |left| left.len());
        assert_eq!(left, 0, "nothing is left to recover");
        case.history.add(load.finish());
    }
    assert!(slowest_stop < STOP_MAX, "{slowest_stop:?}");
    assert!(slowest_start < START_MAX, "{slowest_start:?}");
    let process = Process::configured(home.path(), CONFIG);
    case.check(&process).await;
    stop_and_examine(process, home.path()).await;
    let answers = case.history.acknowledged();
    say(&format!(
        "stops: {answers} acknowledged events, slowest stop {slowest_stop:?}, start {slowest_start:?}"
    ));
}
