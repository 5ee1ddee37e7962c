//! The writer actor: the one place where events are stored, on a thread of its own.
//!
//! It takes what is waiting, commits it in one transaction, answers everyone in it and looks again: under light
//! load a commit holds one request, under heavy load thousands, and no timer adds latency.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::commit::{BatchOutcome, Committer};
use super::comparer::Comparer;
use super::error::PublishError;
use super::keeper::Keeper;
use super::lane::Part;
use super::messages::{Append, Close, Commit, Compare};
use super::new_topics::{NewTopics, TopicOutcome};
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
    /// The limit of new topics for each address, where there is one.
    new_topics: Option<NewTopics>,
    scheduled: bool,
    maintained: Instant,
}

impl WriterActor {
    pub(super) fn new(
        committer: Committer,
        pending: Pending<(Part, Arc<Queued>)>,
        news: Arc<News>,
        comparer: Arc<Keeper<Comparer>>,
        new_topics: Option<NewTopics>,
    ) -> Self {
        let (scheduled, maintained) = (false, Instant::now());
        Self { committer, pending, news, comparer, new_topics, scheduled, maintained }
    }

    fn maintain(&mut self) {
        self.committer.maintain();
        self.maintained = Instant::now();
    }

    /// invariant 1: the answers follow the commit, and the commit follows the sync. Who follows a topic is told after
    /// that: they may be many, and answers do not wait for them. Payloads that differ are compared elsewhere.
    fn commit_next_group(&mut self) {
        let (batches, parts) = self.pending.next_group();
        #[cfg(test)]
        pass(Moment::Commit);
        let outcomes = self.commit(&batches, &parts);
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

    /// Commits a group without the batches of new topics that are too many for their address.
    fn commit(&mut self, batches: &[Batch], parts: &[(Part, Arc<Queued>)]) -> Vec<BatchOutcome> {
        let Some(new_topics) = self.new_topics else {
            return self.committer.commit(&batches.iter().collect::<Vec<_>>());
        };
        let brought: Option<Vec<_>> = batches
            .iter()
            .zip(parts)
            .map(|(batch, (part, _))| part.made().map(|made| (&batch.topic, made)))
            .collect();
        let brought = brought.unwrap_or_default();
        let (admission, undecided) =
            new_topics.admit(&brought, Instant::now(), |topics| self.committer.missing(topics));
        let mut failed = HashMap::new();
        if let Some((error, places)) = undecided {
            failed.extend(places.into_iter().map(|place| (place, error.clone())));
        }
        let refused = (0..batches.len()).filter_map(|place| Some((place, admission.refused(place)?)));
        failed.extend(refused.map(|(place, seconds)| (place, PublishError::TooManyTopics { seconds })));
        let admitted = batches.iter().enumerate().filter(|(place, _)| !failed.contains_key(place));
        let group: Vec<_> = admitted.map(|(_, batch)| batch).collect();
        let unknown_before = self.committer.unknown_commits();
        let committed = if group.is_empty() { Vec::new() } else { self.committer.commit(&group) };
        let is_known = self.committer.unknown_commits() == unknown_before;
        let mut committed = committed.into_iter();
        let next = |place| failed.get(&place).map(|error| Err(error.clone())).or_else(|| committed.next());
        let outcomes: Vec<_> = (0..batches.len()).map_while(next).collect();
        let what_became = |place: usize| match outcomes.get(place) {
            Some(outcome) if makes_topic(outcome) => TopicOutcome::Made,
            Some(Err(_)) if !is_known && !failed.contains_key(&place) => TopicOutcome::Unknown,
            Some(_) => TopicOutcome::Unchanged,
            None => TopicOutcome::Unknown,
        };
        admission.settle(what_became, Instant::now());
        outcomes
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

/// The seqs of the events of a batch that are new.
fn accepted(outcome: &BatchOutcome) -> impl DoubleEndedIterator<Item = u64> + '_ {
    outcome.iter().flatten().filter_map(|finding| match finding.verdict() {
        Some(Verdict::Accepted { seq }) => Some(seq),
        Some(Verdict::Duplicate { .. } | Verdict::Refused(_)) | None => None,
    })
}

/// Whether a batch brought the first event of its topic.
fn makes_topic(outcome: &BatchOutcome) -> bool {
    accepted(outcome).next() == Some(1)
}

/// The last new seq of each batch that has one.
fn fresh(batches: &[Batch], outcomes: &[BatchOutcome]) -> Vec<(Topic, u64)> {
    let last = |outcome: &BatchOutcome| accepted(outcome).next_back();
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
            self.pending.push(part.address(), batch, (part, Arc::clone(&queued)));
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
