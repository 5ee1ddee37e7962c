//! Rows 2, 3 and 10: many connections that hold their place.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{OTHER, OWN, STRANGER, Target, endured, follow, metric, posting, sent, status};
use crate::support::{calm, until};

/// Deadlines that pass several times in an attack of two seconds.
const DEADLINES: &str = "server.head_timeout = \"500ms\"\nserver.body_timeout = \"500ms\"\n\
                         server.drain_timeout = \"500ms\"\n";

/// Connections of an attack; more than a process with 256 files has places for.
const CROWD: usize = 300;
const FILES: &str = "ulimit -n 256";

/// The time after which an attacker opens all its connections again.
const AGAIN: Duration = Duration::from_millis(500);

/// The longest wait for the log to end the connections of a crowd; far longer than any of its deadlines.
const ENDED_WAIT: Duration = Duration::from_mins(1);

const SERVED: &str = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";

const CHUNKED: &str = "HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n";

/// Waits until the log has ended a crowd that is still open at its own end.
fn ended(target: &Target) {
    let begun = Instant::now();
    let open = || metric(target.process.ops_address().unwrap(), "sekali_connections");
    // The victim has up to two connections, and the log counts what it has just closed.
    while open() > 5 {
        assert!(begun.elapsed() < ENDED_WAIT, "{} connections are open past their deadline", open());
        thread::sleep(AGAIN / 10);
    }
}

/// Runs an attack of connections that send these bytes, in turn, and then nothing, and checks that the log
/// ends each of them.
fn locks_nobody_out(row: &str, begun: &[&str]) {
    let attack = |target: &Target, from: IpAddr, lasting: Duration| -> Vec<TcpStream> {
        let (to, started) = (target.process.address(), Instant::now());
        loop {
            let crowd = begun.iter().cycle().take(CROWD);
            let crowd: Vec<_> = crowd.filter_map(|begun| sent(from, to, begun)).collect();
            if started.elapsed() > lasting {
                ended(target);
                return crowd;
            }
            thread::sleep(AGAIN);
        }
    };
    let _ = endured(row, || Target::limited(DEADLINES, FILES), attack);
}

#[test]
fn half_a_head_after_a_request_locks_nobody_out() {
    let empty_line = format!("{SERVED}\r\n");
    let half = format!("{SERVED}GET /health/live HTTP/1.1\r\nHost: loc");
    locks_nobody_out("2: half a head after a request", &[&empty_line, &half]);
}

#[test]
fn chunked_bodies_that_are_refused_and_die_lock_nobody_out() {
    let nowhere = format!("POST /nowhere {CHUNKED}\r\n1\r\n[\r\n");
    let of_no_type = format!("POST /publish {CHUNKED}Content-Type: text/csv\r\n\r\n1\r\n[\r\n");
    locks_nobody_out("3: chunked bodies that are refused and die", &[&nowhere, &of_no_type]);
}

#[test]
fn chunked_bodies_that_die_lock_nobody_out() {
    // While its body may still come, a request is busy: it holds its place, but no more than half of all.
    let unfinished = format!("POST /publish {CHUNKED}\r\n1\r\n[\r\n");
    locks_nobody_out("3: chunked bodies that die", &[&unfinished]);
}

/// Addresses of a stranger that has several.
const ADDRESSES: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 4)),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5)),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
];

/// The time between two connections of an attack that fills every place. When the places are full, the
/// oldest connection waits for longer than the second that each has.
const TRICKLE: Duration = Duration::from_millis(35);
const ALL_PLACES: usize = 40;

#[test]
fn connections_without_a_request_make_room_for_others() {
    // No deadline helps: only the connections that wait for their clients give way.
    let settings = format!(
        "server.head_timeout = \"1h\"\nserver.keep_alive = \"1h\"\nlimits.connections = {ALL_PLACES}\n\
         limits.connections_per_address = {}\n",
        ALL_PLACES / 2
    );
    let attack = |target: &Target, from: IpAddr, lasting: Duration| -> Vec<TcpStream> {
        let (to, started) = (target.process.address(), Instant::now());
        let addresses = if from == OWN { &[OWN] } else { &ADDRESSES[..] };
        let (mut crowd, mut due) = (Vec::new(), started);
        for (from, begun) in addresses.iter().cycle().zip(["", "", SERVED].iter().cycle()) {
            crowd.extend(sent(*from, to, begun));
            due += TRICKLE;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if started.elapsed() > lasting {
                break;
            }
        }
        crowd
    };
    let start = || Target::start(&settings);
    let _ = endured("2, 10: connections that send nothing, or nothing more", start, attack);
}

