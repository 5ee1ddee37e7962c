//! More in flight than the budget: 503 at once, and a log that recovers.

use futures_util::future::join;
use sekali::api::Code;

use crate::support::{Log, Raw, array, event, everything, ids, until};

#[actix_web::test]
async fn past_the_events_in_flight_the_answer_is_503_at_once() {
    // invariant 8: memory is bounded by what may be in flight.
    let log = Log::configured(
        "[limits]\nin_flight_events = 10\nbatch_events = 10\n[store]\nlock_timeout = \"10m\"",
    );
    let locked = log.locked();
    let first = log.publish(array(ids("t", 0..8)));
    let second = async {
        until("the first waits", async || log.metric("sekali_in_flight_events").await > 7.5).await;
        log.publish(array(ids("t", 8..11))).await.problem(Code::Overloaded);
        assert!(log.metric("sekali_in_flight_events").await > 7.5, "at once: the first still waits");
        assert_eq!(log.read("/health/ready").await["status"], "ok", "an overloaded log can still write");
        drop(locked);
    };
    assert_eq!(join(first, second).await.0.counts(), [8, 8, 0, 0, 0]);
    assert_eq!(log.publish(array(ids("t", 8..11))).await.counts(), [3, 3, 0, 0, 0]);
    assert_eq!(everything(&log, "t").await.len(), 11);
}

#[actix_web::test]
async fn past_the_bytes_in_flight_the_answer_is_503_before_the_body_is_whole() {
    let log = Log::configured("[limits]\nbody = \"8KiB\"\nevent = \"1KiB\"\nin_flight_bytes = \"10KiB\"");
    let mut slow = Raw::publishing(log.address(), "Content-Length: 7001\r\n");
    slow.send(" ".repeat(6_999));
    until("its bytes are charged", async || log.metric("sekali_in_flight_bytes").await > 6_998.0).await;
    let body = format!("{}{}", " ".repeat(6_000), event("t", "1"));
    log.publish(body.clone()).await.problem(Code::Overloaded);
    slow.send("[]");
    assert_eq!(slow.answer().status, 200);
    until("there is room again", async || log.metric("sekali_in_flight_bytes").await < 0.5).await;
    assert_eq!(log.publish(body).await.fates(), ["accepted 1"]);
}

#[actix_web::test]
async fn an_inflated_body_is_charged_with_what_it_becomes() {
    let log = Log::configured("[limits]\nbody = \"64KiB\"\nevent = \"1KiB\"\nin_flight_bytes = \"64KiB\"");
    let mut slow = Raw::publishing(log.address(), "Content-Length: 60001\r\n");
    slow.send(" ".repeat(60_000));
    until("its bytes are charged", async || log.metric("sekali_in_flight_bytes").await > 59_999.0).await;
    let request =
        log.post("/publish").content_type("application/json").insert_header(("content-encoding", "gzip"));
    let body = crate::bodies::compressed("gzip", " ".repeat(30_000).as_bytes()).await;
    assert!(body.len() < 1_000);
    log.send(request, body).await.problem(Code::Overloaded);
}

#[actix_web::test]
async fn reads_and_health_are_answered_while_the_log_is_overloaded() {
    let log =
        Log::configured("[limits]\nin_flight_events = 1\nbatch_events = 1\n[store]\nlock_timeout = \"30s\"");
    log.publish(event("t", "1")).await.ok();
    let locked = log.locked();
    let waiting = log.publish(event("t", "2"));
    let reads = async {
        until("the log is full", async || log.metric("sekali_in_flight_events").await > 0.5).await;
        log.publish(event("t", "3")).await.problem(Code::Overloaded);
        assert_eq!(everything(&log, "t").await.len(), 1);
        assert_eq!(log.read("/stats").await["topics_total"], 1);
        drop(locked);
    };
    assert_eq!(join(waiting, reads).await.0.fates(), ["accepted 2"]);
}

#[actix_web::test]
async fn who_will_be_refused_is_refused_before_anything_is_parsed() {
    let log = Log::configured(
        "[limits]\nin_flight_events = 100\nbatch_events = 100\n[store]\nlock_timeout = \"30s\"",
    );
    let locked = log.locked();
    let first = log.publish(array(ids("t", 0..95)));
    let second = async {
        until("the first waits", async || log.metric("sekali_in_flight_events").await > 94.5).await;
        log.publish("no JSON").await.problem(Code::NotJson);
        log.publish(array(ids("t", 95..115))).await.problem(Code::Overloaded);
        log.publish("no JSON").await.problem(Code::Overloaded);
        drop(locked);
    };
    assert_eq!(join(first, second).await.0.counts(), [95, 95, 0, 0, 0]);
    log.publish("no JSON").await.problem(Code::NotJson);
    assert_eq!(log.publish(array(ids("t", 95..115))).await.counts(), [20, 20, 0, 0, 0]);
}

#[actix_web::test]
async fn a_large_body_is_refused_before_it_is_sent_and_a_small_one_keeps_its_connection() {
    let log = Log::configured("[limits]\nbody = \"2MiB\"\nevent = \"1KiB\"\nin_flight_bytes = \"2MiB\"");
    let mut slow = Raw::publishing(log.address(), "Content-Length: 2000001\r\n");
    slow.send(" ".repeat(2_000_000));
    until("its bytes are charged", async || log.metric("sekali_in_flight_bytes").await > 1_999_999.0).await;
    let mut large = Raw::publishing(log.address(), "Content-Length: 1000000\r\n");
    let answer = large.answer();
    assert!(answer.status == 503 && answer.body.contains("\"overloaded\""), "{}", answer.body);
    assert!(large.rest().is_empty(), "its connection is closed");
    let mut small = Raw::publishing(log.address(), "Content-Length: 200000\r\n");
    small.send(" ".repeat(200_000));
    assert_eq!(small.answer().status, 503);
    small.send("GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(small.answer().status, 200, "its connection is as it was");
}
