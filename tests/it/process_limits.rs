//! The real program in a process whose files must not grow: writes fail until they may again. No root needed.

use std::process::Command;

use sekali::api::Code;
use tempfile::tempdir;

use crate::support::{Client, Process, event_with, everything, seqs, skipped, until};

/// Files of at most 2,048 blocks (1 or 2 MiB, as the shell counts), and an error instead of a signal past it.
const SMALL_FILES: &str = "trap '' XFSZ; ulimit -S -f 2048";

fn large(number: usize) -> String {
    event_with("t", &number.to_string(), &format!("{{\"text\":\"{}\"}}", "x".repeat(64 << 10)))
}

fn can_lift_limits() -> bool {
    let found = Command::new("prlimit").arg("--version").output().is_ok();
    if !found {
        skipped("a process whose files must not grow needs prlimit");
    }
    found
}

async fn check(log: &Client, accepted: usize) {
    assert_eq!(seqs(&everything(log, "t").await), (1..=accepted as u64).collect::<Vec<_>>());
    assert_eq!(log.totals("persistent").await[1], accepted as u64);
}

#[actix_web::test]
async fn files_that_cannot_grow_are_503_and_the_same_event_is_accepted_once_they_can() {
    // invariant 5: what failed in the middle of a write is neither a success nor, later, a duplicate.
    if !can_lift_limits() {
        return;
    }
    let home = tempdir().unwrap();
    let process = Process::limited(home.path(), "", SMALL_FILES);
    let mut accepted = 0;
    until("a write fails", async || {
        let answer = process.publish(large(accepted)).await;
        accepted += usize::from(answer.status == 200);
        answer.status == 503 && answer.problem(Code::StoreUnavailable).status == 503
    })
    .await;
    assert!(accepted > 0);
    check(&process, accepted).await;
    process.get("/health/ready").await.problem(Code::StoreUnavailable);

    let pid = process.id().to_string();
    let lifted = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status().unwrap();
    assert!(lifted.success());
    until("the log is ready again", async || process.is_ready().await).await;
    assert_eq!(process.publish(large(accepted)).await.fates(), [format!("accepted {}", accepted + 1)]);
    assert_eq!(process.publish(large(accepted)).await.fates(), [format!("duplicate {}", accepted + 1)]);
    check(&process, accepted + 1).await;
    process.signal("TERM");
    assert_eq!(process.ended().await.code, Some(0));
    check(&Process::serve(home.path()), accepted + 1).await;
}