/// The connections that were refused for the bound of their address.
const REFUSED: &str = "sekali_connections_refused_total{reason=\"connections_per_address\"}";

/// The places of one address for followers, and for connections.
const FOLLOWERS: usize = 20;
const PLACES: usize = 40;

#[test]
fn every_place_of_one_address_leaves_places_for_others() {
    let start = || {
        Target::start(&format!(
            "limits.followers = {}\nlimits.followers_per_address = {FOLLOWERS}\nlimits.connections = {}\n\
             limits.connections_per_address = {PLACES}\n",
            2 * FOLLOWERS,
            3 * PLACES
        ))
    };
    let attack = |target: &Target, from: IpAddr, lasting: Duration| {
        let (to, started) = (target.process.address(), Instant::now());
        let followers: Vec<_> = (0..FOLLOWERS).map(|_| follow(from, to)).collect();
        assert!(followers.iter().all(|(status, _)| *status == 200));
        let (refused, mut stream) = follow(from, to);
        assert_eq!(refused, 429);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("retry-after: ") && text.contains("limits.followers_per_address"), "{text}");
        loop {
            // The log waits for these bodies, so that their connections are not idle. Some are refused.
            let bodies: Vec<_> = (0..PLACES).map(|_| sent(from, to, posting("/publish", 9, ""))).collect();
            assert_eq!(follow(OTHER, to).0, 200, "another address has its own places");
            if started.elapsed() > lasting {
                assert!(metric(target.process.ops_address().unwrap(), REFUSED) > 0, "an address takes all");
                return (followers, bodies);
            }
            thread::sleep(AGAIN);
        }
    };
    let _ = endured("10: every place of one address", start, attack);
}

#[actix_web::test]
async fn connections_past_the_bound_of_an_address_are_told_why_and_counted() {
    const EACH: usize = 20;
    // More than the log lets linger at once.
    const MORE: usize = 40;
    let settings = format!("limits.connections = 100\nlimits.connections_per_address = {EACH}\n");
    let target = calm(|| Target::start(&settings));
    let to = target.process.address();
    let crowd: Vec<_> = (0..EACH).map(|_| follow(STRANGER, to)).collect();
    assert!(crowd.iter().all(|(status, _)| *status == 200));
    let (refused, mut stream) = follow(STRANGER, to);
    assert_eq!(refused, 429);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    for words in ["\"too_many_requests\"", "limits.connections_per_address", "Retry-After: 1\r\n"] {
        assert!(rest.contains(words), "{words}: {rest}");
    }
    assert_eq!(follow(OWN, to).0, 200, "another address has its own places");
    assert_eq!(metric(to, REFUSED), 1);
    // None of them closes: each is told why all the same.
    let refused: Vec<_> = (0..MORE).map(|_| follow(STRANGER, to)).collect();
    assert!(refused.iter().all(|(status, _)| *status == 429));
    assert_eq!(metric(to, REFUSED), 1 + MORE as u64);
    drop((crowd, refused));
    until("there are places again", async || follow(STRANGER, to).0 == 200).await;
}

#[test]
fn a_trusted_proxy_has_no_bound_of_its_own() {
    let settings = "server.trusted_proxies = [\"127.0.0.2\"]\nlimits.connections = 100\n\
                    limits.connections_per_address = 1\n";
    let target = calm(|| Target::start(settings));
    let busy = |_| sent(STRANGER, target.process.address(), posting("/publish", 9, "")).unwrap();
    let mut all: Vec<_> = (0..10).map(busy).collect();
    for stream in &mut all {
        stream.write_all(b"[       ]").unwrap();
        assert_eq!(status(stream).unwrap(), 200);
    }
}
