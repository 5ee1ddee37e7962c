//! Keeps one actor alive: who holds a closed address starts the actor again.
//!
//! actix's own supervisor does not do that after a panic, which drops the actor together with its mailbox.

use std::sync::{Arc, Mutex, PoisonError};

use actix::prelude::*;

use crate::metrics::{ActorLabels, Metrics};

/// The address of an actor that is started again when it has died.
pub(super) struct Keeper<A: Actor> {
    kind: &'static str,
    start: Box<dyn Fn() -> Addr<A> + Send + Sync>,
    address: Mutex<Addr<A>>,
    metrics: Arc<Metrics>,
}

impl<A: Actor> Keeper<A> {
    /// Starts an actor of this kind (`router` or `writer`).
    pub(super) fn new(
        kind: &'static str,
        metrics: Arc<Metrics>,
        start: impl Fn() -> Addr<A> + Send + Sync + 'static,
    ) -> Self {
        let address = Mutex::new(start());
        Self { kind, start: Box::new(start), address, metrics }
    }

    /// The address of the actor, which lives now; it may still die before a message arrives.
    pub(super) fn address(&self) -> Addr<A> {
        let mut address = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if !address.connected() {
            report_restart(self.kind, &self.metrics);
            *address = (self.start)();
        }
        address.clone()
    }
}

/// Says that an actor of this kind has died and is started again.
pub(super) fn report_restart(kind: &'static str, metrics: &Metrics) {
    tracing::error!(actor = kind, "an actor has failed and is started again");
    metrics.actor_restarts.get_or_create(&ActorLabels { actor: kind }).inc();
}
