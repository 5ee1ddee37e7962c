//! What the commands say to people on a terminal, and to programs in a pipe.

use std::fs;

use serde_json::Value;
use tempfile::tempdir;

use crate::support::{Command, Ended, Log, array, event, ids};

/// No setting that means anything.
const PLAIN: (&str, &str) = ("SEKALI_TEST", "");

fn url(log: &Log) -> String {
    format!("http://{}", log.address())
}

async fn on_a_terminal(arguments: &[&str]) -> String {
    Ended::on_a_terminal(arguments, PLAIN).await.stdout
}

/// The JSON values that a command gives in a pipe, one a line.
async fn values(arguments: &[&str]) -> Vec<Value> {
    let ended = Ended::of(arguments).await;
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[actix_web::test]
async fn lists_are_tables_on_a_terminal_and_values_a_line_in_a_pipe() {
    let log = Log::start();
    log.publish(array(ids("orders", 0..2).into_iter().chain(ids("returns", 0..1)))).await.ok();
    let url = url(&log);
    let topics = ["topics", "--url", &url];
    let listed = values(&topics).await;
    assert_eq!(listed.iter().map(|topic| &topic["topic"]).collect::<Vec<_>>(), ["orders", "returns"]);
    let lookup = ["lookup", "orders", "0", "no", "--url", &url];
    let found = values(&lookup).await;
    assert_eq!((&found[0]["found"]["seq"], &found[1]["found"]), (&1.into(), &Value::Null));
    let stats = ["stats", "--url", &url];
    assert_eq!(values(&stats).await[0]["persistent"]["total_unique_events_processed"], 3);

    for (command, words) in [(&topics[..], "last received"), (&lookup, "not stored"), (&stats, "since start")]
    {
        let shown = on_a_terminal(command).await;
        assert!(shown.contains(words) && !shown.contains('{'), "{shown}");
        let in_a_pipe = Ended::of([command, &["--table"]].concat()).await.stdout;
        assert_eq!(in_a_pipe.lines().count(), shown.lines().count(), "{in_a_pipe}");
        let one = Ended::of([command, &["--json"]].concat()).await.stdout;
        assert_eq!(one.lines().count(), 1, "one document: {one}");
    }
}

#[actix_web::test]
async fn colours_are_for_terminals_and_for_those_who_want_them() {
    for arguments in [&["--help"][..], &["nonsense"], &["check", "--config", "config/default.toml"]] {
        let piped = Ended::of(arguments).await;
        let plain = Ended::on_a_terminal(arguments, ("NO_COLOR", "1")).await.stdout;
        for text in [&piped.stdout, &piped.stderr, &plain] {
            assert!(!text.contains('\x1b'), "{text:?}");
        }
    }
    assert!(on_a_terminal(&["--help"]).await.contains('\x1b'), "the test can tell");
}

#[actix_web::test]
async fn a_bar_is_for_a_terminal() {
    let (log, home) = (Log::start(), tempdir().unwrap());
    let file = home.path().join("events.ndjson");
    fs::write(&file, event("t", "1")).unwrap();
    let arguments = ["publish", file.to_str().unwrap(), "--url", &url(&log)];
    assert!(on_a_terminal(&arguments).await.contains('█'));
    let piped = Ended::of(arguments).await;
    assert_eq!((piped.code, piped.stderr.as_str()), (Some(0), ""));
    assert_eq!(piped.stdout, "accepted 0, duplicates 1, conflicts 0, rejected 0\n");
}

#[actix_web::test]
async fn a_file_with_many_bad_lines_does_not_flood_a_terminal() {
    let (log, home) = (Log::start(), tempdir().unwrap());
    let file = home.path().join("notes.txt");
    fs::write(&file, event("t", "1") + "\n" + &"a line of mine\n".repeat(50)).unwrap();
    let arguments = ["publish", file.to_str().unwrap(), "--url", &url(&log)];
    let shown = on_a_terminal(&arguments).await;
    assert_eq!(shown.matches("rejected: line").count(), 20, "{shown}");
    assert!(
        shown.contains("further rejected events are counted") && shown.contains("rejected 50"),
        "{shown}"
    );
    let piped = Ended::of(arguments).await;
    assert_eq!((piped.code, piped.stderr.lines().count()), (Some(1), 50), "a file has them all");
}

#[actix_web::test]
async fn who_waits_for_a_server_is_told_so_once() {
    let home = tempdir().unwrap();
    let file = home.path().join("events.ndjson");
    fs::write(&file, event("t", "1")).unwrap();
    let url = format!("http://127.0.0.1:{}", crate::support::free_port());
    let ended =
        Ended::of(["publish", file.to_str().unwrap(), "--url", &url, "--give-up-after", "600ms"]).await;
    assert_eq!(
        (ended.code, ended.stderr.matches("--give-up-after").count()),
        (Some(1), 1),
        "{}",
        ended.stderr
    );
}

#[actix_web::test]
async fn a_topic_without_events_is_said_to_be_one() {
    let log = Log::start();
    log.publish(event("orders", "1")).await.ok();
    let url = url(&log);
    let ended = Ended::of(["events", "ordrs", "--url", &url]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""));
    assert!(ended.stderr.contains("topic ordrs has no events"), "{}", ended.stderr);
    for more in [&["orders"][..], &["orders", "--after", "1"]] {
        let ended = Ended::of([&["events", "--url", &url], more].concat()).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    }
}

#[actix_web::test]
async fn a_signal_ends_a_command_and_says_what_is_known() {
    let home = tempdir().unwrap();
    let file = home.path().join("events.ndjson");
    fs::write(&file, event("t", "1")).unwrap();
    let url = format!("http://127.0.0.1:{}", crate::support::free_port());
    for name in ["INT", "TERM", "HUP"] {
        let mut publish = Command::start(["publish", file.to_str().unwrap(), "--url", &url]);
        publish.said("trying again").await;
        publish.signal(name);
        let ended = publish.ended().await;
        assert_eq!(ended.code, Some(1), "{name}: {}", ended.stderr);
        assert!(ended.stderr.contains("interrupted") && ended.stdout.contains("accepted 0"), "{name}");
    }
}
