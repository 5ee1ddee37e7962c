//! The writers of a store: one, or several where it takes several transactions at once. A topic always goes to the same
//! one, so that transactions that are open at once have topics of their own, and a topic's batches keep their order.

use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use actix::prelude::*;
use foldhash::fast::RandomState;

use super::commit::Committer;
use super::comparer::Comparer;
use super::health::Health;
use super::keeper::Keeper;
use super::lane::Part;
use super::messages::{Append, Close};
use super::new_topics::NewTopics;
use super::pending::Pending;
use super::writer::WriterActor;
use crate::config::Settings;
use crate::domain::Topic;
use crate::metrics::{Metrics, WRITER};
use crate::store::{Batch, Engine, StoreError};

/// The writers' actors, each on a thread of its own.
pub(super) struct Writers {
    keepers: Vec<Keeper<WriterActor>>,
    hasher: RandomState,
    metrics: Arc<Metrics>,
}

impl Writers {
    /// Starts a writer on each of these threads; there are as many as the engine has writers.
    ///
    /// # Errors
    /// When the store cannot be opened for writing.
    pub(super) fn start(
        settings: &Arc<Settings>,
        engine: Arc<dyn Engine>,
        health: &Health,
        metrics: &Arc<Metrics>,
        comparer: &Arc<Keeper<Comparer>>,
        threads: &[Arbiter],
    ) -> Result<Self, StoreError> {
        let start = move |(number, thread): (usize, &Arbiter)| {
            start_writer(settings, &engine, (&health.of(number), metrics), comparer, thread)
        };
        Ok(Self {
            keepers: threads.iter().enumerate().map(start).collect::<Result<_, _>>()?,
            hasher: RandomState::default(),
            metrics: Arc::clone(metrics),
        })
    }

    /// Sends what one request passes on: one message to each writer that has a part in it.
    pub(super) fn append(&self, parts: Vec<(Batch, Part)>) {
        if let [only] = &*self.keepers {
            return self.send(only, parts);
        }
        let mut shares: Vec<Vec<_>> = self.keepers.iter().map(|_| Vec::new()).collect();
        for (batch, part) in parts {
            shares[self.number(&batch.topic)].push((batch, part));
        }
        for (keeper, share) in self.keepers.iter().zip(shares) {
            self.send(keeper, share);
        }
    }

    fn send(&self, keeper: &Keeper<WriterActor>, parts: Vec<(Batch, Part)>) {
        if parts.is_empty() {
            return;
        }
        let events = parts.iter().map(|(batch, _)| batch.events.len()).sum();
        let queued = self.metrics.queue(WRITER, events);
        keeper.address().do_send(Append { parts, queued });
    }

    /// Which writer has a topic.
    fn number(&self, topic: &Topic) -> usize {
        let number = self.hasher.hash_one(topic) % self.keepers.len() as u64;
        usize::try_from(number).unwrap_or(0)
    }

    /// How many are alive.
    pub(super) fn alive(&self) -> u64 {
        self.keepers.iter().filter(|keeper| keeper.lives()).count() as u64
    }

    /// Lets each commit what waits and close the store, so that nothing is left to recover.
    pub(super) async fn close(&self) {
        for keeper in &self.keepers {
            match keeper.address().send(Close).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the store was not closed cleanly; the next start recovers it");
                }
                Err(error) => tracing::error!(%error, "the writer failed while it closed the store"),
            }
            // From here on it does not hold the engine.
            keeper.close();
        }
    }

    /// The address of each.
    #[cfg(test)]
    pub(super) fn addresses(&self) -> Vec<Addr<WriterActor>> {
        self.keepers.iter().map(Keeper::address).collect()
    }
}

/// Starts a writer's actor on a store that can be written to.
fn start_writer(
    settings: &Arc<Settings>,
    engine: &Arc<dyn Engine>,
    (health, metrics): (&Health, &Arc<Metrics>),
    comparer: &Arc<Keeper<Comparer>>,
    thread: &Arbiter,
) -> Result<Keeper<WriterActor>, StoreError> {
    let mut first = Committer::new(Arc::clone(engine), health.clone(), Arc::clone(metrics));
    first.open()?;
    let first = Mutex::new(Some(first));
    let (settings, engine, health) = (Arc::clone(settings), Arc::clone(engine), health.clone());
    let (on, for_next, comparer) = (thread.handle(), Arc::clone(metrics), Arc::clone(comparer));
    let start = move || {
        let opened = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let committer = opened
            .unwrap_or_else(|| Committer::new(Arc::clone(&engine), health.clone(), Arc::clone(&for_next)));
        let pending = Pending::new(&settings.store);
        let (news, comparer) = (engine.news(), Arc::clone(&comparer));
        let new_topics = NewTopics::limit(settings.limits.new_topics_per_minute, engine.writers());
        WriterActor::start_in_arbiter(&on, move |_| {
            WriterActor::new(committer, pending, news, comparer, new_topics)
        })
    };
    Ok(Keeper::new(WRITER, Arc::clone(metrics), start))
}
