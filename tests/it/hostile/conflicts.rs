//! Rows 6 and 7: conflicts that are costly to compare, and conflicts that are many.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use actix_web::rt::System;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::{Endured, Target, endured, metric, post};
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
    post(from, to, "/publish", "Content-Encoding: gzip\r\n", body)
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
    let attack = |target: &Target, from: IpAddr, lasting: Duration| {
        let to = target.process.address();
        assert_eq!(publish(from, to, &packed(&array([event_with("large", "1", &large(0))]))).0, 200);
        // Each is another value, so that no cache knows it.
        let bodies: Vec<_> = (0..4)
            .map(|body| {
                let payload = |conflict| large(1 + body * LARGE + conflict);
                packed(&array((0..LARGE).map(|conflict| event_with("large", "1", &payload(conflict)))))
            })
            .collect();
        let (_, answer) = publish(from, to, &bodies[0]);
        assert!(answer.contains(&format!("\"conflicts\":{LARGE}")), "{answer}");
        assert!(repeat(from, to, &bodies, lasting) > 0, "no attack took place");
    };
    // As trees the conflicts alone took 300 MiB.
    let _ = endured("7: conflicts of a megabyte", || Target::start(""), attack);
}

/// Conflicts of one request. A commit of very many events by a program that is not optimised takes as long
/// as the victim waits.
const BATCH: u64 = 500;

/// The fewest conflicts of an attack: many times the lines that the log may have in its time.
const LEAST: u64 = 5_000;

/// Conflicts since the start, in `/metrics`.
const CONFLICTS: &str = "sekali_events_conflict_total";

/// Requests of invalid events, whose lines in the log are of another kind.
const INVALID: u64 = 300;

#[test]
fn many_conflicts_fill_no_disk_with_lines_and_each_is_counted() {
    let attack = |target: &Target, from: IpAddr, lasting: Duration| {
        let (to, begun, mut sent) = (target.process.address(), Instant::now(), 0);
        let body =
            |payload: &str| packed(&array((0..BATCH).map(|id| event_with("many", &id.to_string(), payload))));
        let (_, answer) = publish(from, to, &body("{}"));
        assert!(answer.contains(&format!("\"accepted\":{BATCH}")), "{answer}");
        while sent < LEAST || begun.elapsed() < lasting {
            let (_, answer) = publish(from, to, &body(&format!("{{\"n\":{sent}}}")));
            assert!(answer.contains(&format!("\"conflicts\":{BATCH}")), "{answer}");
            sent += BATCH;
        }
        for _ in 0..INVALID {
            assert_eq!(publish(from, to, &packed("[7]")).0, 422);
        }
        assert_eq!(metric(to, CONFLICTS), sent, "each is counted");
    };
    for Endured { target, .. } in endured("6: very many conflicts", || Target::start(""), attack) {
        let conflicts = metric(target.process.address(), CONFLICTS);
        target.process.signal("TERM");
        let Ended { stderr, .. } = System::new().block_on(target.process.ended());
        let lasted = target.started.elapsed().as_secs();
        let lines: Vec<Value> = stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (words, all) in [("conflict: ", conflicts), ("not answered as asked", INVALID)] {
            let of =
                |line: &&Value, field: &str| line[field].as_str().is_some_and(|text| text.starts_with(words));
            let written = lines.iter().filter(|line| of(line, "message")).count() as u64;
            let omitted =
                lines.iter().filter(|line| of(line, "lines")).map(|line| line["omitted"].as_u64().unwrap());
            assert_eq!(written + omitted.sum::<u64>(), all, "{words}: each is written or counted");
            assert!(written <= 100 * (lasted + 1), "{words}: {written} lines in {lasted} s");
        }
    }
}
