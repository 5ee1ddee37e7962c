//! A failed or unknown commit, a panic of any actor: an error to who it held, never a false verdict.

use std::sync::Arc;

use actix::prelude::*;
use futures_util::future::join_all;

use super::scripted::{Fault, ScriptedStore};
use super::{Started, accepted, duplicate, event, is_pending, settings, start, start_on};
use crate::domain::{Topic, Verdict};
use crate::metrics::Metrics;
use crate::pipeline::commit::Committer;
use crate::pipeline::consumer::Consumer;
use crate::pipeline::health::Health;
use crate::pipeline::messages::{Close, Panic, WithConsumers};
use crate::pipeline::router::Router;
use crate::pipeline::writer::WriterActor;
use crate::pipeline::{Pipeline, PublishError};
use crate::store::{Batch, Engine};

impl Handler<Panic> for Router {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("on purpose");
    }
}

impl Handler<Panic> for Consumer {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("on purpose");
    }
}

impl Handler<Panic> for WriterActor {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("on purpose");
    }
}

// invariant 5: an error to everyone who waits.
#[actix::test]
async fn a_failed_commit_fails_everyone_who_waits_for_it_and_the_event_is_new_later() {
    for fault in [Fault::Failed, Fault::UnknownLost, Fault::Panic] {
        let log = start(&settings());
        assert_eq!(log.publish_one("a", "0").await, Ok(accepted(1)));
        log.store.fail_next(&[fault]);
        log.store.close_gate();
        let work = join_all((0..8).map(|_| log.publish_one("a", "1")));
        let open = async {
            log.until_passed_on("a", "0").await;
            log.store.open_gate();
        };
        let (answers, ()) = tokio::join!(work, open);
        let failed = |answer: &Result<_, _>| matches!(answer, Err(PublishError::Unavailable(_)));
        assert!(answers.iter().all(failed), "{fault:?} {answers:?}");
        assert_eq!(log.publish_one("a", "1").await, Ok(accepted(2)), "{fault:?}");
        assert_eq!(log.store.opened(), if fault == Fault::Failed { 1 } else { 2 }, "{fault:?}");
        log.pipeline.stop().await;
    }
}

#[actix::test]
async fn an_unknown_commit_that_was_stored_is_a_duplicate_only_when_the_store_says_so() {
    let log = start(&settings());
    log.store.fail_next(&[Fault::UnknownStored]);
    assert!(matches!(log.publish_one("a", "1").await, Err(PublishError::Unavailable(_))));
    assert_eq!(log.publish_one("a", "1").await, Ok(duplicate(1)));
    assert_eq!(log.publish_one("a", "2").await, Ok(accepted(2)));
    log.pipeline.stop().await;
}

#[actix::test]
async fn a_stop_does_not_wait_for_a_store_that_cannot_write_once_for_each_group() {
    let mut settings = settings();
    settings.store.commit_events = 1;
    let log = start(&settings);
    assert_eq!(log.publish_one("a", "0").await, Ok(accepted(1)));
    log.store.fail_next(&[Fault::Failed; 9]);
    log.store.close_gate();
    let work = join_all(["1", "2", "3"].map(|id| log.publish_one("a", id)));
    let stop = async {
        log.until(|log| log.store.groups().len() == 2).await;
        log.until_passed_on("a", "0").await;
        log.pipeline.0.writers.addresses()[0].do_send(Close);
        log.store.open_gate();
    };
    let (answers, ()) = tokio::join!(work, stop);
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    assert_eq!(log.store.groups().len(), 3, "one was stored, one was under way, one was tried");
    log.pipeline.stop().await;
}

#[actix::test]
async fn readiness_follows_the_store() {
    let log = start(&settings());
    log.store.fail_next(&[Fault::Failed]);
    assert!(log.pipeline.ready());
    assert!(log.publish_one("a", "1").await.is_err());
    log.until(|log| log.pipeline.ready()).await;
    assert_eq!(log.metrics.commit_failures.get(), 1);
    log.pipeline.stop().await;
}

#[actix::test]
async fn damage_under_one_batch_fails_no_other_batch_of_its_group() {
    let log = start(&settings());
    log.store.damage("bad");
    log.store.close_gate();
    let first = log.publish_one("first", "1");
    let good = log.publish_one("good", "1");
    let bad = log.publish_one("bad", "1");
    let open = async {
        log.until(|log| log.metrics.consumers.get() == 3).await;
        log.store.open_gate();
    };
    let (first, good, bad, ()) = tokio::join!(first, good, bad, open);
    assert_eq!((first, good), (Ok(accepted(1)), Ok(accepted(1))));
    assert!(matches!(bad, Err(PublishError::Damaged(_))), "{bad:?}");
    assert!(log.pipeline.ready(), "the store can write");
    log.pipeline.stop().await;
}

/// A log in which each address may make one new topic a minute, so that the store is asked which topics are
/// new. It has the topic `held`.
async fn start_with_one_new_topic(store: ScriptedStore) -> Started {
    let mut settings = settings();
    settings.limits.new_topics_per_minute = Some(1);
    let log = start_on(&settings, store);
    assert_eq!(log.publish_one("held", "1").await, Ok(accepted(1)));
    log
}

