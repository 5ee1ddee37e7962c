//! Every message between the actors, in the order of an event's way.
//!
//! They are sent with `do_send`, which no mailbox's capacity holds back: what is in flight is bounded before it
//! gets here (see `budget`).

use std::sync::Arc;

use actix::prelude::*;

use super::lane::{Doubts, Lane, Part};
use super::reply::Reply;
use super::undecided::Undecided;
use crate::domain::Event;
use crate::metrics::{CONSUMER, Metrics, Queued};
use crate::store::{Batch, StoreError};

/// To the router: all events of a request.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Publish {
    pub(super) events: Vec<Event>,
    pub(super) reply: Reply,
    pub(super) queued: Queued,
}

/// To a consumer: the events of a request that are its lane's. Those of other lanes of its shard come with them, so
/// that a request of very many topics is one message a shard and not one a topic.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Consume {
    pub(super) shares: Vec<(Arc<Lane>, Share)>,
    /// Where what the caches cannot decide is gathered.
    pub(super) undecided: Undecided,
    pub(super) queued: Queued,
}

impl Consume {
    /// No events yet.
    pub(super) fn new(undecided: Undecided, metrics: &Metrics) -> Self {
        Self { shares: Vec::new(), undecided, queued: metrics.queue(CONSUMER, 0) }
    }

    /// The same with the events of one more lane.
    pub(super) fn with(mut self, lane: Arc<Lane>, share: Share) -> Self {
        self.add(lane, share);
        self
    }

    /// Adds the events of a lane.
    pub(super) fn add(&mut self, lane: Arc<Lane>, share: Share) {
        self.queued.add(share.events.len());
        self.shares.push((lane, share));
    }
}

/// The events of one request and one lane.
#[derive(Default)]
pub(super) struct Share {
    pub(super) events: Vec<Event>,
    /// The index in the request of each event.
    pub(super) indexes: Vec<u32>,
}

/// To the writer: the events of a request that the hot caches could not decide, by lane.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Append {
    pub(super) parts: Vec<(Batch, Part)>,
    pub(super) queued: Queued,
}

/// To the comparer: duplicates of a group that is committed, whose payloads have to be compared.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Compare {
    pub(super) doubts: Vec<Doubts>,
}

/// To the comparer: fail what waits, and whatever comes after this.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Halt;

/// To a consumer, as its last message: stop.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Retire;

/// To the router: a consumer is gone, retired or dead.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Gone;

/// To the writer, by itself: commit what is pending.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Commit;

/// To the writer: commit what is pending and close the store.
#[derive(Message)]
#[rtype(result = "Result<(), StoreError>")]
pub(super) struct Close;

/// To an actor, in tests: panic.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Panic;

/// To the router, in tests: do this with every consumer.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct WithConsumers(pub(super) Act);

#[cfg(test)]
type Act = Box<dyn FnMut(&Addr<super::consumer::Consumer>) + Send>;
