//! Every rule that an event can break, named by index, field and stable code.

use sekali::api::Code;
use sekali::domain::{Fault, FaultCode, Refusal};
use serde_json::json;

use crate::support::events::event_but;
use crate::support::{Log, array, event, everything};

/// A body with one event that breaks this rule alone, and the field at fault. There is an arm for every rule:
/// the compiler asks for it.
fn breaking(code: FaultCode) -> (String, &'static str) {
    let long = format!("\"{}\"", "é".repeat(128));
    let deep = format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100));
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(2_000));
    match code {
        FaultCode::NotAnObject => ("\"an event\"".to_owned(), "-"),
        FaultCode::NotJson => ("{\"topic\"".to_owned(), "-"),
        FaultCode::MissingField => (event_but("source", ""), "source"),
        FaultCode::UnknownField => (event_but("colour", "\"red\""), "colour"),
        FaultCode::DuplicateField => {
            (event("orders", "1").replace("\"source\"", "\"topic\":\"orders\",\"source\""), "topic")
        }
        FaultCode::WrongType => (event_but("payload", "[]"), "payload"),
        FaultCode::Empty => (event_but("event_id", "\"\""), "event_id"),
        FaultCode::TooLong => (event_but("source", &long), "source"),
        FaultCode::ControlCharacter => (event_but("topic", "\"a\\u0085b\""), "topic"),
        FaultCode::LoneSurrogate => (event_but("payload", "{\"a\":[\"\\ud800\"]}"), "payload"),
        FaultCode::BadTimestamp => (event_but("timestamp", "\"2026-02-30T10:00:00Z\""), "timestamp"),
        FaultCode::TooDeep => (event_but("payload", &deep), "payload"),
        FaultCode::EventTooLarge => (event_but("payload", &large), "-"),
        FaultCode::TopicLimit => (event("one too many", "1"), "topic"),
    }
}

/// A log on which every rule can be broken.
fn strict() -> Log {
    Log::configured("[limits]\ntopics = 1\nevent = \"1KiB\"")
}

fn content_type(code: FaultCode) -> &'static str {
    if code == FaultCode::NotJson { "application/x-ndjson" } else { "application/json" }
}

#[actix_web::test]
async fn every_rule_is_named_when_it_refuses_a_request() {
    for code in FaultCode::ALL {
        let log = strict();
        log.publish(event("orders", "0")).await.ok();
        let (body, field) = breaking(code);
        let too_large = code == FaultCode::EventTooLarge;
        let expected = if too_large { Code::EventTooLarge } else { Code::InvalidEvents };
        let answer = log.publish_as(content_type(code), body).await;
        assert_eq!(answer.faults(expected), [format!("0 {field} {}", code.as_str())]);
        assert_eq!(everything(&log, "orders").await.len(), 1, "{}: nothing is stored", code.as_str());
        assert_eq!(log.totals("persistent").await, [1, 1, 0, 0, 1], "{}", code.as_str());
        assert_eq!(log.totals("runtime").await, [1, 1, 0, 0, 1], "{}", code.as_str());
    }
}

#[actix_web::test]
async fn every_rule_is_named_when_it_rejects_one_event() {
    for code in FaultCode::ALL {
        let log = strict();
        log.publish(event("orders", "0")).await.ok();
        let (body, field) = breaking(code);
        let request = log.post("/publish?invalid=skip").content_type(content_type(code));
        let answer = log.send(request, body).await;
        assert_eq!(answer.fates(), [format!("rejected {field} {}", code.as_str())]);
        assert_eq!(answer.counts(), [1, 0, 0, 0, 1]);
    }
}

#[actix_web::test]
async fn every_fault_of_every_event_is_named_at_once() {
    let log = Log::start();
    let wrong = r#"{"topic":7,"event_id":"","timestamp":"soon","source":"a\tb","payload":null,"extra":1}"#;
    let answer = log.publish(array([wrong, &event("t", "1"), "{}"])).await;
    let mut faults = answer.faults(Code::InvalidEvents);
    faults.sort();
    assert_eq!(
        faults,
        [
            "0 event_id empty",
            "0 extra unknown_field",
            "0 payload wrong_type",
            "0 source control_character",
            "0 timestamp bad_timestamp",
            "0 topic wrong_type",
            "2 event_id missing_field",
            "2 payload missing_field",
            "2 source missing_field",
            "2 timestamp missing_field",
            "2 topic missing_field",
        ]
    );
}

#[actix_web::test]
async fn a_fault_has_the_members_of_the_contract() {
    let log = Log::start();
    let answer = log.publish(array([event("t", "1"), event_but("timestamp", "\"soon\"")])).await;
    answer.problem(Code::InvalidEvents);
    let error = &answer.json()["errors"][0];
    let members: Vec<_> = error.as_object().unwrap().keys().collect();
    assert_eq!(members, ["code", "detail", "field", "index"]);
    assert_eq!((&error["index"], &error["field"]), (&json!(1), &json!("timestamp")));
}

#[actix_web::test]
async fn a_name_may_have_255_bytes_and_no_more() {
    let log = Log::start();
    let name = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
    for field in ["topic", "event_id", "source"] {
        log.publish(event_but(field, &name(255))).await.ok();
        let refused = log.publish(event_but(field, &name(256))).await;
        assert_eq!(refused.faults(Code::InvalidEvents), [format!("0 {field} too_long")]);
    }
}

#[actix_web::test]
async fn an_event_may_have_64_levels_and_no_more() {
    let log = Log::start();
    let payload = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    log.publish(event_but("payload", &payload(63))).await.ok();
    let refused = log.publish(event_but("payload", &payload(64))).await;
    assert_eq!(refused.faults(Code::InvalidEvents), ["0 payload too_deep"]);
}

#[actix_web::test]
async fn a_topic_over_the_limit_is_refused_while_known_topics_go_on() {
    let log = Log::configured("[limits]\ntopics = 2");
    log.publish(array([event("a", "1"), event("b", "1")])).await.ok();
    let answer = log.publish_skipping(array([event("c", "1"), event("a", "2"), event("c", "2")])).await;
    assert_eq!(answer.fates(), ["rejected topic topic_limit", "accepted 2", "rejected topic topic_limit"]);
    let fault = Fault::from(Refusal::TopicLimit);
    assert_eq!(answer.json()["results"][0]["error"]["detail"], fault.detail);
    let log = log.restarted_with("[limits]\ntopics = 2");
    assert_eq!(log.publish(event("c", "1")).await.faults(Code::InvalidEvents), ["0 topic topic_limit"]);
    assert_eq!(log.publish(event("b", "2")).await.fates(), ["accepted 2"]);
}
