//! The pipeline as a whole, on stores that do as they are told.

mod comparing;
mod faults;
mod histories;
mod models;
mod news;
mod on_file;
mod opening;
mod panics;
mod read;
pub(super) mod scheduled;
mod scripted;
mod turns;
mod writers;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::task::Poll;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::future::join_all;

use self::on_file::PATIENCE;
use self::scripted::{Fault, ScriptedStore};
use super::consumer::Consumer;
use super::messages::WithConsumers;
use super::router::Router;
use super::{Pipeline, PublishError};
use crate::config::{Overrides, Settings, TopicSettings, load};
use crate::domain::{Address, Counts, Event, Parts, Verdict};
use crate::metrics::Metrics;
use crate::store::Engine;

fn settings() -> Settings {
    let mut settings = load(None, &Overrides::default()).unwrap();
    settings.router.shards = 2;
    settings
}

struct Started {
    pipeline: Pipeline,
    store: ScriptedStore,
    metrics: Arc<Metrics>,
}

fn start(settings: &Settings) -> Started {
    start_on(settings, ScriptedStore::new())
}

fn start_on(settings: &Settings, store: ScriptedStore) -> Started {
    let metrics = Arc::new(Metrics::new());
    let pipeline = Pipeline::start(settings, Arc::new(store.clone()), Arc::clone(&metrics)).unwrap();
    Started { pipeline, store, metrics }
}

fn event(topic: &str, event_id: &str, payload: &str) -> Event {
    Event::pack(Parts { topic, event_id, timestamp: "2026-01-01 00:00:00", source: "test", payload })
}

async fn publish(pipeline: &Pipeline, events: Vec<Event>) -> Result<Vec<Verdict>, PublishError> {
    let mut permit = pipeline.budget().permit(Address::UNKNOWN);
    permit.charge_events(events.len())?;
    pipeline.publish(events, permit).await
}

impl Started {
    async fn publish(&self, events: Vec<Event>) -> Result<Vec<Verdict>, PublishError> {
        publish(&self.pipeline, events).await
    }

    async fn publish_one(&self, topic: &str, event_id: &str) -> Result<Verdict, PublishError> {
        self.publish(vec![event(topic, event_id, "{}")]).await.map(|verdicts| verdicts[0])
    }

    /// Waits, without a clock, until something is so that other threads make so.
    async fn until(&self, mut is_so: impl FnMut(&Self) -> bool) {
        poll_fn(|context| {
            if is_so(self) {
                return Poll::Ready(());
            }
            std::thread::yield_now();
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Waits until the consumer of this topic has taken in what was published before, by an event that it
    /// knows and so answers by itself.
    async fn until_passed_on(&self, topic: &str, known: &str) {
        let verdict = self.publish_one(topic, known).await;
        assert!(matches!(verdict, Ok(Verdict::Duplicate { .. })), "{verdict:?}");
    }

    fn restarts(&self, actor: &'static str) -> u64 {
        self.metrics.actor_restarts.get_or_create(&crate::metrics::ActorLabels { actor }).get()
    }
}

fn accepted(seq: u64) -> Verdict {
    Verdict::Accepted { seq }
}

fn duplicate(seq: u64) -> Verdict {
    Verdict::Duplicate { seq, conflict: false }
}

#[actix::test]
async fn verdicts_come_in_the_order_of_the_request() {
    let mut settings = settings();
    settings.topics.insert("b".to_owned(), TopicSettings { lanes: Some(3), keys_per_topic: None });
    let log = start(&settings);
    let events =
        vec![event("a", "1", "{}"), event("b", "1", "{}"), event("a", "2", "{}"), event("a", "1", "{}")];
    let verdicts = log.publish(events.clone()).await.unwrap();
    assert_eq!(verdicts, [accepted(1), accepted(1), accepted(2), duplicate(1)]);
    let again = log.publish(events).await.unwrap();
    assert_eq!(again, [duplicate(1), duplicate(1), duplicate(2), duplicate(1)]);
    let many: Vec<_> = (0..100).map(|id| event("b", &format!("x{id}"), "{}")).collect();
    assert!(
        log.publish(many).await.unwrap().iter().all(|verdict| matches!(verdict, Verdict::Accepted { .. }))
    );
    assert_eq!(log.metrics.consumers.get(), 4, "one of a, three of b");
    assert_eq!(log.pipeline.lanes("b"), 3);
    log.pipeline.stop().await;
}

// invariant 1: and invariant 2: nobody is answered before the one commit that all wait for.
#[actix::test]
async fn nothing_is_answered_before_the_commit() {
    let log = start(&settings());
    assert_eq!(log.publish_one("a", "known").await, Ok(accepted(1)));
    log.store.close_gate();
    let publish = |_| log.publish_one("a", "same");
    let mut answers = Box::pin(join_all((0..64).map(publish)));
    assert!(is_pending(&mut answers).await);
    log.until_passed_on("a", "known").await;
    log.store.wait_for_groups(2);
    assert!(is_pending(&mut answers).await, "the event is not stored yet, and neither is it a duplicate");
    assert_eq!(log.metrics.counts(), Counts { accepted: 1, duplicates: 1, ..Counts::default() });
    log.store.open_gate();
    let verdicts: Vec<_> = answers.await.into_iter().map(Result::unwrap).collect();
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == accepted(2)).count(), 1);
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == duplicate(2)).count(), 63);
    assert_eq!(log.metrics.counts(), Counts { accepted: 2, duplicates: 64, ..Counts::default() });
    assert_eq!(log.store.reader().totals().await.unwrap().counts, log.metrics.counts());
    log.pipeline.stop().await;
}

