//! Duplicates explained: who repeats, how late, and which events.

use serde_json::{Value, json};

use crate::support::{Log, array};

fn from(source: &str, id: &str, payload: &str) -> String {
    let event = json!({"topic": "t", "event_id": id, "timestamp": "2026-01-01T00:00:00Z", "source": source});
    let mut text = event.to_string();
    text.pop();
    format!("{text},\"payload\":{payload}}}")
}

/// Counts of a source: accepted, duplicates, conflicts.
fn counts(of: &Value) -> [u64; 3] {
    ["accepted", "duplicates", "conflicts"].map(|name| of[name].as_u64().unwrap())
}

/// Whether the caches answer, the writer, or the request's own events wait for each other: all are counted.
#[actix_web::test]
async fn a_topic_says_who_repeats_and_how_late() {
    for config in ["", "[cache]\nkeys = 0"] {
        let log = Log::configured(config);
        log.publish(array([from("x", "1", "{}"), from("y", "2", "{}"), from("z", "1", "{}")])).await.ok();
        log.publish(array([from("y", "1", "{}"), from("y", "2", "{\"n\":1}"), from("x", "3", "{}")]))
            .await
            .ok();
        let topic = log.read("/topics/t").await;
        let sources: Vec<_> = topic["sources"].as_array().unwrap().iter().collect();
        let names: Vec<_> = sources.iter().map(|of| of["source"].as_str().unwrap()).collect();
        assert_eq!(names, ["x", "y", "z"], "{config}");
        let found: Vec<_> = sources.iter().map(|of| counts(of)).collect();
        assert_eq!(found, [[2, 0, 0], [1, 2, 1], [0, 1, 0]], "{config}");
        assert_eq!((counts(&topic), counts(&topic["other"])), ([3, 3, 1], [0, 0, 0]));
        let share = |of: &Value, name: &str| of[name].as_f64().unwrap();
        assert!((share(sources[1], "duplicate_share") - 2.0 / 3.0).abs() < 1e-9);
        assert!((share(sources[1], "conflict_share") - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(
            topic["late_up_to_seconds"].as_array().unwrap().len() + 1,
            topic["late"].as_array().unwrap().len()
        );
        // This machine may be busy, and yet no duplicate came a minute late.
        let early: u64 = (0..3).map(|bucket| topic["late"][bucket].as_u64().unwrap()).sum();
        assert_eq!(early, 3, "{config}: {topic}");
        let log = log.restarted();
        assert_eq!(counts(&log.read("/topics/t").await["sources"][1]), [1, 2, 1], "{config}");
    }
}

#[actix_web::test]
async fn an_event_says_how_it_was_repeated_also_after_a_restart() {
    let log = Log::start();
    log.publish(array([from("x", "1", "{}"), from("x", "2", "{}")])).await.ok();
    assert!(log.read("/events/t/1").await.get("repeats").is_none());
    log.publish(from("y \"quoted\"", "1", "{}")).await.ok();
    log.publish(from("z", "1", "{\"n\":1}")).await.ok();
    let event = log.read("/events/t/1").await;
    let repeats = &event["repeats"];
    assert_eq!((&repeats["duplicates"], &repeats["conflicts"]), (&json!(2), &json!(1)));
    assert_eq!((&repeats["last_source"], &repeats["last_conflict"]), (&json!("z"), &json!(true)));
    assert!(repeats["last_at"].as_str().unwrap() >= event["received_at"].as_str().unwrap());
    assert_eq!(event["source"], "x", "the first one stays");
    assert!(log.read("/events/t/2").await.get("repeats").is_none());
    let log = log.restarted();
    assert_eq!(&log.read("/events/t/1").await["repeats"], repeats);
}

#[actix_web::test]
async fn the_metrics_have_topics_and_sources_up_to_what_is_configured_and_the_rest_as_one() {
    let log = Log::configured("[metrics]\ntopics = 2\n[limits]\nsources = 1");
    for (topic, events) in [("a", 1), ("busy", 3), ("c", 2), ("d", 1)] {
        for id in 0..events {
            let event = from("x", &id.to_string(), "{}").replace("\"t\"", &format!("{topic:?}"));
            log.publish(event.clone()).await.ok();
            log.publish(event.replace("\"x\"", "\"y\"")).await.ok();
        }
    }
    let check = async |topic: &str, source: &str, verdict: &str, expected: f64| {
        let name = format!("sekali_topic_events_{verdict}_total{{topic=\"{topic}\",source=\"{source}\"}}");
        let found = log.metric(&name).await;
        assert!((found - expected).abs() < 0.5, "{name}: {found}");
    };
    check("busy", "x", "accepted", 3.0).await;
    check("busy", "other", "duplicate", 3.0).await;
    check("c", "x", "accepted", 2.0).await;
    check("other", "other", "accepted", 2.0).await;
    check("other", "other", "duplicate", 2.0).await;
    let late = log.metric("sekali_topic_lateness_seconds_bucket{le=\"60.0\",topic=\"busy\"}").await;
    assert!((late - 3.0).abs() < 0.5, "{late}");
    let text = log.get("/metrics").await.ok();
    assert!(!text.text().contains("topic=\"a\""), "chosen by what they received");
}
