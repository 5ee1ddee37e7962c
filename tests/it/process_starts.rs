//! How the real program starts, or refuses to: exit codes and what it says.

use std::fs;
use std::time::{Duration, Instant};

use tempfile::tempdir;

use crate::support::{Ended, Process, array, event, everything, ids, serving};

#[actix_web::test]
async fn a_second_process_on_the_same_store_is_refused_within_5_seconds() {
    // invariant 10: one process owns a store; a second one is refused with a clear error and exit code 1.
    let home = tempdir().unwrap();
    let first = Process::serve(home.path());
    first.publish(event("t", "1")).await.ok();
    let started = Instant::now();
    let second = Ended::of(serving(home.path(), "")).await;
    // The promise is 5 s, on a machine that is not busy. One that waited for the first would never
    // end.
    assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert!(second.stderr.contains("in use by another sekali process"), "{}", second.stderr);
    assert!(second.stderr.contains("log.db"), "{}", second.stderr);
    assert_eq!(first.publish(event("t", "2")).await.fates(), ["accepted 2"], "the first one goes on");
}

#[actix_web::test]
async fn other_programs_may_read_the_store_while_it_runs() {
    // invariant 10: ownership is a lock of its own, so that other tools may read.
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 0..3))).await.ok();
    let reader = rusqlite::Connection::open(home.path().join("log.db")).unwrap();
    let read =
        || reader.query_row("SELECT count(*) FROM log WHERE topic = 't'", [], |row| row.get::<_, i64>(0));
    assert_eq!(read().unwrap(), 3);
    drop(reader);
    assert_eq!(process.publish(event("t", "new")).await.fates(), ["accepted 4"]);
    let second = Ended::of(serving(home.path(), "")).await;
    assert_eq!(
        second.code,
        Some(1),
        "a reader that closed its handle does not open the door: {}",
        second.stderr
    );
}

#[actix_web::test]
async fn an_unknown_key_is_refused_with_file_line_and_key() {
    let home = tempdir().unwrap();
    let ended = Ended::of(serving(home.path(), "[router]\nlanes = 2\nlaness = 3\n")).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for named in ["sekali.toml:3", "router.laness"] {
        assert!(ended.stderr.contains(named), "{named} in {}", ended.stderr);
    }
    assert!(!home.path().join("log.db").exists(), "nothing was made");
}

#[actix_web::test]
async fn an_impossible_value_is_refused_with_file_line_key_and_rule() {
    let home = tempdir().unwrap();
    let config = "[store]\nlock_timeout = \"soon\"\n[limits]\nevent = \"32MiB\"\n";
    let ended = Ended::of(serving(home.path(), config)).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for named in ["sekali.toml:2", "store.lock_timeout", "soon"] {
        assert!(ended.stderr.contains(named), "{named} in {}", ended.stderr);
    }
}

#[actix_web::test]
async fn a_configuration_can_be_checked_without_starting() {
    let home = tempdir().unwrap();
    let file = home.path().join("sekali.toml");
    let check = async |text: &str| {
        fs::write(&file, text).unwrap();
        Ended::of(["check", "--config", file.to_str().unwrap()]).await
    };
    assert_eq!(check("[router]\nshards = 2\n").await.code, Some(0));
    let wrong = check("[router]\nshards = 9999\n").await;
    assert_eq!(wrong.code, Some(1));
    for named in ["sekali.toml:2", "router.shards"] {
        assert!(wrong.stderr.contains(named), "{}", wrong.stderr);
    }
}