#[actix::test]
async fn what_waits_during_a_commit_is_committed_together() {
    let log = start(&settings());
    log.store.close_gate();
    let names: Vec<_> = (0..20).map(|id| id.to_string()).collect();
    let first = log.publish_one("a", "first");
    let others = join_all(names.iter().map(|id| log.publish_one(id, id)));
    let work = async { tokio::join!(first, others) };
    let open = async {
        log.until(|log| log.store.groups().len() == 1).await;
        log.until(|log| log.metrics.consumers.get() == 21).await;
        log.store.open_gate();
    };
    let ((first, others), ()) = tokio::join!(work, open);
    assert!(first.is_ok() && others.iter().all(Result::is_ok));
    let groups = log.store.groups();
    assert!(groups.len() < 15, "21 requests took {groups:?} commits");
    log.pipeline.stop().await;
}

#[actix::test]
async fn the_store_is_flushed_also_while_there_is_always_more_to_commit() {
    let mut settings = settings();
    settings.store.commit_events = 1;
    let log = start(&settings);
    log.store.fail_next(&vec![Fault::Slow; 20_000]);
    let begun = Instant::now();
    let busy = async |lane: usize| {
        for id in 0.. {
            // Half a second on a machine that is not busy.
            if log.store.flushed() > 0 || begun.elapsed() > PATIENCE {
                break;
            }
            log.publish_one(&lane.to_string(), &id.to_string()).await.unwrap();
        }
    };
    join_all((0..32).map(busy)).await;
    assert!(log.store.flushed() > 0, "no flush within {:?}", begun.elapsed());
    log.pipeline.stop().await;
}

#[actix::test]
async fn an_idle_consumer_is_retired_and_found_again() {
    let mut settings = settings();
    settings.router.idle = Duration::ZERO;
    let log = start(&settings);
    assert_eq!(log.publish_one("a", "1").await, Ok(accepted(1)));
    log.until(|log| log.metrics.consumers.get() == 0).await;
    assert_eq!(log.publish_one("a", "1").await, Ok(duplicate(1)));
    assert_eq!(log.publish_one("a", "2").await, Ok(accepted(2)));
    assert_eq!(log.restarts("consumer"), 0, "retired is not failed");
    log.pipeline.stop().await;
}

// invariant 8: topics may be many, consumers are not.
#[actix::test]
async fn consumers_alive_at_once_are_bounded_and_every_lane_is_served() {
    let mut settings = settings();
    settings.router.consumers = 3;
    let log = start(&settings);
    for round in 0..3 {
        let names: Vec<_> = (0..50).map(|name| format!("topic {name}")).collect();
        let events = names.iter().map(|name| event(name, &round.to_string(), "{}")).collect();
        let verdicts = log.publish(events).await.unwrap();
        assert!(verdicts.iter().all(|verdict| *verdict == accepted(round + 1)), "{verdicts:?}");
        assert!(log.metrics.consumers.get() <= 3);
    }
    log.pipeline.stop().await;
}

// invariant 5: an error is the answer to a fault, and to retire is none.
#[actix::test]
async fn a_consumer_that_is_retired_at_any_moment_loses_no_event() {
    let mut settings = settings();
    settings.router.consumers = 1;
    let log = start(&settings);
    let busy = async |topic: usize| {
        for seq in 1..=1_000 {
            let verdict = log.publish_one(&topic.to_string(), &seq.to_string()).await;
            assert_eq!(verdict, Ok(accepted(seq)), "topic {topic}");
        }
    };
    join_all((0..4).map(busy)).await;
    log.pipeline.stop().await;
}

