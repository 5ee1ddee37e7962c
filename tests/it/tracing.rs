//! What the log says of requests, and how a client finds the lines about its own.

use std::time::Instant;

use actix_web::http::Method;
use serde_json::Value;
use tempfile::tempdir;

use crate::support::{Ended, Log, Process, array, event, event_with};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The lines that a server wrote about requests, by the field of their id.
async fn lines(process: Process) -> Vec<Value> {
    process.signal("TERM");
    let Ended { stderr, .. } = process.ended().await;
    let values = stderr.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    values.filter(|line| !line["request_id"].is_null()).collect()
}

/// Publishes with headers; gives the id in the answer.
async fn publish(process: &Process, body: &str, headers: &[(&str, &str)]) -> String {
    let mut request = process.post("/publish").content_type("application/json");
    for header in headers {
        request = request.insert_header(*header);
    }
    let answer = process.send(request, body.to_owned()).await;
    answer.headers.get("x-request-id").unwrap().to_str().unwrap().to_owned()
}

#[actix_web::test]
async fn every_answer_names_its_request() {
    let log = Log::start();
    for (method, path) in [
        (Method::GET, "/health"),
        (Method::GET, "/nothing"),
        (Method::PUT, "/publish"),
        (Method::POST, "/publish"),
    ] {
        let named = log.request(method.clone(), path).insert_header(("x-request-id", "order-desk:7"));
        assert_eq!(log.send(named, "").await.headers.get("x-request-id").unwrap(), "order-desk:7");
        let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let traced = log.request(method.clone(), path).insert_header(("traceparent", traceparent));
        assert_eq!(log.send(traced, "").await.headers.get("x-request-id").unwrap(), TRACE);
        for hostile in ["two words", "\u{e9}", "<script>", &"x".repeat(129)] {
            let request = log.request(method.clone(), path).insert_header(("x-request-id", hostile));
            let answer = log.send(request, "").await;
            let made = answer.headers.get("x-request-id").unwrap().to_str().unwrap();
            assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
        }
    }
}

#[actix_web::test]
async fn a_request_that_failed_has_one_line_and_one_that_went_well_has_none() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    publish(&process, &event("t", "1"), &[("x-request-id", "good")]).await;
    publish(&process, "[7]", &[("x-request-id", "bad")]).await;
    let lines = lines(process).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    let expected = serde_json::json!(["INFO", "bad", "POST", "/publish", 422, "invalid_events"]);
    let found = ["level", "request_id", "method", "route", "status", "code"].map(|field| &lines[0][field]);
    assert_eq!(serde_json::json!(found), expected);
    assert!(lines[0]["micros"].as_u64().is_some_and(|micros| micros > 0), "{lines:?}");
}

#[actix_web::test]
async fn a_line_tells_the_method_that_was_refused() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    for method in ["OPTIONS", "DELETE", "PROPFIND"] {
        process.send(process.request(method, "/publish"), "").await;
    }
    let lines = lines(process).await;
    let methods: Vec<_> = lines.iter().map(|line| line["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["OPTIONS", "DELETE", "other"]);
}

#[actix_web::test]
async fn a_line_names_the_peer_and_the_client_that_a_trusted_proxy_names() {
    for (config, peer, forwarded) in [
        ("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n", "127.0.0.1", Value::from("198.51.100.7")),
        ("", "127.0.0.1", Value::Null),
    ] {
        let home = tempdir().unwrap();
        let process = Process::configured(home.path(), config);
        publish(&process, "[7]", &[("x-forwarded-for", "1.1.1.1, 198.51.100.7")]).await;
        let lines = lines(process).await;
        assert_eq!((&lines[0]["peer"], &lines[0]["forwarded"]), (&peer.into(), &forwarded), "{config}");
    }
}

#[actix_web::test]
async fn with_its_own_filter_every_request_has_a_line_that_tells_all_but_its_content() {
    let home = tempdir().unwrap();
    let process = Process::logging(home.path(), "info,sekali::requests=debug");
    let body = array([event("a", "1"), event("b", "1"), event("a", "1"), event_with("a", "1", "{\"n\":1}")]);
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-00");
    publish(&process, &body, &[("traceparent", &traceparent)]).await;
    let lines = lines(process).await;
    let of = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    let line = of("answered")[0];
    for (field, value) in [
        ("request_id", TRACE.into()),
        ("parent_id", "00f067aa0ba902b7".into()),
        ("sampled", false.into()),
        ("status", Value::from(200)),
        ("received_bytes", body.len().into()),
        ("topics", 2.into()),
        ("accepted", 2.into()),
        ("duplicates", 2.into()),
        ("conflicts", 1.into()),
        ("rejected", 0.into()),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert!(
        line["decide_micros"].as_u64() <= line["micros"].as_u64() && line["sent_bytes"].is_u64(),
        "{line}"
    );
    let conflict = of("conflict: the event is stored with another payload, which stays")[0];
    assert_eq!((&conflict["request_id"], &conflict["event_id"]), (&TRACE.into(), &"1".into()));
}

#[actix_web::test]
async fn a_client_that_does_nothing_right_does_not_fill_the_disk() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    let begun = Instant::now();
    let long = "/nothing".repeat(1_000);
    for _ in 0..600 {
        process.get(&long).await;
    }
    let seconds = begun.elapsed().as_secs();
    let lines = lines(process).await;
    assert!(lines.iter().all(|line| line.to_string().len() < 4_096), "the longest path is cut");
    let lines = lines.len() as u64;
    // A second of the log that began before and one that ended later are among them.
    assert!((100..=100 * (seconds + 2)).contains(&lines), "{lines} in {seconds} s");
}

#[actix_web::test]
async fn no_payload_and_no_credential_is_ever_logged() {
    let home = tempdir().unwrap();
    let process = Process::logging(home.path(), "info,sekali=trace,actix_http=off");
    let secret = "{\"card\":\"PAYLOAD-MARK\"}";
    let headers = [("authorization", "Bearer CREDENTIAL-MARK"), ("cookie", "session=CREDENTIAL-MARK")];
    for body in [
        event_with("t", "1", secret),
        event_with("t", "1", secret),
        event_with("t", "1", "{\"other\":\"PAYLOAD-MARK\"}"),
        array([event_with("", "2", secret)]),
        "{\"PAYLOAD-MARK\"".to_owned(),
        "[{\"PAYLOAD-MARK\":1}]".to_owned(),
    ] {
        publish(&process, &body, &headers).await;
    }
    let mut follower = process.follow("/events?topic=t", None).await;
    follower.event().await;
    drop(follower);
    process.get("/events/t/1").await.ok();
    process.get("/events?topic=t").await.ok();
    let address = process.address();
    let mut raw =
        crate::support::Raw::publishing(address, "Content-Length: 100\r\nAuthorization: CREDENTIAL-MARK\r\n");
    raw.send("{\"PAYLOAD-MARK\":");
    drop(raw);
    process.signal("TERM");
    let said = process.ended().await.stderr;
    assert!(said.contains("\"conflict: ") && said.contains("\"duplicate: "), "it says much: {said}");
    for mark in ["PAYLOAD-MARK", "CREDENTIAL-MARK"] {
        assert!(!said.contains(mark), "{mark} in {said}");
    }
}
