//! Another program that reads the file of a log for long, as one that replicates it does. Litestream itself is in
//! `crash/replica.rs`.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use tempfile::tempdir;

use crate::support::{Client, Process, array, event_with, until};

/// More than the smallest `store.wal_bytes`, in events of 16 KiB.
const MANY: usize = 200;

async fn publish_many(log: &Client, round: usize) {
    let payload = format!("{{\"text\":\"{}\"}}", "x".repeat(16 << 10));
    let ids = (0..MANY).map(|number| format!("{round}-{number}"));
    let answer = log.publish(array(ids.map(|id| event_with("t", &id, &payload)))).await;
    assert_eq!(answer.counts(), [MANY as u64, MANY as u64, 0, 0, 0]);
}

fn bytes(home: &Path, name: &str) -> u64 {
    fs::metadata(home.join(name)).unwrap().len()
}

fn outsider(home: &Path) -> Connection {
    Connection::open(home.join("log.db")).unwrap()
}

/// Begins a read that keeps the store as it is now for this connection.
fn hold(reader: &Connection) {
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
}

#[actix_web::test]
async fn a_long_read_lets_the_write_ahead_log_grow_and_keeps_nobody_from_writing() {
    let home = tempdir().unwrap();
    let process = Process::configured(home.path(), "[store]\nwal_bytes = \"1MiB\"\n");
    publish_many(&process, 0).await;
    let reader = outsider(home.path());
    hold(&reader);
    let before = bytes(home.path(), "log.db-wal");
    for round in 1..4 {
        publish_many(&process, round).await;
    }
    let grown = bytes(home.path(), "log.db-wal");
    assert!(grown > before + (3 * MANY as u64) * (16 << 10), "it keeps what is read: {before}, {grown}");
    let seen: u32 = reader.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(seen as usize, MANY, "the moment when it began");
    reader.execute_batch("COMMIT").unwrap();
    // A thread checkpoints beside the commits, as soon as the machine lets it.
    let mut round = 4;
    until("it begins again from its start", async || {
        let before = bytes(home.path(), "log.db-wal");
        publish_many(&process, round).await;
        round += 1;
        bytes(home.path(), "log.db-wal") == before
    })
    .await;
}
