//! Very many connections that say nothing.

use std::net::TcpStream;
use std::process::Command;

use tempfile::tempdir;

use super::{memory, or_long};
use crate::support::{Process, event, everything, say};

/// What an idle connection may take of the log's memory, in bytes.
const EACH: u64 = 32 << 10;

/// What may come and go beside, in bytes.
const BESIDE: u64 = 16 << 20;

/// Lets this process open so many files, and says whether it may.
fn may_open(files: usize) -> bool {
    let own = std::process::id().to_string();
    Command::new("prlimit")
        .args(["--pid", &own, &format!("--nofile={files}:{files}")])
        .output()
        .is_ok_and(|outcome| outcome.status.success())
}

#[actix_web::test]
async fn idle_connections_harm_nobody() {
    let count = or_long(1_000, 10_000);
    if !may_open(count + 1_000) {
        say(&format!("SKIPPED: {count} idle connections, because this process may not open as many files"));
        return;
    }
    let home = tempdir().unwrap();
    let process = Process::limited(home.path(), &format!("ulimit -n {}", count + 1_000));
    process.publish(event("t", "1")).await.ok();
    let before = memory(&process);
    let idle: Vec<_> = (0..count).map(|_| TcpStream::connect(process.address()).unwrap()).collect();
    process.publish(event("t", "2")).await.ok();
    assert_eq!(everything(&process, "t").await.len(), 2);
    let after = memory(&process);
    say(&format!("idle: {count} connections, memory {} MiB, then {} MiB", before >> 20, after >> 20));
    assert!(after < before + idle.len() as u64 * EACH + BESIDE, "from {before} to {after} bytes");
}
