//! Stored data that does not read back: 500 with its code, for what is damaged and nothing else.

use std::path::Path;

use rusqlite::Connection;
use sekali::api::Code;

use crate::support::{Log, Raw, array, event, event_with, everything, ids, seqs};

/// Changes rows behind the back of the log.
fn damage(store: &Path, sql: &str) {
    let connection = Connection::open(store).unwrap();
    // The tables are strict; a damaged disk is not.
    connection.execute_batch(&format!("PRAGMA ignore_check_constraints = 1; {sql}")).unwrap();
}

#[actix_web::test]
async fn a_missing_event_in_a_topic_is_damage_and_not_a_gap() {
    // invariant 6: seqs have no gaps, so a gap is damage and never given to a reader.
    let log = Log::on_file("");
    log.publish(array(ids("t", 0..5))).await.ok();
    log.publish(event("other", "1")).await.ok();
    damage(log.store(), "DELETE FROM events WHERE seq = 3");
    log.get("/events?topic=t").await.problem(Code::StoreDamaged);
    log.get_as("/events?topic=t", "application/x-ndjson").await.problem(Code::StoreDamaged);
    assert_eq!(seqs(log.read("/events?topic=t&limit=2").await["events"].as_array().unwrap()), [1, 2]);
    assert_eq!(everything(&log, "other").await.len(), 1, "other topics are read");
}

#[actix_web::test]
async fn damage_that_shows_only_on_the_way_cuts_the_connection() {
    let log = Log::on_file("");
    log.publish(array(ids("t", 0..5_000))).await.ok();
    damage(log.store(), "DELETE FROM events WHERE seq = 4500");
    for accept in ["application/json", "application/x-ndjson"] {
        let mut raw = Raw::open(log.address());
        raw.send(format!("GET /events?topic=t HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"));
        let answer = String::from_utf8(raw.rest()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"event_id\":\"1000\""));
        assert!(!answer.ends_with("0\r\n\r\n"), "a part must not pass for the whole");
    }
}

#[actix_web::test]
async fn an_event_whose_text_is_no_text_is_damage() {
    let log = Log::on_file("");
    log.publish(array(ids("t", 0..3))).await.ok();
    damage(log.store(), "UPDATE events SET source = CAST(x'ff' AS TEXT) WHERE seq = 2");
    log.get("/events/t/1").await.problem(Code::StoreDamaged);
    log.get("/events?topic=t").await.problem(Code::StoreDamaged);
    assert_eq!(log.read("/events/t/0").await["seq"], 1);
}

#[actix_web::test]
async fn an_event_whose_time_is_no_time_is_damage() {
    let log = Log::on_file("");
    log.publish(array(ids("t", 0..3))).await.ok();
    damage(log.store(), "UPDATE events SET received_at = 9000000000000000000 WHERE seq = 2");
    log.get("/events/t/1").await.problem(Code::StoreDamaged);
    log.lookup(serde_json::json!([{"topic": "t", "event_id": "1"}])).await.problem(Code::StoreDamaged);
}

#[actix_web::test]
async fn a_duplicate_whose_first_event_is_damaged_is_500_and_fails_alone() {
    // invariant 5: a fault of one request never fails the others in its group.
    let log = Log::on_file("[cache]\nkeys = 0\n[store]\nlock_timeout = \"30s\"");
    log.publish(array(ids("t", 0..3))).await.ok();
    damage(log.store(), "UPDATE events SET payload = CAST(x'ff' AS TEXT) WHERE seq = 2");
    let locked = log.locked();
    let damaged = log.publish(event_with("t", "1", "{\"other\":1}"));
    let sound = async {
        let waiting = async || log.metric("sekali_in_flight_events").await > 0.5;
        crate::support::until("the first waits", waiting).await;
        let publishing = log.publish(event("u", "1"));
        let unlocking = async {
            let both = async || log.metric("sekali_in_flight_events").await > 1.5;
            crate::support::until("both wait", both).await;
            drop(locked);
        };
        futures_util::future::join(publishing, unlocking).await.0
    };
    let (damaged, sound) = futures_util::future::join(damaged, sound).await;
    damaged.problem(Code::StoreDamaged);
    assert_eq!(sound.fates(), ["accepted 1"]);
    assert!(log.is_ready().await, "the log can still write");
    assert_eq!(log.publish(event("t", "new")).await.fates(), ["accepted 4"]);
}
