//! What `POST /publish` says of each event: accepted, duplicate, conflict, rejected.

use sekali::api::Code;
use serde_json::json;

use crate::support::{Log, array, event, event_with, everything, ids, seqs};

#[actix_web::test]
async fn a_new_event_is_accepted_with_the_first_seq_of_its_topic() {
    let log = Log::start();
    let answer = log.publish(event("orders", "1")).await.ok();
    let expected = json!({"received": 1, "accepted": 1, "duplicates": 0, "conflicts": 0, "rejected": 0,
        "results": [{"status": "accepted", "seq": 1}]});
    assert_eq!(answer.json(), expected);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[actix_web::test]
async fn one_event_an_array_and_a_batch_are_published_alike() {
    let log = Log::start();
    let batch = |events: String| format!("{{\"events\":{events}}}");
    assert_eq!(log.publish(event("t", "1")).await.fates(), ["accepted 1"]);
    assert_eq!(
        log.publish(array([event("t", "2"), event("t", "3")])).await.fates(),
        ["accepted 2", "accepted 3"]
    );
    assert_eq!(
        log.publish(batch(array([event("t", "4"), event("t", "1")]))).await.fates(),
        ["accepted 4", "duplicate 1"]
    );
}

#[actix_web::test]
async fn a_body_without_a_content_type_counts_as_json() {
    let log = Log::start();
    let answer = log.send(log.post("/publish"), event("t", "1")).await;
    assert_eq!(answer.fates(), ["accepted 1"]);
}

#[actix_web::test]
async fn an_event_sent_again_is_a_duplicate_of_the_first() {
    let log = Log::start();
    log.publish(array(ids("t", 0..3))).await.ok();
    let again = log.publish(array([event_with("t", "1", "{\"n\":1}"), event("t", "new")])).await;
    assert_eq!(again.fates(), ["duplicate 2", "accepted 4"]);
    assert_eq!(again.counts(), [2, 1, 1, 0, 0]);
    let duplicate = &again.json()["results"][0];
    assert_eq!(
        duplicate,
        &json!({"status": "duplicate", "seq": 2}),
        "conflict is said only where it is true"
    );
}

#[actix_web::test]
async fn a_duplicate_inside_a_request_is_a_duplicate() {
    // invariant 3: at most one event is stored for a key, also within one request.
    let log = Log::start();
    let body = array([event("t", "1"), event("t", "2"), event("t", "1"), event("t", "1")]);
    let answer = log.publish(body).await;
    assert_eq!(answer.fates(), ["accepted 1", "accepted 2", "duplicate 1", "duplicate 1"]);
    assert_eq!(everything(&log, "t").await.len(), 2);
}

#[actix_web::test]
async fn the_same_id_in_another_topic_is_another_event() {
    let log = Log::start();
    let answer = log.publish(array([event("a", "1"), event("b", "1"), event("a", "1")])).await;
    assert_eq!(answer.fates(), ["accepted 1", "accepted 1", "duplicate 1"]);
    assert_eq!(log.read("/events/b/1").await["topic"], "b");
}

#[actix_web::test]
async fn a_conflict_keeps_the_first_event_and_is_counted_as_a_duplicate() {
    let log = Log::start();
    log.publish(event_with("t", "1", r#"{"total":10}"#)).await.ok();
    let answer = log.publish(event_with("t", "1", r#"{"total":11}"#)).await;
    let expected = json!({"received": 1, "accepted": 0, "duplicates": 1, "conflicts": 1, "rejected": 0,
        "results": [{"status": "duplicate", "seq": 1, "conflict": true}]});
    assert_eq!(answer.json(), expected);
    assert_eq!(log.read("/events/t/1").await["payload"], json!({"total": 10}));
}

#[actix_web::test]
async fn a_conflict_inside_a_request_is_one_with_its_first_event() {
    let log = Log::start();
    let events = ["{\"n\":1}", "{\"n\":2}", "{\"n\":1}"].map(|payload| event_with("t", "1", payload));
    assert_eq!(log.publish(array(events)).await.fates(), ["accepted 1", "conflict 1", "duplicate 1"]);
}

#[actix_web::test]
async fn payloads_that_mean_the_same_are_no_conflict() {
    let log = Log::start();
    log.publish(event_with("t", "1", r#"{"n":1.50,"list":[1,2],"text":"\u00e9","last":1,"last":2}"#))
        .await
        .ok();
    for same in [
        r#"{ "list": [1, 2], "text": "é", "n": 15e-1, "last": 2 }"#,
        r#"{"last":2.0,"n":1.5000,"text":"\u00E9","list":[1.0,2e0]}"#,
    ] {
        assert_eq!(log.publish(event_with("t", "1", same)).await.fates(), ["duplicate 1"], "{same}");
    }
    for other in [
        r#"{"n":1.50,"list":[2,1],"text":"é","last":2}"#,
        r#"{"n":"1.50","list":[1,2],"text":"é","last":2}"#,
        r#"{"n":1.50,"list":[1,2],"text":"é","last":1}"#,
        r#"{"n":1.50,"list":[1,2],"text":"é","last":2,"more":null}"#,
    ] {
        assert_eq!(log.publish(event_with("t", "1", other)).await.fates(), ["conflict 1"], "{other}");
    }
}

#[actix_web::test]
async fn long_integers_are_compared_digit_by_digit() {
    let log = Log::start();
    let id = |digits: &str| event_with("t", "1", &format!("{{\"id\":{digits}}}"));
    log.publish(id("9007199254740993000000000001")).await.ok();
    assert_eq!(log.publish(id("9007199254740993000000000001.0")).await.fates(), ["duplicate 1"]);
    assert_eq!(log.publish(id("9007199254740993000000000002")).await.fates(), ["conflict 1"]);
}

#[actix_web::test]
async fn another_source_or_timestamp_is_no_conflict() {
    let log = Log::start();
    log.publish(event("t", "1")).await.ok();
    let retry = event("t", "1").replace("\"test\"", "\"another node\"").replace("10:00:00", "10:05:00");
    assert_eq!(log.publish(retry).await.fates(), ["duplicate 1"]);
    assert_eq!(log.read("/events/t/1").await["source"], "test");
}

#[actix_web::test]
async fn one_invalid_event_refuses_the_whole_request_and_nothing_is_stored() {
    let log = Log::start();
    let body = array([event("t", "1"), event("t", ""), event("t", "3")]);
    assert_eq!(log.publish(body).await.faults(Code::InvalidEvents), ["1 event_id empty"]);
    assert!(everything(&log, "t").await.is_empty());
    assert_eq!(log.read("/stats").await["topics_total"], 0);
}

#[actix_web::test]
async fn with_skip_the_valid_events_are_stored_and_the_others_come_back_rejected() {
    let log = Log::start();
    let body = array([event("t", "1"), event("t", ""), "7".to_owned(), event("t", "1"), event("t", "2")]);
    let answer = log.publish_skipping(body).await;
    assert_eq!(
        answer.fates(),
        ["accepted 1", "rejected event_id empty", "rejected - not_an_object", "duplicate 1", "accepted 2"]
    );
    assert_eq!(answer.counts(), [5, 2, 1, 0, 2]);
    let error = &answer.json()["results"][1]["error"];
    let members: Vec<_> = error.as_object().unwrap().keys().collect();
    assert_eq!(members, ["code", "detail", "field"]);
    assert_eq!(seqs(&everything(&log, "t").await), [1, 2]);
}

#[actix_web::test]
async fn the_counts_of_an_answer_add_up_and_agree_with_its_results() {
    let log = Log::start();
    let body = array([
        event("t", "1"),
        event("u", "1"),
        event("t", "1"),
        event_with("t", "1", "{\"x\":1}"),
        "null".to_owned(),
    ]);
    let answer = log.publish_skipping(body).await;
    let [received, accepted, duplicates, conflicts, rejected] = answer.counts();
    assert_eq!([received, accepted, duplicates, conflicts, rejected], [5, 2, 2, 1, 1]);
    assert_eq!(received, accepted + duplicates + rejected);
    assert_eq!(answer.fates().len() as u64, received);
}

#[actix_web::test]
async fn a_minimal_answer_has_the_counts_and_no_results() {
    let log = Log::start();
    let request =
        log.post("/publish").content_type("application/json").insert_header(("prefer", "return=minimal"));
    let answer = log.send(request, array([event("t", "1"), event("t", "1")])).await.ok();
    let expected = json!({"received": 2, "accepted": 1, "duplicates": 1, "conflicts": 0, "rejected": 0});
    assert_eq!(answer.json(), expected);
    assert_eq!(answer.header("preference-applied"), Some("return=minimal"));
    let other = log.post("/publish").insert_header(("prefer", "respond-async, return=representation"));
    assert_eq!(log.send(other, event("t", "1")).await.fates(), ["duplicate 1"]);
}

#[actix_web::test]
async fn no_events_are_an_answer_of_zeros() {
    let log = Log::start();
    let zeros =
        json!({"received": 0, "accepted": 0, "duplicates": 0, "conflicts": 0, "rejected": 0, "results": []});
    for body in ["[]", " [ ] ", "{\"events\":[]}"] {
        assert_eq!(log.publish(body).await.ok().json(), zeros, "{body}");
    }
    assert_eq!(log.publish_as("application/x-ndjson", "").await.ok().json(), zeros);
}

#[actix_web::test]
async fn an_answer_says_its_length() {
    let log = Log::start();
    for (body, status) in [(array(ids("t", 0..500)), 200), ("nope".to_owned(), 400), ("[1]".to_owned(), 422)]
    {
        let answer = log.publish(body).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
        assert_eq!(answer.header("transfer-encoding"), None);
    }
}

#[actix_web::test]
async fn events_of_a_request_get_their_seqs_in_its_order() {
    // invariant 6: seqs are 1, 2, 3, ... in the order of the commit.
    let log = Log::start();
    let interleaved =
        (0..200).map(|number| event(if number % 3 == 0 { "a" } else { "b" }, &number.to_string()));
    let answer = log.publish(array(interleaved)).await.ok();
    for topic in ["a", "b"] {
        let events = everything(&log, topic).await;
        assert_eq!(seqs(&events), (1..=events.len() as u64).collect::<Vec<_>>());
        let numbers: Vec<u32> =
            events.iter().map(|event| event["event_id"].as_str().unwrap().parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "topic {topic} keeps the order of the request");
    }
    assert_eq!(answer.json()["results"][3]["seq"], 2);
}
