//! Group commits on a store that may fail: what is answered, and when the writer is opened anew. No actor.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use jiff::Timestamp;

use super::error::PublishError;
use crate::domain::Topic;
use crate::metrics::Metrics;
use crate::store::{AppendError, Batch, Decision, Engine, StoreError, Writer};

/// Whether the store could write when it was last tried; shared by all writers and whoever asks.
#[derive(Debug, Clone)]
pub(super) struct Health {
    /// A bit for each writer that could not.
    failing: Arc<AtomicU64>,
    /// The bit of the writer that holds this.
    own: u64,
}

impl Health {
    pub(super) fn good() -> Self {
        Self { failing: Arc::default(), own: 1 }
    }

    /// The same, for the writer with this number, of which there are 64 at most.
    pub(super) fn of(&self, number: usize) -> Self {
        Self { failing: Arc::clone(&self.failing), own: 1 << number }
    }

    /// Whether every writer could write.
    pub(super) fn is_good(&self) -> bool {
        self.failing.load(Ordering::Relaxed) == 0
    }

    /// Whether the writer that holds this could.
    fn can_write(&self) -> bool {
        self.failing.load(Ordering::Relaxed) & self.own == 0
    }

    fn set(&self, good: bool) {
        let before = if good {
            self.failing.fetch_and(!self.own, Ordering::Relaxed)
        } else {
            self.failing.fetch_or(self.own, Ordering::Relaxed)
        };
        if good && before == self.own {
            tracing::info!("the store can write again");
        } else if !good && before == 0 {
            tracing::error!("the store cannot write; reads go on");
        }
    }
}

/// A writer of a store, opened anew after any outcome that is not known.
pub(super) struct Committer {
    engine: Arc<dyn Engine>,
    writer: Option<Box<dyn Writer>>,
    health: Health,
    metrics: Arc<Metrics>,
}

/// What happened to a batch of a group.
pub(super) type BatchOutcome = Result<Vec<Decision>, PublishError>;

impl Committer {
    pub(super) fn new(engine: Arc<dyn Engine>, health: Health, metrics: Arc<Metrics>) -> Self {
        Self { engine, writer: None, health, metrics }
    }

    /// Opens the writer, if it is not open.
    pub(super) fn open(&mut self) -> Result<&mut Box<dyn Writer>, StoreError> {
        let writer = if let Some(writer) = self.writer.take() {
            writer
        } else {
            let opened = self.engine.open_writer()?;
            // What the last one left may be more than was announced.
            self.engine.news().look_again();
            opened
        };
        Ok(self.writer.insert(writer))
    }

    /// Whether the store could write when it last tried.
    pub(super) fn can_write(&self) -> bool {
        self.health.can_write()
    }

    /// Commits a group and gives an outcome for each batch. A batch that cannot be decided because stored data
    /// is damaged fails alone, and so do those of a topic that something else has locked.
    pub(super) fn commit(&mut self, group: &[&Batch]) -> Vec<BatchOutcome> {
        let could_write = self.can_write();
        match self.append(group) {
            Ok(decisions) => decisions.into_iter().map(Ok).collect(),
            Err(AppendError::Failed(StoreError::Damaged(_))) if group.len() > 1 => {
                group.iter().flat_map(|batch| self.commit(&[batch])).collect()
            }
            Err(ref error @ AppendError::Locked { ref topics }) => self.commit_apart(group, topics, error),
            Err(error) => {
                // While nothing can be written, one line says so, and not one for each request.
                if could_write {
                    tracing::warn!(%error, batches = group.len(), "a group commit failed");
                }
                vec![Err(refusal(&error)); group.len()]
            }
        }
    }

    /// Commits what is not of these topics, then each of them by itself. Nothing of the group is stored yet.
    fn commit_apart(
        &mut self,
        group: &[&Batch],
        locked: &BTreeSet<Topic>,
        error: &AppendError,
    ) -> Vec<BatchOutcome> {
        // The places of those batches that are committed together; first come those of all other topics.
        let (mut parts, mut parts_of) = (vec![Vec::new()], HashMap::new());
        for (place, Batch { topic, .. }) in group.iter().enumerate() {
            let part = if locked.contains(topic) {
                *parts_of.entry(topic).or_insert_with(|| {
                    parts.push(Vec::new());
                    parts.len() - 1
                })
            } else {
                0
            };
            parts[part].push(place);
        }
        parts.retain(|part| !part.is_empty());
        let mut outcomes = vec![Err(refusal(error)); group.len()];
        if parts.len() == 1 {
            self.metrics.commit_failures.inc();
            return outcomes;
        }
        for places in parts {
            let part: Vec<_> = places.iter().map(|place| group[*place]).collect();
            for (place, outcome) in places.into_iter().zip(self.commit(&part)) {
                outcomes[place] = outcome;
            }
        }
        outcomes
    }

