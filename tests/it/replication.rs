//! Other programs on the file of a log that runs: one that reads for long, and one that replicates as Litestream does.
//!
//! Litestream holds a read transaction, so that nobody begins the write-ahead log anew before it has copied it, keeps
//! two tables of its own in the file, writes to them, and checkpoints by itself
//! (<https://litestream.io/how-it-works/>). A stand-in does the same here.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use tempfile::tempdir;

use crate::support::{Client, Ended, Process, array, event, event_with, everything, seqs};

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
    for round in 4..8 {
        publish_many(&process, round).await;
    }
    assert_eq!(bytes(home.path(), "log.db-wal"), grown, "it begins again from its start");
}

#[actix_web::test]
async fn a_log_is_replicated_by_one_that_holds_its_place_and_checkpoints_by_itself() {
    let home = tempdir().unwrap();
    let process = Process::configured(home.path(), "[store]\nwal_bytes = \"1GiB\"\n");
    let replicator = outsider(home.path());
    replicator
        .execute_batch(
            "PRAGMA wal_autocheckpoint = 0;
             CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER);
             CREATE TABLE _litestream_lock (id INTEGER)",
        )
        .unwrap();
    for round in 0..3 {
        hold(&replicator);
        let (file, wal) = (bytes(home.path(), "log.db"), bytes(home.path(), "log.db-wal"));
        publish_many(&process, round).await;
        assert!(bytes(home.path(), "log.db-wal") > wal, "nothing is lost before it is copied");
        assert_eq!(bytes(home.path(), "log.db"), file, "nobody else checkpoints below store.wal_bytes");
        replicator.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        assert!(bytes(home.path(), "log.db") > file && bytes(home.path(), "log.db-wal") == 0);
        replicator
            .execute_batch(
                "INSERT INTO _litestream_seq VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET seq = seq + 1",
            )
            .unwrap();
    }
    hold(&replicator);
    process.publish(event("t", "last")).await.ok();
    process.signal("TERM");
    assert_eq!(process.ended().await.code, Some(0), "it waits for nobody who replicates");
    assert!(bytes(home.path(), "log.db-wal") > 0, "what is not copied yet stays");
    drop(replicator);

    let store = format!("sqlite:{}", home.path().join("log.db").display());
    let examined = Ended::of(["doctor", "--store", &store]).await;
    assert!(examined.stdout.ends_with("HEALTHY: nothing is damaged\n"), "{}", examined.stdout);
    let again = Process::serve(home.path());
    assert_eq!(seqs(&everything(&again, "t").await), (1..=3 * MANY as u64 + 1).collect::<Vec<_>>());
}