#[actix::test]
async fn a_damaged_topic_fails_no_other_batch_where_the_store_is_asked_which_topics_are_new() {
    let log = start_with_one_new_topic(ScriptedStore::new()).await;
    log.store.damage("bad");
    log.store.close_gate();
    let mut first = Box::pin(log.publish_one("held", "2"));
    assert!(is_pending(&mut first).await);
    // The others come into one group behind it.
    log.store.wait_for_groups(2);
    let good = log.publish_one("held", "3");
    let bad = log.publish_one("bad", "1");
    let open = async {
        let waits =
            |log: &Started| log.metrics.text(log.pipeline.sample()).unwrap().contains("writer\"} 3\n");
        log.until(waits).await;
        log.store.open_gate();
    };
    let (first, good, bad, ()) = tokio::join!(first, good, bad, open);
    assert_eq!((first, good), (Ok(accepted(2)), Ok(accepted(3))));
    assert!(matches!(bad, Err(PublishError::Damaged(_))), "{bad:?}");
    assert!(log.pipeline.ready(), "the store can write");
    log.pipeline.stop().await;
}

#[actix::test]
async fn a_store_that_does_not_tell_which_topics_are_new_is_a_failure_that_is_counted_and_probed() {
    // With two writers a topic is never reserved without a question, however much time passes.
    let log = start_with_one_new_topic(ScriptedStore::new().with_writers(2)).await;
    log.store.tell_topics(false);
    let failed = log.publish_one("held", "2").await;
    assert!(matches!(failed, Err(PublishError::Unavailable(_))), "{failed:?}");
    assert_eq!(log.metrics.commit_failures.get(), 1);
    log.store.tell_topics(true);
    log.until(|log| log.pipeline.ready()).await;
    assert_eq!(log.publish_one("held", "2").await, Ok(accepted(2)));
    log.pipeline.stop().await;
}

// invariant 5: a topic that something else has locked fails no other, also not one that was only taken for locked.
#[test]
fn a_locked_topic_fails_alone_whatever_is_in_its_group() {
    let (store, metrics, health) = (ScriptedStore::new(), Arc::new(Metrics::new()), Health::good());
    let mut committer = Committer::new(Arc::new(store.clone()), health.clone(), Arc::clone(&metrics));
    store.lock(&["locked", "suspect", "other suspect"]);
    let names = ["good", "suspect", "other suspect", "locked", "good", "locked"];
    let batches: Vec<_> = names.into_iter().zip(["1", "2", "3", "4", "5", "6"]).map(batch).collect();
    let outcomes = committer.commit(&batches.iter().collect::<Vec<_>>());
    let verdicts = outcomes.into_iter().map(|outcome| outcome.ok()?[0].verdict());
    let expected = [Some(1), Some(1), Some(1), None, Some(2), None].map(|seq| seq.map(accepted));
    assert_eq!(verdicts.collect::<Vec<_>>(), expected);
    assert_eq!(store.groups(), [6, 2, 1, 1, 2], "all, all others, and each that was named by itself");
    assert!(health.is_good(), "the store can write");
    assert_eq!(metrics.commit_failures.get(), 1, "what was refused, and not what was split");
    store.lock(&[]);
    let refused = &batches[3];
    let stored = committer.commit(&[refused]).remove(0).unwrap();
    assert_eq!(stored[0].verdict(), Some(accepted(1)), "nothing of it was stored");
}

/// A batch of one event.
pub(super) fn batch((name, id): (&str, &str)) -> Batch {
    Batch { topic: Topic::parse(name).unwrap(), events: vec![event(name, id, "{}")] }
}

fn panic_consumers() -> WithConsumers {
    WithConsumers(Box::new(|consumer| consumer.do_send(Panic)))
}

type Kill = fn(&Pipeline);

#[actix::test]
async fn an_actor_that_panics_is_started_again_and_nothing_is_lost() {
    let panics: [(&str, Kill); 3] = [
        ("router", |pipeline| pipeline.0.router.address().do_send(Panic)),
        ("consumer", |pipeline| pipeline.0.router.address().do_send(panic_consumers())),
        ("writer", |pipeline| pipeline.0.writers.addresses()[0].do_send(Panic)),
    ];
    for (actor, panic) in panics {
        let log = start(&settings());
        assert_eq!(log.publish_one("a", "1").await, Ok(accepted(1)));
        panic(&log.pipeline);
        log.until(|log| log.metrics.consumers.get() == 0 || actor == "writer").await;
        // One request may still meet the actor that is about to die.
        let next = log.publish_one("a", "2").await;
        assert!(matches!(next, Ok(_) | Err(PublishError::ActorFailed)), "{actor}: {next:?}");
        assert!(log.publish_one("a", "2").await.is_ok(), "{actor}");
        assert_eq!(log.publish_one("a", "1").await, Ok(duplicate(1)), "{actor}");
        assert_eq!(log.restarts(actor), 1, "{actor}");
        assert_eq!(log.store.reader().totals().await.unwrap().counts.accepted, 2, "{actor}");
        assert_eq!(log.pipeline.budget().events_in_flight(), 0, "{actor}");
        log.pipeline.stop().await;
    }
}

#[actix::test]
async fn a_consumer_that_dies_while_its_events_are_committed_fails_nobody() {
    let log = start(&settings());
    log.store.close_gate();
    let held = join_all((0..4).map(|_| log.publish(vec![event("a", "1", "{}"), event("b", "1", "{}")])));
    let kill = async {
        log.until(|log| log.store.groups().len() == 1).await;
        log.pipeline.0.router.address().send(panic_consumers()).await.unwrap();
        log.until(|log| log.metrics.consumers.get() == 0).await;
        log.store.open_gate();
    };
    let (answers, ()) = tokio::join!(held, kill);
    let new = |answer: &&Result<Vec<Verdict>, _>| **answer == Ok(vec![accepted(1); 2]);
    assert_eq!(answers.iter().filter(new).count(), 1, "{answers:?}");
    let repeat = |answer: &&Result<Vec<Verdict>, _>| **answer == Ok(vec![duplicate(1); 2]);
    assert_eq!(answers.iter().filter(repeat).count(), 3, "{answers:?}");
    log.pipeline.stop().await;
}
