//! What is stored comes back as it was sent: payloads byte for byte, names and timestamps as texts.

use serde_json::Value;

use crate::support::events::event_but;
use crate::support::{Log, array, event_with, lines};

/// Payloads that a careless program would change.
const PAYLOADS: [&str; 10] = [
    "{}",
    "{ }",
    r#"{"big":123456789012345678901234567890.00,"small":1E-400,"zero":-0.0,"int":1e0}"#,
    r#"{"z":1,"a":2,"m":{"y":1,"b":2}}"#,
    r#"{"twice":1,"twice":2}"#,
    r#"{"escaped":"\u00e9\n\/\"\\\ud83d\ude00","plain":"é😀/"}"#,
    "{\"spaces\" :\t[ 1 ,\r\n 2 ] }",
    r#"{"":{"":[]},"null":null,"yes":true}"#,
    r#"{"$serde_json::private::RawValue":"1"}"#,
    "{\"text\":\"\u{7f}\u{2028}\u{feff}\"}",
];

/// The payload of the only event in this JSON, byte for byte.
fn payload(answer: &str) -> &str {
    let start = answer.find("\"payload\":").unwrap() + "\"payload\":".len();
    let end = answer.rfind(",\"received_at\"").unwrap();
    &answer[start..end]
}

#[actix_web::test]
async fn a_payload_comes_back_byte_for_byte() {
    let log = Log::start();
    for (number, sent) in PAYLOADS.into_iter().enumerate() {
        let id = number.to_string();
        log.publish(event_with("t", &id, sent)).await.ok();
        let one = log.get(&format!("/events/t/{id}")).await.ok();
        assert_eq!(payload(one.text()), sent);
        let page = log.get(&format!("/events?topic=t&after={number}")).await.ok();
        assert_eq!(payload(page.text()), sent);
    }
}

#[actix_web::test]
async fn a_payload_comes_back_byte_for_byte_after_a_restart_and_from_an_array() {
    let log = Log::start();
    let events = PAYLOADS.into_iter().enumerate().map(|(id, sent)| event_with("t", &id.to_string(), sent));
    log.publish(array(events)).await.ok();
    let log = log.restarted();
    for (id, sent) in PAYLOADS.into_iter().enumerate() {
        assert_eq!(payload(log.get(&format!("/events/t/{id}")).await.ok().text()), sent);
    }
}

#[actix_web::test]
async fn in_ndjson_line_breaks_between_tokens_become_spaces_and_nothing_else_changes() {
    let log = Log::start();
    for (number, sent) in PAYLOADS.into_iter().enumerate() {
        let topic = format!("t{number}");
        log.publish(event_with(&topic, "1", sent)).await.ok();
        let answer = log.get_as(&format!("/events?topic={topic}"), "application/x-ndjson").await.ok();
        let line = answer.text().strip_suffix('\n').unwrap();
        assert!(!line.contains(['\n', '\r']), "{line:?}");
        assert_eq!(payload(line), sent.replace(['\n', '\r'], " "));
    }
}

#[actix_web::test]
async fn a_payload_sent_as_ndjson_comes_back_byte_for_byte() {
    let log = Log::start();
    let one_line: Vec<_> = PAYLOADS.into_iter().filter(|sent| !sent.contains('\n')).collect();
    let events = one_line.iter().enumerate().map(|(id, sent)| event_with("t", &id.to_string(), sent));
    log.publish_as("application/x-ndjson", lines(events)).await.ok();
    for (id, sent) in one_line.into_iter().enumerate() {
        assert_eq!(payload(log.get(&format!("/events/t/{id}")).await.ok().text()), sent);
    }
}

#[actix_web::test]
async fn a_timestamp_comes_back_as_it_was_sent() {
    let log = Log::start();
    let times = [
        "2026-11-22T10:00:00Z",
        "2026-11-22t10:00:00z",
        "2026-11-22 10:00:00",
        "2026-11-22T10:00:00.123456789012+05:30",
        "1999-12-31T23:59:60-00:00",
        "2024-02-29T00:00:00.0",
    ];
    for (number, sent) in times.into_iter().enumerate() {
        let sent_event =
            event_but("timestamp", &format!("\"{sent}\"")).replace("\"1\"", &format!("\"{number}\""));
        log.publish(sent_event).await.ok();
        assert_eq!(log.read(&format!("/events/orders/{number}")).await["timestamp"], sent);
    }
}

#[actix_web::test]
async fn names_come_back_as_texts_however_they_were_escaped() {
    let log = Log::start();
    let escaped = event_but("source", r#""\u00e9\/\"\\ \ud83d\ude00""#);
    log.publish(escaped).await.ok();
    assert_eq!(log.read("/events/orders/1").await["source"], "é/\"\\ 😀");
}

#[actix_web::test]
async fn a_stored_event_has_the_members_of_the_contract_in_their_order() {
    let log = Log::start();
    log.publish(event_with("t", "1", "{\"n\":1}")).await.ok();
    let answer = log.get("/events/t/1").await.ok();
    let received_at = answer.json()["received_at"].as_str().unwrap().to_owned();
    let expected = format!(
        r#"{{"seq":1,"topic":"t","event_id":"1","timestamp":"2026-11-22T10:00:00Z","source":"test","payload":{{"n":1}},"received_at":"{received_at}"}}"#
    );
    assert_eq!(answer.text(), expected);
    let time: jiff::Timestamp = received_at.parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(time);
    assert!(received_at.ends_with('Z') && age.unsigned_abs().as_secs() < 60, "{received_at}");
    assert_eq!(
        log.read("/events?topic=t").await["events"][0],
        serde_json::from_str::<Value>(&expected).unwrap()
    );
}
