//! The comparer actor: decides which duplicates are conflicts, on a thread of its own and after their commit.
//!
//! It reads the stored payloads as any reader does, so that neither the writer nor a request that has no such duplicate
//! waits for a comparison. Addresses take turns, and requests within each: see `comparing`.

use std::sync::Arc;

use actix::prelude::*;

use super::comparing::{Judge, Waiting};
use super::messages::{Compare, Halt};
use crate::metrics::{COMPARER, Metrics};
use crate::store::Reader;

/// The actor.
pub(super) struct Comparer {
    waiting: Waiting,
    judge: Judge,
    reader: Arc<dyn Reader>,
    metrics: Arc<Metrics>,
    is_reading: bool,
    is_halted: bool,
}

impl Comparer {
    pub(super) fn new(judge: Judge, reader: Arc<dyn Reader>, metrics: Arc<Metrics>) -> Self {
        let waiting = Waiting::default();
        Self { waiting, judge, reader, metrics, is_reading: false, is_halted: false }
    }

    /// Begins the next turn, unless one is under way. Others may come in while it reads.
    fn go_on(&mut self, context: &mut Context<Self>) {
        if self.is_reading || self.is_halted {
            return;
        }
        let Some(turn) = self.waiting.next() else { return };
        self.is_reading = true;
        let reader = Arc::clone(&self.reader);
        let reading = async move {
            let read = turn.read(&*reader).await;
            (turn, read)
        };
        let judging = reading.into_actor(self).map(|(judged, read), comparer, same_context| {
            comparer.is_reading = false;
            if comparer.is_halted {
                return;
            }
            if let Some((doubts, queued)) = comparer.judge.settle(judged, read) {
                comparer.waiting.push(doubts, queued);
            }
            comparer.go_on(same_context);
        });
        context.spawn(judging);
    }
}

impl Actor for Comparer {
    type Context = Context<Self>;
}

impl Handler<Compare> for Comparer {
    type Result = ();

    fn handle(&mut self, Compare { doubts }: Compare, context: &mut Self::Context) {
        if self.is_halted {
            return;
        }
        for of_lane in doubts {
            let queued = self.metrics.queue(COMPARER, of_lane.len());
            self.waiting.push(of_lane, queued);
        }
        self.go_on(context);
    }
}

impl Handler<Halt> for Comparer {
    type Result = ();

    /// What is counted from now on might not be stored any more.
    fn handle(&mut self, _: Halt, _: &mut Self::Context) {
        self.is_halted = true;
        self.waiting = Waiting::default();
    }
}
