//! `sekali copy` of real stores: what an outgrown file becomes in PostgreSQL and back, kills, and what is refused.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::support::disk::SmallDisk;
use crate::support::postgres::Database;
use crate::support::{
    Client, Command, Ended, Process, array, event, event_with, everything, ids, lines, seqs, serving, until,
};

/// Events of the store that is killed under a copy: several transactions.
const MANY: usize = 60_000;

fn file(directory: &Path) -> String {
    format!("sqlite:{}", directory.join("log.db").display())
}

/// What a copy that went well says.
async fn copied(from: &str, to: &str) -> Value {
    let ended = Ended::of(["copy", from, to, "--json"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Checks that a copy failed and said these words; gives all it said.
async fn fails(from: &str, to: &str, words: &str) -> String {
    let ended = Ended::of(["copy", from, to]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains(words), "{words} in {}", ended.stderr);
    ended.stderr
}

/// How much of a copy is there, in events or in MiB of them.
fn stored(database: &Database, directory: &Path, to: &str) -> i64 {
    if to.starts_with("sqlite:") {
        let opened = rusqlite::Connection::open(directory.join("log.db"));
        let asked = opened
            .and_then(|store| store.query_row("SELECT accepted FROM totals", [], |row| row.get::<_, i64>(0)));
        return asked.unwrap_or(0);
    }
    // Until the tables are there, their size is none.
    let asked = "SELECT coalesce(pg_table_size(to_regclass('sekali.events')), 0) >> 20";
    database.run(asked).parse().unwrap()
}

async fn stop(process: Process) {
    process.signal("TERM");
    assert_eq!(process.ended().await.code, Some(0));
}

/// A server that stored so many events and was stopped.
async fn stopped_with(count: usize) -> TempDir {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    for start in (0..count).step_by(10_000) {
        process.publish(array(ids("t", start..count.min(start + 10_000)))).await.ok();
    }
    stop(process).await;
    home
}

/// The history of what is in a store.
async fn history(log: &Client) -> String {
    log.read("/stats").await["history"].as_str().unwrap().to_owned()
}

/// The same without its history, which is another one in each store.
fn without_history(mut topic: Value) -> Value {
    topic.as_object_mut().unwrap().remove("history").expect("each topic names its history");
    topic
}

/// All that a server tells of what is in its store, its history aside.
async fn told(log: &Client) -> Value {
    let mut topics = log.read("/topics").await;
    for topic in topics["topics"].as_array_mut().unwrap() {
        *topic = without_history(topic.take());
    }
    let names: Vec<_> = topics["topics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["topic"].as_str().unwrap().to_owned())
        .collect();
    let (mut events, mut sources, mut repeats) = (Vec::new(), Vec::new(), Vec::new());
    for name in &names {
        let stored = everything(log, name).await;
        sources.push(without_history(log.read(&format!("/topics/{name}")).await));
        for event in &stored {
            let id = event["event_id"].as_str().unwrap();
            repeats.push(log.read(&format!("/events/{name}/{id}")).await);
        }
        events.push(stored);
    }
    let totals = log.totals("persistent").await;
    json!({"topics": topics, "events": events, "sources": sources, "repeats": repeats, "totals": totals})
}

#[actix_web::test]
async fn an_outgrown_file_goes_on_in_postgres_and_comes_back() {
    let Some(database) = Database::fresh() else { return };
    let home = tempdir().unwrap();
    let log = Process::serve(home.path());
    log.publish(array(ids("t", 0..50).into_iter().chain(ids("u", 0..20)))).await.ok();
    log.publish(array(ids("t", 40..60))).await.ok();
    log.publish(event_with("t", "7", "{\"n\":-1}")).await.ok();
    log.publish(lines([event("u", "7").replace("\"test\"", "\"other\"")])).await.ok();
    log.publish_skipping(array([event("u", "8"), event("", "1")])).await.ok();
    let (before, first) = (told(&log).await, history(&log).await);
    stop(log).await;

    let (from, shared) = (file(home.path()), database.url());
    let said = copied(&from, &shared).await;
    assert_eq!(said["from"], from);
    let counts =
        ["events", "copied", "topics", "duplicates", "conflicts", "rejected"].map(|name| &said[name]);
    assert_eq!(counts, [80, 80, 2, 13, 3, 1].map(|number| json!(number)).each_ref(), "{said}");
    let log = Process::storing(home.path(), &shared);
    assert_eq!(told(&log).await, before);
    let fates =
        log.publish(array([event_with("t", "59", "{ \"n\": 59.0 }"), event("t", "7"), event("t", "new")]));
    assert_eq!(fates.await.fates(), ["duplicate 60", "conflict 8", "accepted 61"]);
    let (before, second) = (told(&log).await, history(&log).await);
    stop(log).await;

    fails(&shared, &from, "has events or counters of its own").await;
    fails(&from, &shared, "a server ran on TO since").await;
    let back = tempdir().unwrap();
    let said = copied(&shared, &file(back.path())).await;
    assert_eq!((&said["copied"], &said["duplicates"]), (&json!(81), &json!(15)), "{said}");
    let log = Process::serve(back.path());
    assert_eq!(told(&log).await, before);
    assert_eq!(log.publish(array(ids("t", 59..61))).await.fates(), ["duplicate 60", "accepted 62"]);
    // invariant 11: what was read of each store resumes in the last one, and nothing else does.
    for (history, last_seq) in [(&first, 60), (&second, 61)] {
        for (seq, status) in [(last_seq, 200), (last_seq + 1, 409)] {
            let path = format!("/events?topic=t&after={seq}&history={history}");
            assert_eq!(log.get(&path).await.status, status, "{path}");
        }
    }
    stop(log).await;
    let doctor = Ended::of(["doctor", "--store", &file(back.path())]).await;
    assert_eq!(doctor.code, Some(0), "{}", doctor.stdout);
}

/// As docs/OPERATIONS.md says it.
#[actix_web::test]
async fn a_backup_is_copied_while_the_server_runs_and_the_rest_in_a_short_pause() {
    let Some(database) = Database::fresh() else { return };
    let home = tempdir().unwrap();
    let log = Process::serve(home.path());
    log.publish(array(ids("t", 0..1_000))).await.ok();
    let backup = home.path().join("backup.db");
    let (from, shared) = (file(home.path()), database.url());
    let made = Ended::of(["backup", "--store", &from, backup.to_str().unwrap()]).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert_eq!(copied(&format!("sqlite:{}", backup.display()), &shared).await["copied"], 1_000);
    log.publish(array(ids("t", 990..1_010))).await.ok();
    fails(&from, &shared, "in use by another sekali process").await;
    stop(log).await;
    let said = copied(&from, &shared).await;
    assert_eq!(
        (&said["copied"], &said["events"], &said["duplicates"]),
        (&json!(10), &json!(1_010), &json!(10))
    );
    let log = Process::storing(home.path(), &shared);
    assert_eq!(seqs(&everything(&log, "t").await), (1..=1_010).collect::<Vec<_>>());
    fails(&from, &shared, "nodes run on it").await;
}

#[actix_web::test]
async fn a_copy_that_was_killed_goes_on_and_half_of_it_is_not_served() {
    let Some(database) = Database::fresh() else { return };
    let home = stopped_with(MANY).await;
    let back = tempdir().unwrap();
    let shared = database.url();
    for (from, to) in [(file(home.path()), shared.clone()), (shared, file(back.path()))] {
        for signal in ["KILL", "TERM"] {
            let command = Command::start(["copy", &from, &to]);
            let before = stored(&database, back.path(), &to);
            until("it copies", async || stored(&database, back.path(), &to) > before).await;
            command.signal(signal);
            let ended = command.ended().await;
            assert_ne!(ended.code, Some(0), "{signal}: it was over before: {}", ended.stdout);
            if signal == "TERM" {
                assert_eq!(ended.code, Some(1));
                assert!(ended.stderr.contains("the same command goes on"), "{}", ended.stderr);
            }
            let refused = Ended::of(["serve", "--bind", "127.0.0.1:0", "--store", &to]).await;
            assert_eq!(refused.code, Some(1), "{}", refused.stderr);
            assert!(refused.stderr.contains("is half a copy"), "{}", refused.stderr);
        }
        let said = copied(&from, &to).await;
        let now = said["copied"].as_u64().unwrap();
        assert!(now < MANY as u64 && said["events"] == MANY, "{said}");
        assert_eq!(copied(&from, &to).await["copied"], 0);
    }
    let log = Process::serve(back.path());
    let again = log.publish(array(ids("t", MANY - 10..MANY + 1))).await.fates();
    assert_eq!(again[0], format!("duplicate {}", MANY - 9));
    assert_eq!(again[10], format!("accepted {}", MANY + 1));
}

#[actix_web::test]
async fn what_cannot_be_copied_is_refused_with_its_reason() {
    let (home, other) = (stopped_with(10).await, tempdir().unwrap());
    let (from, to) = (file(home.path()), file(other.path()));
    for arguments in [&["copy"][..], &["copy", &from], &["copy", &from, &to, "more"]] {
        assert_eq!(Ended::of(arguments).await.code, Some(2), "{arguments:?}");
    }
    fails(&from, &from, "the same store").await;
    let wrong = Ended::of(["copy", "mysql://me:secret@h/d", &to]).await;
    assert!(wrong.code == Some(2) && wrong.stderr.contains("FROM: must be sqlite:PATH"), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("secret"), "{}", wrong.stderr);
    let said = fails(&from, "postgres://me:secret@127.0.0.1:1/d", "TO: ").await;
    assert!(!said.contains("secret"), "{said}");
    fails(&to, &from, "log.db").await;
    assert!(!other.path().join("log.db").exists(), "nothing is made of what is not there");
    let log = Process::serve(home.path());
    fails(&from, &to, "in use by another sekali process").await;
    fails(&to, &from, "log.db").await;
    stop(log).await;
    let newer = rusqlite::Connection::open(home.path().join("log.db")).unwrap();
    newer.execute_batch("PRAGMA user_version = 99").unwrap();
    fails(&from, &to, "use a newer sekali").await;
    assert!(!other.path().join("log.db").exists(), "nor of what cannot be read");
}

#[actix_web::test]
async fn a_person_sees_how_far_it_is_and_what_has_a_password_can_be_in_the_environment() {
    let (home, other) = (stopped_with(1_000).await, tempdir().unwrap());
    let to = file(other.path());
    let shown = Ended::on_a_terminal(&["copy", &file(home.path())], ("SEKALI_COPY_TO", &to)).await;
    assert_eq!(shown.code, Some(0), "{}", shown.stdout);
    for words in ["copying", "1,000/1,000", &format!("{to}: 1,000 events of 1 topic, 1,000 of them")] {
        assert!(shown.stdout.contains(words), "{words} in {}", shown.stdout);
    }
}

#[actix_web::test]
async fn a_full_disk_breaks_the_copy_off_and_with_room_it_goes_on() {
    let Some(disk) = SmallDisk::of_kib(20_000, "a copy to a full disk") else { return };
    let home = stopped_with(10_000).await;
    let (from, to) = (file(home.path()), file(disk.path()));
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 19_000 << 10]).unwrap();
    let said = fails(&from, &to, "disk is full").await;
    assert!(said.contains("TO: ") && said.contains("the same command goes on"), "{said}");
    let refused = Ended::of(serving(disk.path(), "")).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("half a copy"), "{}", refused.stderr);
    std::fs::remove_file(ballast).unwrap();
    assert_eq!(copied(&from, &to).await["events"], 10_000);
}

/// SQLite removes the log of a file that is gone before it makes a new one of that name.
#[actix_web::test]
async fn what_a_file_that_is_gone_left_behind_does_not_get_into_a_copy() {
    let (home, other) = (stopped_with(100).await, tempdir().unwrap());
    Process::serve(other.path()).publish(array(ids("u", 0..1_000))).await.ok();
    std::fs::remove_file(other.path().join("log.db")).unwrap();
    assert!(std::fs::metadata(other.path().join("log.db-wal")).unwrap().len() > 0);
    assert_eq!(copied(&file(home.path()), &file(other.path())).await["events"], 100);
    let log = Process::serve(other.path());
    assert_eq!(everything(&log, "t").await.len(), 100);
    assert!(everything(&log, "u").await.is_empty());
}
