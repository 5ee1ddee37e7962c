//! A store that another program has locked: writes are refused honestly, reads go on, everything recovers.

use futures_util::future::{join, join_all};
use sekali::api::Code;

use crate::support::{Log, array, event, event_with, everything, ids, until};

const IMPATIENT: &str = "[store]\nlock_timeout = \"100ms\"";

#[actix_web::test]
async fn a_locked_store_is_503_and_the_same_event_is_accepted_once_it_is_free() {
    // invariant 5: a failed commit is an error, never a duplicate, never a success.
    let log = Log::configured(IMPATIENT);
    log.publish(event("t", "before")).await.ok();
    let locked = log.locked();
    for _ in 0..2 {
        log.publish(event("t", "1")).await.problem(Code::StoreUnavailable);
    }
    drop(locked);
    assert_eq!(log.publish(event("t", "1")).await.fates(), ["accepted 2"]);
    assert_eq!(log.publish(event("t", "1")).await.fates(), ["duplicate 2"]);
    assert_eq!(log.totals("persistent").await, [3, 2, 1, 0, 0], "what failed was not counted");
    assert_eq!(log.totals("runtime").await, [3, 2, 1, 0, 0]);
}

#[actix_web::test]
async fn while_the_store_is_locked_reads_go_on() {
    let log = Log::configured(IMPATIENT);
    log.publish(array(ids("t", 0..3))).await.ok();
    let _locked = log.locked();
    log.publish(event("t", "new")).await.problem(Code::StoreUnavailable);
    assert_eq!(everything(&log, "t").await.len(), 3);
    assert_eq!(log.read("/events/t/1").await["seq"], 2);
    assert_eq!(log.read("/topics/t").await["accepted"], 3);
    assert_eq!(log.totals("persistent").await, [3, 3, 0, 0, 0]);
    assert_eq!(log.read("/health/live").await["status"], "ok");
}

#[actix_web::test]
async fn readiness_goes_with_the_lock_and_comes_back_by_itself() {
    let log = Log::configured(IMPATIENT);
    assert!(log.is_ready().await);
    let locked = log.locked();
    log.publish(event("t", "1")).await.problem(Code::StoreUnavailable);
    log.get("/health/ready").await.problem(Code::StoreUnavailable);
    log.get("/health").await.problem(Code::StoreUnavailable);
    drop(locked);
    until("the log is ready without any publish", async || log.is_ready().await).await;
    assert_eq!(log.publish(event("t", "1")).await.fates(), ["accepted 1"]);
}

#[actix_web::test]
async fn a_lock_shorter_than_the_timeout_only_delays_the_answer() {
    let log = Log::configured("[store]\nlock_timeout = \"30s\"");
    let locked = log.locked();
    let publishing = log.publish(event("t", "1"));
    let unlocking = async {
        until("the event waits for its commit", async || log.metric("sekali_in_flight_events").await > 0.5)
            .await;
        drop(locked);
    };
    assert_eq!(join(publishing, unlocking).await.0.fates(), ["accepted 1"]);
    assert!(log.is_ready().await);
}

#[actix_web::test]
async fn whoever_waits_for_a_commit_that_fails_gets_the_error_too() {
    // invariant 2: a duplicate is acknowledged only when the event that it repeats is durable.
    // invariant 5: everyone who waits for a failed commit gets the error.
    let log = Log::configured("[store]\nlock_timeout = \"300ms\"");
    let locked = log.locked();
    let clients: Vec<_> = (0..8).map(|_| log.another_client()).collect();
    for answer in join_all(clients.iter().map(|client| client.publish(event("t", "1")))).await {
        answer.problem(Code::StoreUnavailable);
    }
    drop(locked);
    assert!(everything(&log, "t").await.is_empty());
    let mut fates = Vec::new();
    for answer in join_all(clients.iter().map(|client| client.publish(event("t", "1")))).await {
        fates.extend(answer.fates());
    }
    fates.sort();
    assert_eq!((&*fates[0], &*fates[7]), ("accepted 1", "duplicate 1"));
}

#[actix_web::test]
async fn duplicates_that_a_cache_knows_are_answered_while_the_store_is_locked_and_counted_later() {
    let log = Log::configured(IMPATIENT);
    log.publish(event("t", "1")).await.ok();
    let locked = log.locked();
    assert_eq!(log.publish(event("t", "1")).await.fates(), ["duplicate 1"]);
    assert_eq!(log.totals("persistent").await, [2, 1, 1, 0, 0], "read your writes");
    log.publish(event_with("t", "1", "{\"n\":1}")).await.problem(Code::StoreUnavailable);
    drop(locked);
    assert_eq!(log.restarted().totals("persistent").await, [2, 1, 1, 0, 0], "it is stored when it can be");
}

#[actix_web::test]
async fn a_publish_that_is_not_decided_in_time_is_503_and_still_stored_later() {
    let log = Log::configured("[server]\nrequest_timeout = \"200ms\"\n[store]\nlock_timeout = \"30s\"");
    let locked = log.locked();
    log.publish(event("t", "1")).await.problem(Code::StoreUnavailable);
    drop(locked);
    until("the event is stored", async || !everything(&log, "t").await.is_empty()).await;
    assert_eq!(log.publish(event("t", "1")).await.fates(), ["duplicate 1"]);
    assert_eq!(log.totals("runtime").await, [2, 1, 1, 0, 0]);
}
