//! `GET /events`: pages, orders, bounds, and whole topics as streams.

use serde_json::{Value, json};

use crate::support::{Log, array, ids, lines, seqs};

/// A log with ten events in the topic `t`.
async fn ten() -> Log {
    let log = Log::start();
    log.publish(array(ids("t", 0..10))).await.ok();
    log
}

fn of(page: &Value) -> Vec<u64> {
    let events = page["events"].as_array().unwrap();
    assert_eq!(page["count"], events.len());
    seqs(events)
}

#[actix_web::test]
async fn a_topic_is_read_in_the_order_of_its_seqs() {
    let log = ten().await;
    let page = log.read("/events?topic=t").await;
    assert_eq!(of(&page), (1..=10).collect::<Vec<_>>());
    assert_eq!((&page["topic"], &page["next_after"]), (&json!("t"), &json!(10)));
    assert_eq!(page.get("next_before"), None);
}

#[actix_web::test]
async fn after_before_limit_and_order_choose_the_events() {
    let log = ten().await;
    for (query, expected, next) in [
        ("after=7", vec![8, 9, 10], ("next_after", 10)),
        ("before=4", vec![1, 2, 3], ("next_after", 3)),
        ("after=2&before=6", vec![3, 4, 5], ("next_after", 5)),
        ("limit=3", vec![1, 2, 3], ("next_after", 3)),
        ("after=3&limit=2", vec![4, 5], ("next_after", 5)),
        ("order=asc&after=9", vec![10], ("next_after", 10)),
        ("after=10", vec![], ("next_after", 10)),
        ("after=99", vec![], ("next_after", 99)),
        ("order=desc", vec![10, 9, 8, 7, 6, 5, 4, 3, 2, 1], ("next_before", 1)),
        ("order=desc&limit=2", vec![10, 9], ("next_before", 9)),
        ("order=desc&before=4&limit=2", vec![3, 2], ("next_before", 2)),
        ("order=desc&before=4&after=1", vec![3, 2], ("next_before", 2)),
        ("order=desc&before=1", vec![], ("next_before", 1)),
        ("after=9223372036854775807", vec![], ("next_after", i64::MAX.cast_unsigned())),
    ] {
        let page = log.read(&format!("/events?topic=t&{query}")).await;
        assert_eq!(of(&page), expected, "{query}");
        assert_eq!(page[next.0], next.1, "{query}");
    }
}

#[actix_web::test]
async fn pages_by_next_after_give_everything_once() {
    let log = ten().await;
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = log.read(&format!("/events?topic=t&limit=3&after={after}")).await;
        if of(&page).is_empty() {
            break;
        }
        seen.extend(of(&page));
        after = page["next_after"].as_u64().unwrap();
    }
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
    log.publish(array(ids("t", 10..12))).await.ok();
    assert_eq!(of(&log.read(&format!("/events?topic=t&after={after}")).await), [11, 12]);
}

#[actix_web::test]
async fn pages_by_next_before_give_everything_once_from_the_end() {
    let log = ten().await;
    let (mut query, mut seen) = (String::new(), Vec::new());
    loop {
        let page = log.read(&format!("/events?topic=t&order=desc&limit=4{query}")).await;
        if of(&page).is_empty() {
            break;
        }
        seen.extend(of(&page));
        query = format!("&before={}", page["next_before"]);
    }
    assert_eq!(seen, (1..=10).rev().collect::<Vec<_>>());
}

#[actix_web::test]
async fn an_unknown_topic_has_no_events_and_is_no_error() {
    let log = ten().await;
    let page = log.read("/events?topic=unknown").await;
    assert_eq!((of(&page), &page["topic"], &page["next_after"]), (vec![], &json!("unknown"), &json!(0)));
    let page = log.read("/events?topic=unknown&after=5").await;
    assert_eq!(page["next_after"], 5);
    let answer = log.get_as("/events?topic=unknown", "application/x-ndjson").await.ok();
    assert_eq!(answer.text(), "");
    assert_eq!(log.read("/stats").await["topics_total"], 1, "reading makes no topic");
}

#[actix_web::test]
async fn the_limit_may_be_from_1_to_10_000() {
    let log = ten().await;
    assert_eq!(of(&log.read("/events?topic=t&limit=1").await), [1]);
    assert_eq!(of(&log.read("/events?topic=t&limit=10000").await).len(), 10);
}

#[actix_web::test]
async fn ndjson_gives_one_event_a_line() {
    let log = ten().await;
    let answer = log.get_as("/events?topic=t&after=8", "application/x-ndjson").await.ok();
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let events: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(seqs(&events), [9, 10]);
    assert_eq!(events[0], log.read("/events/t/8").await, "the same event as by its id");
}

#[actix_web::test]
async fn a_topic_of_30_000_events_streams_whole_and_in_order_in_both_formats() {
    const EVENTS: usize = 30_000;
    let log = Log::start();
    for first in (0..EVENTS).step_by(10_000) {
        let answer = log.publish_as("application/x-ndjson", lines(ids("t", first..first + 10_000))).await;
        assert_eq!(answer.counts(), [10_000, 10_000, 0, 0, 0]);
    }
    let page = log.read("/events?topic=t").await;
    assert_eq!(of(&page), (1..=EVENTS as u64).collect::<Vec<_>>());
    assert_eq!(page["next_after"], EVENTS);
    assert!(page["events"].as_array().unwrap().iter().zip(0..).all(|(event, n)| event["payload"]["n"] == n));

    let answer = log.get_as("/events?topic=t&order=desc", "application/x-ndjson").await.ok();
    assert!(answer.text().ends_with('\n'));
    let events: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(seqs(&events), (1..=EVENTS as u64).rev().collect::<Vec<_>>());
    assert_eq!(of(&log.read("/events?topic=t&limit=10000&after=19000").await).len(), 10_000);
}

#[actix_web::test]
async fn events_larger_than_a_page_of_the_store_stream_whole() {
    let log = Log::start();
    let large = |number: usize| {
        let text = "x".repeat(600_000 + number);
        crate::support::event_with("t", &number.to_string(), &format!("{{\"text\":\"{text}\"}}"))
    };
    log.publish(array((0..8).map(large))).await.ok();
    for order in ["asc", "desc"] {
        let page = log.read(&format!("/events?topic=t&order={order}")).await;
        assert_eq!(of(&page).len(), 8);
        for event in page["events"].as_array().unwrap() {
            let number: usize = event["event_id"].as_str().unwrap().parse().unwrap();
            assert_eq!(event["payload"]["text"].as_str().unwrap().len(), 600_000 + number);
        }
    }
}

#[actix_web::test]
async fn a_page_that_fits_at_once_says_its_length() {
    let log = ten().await;
    let answer = log.get("/events?topic=t").await.ok();
    assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
}
