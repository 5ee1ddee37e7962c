//! Rows 6 and 7: conflicts that are costly to compare, and conflicts that are many.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use actix_web::rt::System;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::{OWN, STRANGER, Target, connect, endured};
use crate::support::{Ended, array, event_with};

/// Conflicts of one megabyte in a request: as many as a body has room for. A program that is not optimised takes seconds to
/// parse so much, and a victim on the same thread waits for that.
const LARGE: usize = if cfg!(debug_assertions) { 2 } else { 15 };

/// A body that is smaller than what it inflates to.
fn packed(body: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Publishes a body from an address; gives the status and the answer's text.
fn publish(from: IpAddr, to: SocketAddr, body: &[u8]) -> (u16, String) {
    let mut stream = connect(from, to).unwrap();
    let head = format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    (status, text)
}

/// A payload of just under one megabyte of small members, which took the most memory as a tree.
fn large(first: usize) -> String {
    let members: Vec<_> = (0..100_000).map(|number| format!("\"{:05x}\":1", number + first)).collect();
    format!("{{{}}}", members.join(","))
}

/// Sends bodies, one after the other, for as long as the attack lasts; gives how many were taken.
fn repeat(from: IpAddr, to: SocketAddr, bodies: &[Vec<u8>], lasting: Duration) -> usize {
    let (begun, mut taken) = (Instant::now(), 0);
    for body in bodies.iter().cycle() {
        taken += usize::from(publish(from, to, body).0 == 200);
        if begun.elapsed() > lasting {
            break;
        }
    }
    taken
}

#[test]
fn conflicts_of_a_megabyte_hold_up_nobody_and_take_no_trees() {
    for from in [STRANGER, OWN] {
        let (_target, seen) = endured(
            || Target::start(""),
            |target, lasting| {
                let to = target.process.address();
                assert_eq!(publish(from, to, &packed(&array([event_with("large", "1", &large(0))]))).0, 200);
                // Each is another value, so that no cache knows it.
                let bodies: Vec<_> = (0..4)
                    .map(|body| {
                        let payload = |conflict| large(1 + body * LARGE + conflict);
                        packed(&array(
                            (0..LARGE).map(|conflict| event_with("large", "1", &payload(conflict))),
                        ))
                    })
                    .collect();
                let (_, answer) = publish(from, to, &bodies[0]);
                assert!(answer.contains(&format!("\"conflicts\":{LARGE}")), "{answer}");
                assert!(repeat(from, to, &bodies, lasting) > 0, "no attack took place");
            },
        );
        // The default of `limits.in_flight_bytes`, and room for what is idle. As trees the conflicts alone took 300 MiB.
        assert!(seen.memory < 256 << 20, "{} MiB", seen.memory >> 20);
    }
}

/// Conflicts of the test of the log.
const MANY: usize = 5_000;

/// Those of one request. A commit of very many events by a program that is not optimised takes as long as the victim waits.
const BATCH: usize = 500;

#[test]
fn many_conflicts_fill_no_disk_with_lines_and_each_is_counted() {
    let begun = Cell::new(Instant::now());
    let (target, _) = endured(
        || {
            begun.set(Instant::now());
            Target::start("")
        },
        |target, _| {
            let to = target.process.address();
            let body = |payload: &str, first: usize| {
                let ids = first..first + BATCH;
                packed(&array(ids.map(|id| event_with("many", &id.to_string(), payload))))
            };
            for (payload, expected) in [("{}", "\"accepted\":500"), (r#"{"n":1}"#, "\"conflicts\":500")] {
                for first in (0..MANY).step_by(BATCH) {
                    let (_, answer) = publish(STRANGER, to, &body(payload, first));
                    assert!(answer.contains(expected), "{answer}");
                }
            }
            // What fails is another kind of line.
            for _ in 0..300 {
                assert_eq!(publish(STRANGER, to, &packed("[7]")).0, 422);
            }
        },
    );
    target.process.signal("TERM");
    let Ended { stderr, .. } = System::new().block_on(target.process.ended());
    let lasted = begun.get().elapsed().as_secs();
    for (words, all) in [("conflict: ", MANY as u64), ("not answered as asked", 300)] {
        let lines: Vec<Value> = stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of =
            |line: &&Value, field: &str| line[field].as_str().is_some_and(|text| text.starts_with(words));
        let written = lines.iter().filter(|line| of(line, "message")).count() as u64;
        let omitted =
            lines.iter().filter(|line| of(line, "lines")).map(|line| line["omitted"].as_u64().unwrap());
        assert_eq!(written + omitted.sum::<u64>(), all, "{words}: each is written or counted");
        assert!(written <= 100 * (lasted + 1), "{words}: {written} lines in {lasted} s");
    }
}
