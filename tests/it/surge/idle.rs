//! Very many connections that say nothing, and more than the process may open.

use std::net::TcpStream;
use std::process::Command;

use tempfile::tempdir;

use super::{memory, or_long};
use crate::support::{Client, Process, Raw, alone, array, event, everything, ids, say, skipped, until};

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
    let _alone = alone();
    let count = or_long(1_000, 10_000);
    if !may_open(4 * count) {
        skipped(&format!("{count} idle connections, because this process may not open as many files"));
        return;
    }
    let home = tempdir().unwrap();
    let process = Process::limited(home.path(), "", &format!("ulimit -n {}", 4 * count));
    process.publish(event("t", "1")).await.ok();
    let before = memory(&process);
    let idle: Vec<_> = (0..count).map(|_| TcpStream::connect(process.address()).unwrap()).collect();
    process.publish(event("t", "2")).await.ok();
    assert_eq!(everything(&process, "t").await.len(), 2);
    let after = memory(&process);
    say(&format!("idle: {count} connections, memory {} MiB, then {} MiB", before >> 20, after >> 20));
    assert!(after < before + idle.len() as u64 * EACH + BESIDE, "from {before} to {after} bytes");
}

#[actix_web::test]
async fn more_connections_than_files_make_room_and_the_store_keeps_its_own() {
    let _alone = alone();
    let home = tempdir().unwrap();
    let process = Process::limited(home.path(), "[store]\nseal_keys = 1000\n", "ulimit -n 256");
    process.publish(event("t", "first")).await.ok();
    // Those that are too many are refused while the others are new, and so is the client. After a second
    // each further one takes the place of one before it.
    let idle: Vec<_> = (0..400).map(|_| TcpStream::connect(process.address()).unwrap()).collect();
    let client = Client::of(process.address());
    until("there is room for the client", async || client.is_ready().await).await;
    for number in 0..10 {
        let topic = format!("t{number}");
        let answer = client.publish(array(ids(&topic, 0..1_000))).await;
        assert_eq!(answer.counts(), [1_000, 1_000, 0, 0, 0]);
        assert_eq!(everything(&client, &topic).await.len(), 1_000);
    }
    drop(idle);
    let mut next = Raw::open(process.address());
    next.send("GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(next.answer().status, 200, "it is served as soon as others are gone");
    until("all is well", async || client.is_ready().await).await;
    process.signal("TERM");
    let ended = process.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("open files"), "{}", ended.stderr);
}
