//! A number in the configuration file changes what the log does.

use serde_json::{Value, json};

use crate::support::{Log, array, event, everything, ids, seqs};

/// The shards of a log, and the lanes of two of its topics.
async fn shape(config: &str) -> [Value; 3] {
    let log = Log::configured(config);
    log.publish(array([event("orders", "1"), event("clicks", "1")])).await.ok();
    let lanes = async |topic: &str| log.read(&format!("/topics/{topic}")).await["lanes"].clone();
    [log.read("/stats").await["shards"].clone(), lanes("orders").await, lanes("clicks").await]
}

#[actix_web::test]
async fn files_that_differ_in_one_number_differ_in_the_shards() {
    let with = |shards: usize| format!("[router]\nshards = {shards}\nlanes = 2\n");
    assert_eq!(shape(&with(1)).await, [json!(1), json!(2), json!(2)]);
    assert_eq!(shape(&with(3)).await, [json!(3), json!(2), json!(2)]);
}

#[actix_web::test]
async fn files_that_differ_in_one_number_differ_in_the_lanes() {
    let with = |lanes: usize| format!("[router]\nshards = 2\nlanes = {lanes}\n");
    assert_eq!(shape(&with(1)).await, [json!(2), json!(1), json!(1)]);
    assert_eq!(shape(&with(4)).await, [json!(2), json!(4), json!(4)]);
}

#[actix_web::test]
async fn one_topic_can_have_lanes_of_its_own() {
    let config = "[router]\nshards = 2\n[topics.orders]\nlanes = 5\n";
    assert_eq!(shape(config).await, [json!(2), json!(5), json!(1)]);
}

#[actix_web::test]
async fn the_consumers_of_a_topic_are_as_many_as_its_lanes() {
    for lanes in [1, 4] {
        let log = Log::configured(&format!("[router]\nlanes = {lanes}"));
        log.publish(array(ids("t", 0..200))).await.ok();
        assert!((log.metric("sekali_consumers").await - f64::from(lanes)).abs() < 0.5, "{lanes} lanes");
    }
}

#[actix_web::test]
async fn an_idle_topic_keeps_its_events_and_loses_its_consumer() {
    // invariant 8: an idle topic's actor is retired, so topics ever seen do not fill the memory.
    let log = Log::configured("[router]\nidle = \"100ms\"");
    log.publish(array(ids("t", 0..3))).await.ok();
    crate::support::until("the consumer is retired", async || log.metric("sekali_consumers").await < 0.5)
        .await;
    assert_eq!(
        log.publish(array(ids("t", 1..5))).await.fates(),
        ["duplicate 2", "duplicate 3", "accepted 4", "accepted 5"]
    );
}

#[actix_web::test]
async fn more_topics_than_consumers_are_served_in_turn() {
    // invariant 8: past router.consumers the longest idle one is retired.
    let log = Log::configured("[router]\nconsumers = 2\nshards = 2");
    for round in 0..3 {
        let answer =
            log.publish(array((0..10).map(|topic| event(&format!("t{topic}"), &round.to_string())))).await;
        assert_eq!(answer.counts(), [10, 10, 0, 0, 0]);
    }
    assert!(log.metric("sekali_consumers").await < 2.5);
    assert_eq!(seqs(&everything(&log, "t7").await), [1, 2, 3]);
}

#[actix_web::test]
async fn small_groups_and_relaxed_durability_answer_alike() {
    for config in ["[store]\ncommit_events = 1", "[store]\ndurability = \"relaxed\"", "[store]\nreaders = 1"]
    {
        let log = Log::configured(config);
        assert_eq!(log.publish(array(ids("t", 0..50))).await.counts(), [50, 50, 0, 0, 0], "{config}");
        assert_eq!(log.publish(array(ids("t", 0..50))).await.counts(), [50, 0, 50, 0, 0], "{config}");
        assert_eq!(everything(&log, "t").await.len(), 50);
    }
    let relaxed = Log::configured("[store]\ndurability = \"relaxed\"");
    assert_eq!(relaxed.read("/stats").await["durability"], "relaxed", "it is said where the store is shown");
}
