//! A clean stop: what is in flight is answered, nothing new is taken, nothing is left to recover.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Log, Raw, array, event, everything, ids, until};

/// A stop takes less than this also on a busy machine, and one that waits for
/// `server.shutdown_timeout` far more.
const STOP_MAX: Duration = Duration::from_mins(2);

/// The file beside a store that a crash would leave behind.
fn leftover(log: &Log) -> u64 {
    let wal = format!("{}-wal", log.store().display());
    std::fs::metadata(wal).map_or(0, |file| file.len())
}

async fn until_it_stops(log: &Log) {
    until("the log does not listen any more", async || TcpStream::connect(log.address()).is_err()).await;
}

#[actix_web::test]
async fn a_request_that_was_begun_is_answered_and_then_its_connection_closed() {
    let mut log = Log::start();
    let body = event("t", "1");
    let mut raw = Raw::publishing(log.address(), &format!("Content-Length: {}\r\n", body.len()));
    raw.send(&body[..10]);
    until("the body is being read", async || log.metric("sekali_in_flight_bytes").await > 9.5).await;
    log.begin_to_stop();
    until_it_stops(&log).await;
    raw.send(&body[10..]);
    let answer = raw.answer();
    assert!(answer.status == 200 && answer.body.contains("\"accepted\":1"), "{answer:?}");
    assert_eq!(raw.rest(), b"");
    log.stop();
    assert_eq!(everything(&log.restarted(), "t").await.len(), 1);
}

#[actix_web::test]
async fn a_request_behind_the_one_in_flight_is_not_taken() {
    let mut log = Log::configured("[store]\nlock_timeout = \"30s\"");
    let locked = log.locked();
    let request = |id: &str| {
        let body = event("t", id);
        format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let mut raw = Raw::open(log.address());
    raw.send(request("1") + &request("2"));
    until("the first waits", async || log.metric("sekali_in_flight_events").await > 0.5).await;
    log.begin_to_stop();
    until_it_stops(&log).await;
    drop(locked);
    assert_eq!(raw.answer().status, 200);
    assert_eq!(raw.rest(), b"", "no answer: its client sends it again");
    log.stop();
    assert_eq!(everything(&log.restarted(), "t").await.len(), 1);
}

#[actix_web::test]
async fn events_on_their_way_to_the_disk_are_stored_and_answered() {
    let mut log = Log::configured("[store]\nlock_timeout = \"30s\"");
    let locked = log.locked();
    let body = array(ids("t", 0..10));
    let mut raw = Raw::publishing(log.address(), &format!("Content-Length: {}\r\n", body.len()));
    raw.send(body);
    until("the events wait for their commit", async || log.metric("sekali_in_flight_events").await > 9.5)
        .await;
    log.begin_to_stop();
    until_it_stops(&log).await;
    drop(locked);
    let answer = raw.answer();
    assert!(answer.status == 200 && answer.body.contains("\"accepted\":10"), "{answer:?}");
    log.stop();
    assert_eq!(everything(&log.restarted(), "t").await.len(), 10);
}

#[actix_web::test]
async fn connections_without_a_request_do_not_hold_the_stop_back() {
    let mut log = Log::configured("[server]\nshutdown_timeout = \"1h\"");
    let mut idle: Vec<_> = (0..5).map(|_| Raw::open(log.address())).collect();
    for raw in &mut idle[1..] {
        raw.send("GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(raw.answer().status, 200);
    }
    let started = Instant::now();
    log.stop();
    assert!(started.elapsed() < STOP_MAX, "{:?}", started.elapsed());
}

#[actix_web::test]
async fn after_a_clean_stop_nothing_is_left_to_recover() {
    // invariant 9: after a clean stop nothing needs recovery.
    let mut log = Log::on_file("");
    log.publish(array(ids("t", 0..100))).await.ok();
    assert!(leftover(&log) > 0, "while it runs, the write-ahead log is in use");
    log.stop();
    assert_eq!(leftover(&log), 0);
    assert_eq!(everything(&log.restarted(), "t").await.len(), 100);
}
