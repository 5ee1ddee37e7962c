//! Lists, single events, lookups, topics, and what is observed.

use actix_web::test::TestRequest;
use serde_json::json;

use super::*;

fn with(events: u64) -> Arc<State> {
    state(Fake { events, ..Fake::default() }, &settings())
}

fn seqs(list: &Value) -> Vec<u64> {
    list["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

#[actix_web::test]
async fn a_list_counts_its_events_and_says_where_to_go_on() {
    let state = with(5);
    let rising = get(&state, "/events?topic=t&after=1&limit=2").await.json();
    assert_eq!((seqs(&rising), &rising["count"], &rising["next_after"]), (vec![2, 3], &json!(2), &json!(3)));
    assert_eq!(rising["events"][0]["received_at"], "1970-01-01T00:00:00.000000Z");
    let falling = get(&state, "/events?topic=t&order=desc&before=5&limit=2").await.json();
    assert_eq!((seqs(&falling), &falling["next_before"]), (vec![4, 3], &json!(3)));
    let none = get(&state, "/events?topic=unknown").await.json();
    assert_eq!(
        none,
        json!({"topic": "unknown", "history": "fake0", "count": 0, "events": [], "next_after": 0})
    );
}

#[actix_web::test]
async fn a_cursor_of_another_history_is_told_why_and_where_to_resume() {
    let state = with(7);
    for (query, words) in [
        ("after=3&history=before", "event 3 of history before is not in the current history fake0"),
        ("before=4&history=before", "event 3 of history before is not in the current history fake0"),
        ("order=desc&before=4&history=before", "event 3 of history before"),
        ("after=1&history=unknown", "the store does not know history unknown"),
        ("after=8&history=fake0", "event 8 of topic t is not in the store: the last event of the topic is 7"),
    ] {
        let answer = get(&state, &format!("/events?topic=t&{query}")).await;
        let problem = answer.json();
        assert_eq!((answer.status, &problem["code"]), (409, &json!("history_changed")), "{query}");
        let detail = problem["detail"].as_str().unwrap();
        let place = format!("; resume with after={}&history=fake0", problem["common_seq"]);
        assert!(detail.contains(words) && detail.ends_with(&place), "{detail}");
    }
    let alone = get(&state, "/events?topic=t&history=unknown").await;
    assert_eq!(alone.status, 200, "nothing was read of it");
}

#[actix_web::test]
async fn a_long_list_is_streamed_whole_in_both_formats_and_orders() {
    let state = with(2_500);
    let rising = get(&state, "/events?topic=t").await.json();
    assert_eq!(seqs(&rising), (1..=2_500).collect::<Vec<_>>());
    let falling = get(&state, "/events?topic=t&order=desc").await.json();
    assert_eq!(seqs(&falling), (1..=2_500).rev().collect::<Vec<_>>());
    let request = TestRequest::get().uri("/events?topic=t").insert_header(("accept", "application/x-ndjson"));
    let answer = send(state, request).await;
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    assert!(answer.text().ends_with('\n'));
    for (line, seq) in answer.text().lines().zip(1_u64..) {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&event["seq"], &event["payload"]), (&json!(seq), &json!({"n": 1.0})));
    }
    assert_eq!(answer.text().lines().count(), 2_500);
}

#[actix_web::test]
async fn a_long_list_is_whole_also_where_there_is_room_for_one_page_only() {
    let mut narrow = settings();
    narrow.limits.answer_bytes = 2 << 20;
    let state = state(Fake { events: 2_500, ..Fake::default() }, &narrow);
    let rising = get(&state, "/events?topic=t").await.json();
    assert_eq!(seqs(&rising), (1..=2_500).collect::<Vec<_>>());
    assert_eq!(state.answers.bytes(), 0, "everything is given back");
}

#[actix_web::test]
async fn reads_are_refused_while_there_is_no_room_for_their_answers() {
    let state = with(5);
    let address = crate::domain::Address::UNKNOWN;
    let mut held: Vec<_> = std::iter::from_fn(|| state.answers.page(address).ok()).collect();
    assert!(held.len() > 10, "{}", held.len());
    for read in ["/events?topic=t", "/events/t/a%2F3"] {
        let refused = get(&state, read).await;
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(refused.problem(), (429, "too_many_requests".to_owned()), "{read}");
    }
    let small = get(&state, "/events?topic=none").await;
    assert_eq!(small.status, 200, "what needs no page is answered");
    held.pop();
    assert_eq!(get(&state, "/events?topic=t").await.status, 200);
    drop(held);
    assert_eq!(state.answers.bytes(), 0);
}

#[actix_web::test]
async fn chunks_are_for_clients_that_know_them() {
    use actix_web::http::{Method, Version};
    let state = with(2_500);
    for method in [Method::GET, Method::HEAD] {
        for (version, chunks) in [(Version::HTTP_10, false), (Version::HTTP_11, true)] {
            let read = TestRequest::with_uri("/events?topic=t").method(method.clone()).version(version);
            assert_eq!(send(state.clone(), read).await.chunks, chunks, "{method} {version:?}");
        }
    }
}

