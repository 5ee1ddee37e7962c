//! Events by their keys, and topics by their names.

use actix_web::http::Method;
use sekali::api::Code;
use serde_json::{Value, json};

use crate::support::{Log, array, event, event_with};

#[actix_web::test]
async fn an_event_is_found_by_its_key_whatever_the_key_holds() {
    let log = Log::start();
    for (topic, id, path) in [
        ("orders", "1", "/events/orders/1"),
        ("a/b", "c/d", "/events/a%2Fb/c%2fd"),
        ("with space", "x y", "/events/with%20space/x%20y"),
        ("größe", "日本", "/events/gr%C3%B6%C3%9Fe/%E6%97%A5%E6%9C%AC"),
        ("100%", "%41", "/events/100%25/%2541"),
        ("a+b", "c+d", "/events/a+b/c+d"),
        ("..", ".", "/events/%2E%2E/%2E"),
        ("lookup", "lookup", "/events/lookup/lookup"),
        ("q?q", "#", "/events/q%3Fq/%23"),
        ("\"", "\\", "/events/%22/%5C"),
    ] {
        log.publish(event(topic, id)).await.ok();
        let found = log.read(path).await;
        assert_eq!((&found["topic"], &found["event_id"]), (&json!(topic), &json!(id)), "{path}");
        let page =
            log.read(&format!("/events?topic={}", path.split('/').nth(2).unwrap().replace('+', "%2B"))).await;
        assert_eq!(page["events"][0]["event_id"], id, "{path}");
    }
}

#[actix_web::test]
async fn an_unknown_key_is_404_with_the_code_of_what_is_missing() {
    let log = Log::start();
    log.publish(event("t", "1")).await.ok();
    log.get("/events/t/2").await.problem(Code::EventNotFound);
    log.get("/events/u/1").await.problem(Code::EventNotFound);
    log.get("/topics/u").await.problem(Code::TopicNotFound);
    log.get("/event?topic=t&event_id=2").await.problem(Code::EventNotFound);
    log.get("/event?topic=u&event_id=1").await.problem(Code::EventNotFound);
    log.get("/topic?topic=u").await.problem(Code::TopicNotFound);
    for nowhere in ["/events/t", "/events/t/1/2", "/Topics", "/publish/", "/health/dead"] {
        log.get(nowhere).await.problem(Code::NotFound);
    }
}

#[actix_web::test]
async fn a_lookup_answers_in_the_order_of_the_keys_with_null_for_what_is_not_stored() {
    let log = Log::start();
    log.publish(array([event("t", "1"), event("t", "2"), event("u", "1")])).await.ok();
    let key = |topic: &str, id: &str| json!({"topic": topic, "event_id": id});
    let keys = [key("u", "1"), key("t", "3"), key("t", "2"), key("v", "1"), key("t", "2"), key("t", "1")];
    let answer = log.lookup(json!(keys)).await.ok().json();
    let seqs: Vec<_> = answer.as_array().unwrap().iter().map(|found| found["seq"].as_u64()).collect();
    assert_eq!(seqs, [Some(1), None, Some(2), None, Some(2), Some(1)]);
    assert_eq!((&answer[1], &answer[3]), (&Value::Null, &Value::Null));
    assert_eq!(answer[0]["received_at"], log.read("/events/u/1").await["received_at"]);
    assert_eq!(log.read("/stats").await["topics_total"], 2, "a lookup stores nothing");
    assert_eq!(log.totals("persistent").await, [3, 3, 0, 0, 0], "and counts nothing");
}

#[actix_web::test]
async fn a_lookup_names_what_is_wrong_with_its_keys() {
    let log = Log::start();
    assert_eq!(log.lookup(json!([])).await.ok().json(), json!([]));
    let keys =
        json!([{"topic": "t", "event_id": "1"}, {"topic": ""}, 7, {"topic": "t", "event_id": "1", "n": 1}]);
    let mut faults = log.lookup(keys).await.faults(Code::InvalidEvents);
    faults.sort();
    assert_eq!(
        faults,
        ["1 event_id missing_field", "1 topic empty", "2 - not_an_object", "3 n unknown_field"]
    );
    log.lookup(json!({"topic": "t"})).await.problem(Code::InvalidParameter);
    let text = log.send(log.post("/events/lookup").content_type("text/plain"), "[]").await;
    text.problem(Code::UnsupportedType);
    log.send(log.post("/events/lookup"), "nope").await.problem(Code::NotJson);
    let many: Vec<_> = (0..10_001).map(|id| json!({"topic": "t", "event_id": id.to_string()})).collect();
    log.lookup(json!(many)).await.problem(Code::BatchTooLarge);
}