// invariant 8: no lane gets a second consumer that nobody would ever retire.
#[actix::test]
async fn lanes_that_wait_for_consumers_at_once_get_one_each() {
    let mut settings = settings();
    (settings.router.consumers, settings.router.idle) = (3, Duration::ZERO);
    let log = start(&settings);
    let busy = async |task: usize| {
        for round in 0..200 {
            let topics = (0..4).map(|step| ((task + round * step) % 7).to_string());
            let events = topics.map(|topic| event(&topic, &format!("{task} {round}"), "{}")).collect();
            log.publish(events).await.unwrap();
        }
    };
    join_all((0..8).map(busy)).await;
    log.until(|log| log.metrics.consumers.get() == 0).await;
    assert_eq!(log.restarts("router"), 0);
    log.pipeline.stop().await;
}

/// Keeps an actor busy until the other end of the channel is gone.
#[derive(Message)]
#[rtype(result = "()")]
struct Hold(Receiver<()>);

impl Handler<Hold> for Router {
    type Result = ();

    fn handle(&mut self, Hold(until): Hold, _: &mut Self::Context) {
        let _ = until.recv();
    }
}

impl Handler<Hold> for Consumer {
    type Result = ();

    fn handle(&mut self, Hold(until): Hold, _: &mut Self::Context) {
        let _ = until.recv();
    }
}

/// Keeps a consumer busy after it has looked into its mailbox, and before it looks whether anybody holds its address.
#[derive(Message)]
#[rtype(result = "()")]
struct HoldLate {
    begun: Sender<()>,
    until: Receiver<()>,
}

impl Handler<HoldLate> for Consumer {
    type Result = ();

    fn handle(&mut self, HoldLate { begun, until }: HoldLate, context: &mut Self::Context) {
        let hold = async move {
            begun.send(()).unwrap();
            let _ = until.recv();
        };
        context.spawn(hold.into_actor(self));
    }
}

// invariant 5: to retire is no fault, also where a request comes between the last look into the mailbox and the end.
#[actix::test]
async fn a_consumer_that_is_retired_while_a_request_is_on_its_way_serves_it() {
    let mut settings = settings();
    settings.router.consumers = 1;
    let log = start(&settings);
    assert_eq!(log.publish_one("a", "1").await, Ok(accepted(1)));
    let router = log.pipeline.0.router.address();
    let (let_go, until) = mpsc::channel();
    let (begun, has_begun) = mpsc::channel();
    let mut hold = Some(HoldLate { begun, until });
    router.do_send(WithConsumers(Box::new(move |consumer| {
        hold.take().into_iter().for_each(|hold| consumer.do_send(hold));
    })));
    has_begun.recv().unwrap();
    let mut on_its_way = Box::pin(log.publish_one("a", "2"));
    assert!(is_pending(&mut on_its_way).await);
    // There is room for one consumer, so that this retires the other one.
    let mut next = Box::pin(log.publish_one("b", "1"));
    assert!(is_pending(&mut next).await);
    router.send(WithConsumers(Box::new(|_| panic!("it is not retired")))).await.unwrap();
    drop(let_go);
    assert_eq!(tokio::join!(on_its_way, next), (Ok(accepted(2)), Ok(accepted(1))));
    log.pipeline.stop().await;
}

async fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context).is_pending())).await
}

#[actix::test]
async fn a_lane_that_waits_for_a_consumer_is_served_before_one_that_comes_later() {
    let mut settings = settings();
    settings.router.consumers = 1;
    let log = start(&settings);
    assert_eq!(log.publish_one("first", "1").await, Ok(accepted(1)));
    let router = log.pipeline.0.router.address();
    let (let_consumer_go, consumer_held) = mpsc::channel();
    let mut consumer_held = Some(Hold(consumer_held));
    router.do_send(WithConsumers(Box::new(move |consumer| {
        consumer_held.take().into_iter().for_each(|hold| consumer.do_send(hold));
    })));
    let mut parked = Box::pin(log.publish_one("parked", "1"));
    assert!(is_pending(&mut parked).await);
    let (let_router_go, router_held) = mpsc::channel();
    router.do_send(Hold(router_held));
    let mut late = Box::pin(log.publish_one("late", "1"));
    assert!(is_pending(&mut late).await);
    drop(let_consumer_go);
    // The router finds the late one in its mailbox before it hears that the consumer is gone.
    log.until(|log| log.metrics.consumers.get() == 0).await;
    drop(let_router_go);
    assert_eq!(tokio::join!(parked, late), (Ok(accepted(1)), Ok(accepted(1))));
    assert_eq!(log.store.topics(), ["first", "parked", "late"]);
    log.pipeline.stop().await;
}

