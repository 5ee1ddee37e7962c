//! More in flight than one address may hold: 429 at once, and a log that recovers. Every client of these
//! tests has the same address.

use futures_util::future::join;
use sekali::api::Code;

use crate::support::{Log, Raw, array, event, everything, ids, until};

#[actix_web::test]
async fn past_the_events_of_an_address_the_answer_is_429_at_once() {
    // invariant 8: memory is bounded by what may be in flight.
    let log = Log::configured(
        "[limits]\nin_flight_events = 20\nbatch_events = 10\n[store]\nlock_timeout = \"10m\"",
    );
    let locked = log.locked();
    let first = log.publish(array(ids("t", 0..8)));
    let second = async {
        until("the first waits", async || log.metric("sekali_in_flight_events").await > 7.5).await;
        log.publish(array(ids("t", 8..16))).await.problem(Code::TooManyRequests);
        assert!(log.metric("sekali_in_flight_events").await > 7.5, "at once: the first still waits");
        assert_eq!(log.read("/health/ready").await["status"], "ok", "an overloaded log can still write");
        drop(locked);
    };
    assert_eq!(join(first, second).await.0.counts(), [8, 8, 0, 0, 0]);
    assert_eq!(log.publish(array(ids("t", 8..16))).await.counts(), [8, 8, 0, 0, 0]);
    assert_eq!(everything(&log, "t").await.len(), 16);
}

#[actix_web::test]
async fn past_the_bytes_of_an_address_the_answer_is_429_before_the_body_is_whole() {
    let log = Log::configured("[limits]\nbody = \"8KiB\"\nevent = \"1KiB\"\nin_flight_bytes = \"40KiB\"");
    let mut slow = stalled(&log, 6_999).await;
    let body = format!("{}{}", " ".repeat(6_000), event("t", "1"));
    log.publish(body.clone()).await.problem(Code::TooManyRequests);
    for slow in &mut slow {
        slow.send("[]");
        assert_eq!(slow.answer().status, 200);
    }
    until("there is room again", async || log.metric("sekali_in_flight_bytes").await < 0.5).await;
    assert_eq!(log.publish(body).await.fates(), ["accepted 1"]);
}

#[actix_web::test]
async fn an_inflated_body_is_charged_with_what_it_becomes() {
    let log = Log::configured("[limits]\nbody = \"64KiB\"\nevent = \"1KiB\"\nin_flight_bytes = \"320KiB\"");
    let _slow = stalled(&log, 60_000).await;
    let request =
        log.post("/publish").content_type("application/json").insert_header(("content-encoding", "gzip"));
    let body = crate::bodies::compressed("gzip", " ".repeat(30_000).as_bytes()).await;
    assert!(body.len() < 1_000);
    log.send(request, body).await.problem(Code::TooManyRequests);
}

#[actix_web::test]
async fn reads_and_health_are_answered_while_the_log_is_overloaded() {
    let log =
        Log::configured("[limits]\nin_flight_events = 2\nbatch_events = 1\n[store]\nlock_timeout = \"30s\"");
    log.publish(event("t", "1")).await.ok();
    let locked = log.locked();
    let waiting = log.publish(event("t", "2"));
    let reads = async {
        until("the log is full", async || log.metric("sekali_in_flight_events").await > 0.5).await;
        log.publish(event("t", "3")).await.problem(Code::TooManyRequests);
        assert_eq!(everything(&log, "t").await.len(), 1);
        assert_eq!(log.read("/stats").await["topics_total"], 1);
        drop(locked);
    };
    assert_eq!(join(waiting, reads).await.0.fates(), ["accepted 2"]);
}

#[actix_web::test]
async fn who_will_be_refused_is_refused_before_anything_is_parsed() {
    let log = Log::configured(
        "[limits]\nin_flight_events = 300\nbatch_events = 150\n[store]\nlock_timeout = \"30s\"",
    );
    let locked = log.locked();
    // Over the size up to which there is a reserve.
    let no_json = " ".repeat(100_000);
    let first = join(log.publish(array(ids("t", 0..150))), log.publish(array(ids("u", 0..40))));
    let second = async {
        until("both wait", async || log.metric("sekali_in_flight_events").await > 189.5).await;
        log.publish(no_json.clone()).await.problem(Code::NotJson);
        log.publish(array(ids("v", 0..20))).await.problem(Code::TooManyRequests);
        log.publish(no_json.clone()).await.problem(Code::TooManyRequests);
        log.publish("no JSON").await.problem(Code::NotJson);
        drop(locked);
    };
    let (first, other) = join(first, second).await.0;
    assert_eq!((first.counts(), other.counts()), ([150, 150, 0, 0, 0], [40, 40, 0, 0, 0]));
    log.publish(no_json.clone()).await.problem(Code::NotJson);
    assert_eq!(log.publish(array(ids("v", 0..20))).await.counts(), [20, 20, 0, 0, 0]);
}

#[actix_web::test]
async fn a_large_body_is_refused_before_it_is_sent_and_a_small_one_keeps_its_connection() {
    // The stalled bodies must outlive the connection of the refused one.
    let log = Log::configured(
        "[server]\ndrain_timeout = \"100ms\"\nbody_grace = \"1h\"\nbody_timeout = \"1h\"
        [limits]\nbody = \"2MiB\"\nevent = \"1KiB\"\nin_flight_bytes = \"10MiB\"",
    );
    let _slow = stalled(&log, 2_000_000).await;
    let _more = stalled(&log, 270_000).await;
    let mut large = Raw::publishing(log.address(), "Content-Length: 1000000\r\n");
    let answer = large.answer();
    assert!(answer.status == 429 && answer.body.contains("\"too_many_requests\""), "{}", answer.body);
    assert!(large.rest().is_empty(), "its connection is closed");
    let mut small = Raw::publishing(log.address(), "Content-Length: 100000\r\n");
    small.send(" ".repeat(100_000));
    assert_eq!(small.answer().status, 429);
    small.send("GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(small.answer().status, 200, "its connection is as it was");
}

/// Three bodies that stall two bytes before their end, after so many.
async fn stalled(log: &Log, bytes: usize) -> [Raw; 3] {
    let charged = async || log.metric("sekali_in_flight_bytes").await;
    let (before, head) = (charged().await, format!("Content-Length: {}\r\n", bytes + 2));
    let bodies = [(); 3].map(|()| {
        let mut slow = Raw::publishing(log.address(), &head);
        slow.send(" ".repeat(bytes));
        slow
    });
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let expected = before + (3 * bytes) as f64;
    until("their bytes are charged", async || charged().await > expected - 0.5).await;
    bodies
}
