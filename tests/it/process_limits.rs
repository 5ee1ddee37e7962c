//! The real program in a process whose files must not grow: writes fail until they may again, and
//! the signal that the system sends then (SIGXFSZ) ends no command. No root needed.

use std::fs;
use std::process::Command;

use sekali::api::Code;
use tempfile::{TempDir, tempdir};

use crate::support::{Client, Ended, Process, array, event_with, everything, ids, seqs, skipped, until};

/// Files of at most 2,048 blocks: 1 or 2 MiB, as the shell counts.
const SMALL_FILES: &str = "ulimit -S -f 2048";

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
    // A small write may still fit, and then the log is ready again half a second later.
    until("a write fails and the log is not ready", async || {
        let answer = process.publish(large(accepted)).await;
        accepted += usize::from(answer.status == 200);
        let failed = answer.status == 503 && answer.problem(Code::StoreUnavailable).status == 503;
        failed && !process.is_ready().await
    })
    .await;
    assert!(accepted > 0);
    check(&process, accepted).await;

    limit(&process, "unlimited");
    until("the log is ready again", async || process.is_ready().await).await;
    assert_eq!(process.publish(large(accepted)).await.fates(), [format!("accepted {}", accepted + 1)]);
    assert_eq!(process.publish(large(accepted)).await.fates(), [format!("duplicate {}", accepted + 1)]);
    check(&process, accepted + 1).await;
    process.signal("TERM");
    assert_eq!(process.ended().await.code, Some(0));
    check(&Process::serve(home.path()), accepted + 1).await;
}

/// Limits the files of a running process, in bytes.
fn limit(process: &Process, bytes: &str) {
    let pid = process.id().to_string();
    let fsize = format!("--fsize={bytes}:unlimited");
    let limited = Command::new("prlimit").args(["--pid", &pid, &fsize]).status().unwrap();
    assert!(limited.success());
}

#[actix_web::test]
async fn a_store_that_cannot_be_opened_again_is_not_ready_and_heals_when_it_can() {
    // invariant 5: a store that cannot be opened decides nothing.
    if !can_lift_limits() {
        return;
    }
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 0..3))).await.ok();
    let store = rusqlite::Connection::open(home.path().join("log.db")).unwrap();
    let set = |payload: &str| {
        let set = store.execute("UPDATE events SET payload = ?1 WHERE pos = 1", [payload]);
        assert_eq!(set.unwrap(), 1);
    };
    let whole: String =
        store.query_row("SELECT payload FROM events WHERE pos = 1", [], |row| row.get(0)).unwrap();
    set("{\"damaged\":true}");
    // A commit of unknown outcome, after which the writer is opened again and meets the row.
    limit(&process, "4096");
    process.publish(event_with("t", "new", "{}")).await.problem(Code::StoreUnavailable);
    limit(&process, "unlimited");
    for number in 0..30 {
        let (one, other) = (event_with("t", "new", "{}"), event_with(&number.to_string(), "1", "{}"));
        process.publish(array([one, other])).await.problem(Code::StoreUnavailable);
        process.get("/health/ready").await.problem(Code::StoreUnavailable);
    }
    assert_eq!(process.read("/topics/t").await["accepted"], 3, "reads go on");
    set(&whole);
    until("the log is ready again", async || process.is_ready().await).await;
    assert_eq!(process.publish(event_with("t", "new", "{}")).await.fates(), ["accepted 4"]);
    check(&process, 4).await;
    process.signal("TERM");
    let ended = process.ended().await;
    for line in ["cannot be opened for writing, retrying", "is open for writing again", "can write again"] {
        assert_eq!(ended.stderr.matches(line).count(), 1, "{line}: {}", ended.stderr);
    }
}

/// Events of a store that is larger than [`SMALL_FILES`] allow.
const MANY: usize = 100;

/// A stopped store of more than 2 MiB, and its URL.
async fn large_store() -> (TempDir, String) {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(array((0..MANY).map(large))).await.ok();
    process.signal("TERM");
    assert_eq!(process.ended().await.code, Some(0));
    let file = home.path().join("log.db");
    assert!(fs::metadata(&file).unwrap().len() > 3 << 20, "it is larger than the limit");
    let url = format!("sqlite:{}", file.display());
    (home, url)
}

/// Checks that a command failed by itself, and said these words.
fn check_failed(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(1), "no signal ended it: {}", ended.stderr);
    for words in words {
        assert!(ended.stderr.contains(words), "{words} in {}", ended.stderr);
    }
}

#[actix_web::test]
async fn a_backup_to_a_file_that_cannot_grow_says_so_and_leaves_nothing() {
    let (home, store) = large_store().await;
    let copy = home.path().join("copy.db");
    let ended = Ended::limited(SMALL_FILES, ["backup", "--store", &store, copy.to_str().unwrap()]).await;
    check_failed(&ended, &["copy.db", "cannot be written: File too large"]);
    let left = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("copy")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[actix_web::test]
async fn a_copy_to_a_file_that_cannot_grow_says_so_and_resumes_when_it_can() {
    let (_home, from) = large_store().await;
    let target = tempdir().unwrap();
    let to = format!("sqlite:{}", target.path().join("log.db").display());
    let ended = Ended::limited(SMALL_FILES, ["copy", &from, &to]).await;
    check_failed(&ended, &["is not copied to", "ulimit -f"]);
    let ended = Ended::of(["copy", &from, &to]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    check(&Process::serve(target.path()), MANY).await;
}

#[actix_web::test]
async fn a_doctor_that_cannot_write_says_so_and_the_store_is_as_it_was() {
    let (home, store) = large_store().await;
    let ended = Ended::limited("ulimit -S -f 8", ["doctor", "--store", &store, "--rebuild-index"]).await;
    check_failed(&ended, &["ulimit -f"]);
    check(&Process::serve(home.path()), MANY).await;
}

#[actix_web::test]
async fn a_result_in_a_file_that_cannot_grow_is_an_error() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 0..1_000))).await.ok();
    let (url, out) = (format!("http://{}", process.address()), home.path().join("out"));
    for arguments in [&["events", "t", "--url", &url] as &[&str], &["man"], &["--help"]] {
        let limits = format!("exec >{}; ulimit -S -f 1", out.display());
        let ended = Ended::limited(&limits, arguments).await;
        assert!(ended.code.is_some(), "{arguments:?}: a signal ended it");
        if arguments[0] == "events" {
            check_failed(&ended, &["standard output cannot be written: File too large"]);
        }
    }
}
