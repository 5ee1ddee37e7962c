//! Payloads that differ in bytes: compared after the commit, by nobody but the comparer, and held up by nobody else.

use std::time::Duration;

use tokio::sync::mpsc;

use super::read::ReadFault;
use super::{Started, accepted, duplicate, event, is_pending, publish, settings, start};
use crate::config::TopicSettings;
use crate::domain::{Address, Counts, Event, Topic, Verdict};
use crate::pipeline::PublishError;
use crate::store::Engine;
use crate::testing::{Moment, arm};

fn conflict(seq: u64) -> Verdict {
    Verdict::Duplicate { seq, conflict: true }
}

/// Events with these payloads, all of one key.
fn of_key(topic: &str, id: &str, payloads: &[&str]) -> Vec<Event> {
    payloads.iter().map(|payload| event(topic, id, payload)).collect()
}

impl Started {
    /// What the store has counted.
    async fn counted(&self) -> Counts {
        self.store.reader().totals().await.unwrap().counts
    }
}

#[actix::test]
async fn only_the_verdict_that_needs_a_comparison_waits_for_it() {
    let log = start(&settings());
    assert_eq!(log.publish_one("a", "1").await, Ok(accepted(1)));
    log.store.reads().close_gate();
    let mixed = vec![event("a", "1", r#"{"n":1}"#), event("a", "2", "{}"), event("b", "1", "{}")];
    let mut waits = Box::pin(log.publish(mixed));
    assert!(is_pending(&mut waits).await);
    log.until(|log| log.store.reads().asked().len() == 1).await;
    // The same event waits too; any other is answered, by the writer and by the caches.
    let mut same = Box::pin(log.publish(of_key("a", "1", &[r#"{"n":1}"#])));
    assert!(is_pending(&mut same).await);
    for seq in 3..10 {
        assert_eq!(log.publish_one("a", &seq.to_string()).await, Ok(accepted(seq)));
    }
    assert_eq!(log.publish_one("a", "1").await, Ok(duplicate(1)));
    assert_eq!(log.publish_one("a", "2").await, Ok(duplicate(2)), "what stands beside it is stored");
    assert!(is_pending(&mut waits).await && is_pending(&mut same).await);
    let Counts { duplicates, conflicts, .. } = log.counted().await;
    assert_eq!((duplicates, conflicts), (2, 0), "an event without a verdict is not counted");
    log.store.reads().open_gate();
    assert_eq!(waits.await, Ok(vec![conflict(1), accepted(2), accepted(1)]));
    assert_eq!(same.await, Ok(vec![conflict(1)]));
    assert_eq!(log.counted().await, log.metrics.counts(), "read your writes");
    log.pipeline.stop().await;
}

#[actix::test]
async fn the_writer_compares_nothing() {
    let log = start(&settings());
    assert_eq!(log.publish_one("a", "1").await, Ok(accepted(1)));
    let writer = log.pipeline.shards();
    let (tell, mut told) = mpsc::unbounded_channel();
    // It would panic at its first comparison.
    log.pipeline.0.threads.lock().unwrap()[writer].spawn_fn(move || arm(Moment::Compare, 0, tell));
    for round in 0..20 {
        let other = format!(r#"{{"n":{round}}}"#);
        let events = of_key("a", "1", &[&other, "{ }", &other]);
        let verdicts = log.publish(events).await.unwrap();
        assert_eq!(verdicts, [conflict(1), duplicate(1), conflict(1)]);
    }
    assert!(told.try_recv().is_err(), "it has compared");
    let writers: Vec<_> = log.store.appended().into_iter().map(|(_, thread)| thread).collect();
    let reads = log.store.reads().asked();
    assert!(reads.len() >= 20 && reads.iter().all(|(_, thread)| !writers.contains(thread)));
    log.pipeline.stop().await;
}

#[actix::test]
async fn a_conflict_with_an_event_of_the_same_request_is_one() {
    let log = start(&settings());
    let payloads = [r#"{"n":1}"#, r#"{"n":1.0}"#, r#"{"n":2}"#, r#"{"n":1}"#];
    let verdicts = log.publish(of_key("a", "1", &payloads)).await;
    assert_eq!(verdicts, Ok(vec![accepted(1), duplicate(1), conflict(1), duplicate(1)]));
    assert_eq!(log.counted().await, Counts { accepted: 1, duplicates: 3, conflicts: 1, rejected: 0 });
    log.pipeline.stop().await;
}

// invariant 5: what cannot be compared fails who asked, and nobody else; and it is counted when it is sent again.
#[actix::test]
async fn a_comparison_that_fails_is_an_error_and_no_verdict() {
    for (fault, is_damage) in
        [(ReadFault::Unavailable, false), (ReadFault::Damaged, true), (ReadFault::NoJson, true)]
    {
        let log = start(&settings());
        assert_eq!(log.publish_one("a", "1").await, Ok(accepted(1)));
        log.store.reads().fail_next(&[fault]);
        let events = vec![event("a", "2", "{}"), event("a", "1", r#"{"n":1}"#)];
        let error = log.publish(events.clone()).await.unwrap_err();
        match &error {
            PublishError::Damaged(_) => assert!(is_damage, "{fault:?}"),
            PublishError::Unavailable(_) => assert!(!is_damage, "{fault:?}"),
            _ => panic!("{fault:?}: {error:?}"),
        }
        assert_eq!(log.counted().await, Counts { accepted: 2, ..Counts::default() }, "{fault:?}");
        assert!(log.pipeline.ready(), "{fault:?}: the store can write");
        assert_eq!(log.publish(events).await, Ok(vec![duplicate(2), conflict(1)]), "{fault:?}");
        assert_eq!(log.restarts("comparer") + log.restarts("writer"), 0, "{fault:?}");
        log.pipeline.stop().await;
    }
}

#[actix::test]
async fn one_payload_that_is_damaged_does_not_keep_others_from_their_verdicts() {
    let log = start(&settings());
    let first = ["1", "2"].map(|id| event("a", id, "{}"));
    log.publish(first.to_vec()).await.unwrap();
    // Two requests wait for the first event's verdict or the second one's, and the comparison of one lane reads both.
    log.store.reads().fail_next(&[ReadFault::Damaged, ReadFault::NoJson]);
    log.store.reads().close_gate();
    let mut both = Box::pin(log.publish(["1", "2"].map(|id| event("a", id, r#"{"n":1}"#)).to_vec()));
    assert!(is_pending(&mut both).await);
    log.until(|log| log.store.reads().asked().len() == 1).await;
    let mut second = Box::pin(log.publish(vec![event("a", "2", r#"{"n":1}"#)]));
    assert!(is_pending(&mut second).await);
    log.until_passed_on("a", "2").await;
    log.store.reads().open_gate();
    assert!(matches!(both.await, Err(PublishError::Damaged(_))));
    assert_eq!(second.await, Ok(vec![conflict(2)]), "its payload is whole");
    log.pipeline.stop().await;
}

// invariant 2: a duplicate is acknowledged only where its event is, and after a takeover nobody knows that.
#[actix::test]
async fn what_was_committed_to_a_store_that_is_another_one_by_now_is_sent_again() {
    let log = start(&settings());
    assert_eq!(log.publish_one("a", "1").await, Ok(accepted(1)));
    log.store.reads().close_gate();
    let events = of_key("a", "1", &[r#"{"n":1}"#]);
    let mut waits = Box::pin(log.publish(events.clone()));
    assert!(is_pending(&mut waits).await);
    log.until(|log| log.store.reads().asked().len() == 1).await;
    log.store.begin_era();
    log.store.reads().open_gate();
    let error = waits.await.unwrap_err();
    assert!(matches!(error, PublishError::Unavailable(_)), "{error:?}");
    assert_eq!(log.counted().await.duplicates, 0);
    assert_eq!(log.publish(events).await, Ok(vec![conflict(1)]));
    log.pipeline.stop().await;
}

#[actix::test]
async fn requests_take_turns_however_much_each_has_to_be_compared() {
    const LARGE: usize = 5_000;
    let mut settings = settings();
    settings.topics.insert("large".to_owned(), TopicSettings { lanes: Some(2), keys_per_topic: None });
    let log = start(&settings);
    let ids: Vec<_> = (0..LARGE).map(|id| format!("large {id}")).collect();
    let of_large = |payload| ids.iter().map(|id| event("large", id, payload)).collect::<Vec<_>>();
    log.publish(of_large("{}")).await.unwrap();
    for (seq, id) in (1..).zip(["small", "later"]) {
        assert_eq!(log.publish_one("small", id).await, Ok(accepted(seq)));
    }
    log.store.reads().close_gate();
    let mut large = Box::pin(log.publish(of_large(r#"{"n":1}"#)));
    assert!(is_pending(&mut large).await);
    log.until(|log| log.store.reads().asked().len() == 1).await;
    let waiting = async |count: &str| {
        let words = format!("comparer\"}} {count}");
        log.until(|log| log.metrics.text(log.pipeline.sample()).unwrap().contains(&words)).await;
    };
    let mut small = Box::pin(log.publish(of_key("small", "small", &["[1]"])));
    assert!(is_pending(&mut small).await);
    waiting("5001").await;
    let mut later = Box::pin(log.publish(of_key("small", "later", &["[1]"])));
    assert!(is_pending(&mut later).await);
    waiting("5002").await;
    log.store.reads().open_gate();
    assert!(
        large
            .await
            .unwrap()
            .into_iter()
            .all(|verdict| matches!(verdict, Verdict::Duplicate { conflict: true, .. }))
    );
    assert_eq!((small.await, later.await), (Ok(vec![conflict(1)]), Ok(vec![conflict(2)])));
    let reads: Vec<_> = log.store.reads().asked().into_iter().map(|(ids, _)| ids).collect();
    assert!(reads.iter().all(|ids| ids.len() <= 1_000), "a turn is bounded");
    let turn = reads.iter().position(|ids| ids == &["small"]).unwrap();
    assert!(turn <= 2 && reads.len() > 5, "the turn of the small one was {turn} of {}", reads.len());
    let later_turn = reads.iter().position(|ids| ids == &["later"]).unwrap();
    assert!(turn < later_turn && later_turn <= 4, "who comes first has the first turn: {turn}, {later_turn}");
    log.pipeline.stop().await;
}

#[actix::test]
async fn a_stop_does_not_wait_for_a_comparison_for_ever_and_counts_nothing_after_it() {
    let mut settings = settings();
    settings.server.shutdown_timeout = Duration::from_millis(50);
    let log = start(&settings);
    assert_eq!(log.publish_one("a", "1").await, Ok(accepted(1)));
    log.store.reads().close_gate();
    let mut waits = Box::pin(publish(&log.pipeline, of_key("a", "1", &[r#"{"n":1}"#])));
    assert!(is_pending(&mut waits).await);
    log.until(|log| log.store.reads().asked().len() == 1).await;
    log.pipeline.stop().await;
    assert_eq!(waits.await, Err(PublishError::ActorFailed));
    log.store.reads().open_gate();
    let topic = Topic::parse("a").unwrap();
    let counts = log.store.reader().topic(topic).await.unwrap().unwrap().counts;
    assert_eq!(counts, Counts { accepted: 1, ..Counts::default() });
}

// One address with very many requests has one turn for each turn of another address.
#[actix::test]
async fn addresses_take_turns_however_many_requests_each_has_in_flight() {
    const FLOOD: usize = 50;
    let log = start(&settings());
    let flood: Vec<_> = (0..FLOOD).map(|id| format!("flood {id}")).collect();
    let ids = || flood.iter().map(String::as_str).chain(["one", "two", "three"]);
    log.publish(ids().map(|id| event("a", id, "{}")).collect()).await.unwrap();
    let publish_of = |last: u8, id: &str| {
        let events = of_key("a", id, &[r#"{"n":1}"#]);
        let mut permit = log.pipeline.budget().permit(Address::of([192, 0, 2, last].into()));
        permit.charge_events(events.len()).unwrap();
        Box::pin(log.pipeline.publish(events, permit))
    };
    log.store.reads().close_gate();
    let mut requests = Vec::new();
    // The first one is being compared; of the others each waits before the next comes.
    for (came, (id, last)) in (1..).zip(ids().zip([1; FLOOD].into_iter().chain([2; 3]))) {
        let mut request = publish_of(last, id);
        assert!(is_pending(&mut request).await);
        let words = format!("comparer\"}} {came}");
        log.until(|log| log.metrics.text(log.pipeline.sample()).unwrap().contains(&words)).await;
        requests.push(request);
    }
    log.store.reads().open_gate();
    for request in requests {
        assert!(matches!(request.await.unwrap()[..], [Verdict::Duplicate { conflict: true, .. }]));
    }
    let reads: Vec<_> = log.store.reads().asked().into_iter().flat_map(|(ids, _)| ids).collect();
    let turns = ["one", "two", "three"].map(|id| reads.iter().position(|read| read == id).unwrap());
    // The first turn was given before anyone else came, and the second one was next already.
    assert_eq!(turns, [2, 4, 6], "of {} turns", reads.len());
    assert_eq!(reads.len(), FLOOD + 3);
    log.pipeline.stop().await;
}
