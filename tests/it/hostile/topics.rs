//! Row 5: new topics without end, in a few kilobytes.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::{OWN, STRANGER, Target, connect, endured};
use crate::support::{array, event};

/// New topics of one request of the attacker.
const AT_ONCE: u64 = 1_000;

/// The time between two of them.
const PACE: Duration = Duration::from_millis(200);

/// The new topics that an address may make in a minute.
const LIMIT: u64 = 500;

/// Publishes from an address; the answer, as text.
fn publish(from: IpAddr, to: SocketAddr, body: &str) -> String {
    let mut stream = connect(from, to).unwrap();
    let head = "POST /publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nPrefer: return=minimal\r\n";
    let length = body.len();
    stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn start() -> Target {
    Target::start(&format!("[limits]\nnew_topics_per_minute = {LIMIT}\n"))
}

/// The topics of the store.
fn topics(to: SocketAddr) -> u64 {
    let mut stream = connect(STRANGER, to).unwrap();
    stream.write_all(b"GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, rest) = answer.split_once("\"topics_total\":").unwrap();
    rest.split(',').next().unwrap().parse().unwrap()
}

#[test]
fn new_topics_without_end_are_refused_and_the_victim_goes_on() {
    for from in [STRANGER, OWN] {
        let attack = |target: &Target, lasting| {
            let (to, begun) = (target.process.address(), Instant::now());
            // The victim has made its topic.
            while topics(to) == 0 {
                thread::sleep(PACE);
            }
            let mut number = 0;
            while begun.elapsed() < lasting {
                let names = (number..number + AT_ONCE).map(|number| event(&format!("flood {number}"), "1"));
                let answer = publish(from, to, &array(names)).to_ascii_lowercase();
                assert!(answer.starts_with("http/1.1 429") && answer.contains("too_many_topics"), "{answer}");
                assert!(answer.contains("\r\nretry-after: "), "{answer}");
                number += AT_ONCE;
                thread::sleep(PACE);
            }
            begun
        };
        let (target, seen) = endured(start, |target, lasting| {
            let begun = attack(target, lasting);
            let most = LIMIT + LIMIT * begun.elapsed().as_secs().div_ceil(60) + 1;
            let made = topics(target.process.address());
            assert!((LIMIT..=most).contains(&made), "{made} of {most} topics");
        });
        // Its topic exists, so it is not throttled, wherever the attack comes from.
        assert_eq!(seen.throttled, 0, "{seen:?}");
        drop(target);
    }
}

#[test]
fn events_of_topics_that_exist_are_stored_and_a_client_that_tries_again_loses_nothing() {
    let target = start();
    let to = target.process.address();
    let names = |first, count, id: &str| {
        let events = (first..first + count).map(|name| event(&format!("topic {name}"), id));
        array(events.collect::<Vec<_>>())
    };
    assert!(publish(STRANGER, to, &names(0, LIMIT, "1")).starts_with("HTTP/1.1 200"));
    // Half of these topics are there. It takes a minute until the address may make the others.
    let mixed = names(LIMIT / 2, LIMIT, "2");
    assert!(publish(STRANGER, to, &mixed).starts_with("HTTP/1.1 429"));
    let held = publish(STRANGER, to, &names(LIMIT / 2, LIMIT / 2, "2"));
    assert!(held.contains(&format!("\"duplicates\":{}", LIMIT / 2)), "what exists was stored: {held}");
    let own = publish(OWN, to, &mixed);
    assert!(own.starts_with("HTTP/1.1 200"), "another address has its own share: {own}");
    let again = publish(STRANGER, to, &mixed);
    assert!(again.contains(&format!("\"duplicates\":{LIMIT}")), "all of them exist now: {again}");
}
