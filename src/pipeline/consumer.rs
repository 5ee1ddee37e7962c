//! A consumer actor: the events of one lane of one topic, and the hot cache of their keys.
//!
//! It never waits for the writer, which would end group commit: it passes on what its cache cannot decide and
//! takes the next message; the verdicts come back as a message too.

use std::sync::Arc;

use actix::prelude::*;

use super::error::PublishError;
use super::hot_cache::{Hasher, HotCache, Known, Waiter, repeated};
use super::keeper::Keeper;
use super::messages::{Append, Consume, Gone, Passed, PassedEvent, Retire, Settled, WayBack};
use super::reply::Reply;
use super::router::Router;
use super::writer::WriterActor;
use crate::domain::{Counts, Event, Topic, Verdict};
use crate::metrics::Metrics;
use crate::store::{Batch, Tally};

/// What a consumer shares with all others.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) writer: Arc<Keeper<WriterActor>>,
    pub(super) hasher: Hasher,
    pub(super) tally: Arc<Tally>,
    pub(super) metrics: Arc<Metrics>,
}

/// The actor of one lane.
pub(super) struct Consumer {
    topic: Topic,
    cache: HotCache,
    shared: Shared,
    /// Batches that were passed on and not settled yet.
    unsettled: usize,
    retiring: bool,
    _alive: Alive,
}

/// Counts a consumer as alive, and tells its router when it is gone, however it went.
pub(super) struct Alive {
    metrics: Arc<Metrics>,
    router: Addr<Router>,
}

impl Alive {
    pub(super) fn new(metrics: Arc<Metrics>, router: Addr<Router>) -> Self {
        metrics.consumers.inc();
        Self { metrics, router }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.metrics.consumers.dec();
        self.router.do_send(Gone);
    }
}

impl Consumer {
    pub(super) fn new(topic: Topic, cache: HotCache, shared: Shared, alive: Alive) -> Self {
        Self { topic, cache, shared, unsettled: 0, retiring: false, _alive: alive }
    }

    /// Decides what the cache knows; gives back the rest, to be passed on.
    fn decide_known(&mut self, Consume { events, indexes, reply }: Consume) -> (Vec<Event>, Passed) {
        let (mut rest, mut passed) = (Vec::with_capacity(events.len()), Vec::with_capacity(events.len()));
        let mut decided = Vec::new();
        for (event, index) in events.into_iter().zip(indexes) {
            let key = self.shared.hasher.key(&event);
            let marked = match self.cache.ask(key, || Waiter { reply: reply.clone(), index }) {
                Known::Stored(verdict) => {
                    report_conflict(&event, verdict);
                    decided.push((index, verdict));
                    continue;
                }
                Known::Waits => continue,
                Known::Marked => true,
                Known::Nothing => false,
            };
            rest.push(event);
            passed.push(PassedEvent { index, key, marked });
        }
        self.answer(&reply, decided);
        (rest, Passed { reply, events: passed })
    }

    /// Answers duplicates that the writer does not see, after counting them.
    fn answer(&self, reply: &Reply, decided: Vec<(u32, Verdict)>) {
        if decided.is_empty() {
            return;
        }
        let mut counts = Counts::default();
        for (_, verdict) in &decided {
            counts.count(*verdict);
        }
        self.shared.tally.count(&self.topic, counts);
        self.shared.metrics.cache_hits.inc_by(decided.len() as u64);
        reply.decide(decided);
    }

    /// Gives verdicts to the events that were passed on, and to who waits for them.
    fn settle(&mut self, passed: &Passed, verdicts: &[Verdict]) {
        debug_assert_eq!(passed.events.len(), verdicts.len(), "a verdict for each event");
        for (PassedEvent { key, marked, .. }, verdict) in passed.events.iter().zip(verdicts) {
            if *marked {
                let waiters = self.cache.settle(*key, Some(*verdict));
                self.answer_waiters(waiters, *verdict);
            } else {
                self.cache.learn(*key, *verdict);
            }
        }
        let indexes = passed.events.iter().map(|event| event.index);
        passed.reply.decide(indexes.zip(verdicts.iter().copied()));
    }

    fn answer_waiters(&self, waiters: Vec<Waiter>, first: Verdict) {
        for Waiter { reply, index } in waiters {
            if let Verdict::Refused(_) = first {
                self.shared.tally.reject(1);
                reply.decide([(index, first)]);
            } else {
                self.answer(&reply, vec![(index, repeated(first))]);
            }
        }
    }

    /// Fails the events that were passed on, and who waits for them: whether they are stored is not known.
    fn fail(&mut self, passed: &Passed, error: &PublishError) {
        passed.reply.fail(error);
        for PassedEvent { key, .. } in passed.events.iter().filter(|event| event.marked) {
            for waiter in self.cache.settle(*key, None) {
                waiter.reply.fail(error);
            }
        }
    }

    /// Whether nothing comes any more: `Retire` was the last message of the router.
    fn is_done(&self) -> bool {
        self.retiring && self.unsettled == 0
    }

    fn stop_if_done(&self, context: &mut Context<Self>) {
        if self.is_done() {
            context.stop();
        }
    }
}

/// One line for each conflict; never the payload.
pub(super) fn report_conflict(event: &Event, verdict: Verdict) {
    if let Verdict::Duplicate { seq, conflict: true } = verdict {
        let (topic, event_id) = (event.topic(), event.event_id());
        tracing::warn!(
            topic,
            event_id,
            seq,
            "conflict: the event is stored with another payload, which stays"
        );
    }
}

impl Actor for Consumer {
    type Context = Context<Self>;

    /// actix would stop an actor as soon as nobody holds its address, and with it lose the messages that came
    /// between its last look into the mailbox and that moment: the router's last ones, the writer's verdicts.
    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        if self.is_done() { Running::Stop } else { Running::Continue }
    }
}

impl Handler<Consume> for Consumer {
    type Result = ();

    fn handle(&mut self, work: Consume, context: &mut Self::Context) {
        let (events, passed) = self.decide_known(work);
        if events.is_empty() {
            return;
        }
        self.unsettled += 1;
        let batch = Batch { topic: self.topic.clone(), events };
        let way_back = WayBack::new(context.address(), passed);
        self.shared.writer.address().do_send(Append { batch, way_back });
    }
}

impl Handler<Settled> for Consumer {
    type Result = ();

    fn handle(&mut self, Settled { passed, outcome }: Settled, context: &mut Self::Context) {
        self.unsettled -= 1;
        match outcome {
            Ok(verdicts) => self.settle(&passed, &verdicts),
            Err(error) => self.fail(&passed, &error),
        }
        self.stop_if_done(context);
    }
}

impl Handler<Retire> for Consumer {
    type Result = ();

    fn handle(&mut self, _: Retire, context: &mut Self::Context) {
        self.retiring = true;
        self.stop_if_done(context);
    }
}
