//! A consumer actor: asks the hot cache of one lane of one topic, and of other lanes of its shard whose events came
//! in the same request.
//!
//! It never waits for the writer, which would end group commit: it passes on what its cache cannot decide and
//! takes the next message; the writer settles what was passed on.

use std::sync::Arc;

use actix::prelude::*;

use super::messages::{Consume, Gone, Retire};
use super::router::Router;
use crate::metrics::Metrics;

/// The actor of one lane.
pub(super) struct Consumer {
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
    pub(super) fn new(alive: Alive) -> Self {
        Self { retiring: false, _alive: alive }
    }
}

impl Actor for Consumer {
    type Context = Context<Self>;

    /// actix would stop an actor as soon as nobody holds its address, and with it lose the messages that came
    /// between its last look into the mailbox and that moment: the router's last ones.
    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        if self.retiring { Running::Stop } else { Running::Continue }
    }
}

impl Handler<Consume> for Consumer {
    type Result = ();

    fn handle(&mut self, Consume { shares, undecided, queued }: Consume, _: &mut Self::Context) {
        drop(queued);
        let parts = shares.into_iter().filter_map(|(lane, share)| lane.decide(share, undecided.reply()));
        undecided.add(parts.collect());
    }
}

impl Handler<Retire> for Consumer {
    type Result = ();

    fn handle(&mut self, _: Retire, context: &mut Self::Context) {
        self.retiring = true;
        context.stop();
    }
}
