//! Rows 4, 8 and 13: answers that nobody reads, and requests of a few bytes whose answers cost much.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{FOLLOWING, OTHER, OWN, STRANGER, Target, answer, endured, get, post, reading, sent, status};
use crate::support::{array, calm, event};

/// Events of the topic that is read, of [`LARGE`] bytes each: 12 MB in all.
const EVENTS: usize = 48;
const LARGE: usize = 250_000;

/// Connections that do not read, of each kind. Without a bound they hold two pages of 1 MiB each.
const PAGES: usize = 100;
const SINGLE: usize = 20;
const FOLLOWERS: usize = 60;

/// Connections among them that read so little, so often: less than `server.answer_min_rate`.
const SLOW: usize = 20;
const SIP: usize = 100;
const SIP_PAUSE: Duration = Duration::from_millis(250);

/// The time after which an attacker opens all its connections again: well before the log ends them.
const AGAIN: Duration = Duration::from_secs(10);

/// The least budgets that there may be.
const NARROW: &str = "limits.body = \"4MiB\"\nlimits.in_flight_bytes = \"24MiB\"\n";

/// Fills a topic with large events.
fn fill(to: SocketAddr) {
    let payload = "x".repeat(LARGE);
    for number in 0..EVENTS {
        let body = format!(
            r#"{{"topic":"large","event_id":"{number}","timestamp":"2026-01-01T00:00:00Z","source":"s","payload":{{"text":"{payload}"}}}}"#
        );
        assert_eq!(post(OTHER, to, "/publish", "", body.as_bytes()).0, 200);
    }
}

/// A target with a topic of large events.
fn filled(settings: &str) -> Target {
    let target = Target::start(settings);
    fill(target.process.address());
    target
}

/// Opens so many connections that ask this and read nothing but the status.
fn unread(from: IpAddr, to: SocketAddr, count: usize, request: &str) -> (Vec<TcpStream>, Vec<u16>) {
    let mut streams: Vec<_> = (0..count).filter_map(|_| sent(from, to, request)).collect();
    let statuses = streams.iter_mut().map(|stream| status(stream).unwrap_or_default()).collect();
    (streams, statuses)
}

/// Reads a little of each connection, now and then.
fn sip(streams: &mut [TcpStream], lasting: Duration) {
    let (begun, mut bytes) = (Instant::now(), [0; SIP]);
    while begun.elapsed() < lasting {
        for stream in streams.iter_mut() {
            // One that the log has cut off gives nothing.
            let _ = stream.read(&mut bytes);
        }
        thread::sleep(SIP_PAUSE);
    }
}

#[test]
fn answers_that_nobody_reads_or_reads_slowly_hold_no_more_than_the_budget() {
    let attack = |target: &Target, from: IpAddr, lasting: Duration| {
        let (to, begun) = (target.process.address(), Instant::now());
        loop {
            // These take what they may; pages are refused then.
            let (followers, followed) =
                unread(from, to, FOLLOWERS, &reading("/events?topic=large", FOLLOWING));
            assert!(followed.contains(&200), "{followed:?}");
            let (mut pages, statuses) = unread(from, to, PAGES, &reading("/events?topic=large", ""));
            assert!(statuses.contains(&429), "{statuses:?}");
            let single = unread(from, to, SINGLE, &reading("/events/large/1", ""));
            let slow = SLOW.min(pages.len());
            sip(&mut pages[..slow], lasting.saturating_sub(begun.elapsed()).min(AGAIN));
            let (status, text) = get(OTHER, to, "/events?topic=large");
            assert_eq!(status, 200, "another address reads");
            assert!(text.len() > EVENTS * LARGE, "all of it: {}", text.len());
            if begun.elapsed() >= lasting {
                return (followers, pages, single);
            }
        }
    };
    let _ = endured("4: unread and slowly read answers", || filled(NARROW), attack);
}

#[test]
fn an_answer_that_is_read_too_slowly_is_cut_off() {
    let target = calm(|| filled("server.answer_min_rate = \"1GiB\"\n"));
    let to = target.process.address();
    let mut stream = sent(STRANGER, to, reading("/events?topic=large", "")).unwrap();
    assert_eq!(status(&mut stream).unwrap(), 200);
    // The least time of a piece is a second, whatever the rate is.
    thread::sleep(Duration::from_secs(2));
    let (_, rest) = answer(stream);
    assert!(rest.len() < EVENTS * LARGE, "all of it came: {}", rest.len());
    let metrics = get(OWN, to, "/metrics").1;
    assert!(!metrics.contains("sekali_answers_cut_total 0"), "{metrics}");
}

#[test]
fn queries_of_thousands_of_parameters_are_refused_unread() {
    let query = (0..12_000).map(|number| format!("{number:x}&")).collect::<Vec<_>>().concat();
    let attack = |target: &Target, from: IpAddr, lasting: Duration| {
        let (to, until) = (target.process.address(), Instant::now() + lasting);
        let paths = ["/events", "/topics", "/topic", "/event", "/stats", "/topics/t", "/events/t/1"];
        for path in paths.iter().cycle() {
            let (status, text) = get(from, to, &format!("{path}?{query}"));
            assert!(status == 422 && text.contains("more than 16 parameters"), "{path}: {text}");
            if Instant::now() >= until {
                return;
            }
        }
    };
    let _ = endured("8: queries of thousands of parameters", || Target::start(""), attack);
}

#[test]
fn a_key_that_is_looked_up_again_and_again_is_looked_up_once() {
    let keys = |count| array((0..count).map(|_| r#"{"topic":"t","event_id":"1"}"#.to_owned()));
    let attack = |target: &Target, from: IpAddr, lasting: Duration| {
        let (to, until) = (target.process.address(), Instant::now() + lasting);
        let post = |path, body: String| post(from, to, path, "", body.as_bytes());
        assert_eq!(post("/publish", array([event("t", "1")])).0, 200);
        while Instant::now() < until {
            assert_eq!(post("/events/lookup", keys(10_000)).0, 413);
            let (status, text) = post("/events/lookup", keys(1_000));
            assert_eq!((status, text.matches("\"seq\":1,").count()), (200, 1_000));
        }
    };
    let _ = endured("13: one key looked up again and again", || Target::start(""), attack);
}