#[actix_web::test]
async fn topics_are_paged_in_the_order_of_their_bytes() {
    let log = Log::start();
    let names = ["z", "é", "Z", "a", "aa", "a b"];
    log.publish(array(names.map(|name| event(name, "1")))).await.ok();
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = log.read(&format!("/topics?limit=2{after}")).await;
        let topics = page["topics"].as_array().unwrap();
        if topics.is_empty() {
            break;
        }
        assert!(topics.len() <= 2);
        seen.extend(topics.iter().map(|topic| topic["topic"].as_str().unwrap().to_owned()));
        let next = page["next_after"].as_str().unwrap();
        assert_eq!(Some(next), topics.last().unwrap()["topic"].as_str());
        after = format!("&after={}", next.replace(' ', "%20").replace('é', "%C3%A9"));
    }
    assert_eq!(seen, ["Z", "a", "a b", "aa", "z", "é"]);
}

#[actix_web::test]
async fn no_topics_are_an_empty_page() {
    let log = Log::start();
    assert_eq!(log.read("/topics").await, json!({"topics": [], "next_after": null}));
    assert_eq!(log.read("/topics?after=x").await, json!({"topics": [], "next_after": "x"}));
}

#[actix_web::test]
async fn a_page_of_topics_holds_1_000_at_most() {
    let log = Log::start();
    let names = (0..1_001).map(|number| event(&format!("topic {number:04}"), "1"));
    log.publish(array(names)).await.ok();
    let page = log.read("/topics").await;
    assert_eq!(page["topics"].as_array().unwrap().len(), 1_000);
    assert_eq!(page["next_after"], "topic 0999");
    let rest = log.read("/topics?after=topic+0999").await;
    assert_eq!(rest["topics"][0]["topic"], "topic 1000");
    let stats = log.read("/stats").await;
    assert_eq!(
        (stats["topics_total"].as_u64(), stats["topics"].as_array().unwrap().len()),
        (Some(1_001), 1_000)
    );
}

#[actix_web::test]
async fn a_topic_says_what_was_counted_in_it() {
    let log = Log::start();
    log.publish(array([event("a/b", "1"), event("a/b", "2"), event("a/b", "1")])).await.ok();
    log.publish(event_with("a/b", "2", "{\"other\":1}")).await.ok();
    let last = log.read("/events/a%2Fb/2").await["received_at"].clone();
    let history = log.read("/stats").await["history"].clone();
    let expected = json!({"topic": "a/b", "history": history, "lanes": 1, "accepted": 2, "duplicates": 2, "conflicts": 1,
        "first_seq": 1, "last_seq": 2, "last_received_at": last});
    assert_eq!(log.read("/topics").await["topics"], json!([expected]));
    let topic = log.read("/topics/a%2Fb").await;
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&topic[member], value, "{member}, beside who sent them: {topic}");
    }
}

#[actix_web::test]
async fn head_answers_as_get_does_wherever_get_does() {
    let log = Log::start();
    log.publish(event("t", "1")).await.ok();
    for path in [
        "/events?topic=t",
        "/events/t/1",
        "/events/t/unknown",
        "/events",
        "/topics",
        "/topics/t",
        "/event?topic=t&event_id=1",
        "/event?topic=t&event_id=unknown",
        "/topic?topic=t",
        "/stats",
        "/health",
        "/health/live",
        "/health/ready",
        "/openapi.json",
        "/docs",
        "/docs/",
        "/metrics",
        "/",
    ] {
        let get = log.get(path).await;
        let head = log.send(log.request(Method::HEAD, path), "").await;
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        // These count the time, or the very request that asks.
        if path != "/metrics" && path != "/stats" {
            assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
        }
    }
}
