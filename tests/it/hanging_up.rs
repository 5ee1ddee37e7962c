//! Clients that go away, before their request is whole or before its answer: the log stays consistent.

use crate::support::{Log, Raw, array, event, everything, ids, until};

/// Room for some bodies of the largest size, and no more.
const NARROW: &str = "[limits]\nbody = \"8KiB\"\nevent = \"1KiB\"\nin_flight_bytes = \"40KiB\"";

async fn until_nothing_is_in_flight(log: &Log) {
    until("nothing is in flight", async || {
        log.metric("sekali_in_flight_bytes").await + log.metric("sekali_in_flight_events").await < 0.5
    })
    .await;
}

#[actix_web::test]
async fn a_client_that_hangs_up_in_the_middle_of_its_body_stores_nothing_and_frees_its_bytes() {
    let log = Log::configured(NARROW);
    for _ in 0..8 {
        let mut raw = Raw::publishing(log.address(), "Content-Length: 8000\r\n");
        raw.send(" ".repeat(7_000));
        until("its bytes are charged", async || log.metric("sekali_in_flight_bytes").await > 6_999.0).await;
        drop(raw);
        until_nothing_is_in_flight(&log).await;
    }
    let large = format!("{}{}", " ".repeat(7_000), event("t", "1"));
    assert_eq!(log.publish(large).await.fates(), ["accepted 1"], "there is room again");
}

#[actix_web::test]
async fn a_body_that_ends_too_early_is_not_taken_for_a_whole_one() {
    let log = Log::start();
    let body = array(ids("t", 0..3));
    let mut raw = Raw::publishing(log.address(), &format!("Content-Length: {}\r\n", body.len() + 10));
    raw.send(body);
    raw.finish();
    let rest = String::from_utf8(raw.rest()).unwrap();
    assert!(!rest.contains(" 200 "), "{rest}");
    until_nothing_is_in_flight(&log).await;
    assert!(everything(&log, "t").await.is_empty());
}

#[actix_web::test]
async fn a_client_that_hangs_up_before_the_answer_has_its_events_stored_once() {
    // invariant 3: the retry of a client that never saw its answer is a duplicate.
    // invariant 8: what a request took is given back by its verdicts, not by the handler.
    let log = Log::configured("[store]\nlock_timeout = \"30s\"");
    let locked = log.locked();
    let body = array(ids("t", 0..10));
    let mut raw = Raw::publishing(log.address(), &format!("Content-Length: {}\r\n", body.len()));
    raw.send(&body);
    until("its events wait for the commit", async || log.metric("sekali_in_flight_events").await > 9.5).await;
    drop(raw);
    drop(locked);
    until_nothing_is_in_flight(&log).await;
    assert_eq!(everything(&log, "t").await.len(), 10, "what was on its way is stored");
    assert_eq!(log.publish(body).await.counts(), [10, 0, 10, 0, 0]);
    assert_eq!(log.totals("persistent").await, [20, 10, 10, 0, 0]);
}

#[actix_web::test]
async fn many_clients_that_hang_up_at_once_leave_nothing_behind() {
    let log = Log::start();
    for number in 0..50 {
        let body = event("t", &number.to_string());
        let mut raw = Raw::publishing(log.address(), &format!("Content-Length: {}\r\n", body.len()));
        raw.send(&body[..if number % 2 == 0 { body.len() } else { body.len() / 2 }]);
    }
    until("every whole request is stored", async || everything(&log, "t").await.len() == 25).await;
    until_nothing_is_in_flight(&log).await;
    let answer = log.publish(array((0..50).map(|number| event("t", &number.to_string())))).await;
    assert_eq!(answer.counts(), [50, 25, 25, 0, 0]);
}

#[actix_web::test]
async fn a_reader_that_goes_away_holds_nothing_back() {
    let log = Log::start();
    log.publish(array(ids("t", 0..5_000))).await.ok();
    for _ in 0..10 {
        let mut raw = Raw::open(log.address());
        raw.send("GET /events?topic=t HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    assert_eq!(log.publish(event("t", "new")).await.fates(), ["accepted 5001"]);
    assert_eq!(everything(&log, "t").await.len(), 5_001);
}
