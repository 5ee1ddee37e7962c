//! `sekali backup` of a real server: what is in the copy, what is refused, and that nothing is left of what failed.

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::disk::SmallDisk;
use crate::support::{Client, Command, Ended, Process, array, event, everything, ids, seqs, until};

/// Clients that publish at the same time.
const CLIENTS: usize = 4;

/// Events that are acknowledged before the backup begins.
const ENOUGH: usize = 400;

fn arguments(home: &Path, dest: &Path) -> Vec<String> {
    let store = format!("sqlite:{}", home.join("log.db").display());
    ["backup", "--store", &store, "--json", dest.to_str().unwrap()].map(str::to_owned).to_vec()
}

async fn backup(home: &Path, dest: &Path) -> Ended {
    Ended::of(arguments(home, dest)).await
}

/// What a backup that went well says.
async fn backed_up(home: &Path, dest: &Path) -> Value {
    let ended = backup(home, dest).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Checks that a backup failed, said these words and left nothing; gives all it said.
async fn fails(home: &Path, dest: &Path, words: &str) -> String {
    let before = names(dest.parent().unwrap());
    let ended = backup(home, dest).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains(words), "{words} in {}", ended.stderr);
    assert_eq!(names(dest.parent().unwrap()), before);
    ended.stderr
}

/// The files of a directory, if it is there.
fn names(directory: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> =
        fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

/// A new home whose store is this copy.
fn restored(copy: &Path) -> tempfile::TempDir {
    let home = tempdir().unwrap();
    fs::copy(copy, home.path().join("log.db")).unwrap();
    home
}

/// Publishes until it is told to stop, and notes the ids that were acknowledged.
async fn publish_until(
    client: Client,
    number: usize,
    acknowledged: &RefCell<Vec<String>>,
    done: &Cell<bool>,
) {
    for round in 0.. {
        if done.get() {
            return;
        }
        let fresh: Vec<_> = (0..20).map(|place| format!("{number}-{round}-{place}")).collect();
        client.publish(array(fresh.iter().map(|id| event("t", id)))).await.ok();
        acknowledged.borrow_mut().extend(fresh);
    }
}

#[actix_web::test]
async fn a_copy_made_under_load_has_all_that_was_acknowledged_before_and_goes_on_as_a_log() {
    let home = tempdir().unwrap();
    let dest = home.path().join("copy.db");
    let process = Process::serve(home.path());
    let (acknowledged, done) = (RefCell::default(), Cell::new(false));
    let load =
        (0..CLIENTS).map(|number| publish_until(Client::of(process.address()), number, &acknowledged, &done));
    let copying = async {
        until("enough is acknowledged", async || acknowledged.borrow().len() >= ENOUGH).await;
        let before = acknowledged.borrow().clone();
        let copied = backed_up(home.path(), &dest).await;
        let meanwhile = acknowledged.borrow().len();
        until("the server still writes", async || acknowledged.borrow().len() > meanwhile).await;
        done.set(true);
        (before, copied)
    };
    let (_, (before, copied)) = join(join_all(load), copying).await;
    drop(process);

    let events = copied["events"].as_u64().unwrap();
    assert!((before.len() as u64..=acknowledged.borrow().len() as u64).contains(&events), "{copied}");
    let bytes = fs::metadata(&dest).unwrap().len();
    let copy = rusqlite::Connection::open(&dest).unwrap();
    let version: i64 = copy.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    drop(copy);
    let said =
        json!({"path": dest, "bytes": bytes, "events": events, "topics": 1, "schema_version": version});
    assert_eq!(copied, said);
    assert!(names(home.path()).iter().all(|name| !name.to_str().unwrap().contains("copy.db.")), "left-overs");

    let home = restored(&dest);
    let store = format!("sqlite:{}", home.path().join("log.db").display());
    let examined = Ended::of(["doctor", "--store", &store]).await;
    assert!(examined.stdout.ends_with("HEALTHY: nothing is damaged\n"), "{}", examined.stdout);
    let log = Process::serve(home.path());
    let stored = everything(&log, "t").await;
    assert_eq!(seqs(&stored), (1..=events).collect::<Vec<_>>());
    let again = log.publish(array(before.iter().map(|id| event("t", id)))).await;
    let count = before.len() as u64;
    assert_eq!(again.counts(), [count, 0, count, 0, 0], "each is a duplicate");
    assert_eq!(log.publish(event("t", "new")).await.fates(), [format!("accepted {}", events + 1)]);
}

#[actix_web::test]
async fn a_store_that_runs_and_one_that_is_stopped_are_copied_alike() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 0..10))).await.ok();
    let running = home.path().join("running.db");
    assert_eq!(backed_up(home.path(), &running).await["events"], 10);
    let second = Ended::of(crate::support::serving(home.path(), "")).await;
    assert_eq!(second.code, Some(1), "invariant 10: the server still owns its store: {}", second.stderr);
    process.signal("TERM");
    assert_eq!(process.ended().await.code, Some(0), "a backup that ended keeps nothing");
    assert_eq!(backed_up(home.path(), &home.path().join("stopped.db")).await["events"], 10);
    // Both are ready to be served: in the mode of a write-ahead log (https://sqlite.org/fileformat.html, offset 18).
    for copy in [running, home.path().join("stopped.db")] {
        assert_eq!(fs::read(copy).unwrap()[18..20], [2, 2]);
    }
}

