//! Keeps one actor alive: who holds a closed address starts the actor again.
//!
//! actix's own supervisor does not do that after a panic, which drops the actor together with its mailbox.

use std::sync::{Arc, Mutex, PoisonError};

use actix::prelude::*;

use crate::metrics::{ActorLabels, Metrics};

/// The address of an actor that is started again when it has died.
pub(super) struct Keeper<A: Actor> {
    kind: &'static str,
    state: Mutex<State<A>>,
    metrics: Arc<Metrics>,
}

struct State<A: Actor> {
    address: Addr<A>,
    /// Gone when the keeper was closed, and with it everything that an actor would be made of.
    start: Option<Start<A>>,
}

type Start<A> = Box<dyn Fn() -> Addr<A> + Send>;

impl<A: Actor> Keeper<A> {
    /// Starts an actor of this kind (`router` or `writer`).
    pub(super) fn new(
        kind: &'static str,
        metrics: Arc<Metrics>,
        start: impl Fn() -> Addr<A> + Send + 'static,
    ) -> Self {
        let state = State { address: start(), start: Some(Box::new(start)) };
        Self { kind, state: Mutex::new(state), metrics }
    }

    /// The address of the actor, which lives now unless the keeper was closed; it may still die before a message
    /// arrives.
    pub(super) fn address(&self) -> Addr<A> {
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(start) = &state.start
            && !state.address.connected()
        {
            report_restart(self.kind, &self.metrics);
            state.address = start();
        }
        state.address.clone()
    }

    /// Whether the actor lives.
    pub(super) fn lives(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).address.connected()
    }

    /// Starts no actor any more.
    pub(super) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).start = None;
    }
}

/// Says that an actor of this kind has died and is started again.
pub(super) fn report_restart(kind: &'static str, metrics: &Metrics) {
    tracing::error!(actor = kind, "an actor has failed and is started again");
    metrics.actor_restarts.get_or_create(&ActorLabels { actor: kind }).inc();
}