#[actix_web::test]
async fn two_listeners_at_one_address_are_refused_before_anything_is_opened() {
    let home = tempdir().unwrap();
    let store = home.path().join("log.db");
    let url = format!("sqlite:{}", store.display());
    // The last two are known by a look-up only, which asks no other machine.
    for (own, ops) in [
        ("127.0.0.1:8479", "127.0.0.1:8479"),
        ("0.0.0.0:8479", "127.0.0.1:8479"),
        ("[::]:8479", "0.0.0.0:8479"),
        ("[::ffff:127.0.0.1]:8479", "localhost:8479"),
        ("127.1:8479", "127.0.0.1:8479"),
        ("0:8479", "127.0.0.2:8479"),
    ] {
        let ended = Ended::of(["serve", "--bind", own, "--ops-bind", ops, "--store", &url]).await;
        assert_eq!(ended.code, Some(2), "{own} and {ops}: {}", ended.stderr);
        for named in ["server.bind", "server.ops_bind", own, ops, "choose another port", "--ops-bind"] {
            assert!(ended.stderr.contains(named), "{named} in {}", ended.stderr);
        }
        assert!(!store.exists(), "nothing was made");
    }
    let file = home.path().join("sekali.toml");
    fs::write(&file, "[server]\nbind = \"0.0.0.0:8479\"\nops_bind = \"127.0.0.1:8479\"\n").unwrap();
    let path = file.to_str().unwrap();
    for command in [&["check", "--config", path][..], &["serve", "--config", path, "--store", &url]] {
        let ended = Ended::of(command).await;
        assert_eq!(ended.code, Some(1), "the file is at fault, and no argument: {}", ended.stderr);
        for named in ["sekali.toml:3", "server.ops_bind", "server.bind", "choose another port"] {
            assert!(ended.stderr.contains(named), "{named} in {}", ended.stderr);
        }
    }
    fs::write(&file, "[server]\nbind = \"127.1:8479\"\nops_bind = \"127.0.0.1:8479\"\n").unwrap();
    let checked = Ended::of(["check", "--config", path]).await;
    assert_eq!(checked.code, Some(1), "{}", checked.stderr);
    for named in ["sekali.toml", "server.bind (127.1:8479)", "choose another port"] {
        assert!(checked.stderr.contains(named), "{named} in {}", checked.stderr);
    }
    let process = Process::run(
        home.path(),
        &["--bind", "127.0.0.1:0", "--ops-bind", "127.0.0.1:0", "--store", &url],
        &[],
    );
    assert_ne!(process.ops_address(), Some(process.address()), "port 0 takes a free one each time");
}

#[actix_web::test]
async fn wrong_usage_is_exit_code_2() {
    for arguments in [&["--colour"][..], &["serve", "--bnd", "x"], &["publishh"], &["serve", "extra"]] {
        let ended = Ended::of(arguments).await;
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty());
    }
}

#[actix_web::test]
async fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let home = tempdir().unwrap();
    let path = home.path().join("log.db");
    fs::write(&path, "these are notes of mine, and no database at all\n".repeat(100)).unwrap();
    let before = fs::read(&path).unwrap();
    let ended = Ended::of(serving(home.path(), "")).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("log.db"), "{}", ended.stderr);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[actix_web::test]
async fn an_address_that_is_taken_is_refused() {
    let home = tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut arguments = serving(home.path(), "");
    let place = arguments.iter().position(|argument| argument == "127.0.0.1:0").unwrap();
    arguments[place].clone_from(&address);
    let ended = Ended::of(arguments).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
}

#[actix_web::test]
async fn a_restarted_process_goes_on_where_it_was() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 0..3))).await.ok();
    process.signal("TERM");
    assert_eq!(process.ended().await.code, Some(0));
    let process = Process::configured(home.path(), "[router]\nlanes = 3\n");
    assert_eq!(process.publish(array(ids("t", 2..4))).await.fates(), ["duplicate 3", "accepted 4"]);
    assert_eq!(everything(&process, "t").await.len(), 4);
}

#[actix_web::test]
async fn a_read_that_the_server_cut_off_is_an_error_of_the_command() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 0..5_000))).await.ok();
    let store = rusqlite::Connection::open(home.path().join("log.db")).unwrap();
    store.execute_batch("DELETE FROM events WHERE seq = 4500").unwrap();
    let url = format!("http://{}", process.address());
    let ended = Ended::of(["events", "t", "--url", &url]).await;
    assert_eq!(ended.code, Some(1), "a part must not pass for the whole: {}", ended.stderr);
}

#[actix_web::test]
async fn what_is_no_store_is_called_so_by_every_command_and_nothing_is_left_beside_it() {
    let home = tempdir().unwrap();
    let text = home.path().join("default.toml");
    fs::write(&text, "[server]\nbind = \"127.0.0.1:8080\"\n".repeat(100)).unwrap();
    let other = home.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap();
    let folder = home.path().join("folder");
    fs::create_dir(&folder).unwrap();
    for (path, words) in [
        (&text, "it is no SQLite database, or its first page is damaged"),
        (&other, "it is the SQLite database of another program"),
        (&folder, "it is a directory"),
    ] {
        let url = format!("sqlite:{}", path.display());
        let copy = home.path().join("copy.db").display().to_string();
        for command in [
            &["serve", "--store", &url][..],
            &["doctor", "--store", &url],
            &["backup", &copy, "--store", &url],
        ] {
            let ended = Ended::of(command).await;
            assert_eq!(ended.code, Some(1), "{}", ended.stderr);
            let said = format!("is not a sekali store: {words}");
            assert!(ended.stderr.contains(&said) && !ended.stderr.contains("damaged:"), "{}", ended.stderr);
        }
        let names = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(
            names.count(),
            3,
            "after {words}: {:?}",
            fs::read_dir(home.path()).unwrap().collect::<Vec<_>>()
        );
    }
}