#[actix_web::test]
async fn a_hole_in_the_log_is_never_a_short_answer() {
    let holed =
        |missing| state(Fake { events: 2_500, missing: Some(missing), ..Fake::default() }, &settings());
    let early = get(&holed(10), "/events?topic=t").await;
    assert_eq!(early.problem(), (500, "store_damaged".to_owned()));
    let late = get(&holed(1_500), "/events?topic=t").await;
    assert!(late.body.is_err(), "the stream is cut");
}

#[actix_web::test]
async fn one_event_is_found_by_its_encoded_key() {
    let state = with(5);
    let answer = get(&state, "/events/t/a%2F3").await;
    assert_eq!(answer.json()["seq"], 3);
    assert!(answer.text().contains("\"payload\":{\"n\":\n1.0}"), "as it was sent");
    assert_eq!(get(&state, "/events/t/a%2F6").await.problem(), (404, "event_not_found".to_owned()));
    assert_eq!(get(&state, "/events/t/%FF").await.problem(), (422, "invalid_parameter".to_owned()));
}

#[actix_web::test]
async fn keys_are_looked_up_in_their_order() {
    let state = with(5);
    let ask =
        |body: &'static str| send(state.clone(), TestRequest::post().uri("/events/lookup").set_payload(body));
    let found = ask(r#"[{"topic":"t","event_id":"b"},{"topic":"t","event_id":"a/2"}]"#).await;
    assert_eq!(found.json(), json!([null, {"seq": 2, "received_at": "1970-01-01T00:00:00.000000Z"}]));
    assert_eq!(ask("[]").await.json(), json!([]));
    let invalid = ask(r#"[{"topic":"t","event_id":"b"},{"topic":"","event_id":1}]"#).await;
    assert_eq!(invalid.problem(), (422, "invalid_events".to_owned()));
    assert_eq!(invalid.json()["errors"][0]["index"], 1);
    assert_eq!(ask("{}").await.problem(), (422, "invalid_parameter".to_owned()));
    assert_eq!(ask("[1,2,3,4,5,6,7,8,9,10,11]").await.problem(), (413, "batch_too_large".to_owned()));
}

#[actix_web::test]
async fn topics_are_listed_and_found() {
    let state = with(5);
    let page = get(&state, "/topics").await.json();
    assert_eq!((&page["topics"][0]["topic"], &page["next_after"]), (&json!("t"), &json!("t")));
    assert_eq!(get(&state, "/topics?after=x").await.json(), json!({"topics": [], "next_after": "x"}));
    assert_eq!(get(&with(0), "/topics").await.json(), json!({"topics": [], "next_after": null}));
    assert_eq!(get(&state, "/topics/t").await.json()["last_seq"], 5);
    assert_eq!(get(&state, "/topics/u").await.problem(), (404, "topic_not_found".to_owned()));
}

#[actix_web::test]
async fn counts_health_metrics_and_pages_are_there() {
    let state = with(5);
    let stats = get(&state, "/stats").await.json();
    assert_eq!(stats["persistent"]["total_events_received"], 7);
    assert_eq!((&stats["topics"], &stats["topics_total"]), (&json!(["t"]), &json!(1)));
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(get(&state, path).await.json(), json!({"status": "ok"}));
    }
    assert!(get(&state, "/openapi.json").await.text().contains("\"/publish\""));
    assert_eq!(get(&state, "/docs").await.header("location"), "docs/");
    assert!(get(&state, "/docs/").await.text().contains("<html"));
    assert!(get(&state, "/docs/swagger-initializer.js").await.text().contains("\"../openapi.json\""));
    assert_eq!(get(&state, "/docs/nothing.js").await.problem(), (404, "not_found".to_owned()));
}

#[actix_web::test]
async fn answers_are_counted_by_pattern_and_never_by_what_a_client_made_up() {
    let state = with(5);
    for (method, path) in [
        ("GET", "/stats"),
        ("HEAD", "/events/t/a%2F3"),
        ("GET", "/events/t/a%2F6"),
        ("PUT", "/topics/made-up"),
        ("MADE-UP", "/topics"),
        ("POST", "/made-up"),
    ] {
        send(state.clone(), TestRequest::with_uri(path).method(method.parse().unwrap())).await;
    }
    let metrics = get(&state, "/metrics").await;
    for (method, route, status) in [
        ("GET", "/stats", 200),
        ("HEAD", "/events/{topic}/{event_id}", 200),
        ("GET", "/events/{topic}/{event_id}", 404),
        ("other", "/topics/{topic}", 405),
        ("other", "/topics", 405),
        ("POST", "none", 404),
    ] {
        let labels = format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}} 1");
        assert!(metrics.text().contains(&labels), "{labels} in {}", metrics.text());
    }
    assert!(!metrics.text().contains("made-up"));
}

#[actix_web::test]
async fn head_answers_wherever_get_does() {
    let state = with(2_500);
    for path in [
        "/events?topic=t",
        "/events/t/a%2F3",
        "/topics",
        "/topics/t",
        "/stats",
        "/health",
        "/metrics",
        "/openapi.json",
        "/docs/",
    ] {
        let answer =
            send(state.clone(), TestRequest::with_uri(path).method(actix_web::http::Method::HEAD)).await;
        assert_eq!(answer.status, 200, "{path}");
    }
}
