//! Every message between the actors, in the order of an event's way.
//!
//! They are sent with `do_send`, which no mailbox's capacity holds back: what is in flight is bounded before it
//! gets here (see `budget`).

use actix::prelude::*;

use super::consumer::Consumer;
use super::error::PublishError;
use super::hot_cache::Key;
use super::reply::Reply;
use crate::domain::{Event, Verdict};
use crate::store::{Batch, StoreError};

/// To the router: all events of a request.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Publish {
    pub(super) events: Vec<Event>,
    pub(super) reply: Reply,
}

/// To a consumer: the events of a request that are its lane's.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Consume {
    pub(super) events: Vec<Event>,
    /// The index in the request of each event.
    pub(super) indexes: Vec<u32>,
    pub(super) reply: Reply,
}

/// To the writer: events that a hot cache could not decide.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Append {
    pub(super) batch: Batch,
    pub(super) way_back: WayBack,
}

/// To a consumer: what became of events that it passed on.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Settled {
    pub(super) passed: Passed,
    pub(super) outcome: Result<Vec<Verdict>, PublishError>,
}

/// To a consumer, as its last message: finish and stop.
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

/// To the router, in tests: let every consumer panic.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct PanicConsumers;

/// What a consumer keeps of the events that it passed on: where their verdicts go.
pub(super) struct Passed {
    pub(super) reply: Reply,
    pub(super) events: Vec<PassedEvent>,
}

/// One event that was passed on.
pub(super) struct PassedEvent {
    /// Its index in the request.
    pub(super) index: u32,
    pub(super) key: Key,
    /// Whether others wait for this event's verdict.
    pub(super) marked: bool,
}

/// Brings the outcome of an [`Append`] back to its consumer, also where the writer dies with it.
pub(super) struct WayBack {
    consumer: Addr<Consumer>,
    passed: Option<Passed>,
}

impl WayBack {
    pub(super) fn new(consumer: Addr<Consumer>, passed: Passed) -> Self {
        Self { consumer, passed: Some(passed) }
    }

    pub(super) fn settle(mut self, outcome: Result<Vec<Verdict>, PublishError>) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: Result<Vec<Verdict>, PublishError>) {
        if let Some(passed) = self.passed.take() {
            self.consumer.do_send(Settled { passed, outcome });
        }
    }
}

impl Drop for WayBack {
    fn drop(&mut self) {
        self.send(Err(PublishError::ActorFailed));
    }
}