    /// Does what is due without events: stores waiting counts, and finds out whether a store that could not
    /// write can write again.
    pub(super) fn maintain(&mut self) {
        if let Err(error) = self.store_counts() {
            tracing::debug!(%error, "the store cannot be maintained");
        }
    }

    fn store_counts(&mut self) -> Result<(), AppendError> {
        let healthy = self.can_write();
        let now = Timestamp::now();
        self.run(|writer| if healthy { writer.flush(now) } else { writer.probe(now) })
    }

    /// Stores the last counts and closes the store, so that nothing is left to recover.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        if let Err(error) = self.store_counts() {
            tracing::warn!(%error, "the last maintenance before the store is closed failed");
        }
        match self.writer.take() {
            Some(writer) => writer.close(),
            None => Ok(()),
        }
    }

    fn append(&mut self, group: &[&Batch]) -> Result<Vec<Vec<Decision>>, AppendError> {
        let begun = Instant::now();
        let outcome = self.run(|writer| writer.append(group, Timestamp::now()));
        if matches!(outcome, Err(AppendError::Locked { .. })) {
            // No commit, but the way to several.
            return outcome;
        }
        let events: usize = group.iter().map(|batch| batch.events.len()).sum();
        self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a group has far fewer than 2^52 events")]
        self.metrics.commit_events.observe(events as f64);
        if let Some(waited) = self.writer.as_mut().and_then(|writer| writer.sync_time()) {
            self.metrics.sync_seconds.observe(waited.as_secs_f64());
        }
        outcome
    }

    /// Runs one transaction. A panic is an outcome that is not known, and so the end of this writer.
    ///
    /// invariant 5: what a writer holds in memory dies with it, and the next one reads the store.
    fn run<T>(
        &mut self,
        transaction: impl FnOnce(&mut dyn Writer) -> Result<T, AppendError>,
    ) -> Result<T, AppendError> {
        let outcome = match self.open() {
            Ok(writer) => {
                catch_unwind(AssertUnwindSafe(|| transaction(&mut **writer))).unwrap_or_else(|_| {
                    Err(AppendError::Unknown(StoreError::Unavailable(
                        "the store's writer panicked".to_owned(),
                    )))
                })
            }
            Err(error) => Err(AppendError::Failed(error)),
        };
        if let Err(AppendError::Unknown(error)) = &outcome {
            tracing::error!(%error, "the outcome of a commit is not known; opening the store again");
            self.writer = None;
        }
        if matches!(outcome, Err(AppendError::Locked { .. })) {
            // Whether anything else can be written is not known by that.
            return outcome;
        }
        if outcome.is_err() {
            self.metrics.commit_failures.inc();
        }
        let damaged = matches!(outcome, Err(AppendError::Failed(StoreError::Damaged(_))));
        self.health.set(outcome.is_ok() || damaged);
        outcome
    }
}

fn refusal(error: &AppendError) -> PublishError {
    match error {
        AppendError::Failed(StoreError::Damaged(_)) => PublishError::Damaged(error.to_string()),
        AppendError::Failed(_) | AppendError::Locked { .. } | AppendError::Unknown(_) => {
            PublishError::Unavailable(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_can_write_when_each_of_its_writers_can() {
        let health = Health::good();
        let writers = [0, 1, 63].map(|number| health.of(number));
        let [first, second, _] = &writers;
        first.set(false);
        second.set(true);
        assert!(!health.is_good() && !first.can_write() && second.can_write());
        second.set(false);
        first.set(true);
        assert!(!health.is_good() && first.can_write() && !second.can_write());
        second.set(true);
        assert!(health.is_good() && writers.iter().all(Health::can_write));
    }
}