#[actix_web::test]
async fn a_name_that_is_taken_is_refused_and_what_has_it_is_left_alone() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(event("t", "1")).await.ok();
    let taken = home.path().join("mine");
    fs::write(&taken, "notes").unwrap();
    fails(home.path(), &taken, "is there already").await;
    assert_eq!(fs::read_to_string(&taken).unwrap(), "notes");
    fails(home.path(), &home.path().join("log.db"), "is there already").await;
    let nowhere = home.path().join("nowhere");
    symlink(home.path().join("gone"), &nowhere).unwrap();
    fails(home.path(), &nowhere, "is there already").await;
    fails(home.path(), &home.path().join("no/such/copy.db"), "no/such/copy.db cannot be written").await;
}

/// The check of a copy reads the copy alone, so that nothing else would see it.
#[actix_web::test]
async fn a_copy_is_not_put_beside_files_that_would_be_played_into_it() {
    let home = tempdir().unwrap();
    Process::serve(home.path()).publish(array(ids("t", 0..10))).await.ok();
    let dest = home.path().join("copy.db");
    let other = Process::storing(home.path(), &format!("sqlite:{}", dest.display()));
    other.publish(array(ids("u", 0..1_000))).await.ok();
    drop(other);
    fs::remove_file(&dest).unwrap();
    let (wal, journal) = (dest.with_extension("db-wal"), dest.with_extension("db-journal"));
    let said = fails(home.path(), &dest, "copy.db-wal").await;
    assert!(said.contains(&format!("remove {}, or", wal.display())), "{said}");
    fs::rename(&wal, &journal).unwrap();
    fails(home.path(), &dest, "copy.db-journal").await;
    fs::remove_file(journal).unwrap();
    // As whoever reads a store leaves it, and of no harm. So is what the kill left of `-shm`.
    fs::write(wal, "").unwrap();
    assert!(dest.with_extension("db-shm").exists());
    assert_eq!(backed_up(home.path(), &dest).await["events"], 10);
    let copy = Process::storing(home.path(), &format!("sqlite:{}", dest.display()));
    assert_eq!(copy.totals("persistent").await[1], 10);
}

/// A store may be named like the file that a copy is written to, and a link there may lead to any file.
#[actix_web::test]
async fn a_file_that_only_has_the_name_of_a_copy_that_is_being_made_is_left_alone() {
    let home = tempdir().unwrap();
    drop(Process::serve(home.path()));
    let store = home.path().join("log.db");
    let before = fs::read(&store).unwrap();
    symlink(&store, home.path().join("link.partial")).unwrap();
    fails(home.path(), &home.path().join("link"), "cannot be written").await;
    fs::rename(&store, home.path().join("copy.partial")).unwrap();
    symlink("copy.partial", &store).unwrap();
    let ended = backup(home.path(), &home.path().join("copy")).await;
    assert!(ended.code == Some(1) && ended.stderr.contains("is in use"), "{}", ended.stderr);
    assert!(fs::read(store).unwrap() == before, "the store is as it was");
}

#[actix_web::test]
async fn what_is_no_store_is_not_copied() {
    let home = tempdir().unwrap();
    let (store, dest) = (home.path().join("log.db"), home.path().join("copy.db"));
    fails(home.path(), &dest, "log.db").await;
    assert!(!store.exists(), "none was made");
    fs::write(&store, "").unwrap();
    fails(home.path(), &dest, "it is empty").await;
    fs::write(&store, "no database\n".repeat(1000)).unwrap();
    fails(home.path(), &dest, "it is no SQLite database").await;
    fs::remove_file(&store).unwrap();
    let other = rusqlite::Connection::open(&store).unwrap();
    other.execute_batch("CREATE TABLE mine (x)").unwrap();
    fails(home.path(), &dest, "the SQLite database of another program").await;
}

#[actix_web::test]
async fn a_copy_that_is_not_whole_is_not_kept() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 0..10))).await.ok();
    let store = rusqlite::Connection::open(home.path().join("log.db")).unwrap();
    store.execute_batch("UPDATE totals SET accepted = 11").unwrap();
    let said = fails(home.path(), &home.path().join("copy.db"), "the copy is damaged").await;
    assert!(said.contains("sekali doctor"), "{said}");
}

#[actix_web::test]
async fn a_full_disk_ends_the_copy_and_leaves_the_disk_as_it_was() {
    let Some(disk) = SmallDisk::of_kib(256, "a backup to a full disk") else { return };
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 0..5_000))).await.ok();
    fails(home.path(), &disk.path().join("copy.db"), "No space left on device").await;
    assert_eq!(process.publish(event("t", "next")).await.fates(), ["accepted 5001"], "the server goes on");
}

#[actix_web::test]
async fn an_interrupted_backup_leaves_nothing_and_a_killed_one_does_not_keep_the_next_from_its_name() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    for part in 0..10 {
        process.publish(array(ids("t", part * 10_000..(part + 1) * 10_000))).await.ok();
    }
    let dest = home.path().join("copy.db");
    let partial = home.path().join("copy.db.partial");
    for signal in ["INT", "TERM", "KILL"] {
        let command = Command::start(arguments(home.path(), &dest));
        until("it copies", async || partial.exists()).await;
        command.signal(signal);
        let ended = command.ended().await;
        assert!(!dest.exists(), "{signal}: it was over before the signal came: {}", ended.stdout);
        if signal != "KILL" {
            assert_eq!(ended.code, Some(1), "{signal}: {}", ended.stderr);
            assert!(ended.stderr.contains("interrupted; there is no copy"), "{}", ended.stderr);
        }
        assert_eq!(partial.exists(), signal == "KILL");
    }
    let held = fs::File::open(&partial).unwrap();
    held.lock().unwrap();
    let other = backup(home.path(), &dest).await;
    assert!(other.code == Some(1) && other.stderr.contains("is in use"), "{}", other.stderr);
    assert!(partial.exists(), "the other one's file is its own");
    drop(held);
    assert_eq!(backed_up(home.path(), &dest).await["events"], 100_000);
    assert!(!partial.exists());
}
