//! Everything that is refused, and how.

use actix_web::http::Method;
use actix_web::test::TestRequest;
use serde_json::json;
use tracing::Level;

use super::*;
use crate::testing::Heard;

const GOOD: &str =
    r#"{"topic":"t","event_id":"1","timestamp":"2026-01-01T00:00:00Z","source":"s","payload":{}}"#;

fn empty() -> Arc<State> {
    state(Fake::default(), &settings())
}

async fn publish(query: &str, body: String) -> Answer {
    send(empty(), TestRequest::post().uri(&format!("/publish{query}")).set_payload(body)).await
}

#[actix_web::test]
async fn unknown_paths_and_methods_are_problems() {
    assert_eq!(get(&empty(), "/nothing").await.problem(), (404, "not_found".to_owned()));
    assert_eq!(get(&empty(), "/events/t").await.problem(), (404, "not_found".to_owned()));
    for (method, path, allowed) in [
        (Method::GET, "/publish", "POST"),
        (Method::DELETE, "/events?topic=t", "GET, HEAD"),
        (Method::OPTIONS, "/stats", "GET, HEAD"),
        (Method::PUT, "/events/lookup", "POST"),
    ] {
        let answer = send(empty(), TestRequest::with_uri(path).method(method)).await;
        assert_eq!(answer.problem(), (405, "method_not_allowed".to_owned()), "{path}");
        assert_eq!(answer.header("allow"), allowed);
    }
}

#[actix_web::test]
async fn parameters_are_refused_by_name() {
    for (path, name) in [
        ("/events", "topic"),
        ("/events?topic=", "topic"),
        ("/events?topic=a%0Ab", "topic"),
        ("/events?topic=%FF", "topic"),
        ("/events?topic=t&topic=t", "topic"),
        ("/events?topic=t&limit=0", "limit"),
        ("/events?topic=t&limit=10001", "limit"),
        ("/events?topic=t&after=-1", "after"),
        ("/events?topic=t&order=up", "order"),
        ("/events?topic=t&offset=3", "offset"),
        ("/topics?limit=1001", "limit"),
        ("/topics/t?x=1", "x"),
        ("/stats?x", "x"),
    ] {
        let answer = get(&empty(), path).await;
        assert_eq!(answer.problem(), (422, "invalid_parameter".to_owned()), "{path}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(&format!("parameter {name} ")), "{detail}");
    }
    assert_eq!(publish("?invalid=drop", GOOD.to_owned()).await.problem().0, 422);
}

#[actix_web::test]
async fn formats_are_negotiated() {
    let read = TestRequest::get().uri("/events?topic=t").insert_header(("accept", "text/html"));
    assert_eq!(send(empty(), read).await.problem(), (406, "not_acceptable".to_owned()));
    let typed = TestRequest::post().uri("/publish").insert_header(("content-type", "text/plain"));
    assert_eq!(send(empty(), typed).await.problem(), (415, "unsupported_type".to_owned()));
    let encoded = TestRequest::post().uri("/publish").insert_header(("content-encoding", "gzip, br"));
    assert_eq!(send(empty(), encoded).await.problem(), (415, "unsupported_encoding".to_owned()));
}

#[actix_web::test]
async fn bodies_that_are_no_events_are_refused() {
    assert_eq!(publish("", "nope".to_owned()).await.problem(), (400, "not_json".to_owned()));
    let answer = publish("", r#"{"events":[],"mode":"x"}"#.to_owned()).await;
    assert_eq!(answer.problem(), (422, "invalid_parameter".to_owned()));
    assert!(answer.json()["detail"].as_str().unwrap().contains("\"mode\""));
    let eleven = format!("[{}]", [GOOD; 11].join(","));
    assert_eq!(publish("?invalid=skip", eleven).await.problem(), (413, "batch_too_large".to_owned()));
}

#[actix_web::test]
async fn invalid_events_are_named_one_by_one() {
    let answer = publish("", format!("[{GOOD},{{\"topic\":1}},7]")).await;
    assert_eq!(answer.problem(), (422, "invalid_events".to_owned()));
    let errors = answer.json()["errors"].clone();
    assert_eq!(errors.as_array().unwrap().len(), 6);
    assert_eq!((&errors[0]["index"], &errors[0]["field"]), (&json!(1), &json!("topic")));
    assert_eq!((&errors[5]["index"], &errors[5]["code"]), (&json!(2), &json!("not_an_object")));
    let large = GOOD.replace("{}", &format!("{{\"x\":\"{}\"}}", "x".repeat(10_000)));
    assert_eq!(publish("", large.clone()).await.problem(), (413, "event_too_large".to_owned()));
    let skipped = publish("?invalid=skip", format!("[{large},7]")).await.json();
    assert_eq!((&skipped["received"], &skipped["rejected"]), (&json!(2), &json!(2)));
    assert_eq!(skipped["results"][0]["status"], "rejected");
    assert_eq!(skipped["results"][0]["error"]["code"], "event_too_large");
    assert_eq!(skipped["results"][1]["error"]["code"], "not_an_object");
}

#[actix_web::test]
async fn an_empty_list_is_answered_with_zeros() {
    let zeros =
        json!({"received": 0, "accepted": 0, "duplicates": 0, "conflicts": 0, "rejected": 0, "results": []});
    assert_eq!(publish("", "[]".to_owned()).await.json(), zeros);
    let request = TestRequest::post()
        .uri("/publish")
        .insert_header(("content-type", "application/x-ndjson"))
        .insert_header(("prefer", "return=minimal"));
    let answer = send(empty(), request).await;
    assert_eq!(answer.header("preference-applied"), "return=minimal");
    assert_eq!(answer.json().get("results"), None);
}

#[actix_web::test]
async fn a_store_that_cannot_be_read_says_nothing_of_why() {
    let broken = state(Fake { unavailable: true, ..Fake::default() }, &settings());
    for path in ["/events?topic=t", "/events/t/x", "/topics/t"] {
        let answer = get(&broken, path).await;
        assert_eq!(answer.problem(), (503, "store_unavailable".to_owned()), "{path}");
        assert_eq!(answer.json()["title"], "The store is not available");
        assert_eq!(answer.header("retry-after"), "1");
        assert!(!answer.text().contains("fire"), "{}", answer.text());
    }
}

#[actix_web::test]
async fn a_store_that_cannot_be_read_is_logged_with_its_cause_once_and_not_at_each_read() {
    let broken = state(Fake { unavailable: true, ..Fake::default() }, &settings());
    let heard = Heard::at(Level::INFO);
    for _ in 0..50 {
        let read = TestRequest::get().uri("/topics/t").insert_header(("x-request-id", "reader-7"));
        assert_eq!(send(broken.clone(), read).await.status, 503);
    }
    let said = heard.said();
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in ["WARN", "the store cannot be read", "request_id=reader-7", "fire"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[actix_web::test]
async fn a_stopping_server_refuses_what_is_new() {
    let state = empty();
    state.stop();
    for path in ["/stats", "/publish", "/nothing"] {
        let answer = get(&state, path).await;
        assert_eq!(answer.problem(), (503, "shutting_down".to_owned()), "{path}");
        assert_eq!((answer.header("retry-after"), answer.header("connection")), ("1", "close"));
    }
    for (path, status) in [("/health", 503), ("/health/ready", 503), ("/health/live", 200)] {
        assert_eq!(get(&state, path).await.status, status, "{path}");
    }
}
