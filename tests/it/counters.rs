//! `GET /stats`: read your writes, sums that hold, and what a restart keeps.

use futures_util::future::join_all;
use sekali::api::Code;
use serde_json::json;

use crate::support::{Log, array, event, event_with, ids};

#[actix_web::test]
async fn a_new_log_counts_from_zero() {
    let log = Log::start();
    let stats = log.read("/stats").await;
    let zeros = json!({"total_events_received": 0, "total_unique_events_processed": 0,
        "total_duplicate_events_dropped": 0, "total_conflicts": 0, "total_events_rejected": 0});
    assert_eq!((&stats["runtime"], &stats["persistent"]), (&zeros, &zeros));
    assert_eq!((&stats["topics_total"], &stats["topics"]), (&json!(0), &json!([])));
    assert_eq!(stats["durability"], "full");
    assert!(stats["uptime_seconds"].as_f64().unwrap() >= 0.0);
}

#[actix_web::test]
async fn both_counts_include_a_request_as_soon_as_it_is_answered() {
    // invariant 4: an event and its counters change together.
    let log = Log::start();
    let mut expected = [0; 5];
    for number in 0..20 {
        let id = (number / 2).to_string();
        let payload = if number % 6 == 5 { "{\"other\":1}" } else { "{}" };
        let body = array([event_with("t", &id, payload), "7".to_owned(), event("u", &number.to_string())]);
        let [_, accepted, duplicates, conflicts, rejected] = log.publish_skipping(body).await.counts();
        for (sum, count) in
            expected.iter_mut().zip([accepted + duplicates, accepted, duplicates, conflicts, rejected])
        {
            *sum += count;
        }
        assert_eq!(log.totals("runtime").await, expected, "after request {number}");
        assert_eq!(log.totals("persistent").await, expected, "after request {number}");
    }
    let [received, unique, duplicate, conflicts, rejected] = expected;
    assert_eq!(received, unique + duplicate);
    assert!(conflicts > 0 && conflicts <= duplicate && rejected == 20);
}

#[actix_web::test]
async fn each_of_many_clients_reads_its_own_writes() {
    let log = Log::start();
    let work = async |number: usize| {
        let client = log.another_client();
        let topic = format!("t{number}");
        for round in 1..=10_u64 {
            client.publish(array([event(&topic, &round.to_string()), event(&topic, "1")])).await.ok();
            let found = client.read(&format!("/topics/{topic}")).await;
            assert_eq!(found["accepted"], round);
            assert_eq!(found["duplicates"], round, "the caches' duplicates are counted before the answer");
        }
    };
    join_all((0..8).map(work)).await;
    assert_eq!(log.totals("persistent").await, [160, 80, 80, 0, 0]);
    assert_eq!(log.totals("runtime").await, [160, 80, 80, 0, 0]);
}

#[actix_web::test]
async fn a_restart_keeps_the_persistent_counts_and_begins_the_runtime_counts_anew() {
    let log = Log::start();
    log.publish(array(ids("t", 0..5))).await.ok();
    log.publish(array(ids("t", 3..7))).await.ok();
    log.publish(event("t", "0")).await.ok();
    log.publish_skipping("[7]").await.ok();
    let counted = [10, 7, 3, 1, 1];
    assert_eq!(log.totals("persistent").await, counted);
    let log = log.restarted();
    assert_eq!(log.totals("persistent").await, counted);
    assert_eq!(log.totals("runtime").await, [0; 5]);
    assert_eq!(log.publish(event("t", "0")).await.fates(), ["conflict 1"]);
    assert_eq!(log.totals("persistent").await, [11, 7, 4, 2, 1]);
    assert_eq!(log.totals("runtime").await, [1, 0, 1, 1, 0]);
    let topic = log.read("/topics/t").await;
    assert_eq!(
        (&topic["accepted"], &topic["duplicates"], &topic["conflicts"]),
        (&json!(7), &json!(4), &json!(2))
    );
}

#[actix_web::test]
async fn a_refused_request_counts_its_invalid_events_as_rejected_and_nothing_else() {
    let log = Log::start();
    log.publish(array([event("t", "1"), event("t", ""), "7".to_owned()])).await.problem(Code::InvalidEvents);
    assert_eq!(log.totals("runtime").await, [0, 0, 0, 0, 2]);
    assert_eq!(log.totals("persistent").await, [0, 0, 0, 0, 2]);
    log.publish("nope").await.problem(Code::NotJson);
    assert_eq!(log.totals("runtime").await, [0, 0, 0, 0, 2], "what is not JSON has no events");
}

#[actix_web::test]
async fn without_caches_all_answers_and_counts_are_the_same() {
    // invariant 7: the hot cache may forget; it never invents.
    let mut seen = Vec::new();
    for config in [
        "",
        "[cache]\nkeys = 0",
        "[cache]\nkeys = 1",
        "[cache]\nkeys_per_topic = 2\n[router]\nidle = \"100ms\"",
    ] {
        let log = Log::configured(config);
        let mut fates = Vec::new();
        for body in [array(ids("t", 0..6)), array(ids("t", 2..9)), array([event("t", "1"), event("t", "9")])]
        {
            fates.extend(log.publish(body).await.fates());
        }
        fates.push(format!("{:?}", log.totals("persistent").await));
        seen.push(fates);
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:#?}");
}
