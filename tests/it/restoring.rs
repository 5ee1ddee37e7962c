//! A store that is put back to an earlier state: no reader takes a new event for one that it has read.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::support::{Client, Command, Ended, Process, Sent, array, free_port, ids};

/// How a store is put back.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// By a file of `sekali backup`.
    Backup,
    /// By a copy of the file that another tool made, the lock file left beside it.
    Copy,
    /// By such a copy in another place, and `sekali doctor --new-history`.
    Elsewhere,
}

/// A log, and what a reader knew of it before it was put back to seq 2.
struct Restored {
    home: TempDir,
    /// The history of events 3 and 4, which are gone.
    before: String,
}

fn store(home: &Path) -> String {
    format!("sqlite:{}", home.join("log.db").display())
}

async fn stop(process: Process) {
    process.signal("TERM");
    assert_eq!(process.ended().await.code, Some(0));
}

async fn history(process: &Process) -> String {
    process.get("/topics/t").await.ok().json()["history"].as_str().unwrap().to_owned()
}

/// Publishes four events, of which a copy has the first two, and puts the copy back.
async fn restore(way: Way) -> Restored {
    let home = tempdir().unwrap();
    let copy = home.path().join("copy.db");
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 0..2))).await.ok();
    if matches!(way, Way::Backup) {
        let made = Ended::of(["backup", "--store", &store(home.path()), copy.to_str().unwrap()]).await;
        assert_eq!(made.code, Some(0), "{}", made.stderr);
    }
    stop(process).await;
    if !matches!(way, Way::Backup) {
        fs::copy(home.path().join("log.db"), &copy).unwrap();
    }
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 2..4))).await.ok();
    let before = history(&process).await;
    stop(process).await;
    let copied = fs::read(&copy).unwrap();
    let restored = match way {
        Way::Backup | Way::Copy => home,
        Way::Elsewhere => tempdir().unwrap(),
    };
    fs::write(restored.path().join("log.db"), copied).unwrap();
    if matches!(way, Way::Elsewhere) {
        let told = Ended::of(["doctor", "--new-history", "--store", &store(restored.path())]).await;
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        assert!(told.stdout.contains(&before), "{}", told.stdout);
    }
    Restored { home: restored, before }
}

/// What a reader is answered that has read up to this seq of the old history.
async fn resume(process: &Process, seq: u64, history: &str) -> (u16, Value) {
    let path = format!("/events?topic=t&after={seq}&history={history}");
    let answer = Client::of(process.address()).get(&path).await;
    (answer.status, answer.json())
}

#[actix_web::test]
async fn a_reader_is_told_of_events_that_a_restore_took_and_misses_none() {
    // invariant 11: what other events have the same seqs now.
    for way in [Way::Backup, Way::Copy, Way::Elsewhere] {
        let Restored { home, before } = restore(way).await;
        let process = Process::serve(home.path());
        process.publish(array(ids("t", 10..15))).await.ok();
        let now = history(&process).await;
        assert_ne!(now, before, "{way:?}");
        for seq in [0, 1, 2] {
            let (status, page) = resume(&process, seq, &before).await;
            assert_eq!((status, &page["history"]), (200, &now.clone().into()), "{way:?}, {seq}");
            assert_eq!(page["count"], 7 - seq);
        }
        for seq in [3, 4, 7, 100] {
            let (status, problem) = resume(&process, seq, &before).await;
            assert_eq!((status, &problem["code"]), (409, &"history_changed".into()), "{way:?}, {seq}");
            assert_eq!((&problem["history"], &problem["common_seq"]), (&now.clone().into(), &2.into()));
        }
        assert_eq!(resume(&process, 2, &now).await.1["count"], 5, "as the answer said");
        let stats = process.get("/stats").await.ok().json();
        assert_eq!(stats["history"], now);
    }
}

#[actix_web::test]
async fn a_follower_is_told_by_the_command_where_to_resume() {
    let home = tempdir().unwrap();
    let (copy, port) = (home.path().join("copy.db"), free_port());
    let url = format!("http://127.0.0.1:{port}");
    let process = Process::on_port(home.path(), port);
    process.publish(array(ids("t", 0..2))).await.ok();
    let made = Ended::of(["backup", "--store", &store(home.path()), copy.to_str().unwrap()]).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    process.publish(array(ids("t", 2..4))).await.ok();
    let follower = Command::start(["events", "t", "--follow", "--url", &url]);
    for _ in 0..4 {
        follower.line().await;
    }
    stop(process).await;
    fs::rename(&copy, home.path().join("log.db")).unwrap();
    let process = Process::on_port(home.path(), port);
    process.publish(array(ids("t", 10..15))).await.ok();
    let ended = follower.ended().await;
    let now = history(&process).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let resumed = format!("resume with --after 2 --history {now}");
    assert!(ended.stderr.contains(&resumed), "{}", ended.stderr);
    let again = ["events", "t", "--after", "2", "--history", &now, "--url", &url];
    let read = Ended::of(again).await;
    assert_eq!((read.code, read.stdout.lines().count()), (Some(0), 5), "{}", read.stderr);
    let of_the_past = ["events", "t", "--after", "4", "--history", &now, "--url", &url];
    assert_eq!(Ended::of(of_the_past).await.code, Some(0), "event 4 of the new history is there");
}

#[actix_web::test]
async fn a_follower_that_got_no_event_before_a_restore_is_told_too() {
    // invariant 11: it has read up to seq 4, and events 3 and 4 are other ones after the restore.
    let home = tempdir().unwrap();
    let copy = home.path().join("copy.db");
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 0..2))).await.ok();
    let made = Ended::of(["backup", "--store", &store(home.path()), copy.to_str().unwrap()]).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    process.publish(array(ids("t", 2..4))).await.ok();
    let before = history(&process).await;
    let mut follower = process.follow("/events?topic=t&after=4", None).await;
    assert_eq!(follower.next().await, Some(Sent::Begin(1_000, Some(4))));
    stop(process).await;
    fs::rename(&copy, home.path().join("log.db")).unwrap();
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 10..15))).await.ok();
    // As a browser, it sends back the id that came without data.
    let again = process
        .request("GET", "/events?topic=t&after=4")
        .insert_header(("accept", "text/event-stream"))
        .insert_header(("last-event-id", format!("4@{before}")));
    let answer = process.send(again, "").await;
    let problem = answer.json();
    assert_eq!((answer.status, &problem["common_seq"]), (409, &2.into()), "{problem}");
}

#[actix_web::test]
async fn a_kill_and_a_restart_keep_the_history() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 0..3))).await.ok();
    let first = history(&process).await;
    process.signal("KILL");
    process.ended().await;
    let again = Process::serve(home.path());
    assert_eq!(history(&again).await, first);
    assert_eq!(resume(&again, 3, &first).await.0, 200);
}
