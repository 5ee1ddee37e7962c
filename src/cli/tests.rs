//! Commands against a small log in memory.

mod answers;
mod inputs;

use std::io::Write;

use clap::CommandFactory;
use tempfile::NamedTempFile;

use super::*;
use crate::client::testing::{Failure, FakeLog};

fn sekali(log: &FakeLog, arguments: &[&str]) -> anyhow::Result<Outcome> {
    let all = ["sekali"].iter().chain(arguments).copied().chain(["--url", log.url.as_str()]);
    run(Cli::try_parse_from(all)?.command.unwrap())
}

fn publish(log: &FakeLog, input: &str, arguments: &[&str]) -> anyhow::Result<Outcome> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    sekali(log, &[&["publish", &path], arguments].concat())
}

fn event(id: usize) -> String {
    format!(
        r#"{{"topic":"orders","event_id":"{id}","timestamp":"2026-01-01T00:00:00Z","source":"s","payload":{{"n": 1.0}}}}"#
    )
}

fn events(count: usize) -> String {
    (0..count).map(|id| event(id) + "\n").collect()
}

fn stored(log: &FakeLog) -> Vec<String> {
    let state = log.state.lock().unwrap();
    state.topics.get("orders").into_iter().flatten().map(|(id, _)| id.clone()).collect()
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|id| id.to_string()).collect()
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn an_unreachable_server_comes_with_advice() {
    let error = ClientError::Unreachable { url: "http://h".to_owned(), reason: "refused".to_owned() };
    let text = explain(&anyhow::Error::new(error).context("sending"));
    assert!(text.starts_with("error: sending: cannot reach http://h: refused\nStart a server"), "{text}");
}

#[test]
fn publishing_is_safe_to_repeat_and_keeps_the_order() {
    let log = FakeLog::start();
    for _ in 0..2 {
        assert_eq!(publish(&log, &events(2500), &[]).unwrap(), Outcome::Done);
    }
    assert_eq!(stored(&log), ids(2500));
}

#[test]
fn every_form_of_the_input_is_published_with_its_payloads_unchanged() {
    let list = format!("[\n{},\n{}\n]", event(0), event(1));
    let object = format!("{{\"events\": [{}, {}]}}", event(0), event(1));
    for input in [events(2), list, object, format!("{}\n{}", event(0), event(1))] {
        let log = FakeLog::start();
        assert_eq!(publish(&log, &input, &["--json"]).unwrap(), Outcome::Done);
        assert_eq!(stored(&log), ids(2), "{input}");
        assert_eq!(log.state.lock().unwrap().topics["orders"][0].1.payload.get(), r#"{"n": 1.0}"#);
    }
}

#[test]
fn a_rejected_event_fails_the_command_and_not_the_others() {
    let log = FakeLog::start();
    let input = format!("{}\noops\n{}\n", event(0), event(1));
    assert_eq!(publish(&log, &input, &[]).unwrap(), Outcome::Failed);
    assert_eq!(stored(&log), ids(2));
}

#[test]
fn what_the_server_finds_too_large_goes_in_parts() {
    let log = FakeLog::start();
    log.state.lock().unwrap().batch_events = 7;
    assert_eq!(publish(&log, &events(100), &[]).unwrap(), Outcome::Done);
    assert_eq!(stored(&log), ids(100));
}

#[test]
fn a_503_is_sent_again() {
    let log = FakeLog::start();
    log.state.lock().unwrap().failures = [Failure::AnswerLost, Failure::Refused].into();
    assert_eq!(publish(&log, &events(10), &["--batch", "3", "--concurrency", "2"]).unwrap(), Outcome::Done);
    assert_eq!(stored(&log).len(), 10);
}

#[test]
fn an_unknown_fate_is_an_error_that_names_the_place() {
    let log = FakeLog::start();
    log.state.lock().unwrap().failures = [Failure::Refused].into();
    let error = publish(&log, &events(3), &["--give-up-after", "0s"]).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.starts_with(
            "not every event is known to be stored (running this again is safe): stopped at line 1"
        ),
        "{text}"
    );
}