#[actix::test]
async fn a_topic_that_waits_for_a_consumer_costs_one_other_its_cache_however_many_requests_it_has() {
    let mut settings = settings();
    settings.router.consumers = 3;
    let log = start(&settings);
    for topic in ["a", "b", "c"] {
        assert_eq!(log.publish_one(topic, "1").await, Ok(accepted(1)));
    }
    let router = log.pipeline.0.router.address();
    // The longest idle one, which is the last; the router's own thread has another one.
    let (let_go, held) = mpsc::channel();
    let mut holds = [None, None, Some(Hold(held))].into_iter();
    router.do_send(WithConsumers(Box::new(move |consumer| {
        holds.next().flatten().into_iter().for_each(|hold| consumer.do_send(hold));
    })));
    let ids: Vec<_> = (0..20).map(|id| id.to_string()).collect();
    let mut waiting = Box::pin(join_all(ids.iter().map(|id| log.publish_one("new", id))));
    assert!(is_pending(&mut waiting).await);
    let (counted, count) = mpsc::channel();
    router.send(WithConsumers(Box::new(move |_| counted.send(()).unwrap()))).await.unwrap();
    assert_eq!(count.iter().count(), 2, "one of three was retired");
    drop(let_go);
    assert!(waiting.await.iter().all(Result::is_ok));
    let commits = log.store.groups().len();
    for topic in ["b", "c"] {
        assert_eq!(log.publish_one(topic, "1").await, Ok(duplicate(1)));
    }
    assert_eq!(log.store.groups().len(), commits, "their caches are as they were");
    log.pipeline.stop().await;
}

#[actix::test]
async fn a_stop_answers_what_is_in_flight_and_refuses_the_rest() {
    let log = start(&settings());
    log.store.close_gate();
    let work = join_all(["1", "2", "3"].map(|id| log.publish_one("a", id)));
    let stop = async {
        log.until(|log| log.store.groups().len() == 1).await;
        let open = async { log.store.open_gate() };
        tokio::join!(log.pipeline.stop(), open);
    };
    let (verdicts, ()) = tokio::join!(work, stop);
    assert!(verdicts.iter().all(Result::is_ok), "{verdicts:?}");
    assert_eq!(log.publish_one("a", "4").await, Err(PublishError::Stopping));
    assert!(!log.pipeline.ready());
}

#[actix::test]
async fn a_stop_lets_go_of_the_store_also_where_the_handle_lives_on() {
    let engine: Arc<dyn Engine> = Arc::new(ScriptedStore::new());
    let pipeline = Pipeline::start(&settings(), Arc::clone(&engine), Arc::default()).unwrap();
    assert!(Arc::strong_count(&engine) > 1);
    pipeline.stop().await;
    assert_eq!(Arc::strong_count(&engine), 1, "its lock is free when the caller drops it");
    drop(pipeline);
}

#[actix::test]
async fn a_caller_that_hangs_up_changes_nothing() {
    let log = start(&settings());
    log.store.close_gate();
    {
        let mut hung_up = Box::pin(log.publish_one("a", "1"));
        poll_fn(|context| Poll::Ready(hung_up.as_mut().poll(context).is_pending())).await;
        log.store.wait_for_groups(1);
    }
    assert_eq!(log.pipeline.budget().events_in_flight(), 1, "the permit travels with the events");
    log.store.open_gate();
    assert_eq!(log.publish_one("a", "1").await, Ok(duplicate(1)));
    log.until(|log| log.pipeline.budget().events_in_flight() == 0).await;
    log.pipeline.stop().await;
}

#[actix_web::test]
async fn what_caches_know_is_not_believed_of_a_store_that_may_be_another_one() {
    // invariant 7: a hot cache may forget; it never invents.
    let log = start(&settings());
    log.publish_one("a", "1").await.unwrap();
    assert_eq!(log.publish_one("a", "1").await, Ok(duplicate(1)));
    assert_eq!(log.store.groups().len(), 1, "the cache knows it");
    log.store.begin_era();
    assert_eq!(log.publish_one("a", "1").await, Ok(duplicate(1)));
    assert_eq!(log.store.groups().len(), 2, "the store was asked");
}
