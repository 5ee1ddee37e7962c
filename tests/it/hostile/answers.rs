//! Rows 4, 8, 10, 11 and 13: answers that nobody reads, followers of one address, and requests of a few
//! bytes whose answers cost much.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{OWN, STRANGER, Target, connect, endured};
use crate::support::{array, event};

/// A third address, of a client that reads while others attack.
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// The most memory beside the budget, in bytes: the hot caches, the store's caches, the program itself.
const BESIDE: u64 = 160 << 20;

/// Events of the topic that is read, of [`LARGE`] bytes each: 12 MB in all.
const EVENTS: usize = 48;
const LARGE: usize = 250_000;

/// Connections that do not read: without a bound they hold two pages of 1 MiB each.
const UNREAD: usize = 200;

/// A quarter of the default.
const NARROW: &str = "[limits]\nanswer_bytes = \"16MiB\"\n";

/// Sends a request without a body, and leaves its answer unread.
fn send(from: IpAddr, to: SocketAddr, path: &str, more: &str) -> Option<TcpStream> {
    let mut stream = connect(from, to)?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n");
    // A connection that is refused may end here.
    let _ = stream.write_all(head.as_bytes());
    Some(stream)
}

/// The status of an answer, and its head and body as far as they come.
fn read(mut stream: TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status =
        text.strip_prefix("HTTP/1.1 ").and_then(|text| text.get(..3)).and_then(|code| code.parse().ok());
    (status.unwrap_or_default(), text)
}

fn get(from: IpAddr, to: SocketAddr, path: &str) -> (u16, String) {
    read(send(from, to, path, "").unwrap())
}

fn post(from: IpAddr, to: SocketAddr, path: &str, body: &str) -> (u16, String) {
    let mut stream = connect(from, to).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    read(stream)
}

/// The status of an answer of which nothing more is read.
fn status(stream: &mut TcpStream) -> u16 {
    let mut line = [0; 12];
    match stream.read_exact(&mut line) {
        Ok(()) => String::from_utf8_lossy(&line[9..]).parse().unwrap_or_default(),
        Err(_) => 0,
    }
}

/// Fills a topic with large events.
fn fill(to: SocketAddr) {
    let payload = "x".repeat(LARGE);
    for number in 0..EVENTS {
        let body = format!(
            r#"{{"topic":"large","event_id":"{number}","timestamp":"2026-01-01T00:00:00Z","source":"s","payload":{{"text":"{payload}"}}}}"#
        );
        assert_eq!(post(OWN, to, "/publish", &body).0, 200);
    }
}

/// A target with a topic of large events.
fn filled(config: &str) -> Target {
    let target = Target::start(config);
    fill(target.process.address());
    target
}

/// Opens so many connections that ask this and read nothing but the status.
fn unread(from: IpAddr, to: SocketAddr, path: &str, more: &str) -> (Vec<TcpStream>, Vec<u16>) {
    let mut streams: Vec<_> = (0..UNREAD).filter_map(|_| send(from, to, path, more)).collect();
    let statuses = streams.iter_mut().map(status).collect();
    (streams, statuses)
}

#[test]
fn answers_that_nobody_reads_hold_no_more_than_the_budget() {
    for from in [STRANGER, OWN] {
        let attack = |target: &Target, lasting: Duration| {
            let to = target.process.address();
            let (streams, statuses) = unread(from, to, "/events?topic=large", "");
            let events = unread(from, to, "/events/large/1", "");
            assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
            thread::sleep(lasting);
            let (status, text) = get(OTHER, to, "/events?topic=large");
            assert_eq!(status, 200, "another address reads");
            assert!(text.len() > EVENTS * LARGE, "all of it: {}", text.len());
            (streams, events)
        };
        let (_target, seen) = endured(|| filled(NARROW), attack);
        assert!(seen.memory < (16 << 20) + BESIDE, "{} bytes", seen.memory);
    }
}