#[test]
fn an_input_that_breaks_off_is_an_error_after_the_events_before() {
    let log = FakeLog::start();
    let error = publish(&log, &format!("[{},\n{},\n{{", event(0), event(1)), &[]).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.starts_with("not every event was sent: the input is not JSON at line 3"), "{text}");
    assert_eq!(stored(&log), ids(2));
}

#[test]
fn an_input_that_cannot_be_read_is_said_once() {
    let error = sekali(&FakeLog::start(), &["publish", "/"]).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.starts_with("not every event was sent: cannot read the input: "), "{text}");
    assert_eq!(text.matches("directory").count(), 1, "{text}");
}

#[test]
fn publishing_to_a_wrong_address_is_not_said_to_be_worth_another_try() {
    let log = FakeLog::start();
    let url = format!("{}/wrong", log.url);
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(events(1).as_bytes()).unwrap();
    let arguments = ["sekali", "publish", file.path().to_str().unwrap(), "--url", &url];
    let error = run(Cli::try_parse_from(arguments).unwrap().command.unwrap()).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.starts_with("not every event is known to be stored: stopped at line 1"), "{text}");
}

#[test]
fn reading_commands_succeed_and_lookup_tells_what_is_missing() {
    let log = FakeLog::start();
    publish(&log, &events(3), &[]).unwrap();
    for arguments in [
        &["stats"][..],
        &["stats", "--json"],
        &["topics"],
        &["topics", "--json"],
        &["events", "orders", "--limit", "2"],
        &["lookup", "orders", "0", "2"],
        &["lookup", "orders", "0", "--json"],
        &["health"],
    ] {
        assert_eq!(sekali(&log, arguments).unwrap(), Outcome::Done, "{arguments:?}");
    }
    assert_eq!(sekali(&log, &["lookup", "orders", "0", "7"]).unwrap(), Outcome::Failed);
}

#[test]
fn bench_verifies_a_log_that_is_right() {
    let log = FakeLog::start();
    let arguments = ["bench", "--events", "600", "--duplicates", "20", "--concurrency", "8", "--topics", "3"];
    assert_eq!(sekali(&log, &arguments).unwrap(), Outcome::Done);
    let state = log.state.lock().unwrap();
    assert_eq!(state.topics.values().map(Vec::len).sum::<usize>(), 480);
}

#[test]
fn bench_allows_for_lost_answers() {
    let log = FakeLog::start();
    log.state.lock().unwrap().failures = [Failure::AnswerLost, Failure::Refused, Failure::AnswerLost].into();
    assert_eq!(sekali(&log, &["bench", "--events", "300", "--batch", "10"]).unwrap(), Outcome::Done);
}

#[test]
fn bench_fails_a_log_that_loses_an_event() {
    let log = FakeLog::start();
    log.state.lock().unwrap().loses = Some("\"n\":7,".to_owned());
    assert_eq!(sekali(&log, &["bench", "--events", "100"]).unwrap(), Outcome::Failed);
}

const ONE_TOPIC: [&str; 5] = ["bench", "--events", "100", "--topics", "1"];

#[test]
fn bench_waits_for_duplicates_that_the_node_it_asks_does_not_know_of_yet() {
    let log = FakeLog::start();
    // Totals before, the topic before its events are read; then the topic's counters and the totals.
    let behind = [false, false, true, true, false, true, true, false];
    log.state.lock().unwrap().behind = behind.into();
    assert_eq!(sekali(&log, &ONE_TOPIC).unwrap(), Outcome::Done);
    assert!(log.state.lock().unwrap().behind.is_empty());
}

#[test]
fn bench_fails_a_log_that_loses_counts_of_duplicates() {
    let log = FakeLog::start();
    log.state.lock().unwrap().behind = [true; 1_000].into();
    assert_eq!(sekali(&log, &ONE_TOPIC).unwrap(), Outcome::Failed);
    assert!(!log.state.lock().unwrap().behind.is_empty(), "it does not wait for ever");
}
