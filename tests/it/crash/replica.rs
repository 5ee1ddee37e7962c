//! The store in Litestream's replica, after kills and stops of it and of the server, as docs/OPERATIONS.md has them run.

use super::{Case, stop_and_examine};
use crate::support::{Litestream, Process, say, signal};
use tempfile::tempdir;

/// What docs/OPERATIONS.md asks for, and many seals of the dedup index.
const CONFIG: &str = "[store]\nseal_keys = 1000\nwal_bytes = \"1GiB\"\n";

/// Rounds where nothing else is said; a round has two loads and a restore.
const ROUNDS: usize = 3;

/// Checks the store of a replica: everything that was acknowledged until now must be there, once.
async fn check(case: &mut Case, litestream: &Litestream) {
    litestream.sync().await;
    let home = litestream.restored().await;
    let copy = Process::serve(home.path());
    case.check(&copy).await;
    stop_and_examine(copy, home.path()).await;
}

/// Ends a server and the Litestream that it is the child of, by the one or by the other.
async fn end(kind: usize, process: Process) {
    match kind {
        0 => {
            signal(process.child(), "KILL");
            assert_eq!(process.ended().await.code, Some(1), "Litestream ends with the server");
        }
        1 => drop(process),
        _ => {
            process.signal("TERM");
            let ended = process.ended().await;
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        }
    }
}

#[actix_web::test]
async fn what_is_acknowledged_before_a_sync_is_in_the_replica_whoever_is_killed() {
    let home = tempdir().unwrap();
    let Some(litestream) = Litestream::of(home.path()) else { return };
    let mut case = Case::of("replicas", "REPLICA", ROUNDS);
    let mut process = litestream.serve(CONFIG);
    for round in 0..case.rounds {
        let load = case.send(&process, || true).await;
        end(round % 3, process).await;
        case.history.add(load.finish());
        process = litestream.serve(CONFIG);
        let load = case.send(&process, || true).await;
        case.history.add(load.finish());
        check(&mut case, &litestream).await;
    }
    assert!(process.metric("sekali_store_runs").await > 0.0, "keys were sealed meanwhile");
    say(&format!("replicas: {} rounds, {} acknowledged events", case.rounds, case.history.acknowledged()));
}

#[actix_web::test]
async fn a_replica_has_what_was_written_while_litestream_was_away() {
    let home = tempdir().unwrap();
    let Some(litestream) = Litestream::of(home.path()) else { return };
    let mut case = Case::of("Litestream away", "REPLICA", 1);
    let mut process = Process::configured(home.path(), CONFIG);
    for _ in 0..case.rounds {
        let beside = litestream.replicate();
        let load = case.send(&process, || true).await;
        case.history.add(load.finish());
        check(&mut case, &litestream).await;

        // Killed in the middle of a load, and away while the log is emptied and written anew.
        let load = case.send(&process, || true).await;
        drop(beside);
        case.history.add(load.finish());
        stop_and_examine(process, home.path()).await;
        process = Process::configured(home.path(), CONFIG);
        let load = case.send(&process, || true).await;
        case.history.add(load.finish());
    }
    let _beside = litestream.replicate();
    check(&mut case, &litestream).await;
}