#[test]
fn followers_that_read_nothing_hold_no_more_than_the_budget() {
    let attack = |target: &Target, lasting| {
        let to = target.process.address();
        let held = unread(STRANGER, to, "/events?topic=large", "Accept: text/event-stream\r\n");
        assert!(held.1.contains(&200), "{:?}", held.1);
        thread::sleep(lasting);
        let (status, text) = get(OTHER, to, "/events?topic=large");
        assert!(status == 200 && text.len() > EVENTS * LARGE, "{status}, {} bytes", text.len());
        held
    };
    let (_target, seen) = endured(|| filled(NARROW), attack);
    assert!(seen.memory < (16 << 20) + BESIDE, "{} bytes", seen.memory);
}

#[test]
fn followers_of_one_address_leave_places_for_others() {
    let target = Target::start("[limits]\nfollowers = 40\nfollowers_per_address = 20\n");
    let to = target.process.address();
    let follow = |from| send(from, to, "/events?topic=t", "Accept: text/event-stream\r\n").unwrap();
    let mut served: Vec<_> = (0..20).map(|_| follow(STRANGER)).collect();
    assert!(served.iter_mut().all(|stream| status(stream) == 200));
    let (refused, text) = read(follow(STRANGER));
    assert_eq!(refused, 429, "{text}");
    assert!(text.contains("retry-after: ") && text.contains("limits.followers_per_address"), "{text}");
    assert_eq!(status(&mut follow(OTHER)), 200);
    let metrics = get(OWN, to, "/metrics").1;
    assert!(metrics.contains("sekali_refusals_total{reason=\"too_many_requests\"} 1"), "{metrics}");
}

#[test]
fn an_answer_that_is_read_too_slowly_is_cut_off() {
    let target = filled("[server]\nanswer_min_rate = \"1GiB\"\n");
    let to = target.process.address();
    let mut stream = send(STRANGER, to, "/events?topic=large", "").unwrap();
    assert_eq!(status(&mut stream), 200);
    // The least time of a piece is a second, whatever the rate is.
    thread::sleep(Duration::from_secs(2));
    let (_, rest) = read(stream);
    assert!(rest.len() < EVENTS * LARGE, "all of it came: {}", rest.len());
    let metrics = get(OWN, to, "/metrics").1;
    assert!(!metrics.contains("sekali_answers_cut_total 0"), "{metrics}");
}

#[test]
fn queries_of_thousands_of_parameters_are_refused_unread() {
    let query = (0..12_000).map(|number| format!("{number:x}&")).collect::<Vec<_>>().concat();
    for from in [STRANGER, OWN] {
        let attack = |target: &Target, lasting| {
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
        let _ = endured(|| Target::start(""), attack);
    }
}

#[test]
fn a_key_that_is_looked_up_again_and_again_is_looked_up_once() {
    let keys = |count| array((0..count).map(|_| r#"{"topic":"t","event_id":"1"}"#.to_owned()));
    let attack = |target: &Target, lasting| {
        let (to, until) = (target.process.address(), Instant::now() + lasting);
        assert_eq!(post(OWN, to, "/publish", &array([event("t", "1")].into_iter())).0, 200);
        while Instant::now() < until {
            assert_eq!(post(STRANGER, to, "/events/lookup", &keys(10_000)).0, 413);
            let (status, text) = post(STRANGER, to, "/events/lookup", &keys(1_000));
            assert_eq!((status, text.matches("\"seq\":1,").count()), (200, 1_000));
        }
    };
    let _ = endured(|| Target::start(""), attack);
}

#[test]
fn topics_that_sort_first_hide_no_busy_topic() {
    let target = Target::start("[metrics]\ntopics = 5\ntopic_names = [\"rare\"]\n");
    let to = target.process.address();
    let publish = |events: String| assert_eq!(post(STRANGER, to, "/publish", &events).0, 200);
    publish(array((0..10_000).map(|number| event(&format!("!{number:05}"), "1"))));
    publish(array((0..50).map(|number| event("orders", &number.to_string()))));
    publish(array([event("rare", "1")]));
    let metrics = get(OWN, to, "/metrics").1;
    for topic in ["orders", "rare"] {
        let label = format!("sekali_topic_events_accepted_total{{topic=\"{topic}\"");
        assert!(metrics.contains(&label), "{topic}");
    }
    let stats = get(OWN, to, "/stats").1;
    assert!(stats.contains("\"orders\"") && stats.contains("\"rare\""), "{}", stats.len());
}
