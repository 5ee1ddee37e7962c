//! The writer actor: the one place where events are stored, on a thread of its own.
//!
//! It takes what is waiting, commits it in one transaction, answers everyone in it and looks again: under light
//! load a commit holds one request, under heavy load thousands, and no timer adds latency.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::commit::{BatchOutcome, Committer};
use super::comparer::Comparer;
use super::keeper::Keeper;
use super::lane::Part;
use super::messages::{Append, Close, Commit, Compare};
use super::pending::Pending;
use crate::domain::{Topic, Verdict};
use crate::metrics::Queued;
use crate::store::{Batch, News, StoreError};
#[cfg(test)]
use crate::testing::{Moment, pass};

/// How often counts that wait in memory are stored and a failed store is tried again: half of the second by
/// which the contract lets persistent duplicate counts lag.
const MAINTENANCE: Duration = Duration::from_millis(500);

/// The actor.
pub(super) struct WriterActor {
    committer: Committer,
    pending: Pending<(Part, Arc<Queued>)>,
    news: Arc<News>,
    comparer: Arc<Keeper<Comparer>>,
    scheduled: bool,
    maintained: Instant,
}

impl WriterActor {
    pub(super) fn new(
        committer: Committer,
        pending: Pending<(Part, Arc<Queued>)>,
        news: Arc<News>,
        comparer: Arc<Keeper<Comparer>>,
    ) -> Self {
        Self { committer, pending, news, comparer, scheduled: false, maintained: Instant::now() }
    }

    fn maintain(&mut self) {
        self.committer.maintain();
        self.maintained = Instant::now();
    }

    /// invariant 1: the answers follow the commit, and the commit follows the sync. Who follows a topic is told after
    /// that: they may be many, and answers do not wait for them. Payloads that differ are compared elsewhere.
    fn commit_next_group(&mut self) {
        let (batches, parts) = self.pending.next_group();
        let group: Vec<_> = batches.iter().collect();
        #[cfg(test)]
        pass(Moment::Commit);
        let outcomes = self.committer.commit(&group);
        debug_assert_eq!(outcomes.len(), parts.len(), "an outcome for each batch");
        let fresh = if self.news.anybody_listens() { fresh(&batches, &outcomes) } else { Vec::new() };
        let settled = batches.into_iter().zip(parts).zip(outcomes);
        let doubts: Vec<_> = settled
            .filter_map(|((batch, (part, _queued)), outcome)| part.settle(batch.events, outcome))
            .collect();
        if !doubts.is_empty() {
            self.comparer.address().do_send(Compare { doubts });
        }
        if !fresh.is_empty() {
            self.news.announce(fresh.iter().map(|(topic, last)| (topic, *last)));
        }
    }

    /// Comes back once the messages that arrived meanwhile are taken in: actix handles a mailbox before it
    /// handles what an actor notifies itself of.
    fn schedule(&mut self, context: &mut Context<Self>) {
        if !self.scheduled && !self.pending.is_empty() {
            self.scheduled = true;
            context.notify(Commit);
        }
    }
}

/// The last new seq of each batch that has one.
fn fresh(batches: &[Batch], outcomes: &[BatchOutcome]) -> Vec<(Topic, u64)> {
    let last = |outcome: &BatchOutcome| {
        outcome.as_ref().ok()?.iter().rev().find_map(|finding| match finding.verdict() {
            Some(Verdict::Accepted { seq }) => Some(seq),
            Some(Verdict::Duplicate { .. } | Verdict::Refused(_)) | None => None,
        })
    };
    let pairs = batches.iter().zip(outcomes);
    pairs.filter_map(|(batch, outcome)| Some((batch.topic.clone(), last(outcome)?))).collect()
}

impl Actor for WriterActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(MAINTENANCE, |writer, _| writer.maintain());
    }
}

impl Handler<Append> for WriterActor {
    type Result = ();

    fn handle(&mut self, Append { parts, queued }: Append, context: &mut Self::Context) {
        let queued = Arc::new(queued);
        for (batch, part) in parts {
            self.pending.push(batch, (part, Arc::clone(&queued)));
        }
        self.schedule(context);
    }
}

impl Handler<Commit> for WriterActor {
    type Result = ();

    fn handle(&mut self, _: Commit, context: &mut Self::Context) {
        self.scheduled = false;
        self.commit_next_group();
        // While there is always more to commit, actix never comes to look at the clock. A store that cannot
        // write is probed by the commits themselves.
        if self.committer.can_write() && self.maintained.elapsed() >= MAINTENANCE {
            self.maintain();
        }
        self.schedule(context);
    }
}

impl Handler<Close> for WriterActor {
    type Result = Result<(), StoreError>;

    fn handle(&mut self, _: Close, context: &mut Self::Context) -> Self::Result {
        while !self.pending.is_empty() {
            self.commit_next_group();
            if !self.committer.can_write() {
                // Each further group would wait for a locked store as long again.
                break;
            }
        }
        context.stop();
        self.committer.close()
    }
}
