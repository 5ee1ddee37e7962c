//! `sekali doctor` on the store of a real server: exit codes, what it says, and what it mends.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sekali::api::Code;
use tempfile::tempdir;

use crate::support::{Ended, Process, array, event_with, ids};

/// A server that stored these events and was stopped.
async fn stopped(home: &Path) {
    let process = Process::serve(home);
    process.publish(array(ids("t", 0..50))).await.ok();
    process.signal("TERM");
    assert_eq!(process.ended().await.code, Some(0));
}

async fn doctor(home: &Path, more: &[&str]) -> Ended {
    let store = format!("sqlite:{}", home.join("log.db").display());
    Ended::of([&["doctor", "--store", &store], more].concat()).await
}

fn damage(home: &Path, sql: &str) {
    rusqlite::Connection::open(home.join("log.db")).unwrap().execute_batch(sql).unwrap();
}

#[actix_web::test]
async fn a_store_that_was_stopped_is_healthy_and_one_that_was_killed_is_too() {
    let home = tempdir().unwrap();
    stopped(home.path()).await;
    let ended = doctor(home.path(), &[]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("50 events") && ended.stdout.ends_with("HEALTHY: nothing is damaged\n"));
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 50..60))).await.ok();
    process.signal("KILL");
    process.ended().await;
    let ended = doctor(home.path(), &["--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((ended.code, &report["healthy"]), (Some(0), &true.into()), "{report}");
    assert_eq!(report["checked"][1], serde_json::json!({"part": "rows", "amount": 60, "faults": 0}));
    assert!(report["notes"][0].as_str().unwrap().contains("not stopped cleanly"), "{report}");
}

#[actix_web::test]
async fn a_damaged_index_is_exit_code_1_and_a_rebuild_mends_it() {
    let home = tempdir().unwrap();
    stopped(home.path()).await;
    let rebuilt = doctor(home.path(), &["--rebuild-index"]).await;
    assert_eq!(rebuilt.code, Some(0), "{}{}", rebuilt.stdout, rebuilt.stderr);
    damage(home.path(), "UPDATE blocks SET data = zeroblob(length(data))");

    let process = Process::configured(home.path(), "[cache]\nkeys = 0\n");
    process.publish(event_with("t", "7", "{}")).await.problem(Code::StoreDamaged);
    process.signal("TERM");
    let server = process.ended().await;
    assert!(server.stderr.contains("sekali doctor --rebuild-index"), "{}", server.stderr);

    let ended = doctor(home.path(), &[]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    for words in [
        "runs: the run at block 1: block 1 does not match its checksum",
        "--rebuild-index",
        "DAMAGED: 1 fault",
    ] {
        assert!(ended.stdout.contains(words), "{words} in {}", ended.stdout);
    }
    assert_eq!(doctor(home.path(), &["--rebuild-index"]).await.code, Some(0));
    let process = Process::serve(home.path());
    assert_eq!(process.publish(array(ids("t", 49..51))).await.fates(), ["duplicate 50", "accepted 51"]);
}

#[actix_web::test]
async fn a_damaged_event_is_named_and_no_rebuild_makes_it_right() {
    let home = tempdir().unwrap();
    stopped(home.path()).await;
    damage(home.path(), "UPDATE events SET payload = '{' WHERE seq = 7");
    for more in [&[][..], &["--rebuild-index"]] {
        let ended = doctor(home.path(), more).await;
        assert_eq!(ended.code, Some(1), "{}", ended.stdout);
        for words in ["rows: topic \"t\", seq 7, position 7: the payload is no JSON", "backup"] {
            assert!(ended.stdout.contains(words), "{words} in {}", ended.stdout);
        }
    }
}

#[actix_web::test]
async fn a_store_that_a_server_runs_on_is_refused() {
    // invariant 10: one process owns a store, and the doctor is no exception.
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 0..3))).await.ok();
    for more in [&[][..], &["--rebuild-index"]] {
        let ended = doctor(home.path(), more).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
        assert!(ended.stderr.contains("in use by another sekali process"), "{}", ended.stderr);
    }
    assert_eq!(process.publish(array(ids("t", 3..4))).await.fates(), ["accepted 4"], "the server goes on");
}

#[actix_web::test]
async fn a_database_is_no_matter_of_the_doctor() {
    let ended = Ended::of(["doctor", "--store", "postgres://me:secret@127.0.0.1:1/log"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("the doctor is for SQLite files"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
}

#[actix_web::test]
async fn a_copy_is_examined_where_it_may_only_be_read_and_nothing_is_left_beside_it() {
    let home = tempdir().unwrap();
    stopped(home.path()).await;
    let (store, folder) =
        (format!("sqlite:{}", home.path().join("log.db").display()), home.path().join("copies"));
    fs::create_dir(&folder).unwrap();
    let copy = folder.join("copy.db");
    assert_eq!(Ended::of(["backup", copy.to_str().unwrap(), "--store", &store]).await.code, Some(0));
    let names = || fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let url = format!("sqlite:{}", copy.display());
    let ended = Ended::of(["doctor", "--store", &url]).await;
    assert!(ended.code == Some(0) && names() == ["copy.db"], "{:?} {}", names(), ended.stderr);
    fs::set_permissions(&folder, Permissions::from_mode(0o555)).unwrap();
    let ended = Ended::unprivileged(["doctor", "--store", &url]).await;
    // It changes nothing where it cannot say that it does.
    let rebuilt = Ended::unprivileged(["doctor", "--rebuild-index", "--store", &url]).await;
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    assert!(rebuilt.code == Some(1) && rebuilt.stderr.contains("cannot be written to"), "{}", rebuilt.stderr);
    assert!(ended.code == Some(0) && ended.stdout.contains("50 events"), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(names(), ["copy.db"]);
}
