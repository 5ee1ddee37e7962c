//! Rows 2, 3 and 10: many connections that hold their place, from a stranger's address and from that of
//! the victim.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{OWN, STRANGER, Target, connect, endured};
use crate::support::until;

/// Deadlines that pass several times in an attack of two seconds, and a listener of its own for health.
const CONFIG: &str = "[server]\nops_bind = \"127.0.0.1:0\"\nhead_timeout = \"500ms\"\nbody_timeout = \"500ms\"\n\
                      drain_timeout = \"500ms\"\n";

/// Connections of an attack; more than the process has places for.
const CROWD: usize = 300;

/// The time after which an attacker opens all its connections again.
const AGAIN: Duration = Duration::from_millis(500);

const SERVED: &str = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Runs an attack of connections that each send these bytes and then nothing, and checks that the victim
/// is served, and that the log is as it was within the 5 s of the issue. A victim at the address of the
/// attack is served, or told by 429 that its address has no place left.
async fn endures(from: IpAddr, begun: &str) {
    let attack = |target: &Target, lasting: Duration| -> Vec<TcpStream> {
        let started = Instant::now();
        loop {
            let open = |_| {
                let mut stream = connect(from, target.process.address())?;
                stream.write_all(begun.as_bytes()).ok()?;
                Some(stream)
            };
            let crowd: Vec<_> = (0..CROWD).filter_map(open).collect();
            if started.elapsed() > lasting {
                return crowd;
            }
            thread::sleep(AGAIN);
        }
    };
    let (target, seen) = endured(|| Target::limited(CONFIG, "ulimit -n 256"), attack);
    let throttled = if from == OWN { seen.throttled } else { 0 };
    assert!(seen.published.total + throttled > 20, "{}", seen.said());
    until("the attackers are gone", async || target.process.metric("sekali_connections").await < 5.0).await;
}

#[actix_web::test]
async fn connections_that_never_send_a_request_lock_nobody_out() {
    endures(STRANGER, "").await;
    endures(OWN, "").await;
}

#[actix_web::test]
async fn connections_between_two_requests_lock_nobody_out() {
    endures(STRANGER, SERVED).await;
    endures(OWN, SERVED).await;
}

#[actix_web::test]
async fn half_a_head_after_a_request_locks_nobody_out() {
    for begun in ["\r\n", "GET /health/live HTTP/1.1\r\nHost: loc"] {
        endures(STRANGER, &format!("{SERVED}{begun}")).await;
    }
    endures(OWN, &format!("{SERVED}\r\n")).await;
}

#[actix_web::test]
async fn chunked_bodies_that_die_lock_nobody_out() {
    let head = "HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n";
    let nowhere = format!("POST /nowhere {head}\r\n1\r\n[\r\n");
    let of_no_type = format!("POST /publish {head}Content-Type: text/csv\r\n\r\n1\r\n[\r\n");
    for begun in [&nowhere, &of_no_type] {
        endures(STRANGER, begun).await;
    }
    endures(OWN, &nowhere).await;
    // While its body may still come, a request is busy: it holds its place, but no more than half of all.
    endures(STRANGER, &format!("POST /publish {head}\r\n1\r\n[\r\n")).await;
}

#[actix_web::test]
async fn followers_of_one_address_leave_places_for_others_and_are_told_why() {
    const EACH: usize = 20;
    // More than the log lets linger at once.
    const REFUSED: usize = 40;
    let config = format!("[limits]\nconnections = 100\nconnections_per_address = {EACH}\n");
    let target = Target::start(&config);
    let follow = |from| target.follow(from);
    let crowd: Vec<_> = (0..EACH).map(|_| follow(STRANGER)).collect();
    assert!(crowd.iter().all(|(beginning, _)| beginning == "HTTP/1.1 200"));
    let (refused, mut stream) = follow(STRANGER);
    assert_eq!(refused, "HTTP/1.1 429");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    for words in ["\"too_many_requests\"", "limits.connections_per_address", "Retry-After: 1\r\n"] {
        assert!(rest.contains(words), "{words}: {rest}");
    }
    assert_eq!(follow(OWN).0, "HTTP/1.1 200", "another address has its own places");
    let text = target.process.get("/metrics").await.ok().text().to_owned();
    let count = |refused: usize| {
        format!("sekali_connections_refused_total{{reason=\"connections_per_address\"}} {refused}")
    };
    assert!(text.lines().any(|found| found == count(1)), "{text}");
    // None of them closes: each is told why all the same.
    let refused: Vec<_> = (0..REFUSED).map(|_| follow(STRANGER)).collect();
    assert!(refused.iter().all(|(beginning, _)| beginning == "HTTP/1.1 429"));
    let text = target.process.get("/metrics").await.ok().text().to_owned();
    assert!(text.lines().any(|found| found == count(1 + REFUSED)), "{text}");
    drop((crowd, refused));
    until("there are places again", async || follow(STRANGER).0 == "HTTP/1.1 200").await;
}

#[actix_web::test]
async fn a_trusted_proxy_has_no_bound_of_its_own() {
    let config = "[server]\ntrusted_proxies = [\"127.0.0.2\"]\n[limits]\nconnections = 100\n\
                  connections_per_address = 1\n";
    let target = Target::start(config);
    let busy = |_| {
        let mut stream = connect(STRANGER, target.process.address()).unwrap();
        stream.write_all(b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n").unwrap();
        stream
    };
    let mut all: Vec<_> = (0..10).map(busy).collect();
    for stream in &mut all {
        stream.write_all(b"[       ]").unwrap();
        let mut beginning = [0; 12];
        stream.read_exact(&mut beginning).unwrap();
        assert_eq!(&beginning, b"HTTP/1.1 200");
    }
}
