//! What `publish` does with inputs of every kind.

use super::*;
use crate::cli::publish::tests::{gzip, zstd};

fn publish_bytes(log: &FakeLog, input: &[u8], arguments: &[&str]) -> anyhow::Result<Outcome> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(input).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    sekali(log, &[&["publish", &path], arguments].concat())
}

fn requests(log: &FakeLog) -> usize {
    log.state.lock().unwrap().requests
}

#[test]
fn archives_are_inflated() {
    let (first, second) = (events(600), (600..1200).map(|id| event(id) + "\n").collect::<String>());
    for pack in [gzip as fn(&[u8]) -> Vec<u8>, zstd] {
        let log = FakeLog::start();
        let archive = [pack(first.as_bytes()), pack(second.as_bytes())].concat();
        assert_eq!(publish_bytes(&log, &archive, &[]).unwrap(), Outcome::Done);
        assert_eq!(stored(&log), ids(1200));
    }
}

#[test]
fn an_archive_that_is_cut_off_is_an_error_after_the_events_before() {
    for (pack, name) in [(gzip as fn(&[u8]) -> Vec<u8>, "gzip"), (zstd, "zstd")] {
        let log = FakeLog::start();
        let mut archive = [pack(events(10).as_bytes()), pack(events(20).as_bytes())].concat();
        archive.truncate(archive.len() - 1);
        let text = format!("{:#}", publish_bytes(&log, &archive, &[]).unwrap_err());
        let words = format!("not every event was sent: cannot read the input: the {name} archive is cut off");
        assert!(text.starts_with(&words), "{text}");
        assert!(stored(&log).len() >= 10, "{:?}", stored(&log));
    }
}

#[test]
fn what_is_no_json_is_refused_before_anything_is_sent() {
    let csv = (0..10_000).map(|row| format!("orders,{row},2026-01-01\n")).collect::<Vec<_>>().concat();
    for (input, words) in [
        (csv.as_bytes(), "holds no events"),
        (b"<html><body>{}</body></html>", "holds no events"),
        (b"\x7fELF\x02\x01\x01\0\0", "binary data"),
        (b"\xff\xfe{\0\"\0", "UTF-16 text"),
        (&gzip(csv.as_bytes()), "holds no events"),
        (&gzip(&gzip(b"{}")), "binary data"),
    ] {
        let log = FakeLog::start();
        let text = format!("{:#}", publish_bytes(&log, input, &[]).unwrap_err());
        assert!(text.starts_with("nothing was sent: the input ") && text.contains(words), "{text}");
        assert_eq!(requests(&log), 0, "{text}");
    }
}

#[test]
fn any_stream_of_values_is_published() {
    let log = FakeLog::start();
    let pretty =
        serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(&event(3)).unwrap()).unwrap();
    let input = format!(
        "{}{} {}\n[{},\n{}]{{\"events\":[{}]}}{}",
        event(0),
        event(1),
        event(2),
        pretty,
        event(4),
        event(5),
        event(6)
    );
    assert_eq!(publish(&log, &input, &[]).unwrap(), Outcome::Done);
    assert_eq!(stored(&log), ids(7));
}

#[test]
fn an_event_that_is_too_long_is_rejected_alone() {
    let log = FakeLog::start();
    let too_large = event(1).replace("1.0", &format!("\"{}\"", "x".repeat(2 << 20)));
    let input = format!("[{},{too_large},{}]", event(0), event(2));
    assert_eq!(publish(&log, &input, &["--batch", "1"]).unwrap(), Outcome::Failed);
    assert_eq!(stored(&log), ["0", "2"]);
    assert_eq!(requests(&log), 2);
}

#[test]
fn a_conflict_fails_the_command_unless_it_is_allowed() {
    let log = FakeLog::start();
    publish(&log, &event(0), &[]).unwrap();
    let other = event(0).replace("1.0", "2");
    assert_eq!(publish(&log, &other, &[]).unwrap(), Outcome::Failed);
    assert_eq!(publish(&log, &other, &["--allow-conflicts"]).unwrap(), Outcome::Done);
    assert_eq!(publish(&log, &event(0), &[]).unwrap(), Outcome::Done, "a duplicate is none");
    let bad = format!("{other}\noops\n");
    assert_eq!(publish(&log, &bad, &["--allow-conflicts"]).unwrap(), Outcome::Failed);
}
