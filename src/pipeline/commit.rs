//! Group commits on a store that may fail: the answer to each batch. No actor.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use thiserror::Error;

use super::error::PublishError;
use super::health::Health;
use super::opening::Opening;
use crate::domain::Topic;
use crate::metrics::Metrics;
use crate::store::{AppendError, Batch, Engine, Finding, StoreError, Writer};

/// Commits groups on a writer of a store, which it opens again after any unknown outcome.
pub(super) struct Committer {
    opening: Opening,
    health: Health,
    metrics: Arc<Metrics>,
    unknown_commits: u64,
}

/// What happened to a batch of a group.
pub(super) type BatchOutcome = Result<Vec<Finding>, PublishError>;

/// Why a transaction was not committed.
#[derive(Debug, Error)]
enum Trouble {
    /// There is no writer, and so nothing was tried: the error is that of the last try to open one.
    #[error("nothing was stored: {0}")]
    NotOpen(String),
    /// A writer tried.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Committer {
    pub(super) fn new(engine: Arc<dyn Engine>, health: Health, metrics: Arc<Metrics>) -> Self {
        Self { opening: Opening::new(engine, health.clone()), health, metrics, unknown_commits: 0 }
    }

    /// Opens the writer for the first time.
    ///
    /// # Errors
    /// When the store cannot be opened for writing.
    pub(super) fn open(&mut self) -> Result<(), StoreError> {
        self.opening.begin()?;
        self.look_for_room();
        Ok(())
    }

    fn look_for_room(&self) {
        self.health.room().look(self.opening.space());
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
            Ok(findings) => findings.into_iter().map(Ok).collect(),
            Err(Trouble::Append(AppendError::Failed(StoreError::Damaged(_)))) if group.len() > 1 => {
                group.iter().flat_map(|batch| self.commit(&[batch])).collect()
            }
            Err(ref error @ Trouble::Append(AppendError::Locked { ref topics })) => {
                self.commit_apart(group, topics, error)
            }
            Err(error) => {
                // While nothing can be written, one line says so, and not one for each request.
                if could_write {
                    tracing::warn!(%error, batches = group.len(), "a group commit failed");
                }
                vec![Err(refusal(&error)); group.len()]
            }
        }
    }

    /// Which of these topics the store does not hold, in their order.
    ///
    /// A topic whose stored data is damaged counts as held: the commit meets the damage again, and
    /// fails the batches of that topic alone.
    ///
    /// # Errors
    /// When the store cannot tell. This counts as a failed commit, also for health: where every batch
    /// needs the answer, no commit is tried that could fail.
    pub(super) fn missing(&mut self, topics: &[&Topic]) -> Result<Vec<bool>, PublishError> {
        let could_write = self.can_write();
        let writer = self.opening.open().map_err(Trouble::NotOpen);
        let missing = writer.and_then(|writer| {
            missing_of(writer, topics).map_err(|error| Trouble::Append(AppendError::Failed(error)))
        });
        let missing = missing.map_err(|error| {
            self.note_failure(&error);
            if could_write {
                tracing::warn!(%error, topics = topics.len(), "the store did not tell which topics are new");
            }
            refusal(&error)
        })?;
        debug_assert_eq!(missing.len(), topics.len(), "the store answers for each topic");
        Ok(missing)
    }

    /// How many commits had an unknown outcome so far.
    pub(super) fn unknown_commits(&self) -> u64 {
        self.unknown_commits
    }

    /// Commits what is not of these topics, then each of them by itself. Nothing of the group is stored yet.
    fn commit_apart(
        &mut self,
        group: &[&Batch],
        locked: &BTreeSet<Topic>,
        error: &Trouble,
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

    /// Does what is due without events: looks at the room on the disk, stores waiting counts, and finds out whether a store that could not
    /// write can write again.
    pub(super) fn maintain(&mut self) {
        self.look_for_room();
        if let Err(error) = self.store_counts() {
            tracing::debug!(%error, "the store cannot be maintained");
        }
    }

    fn store_counts(&mut self) -> Result<(), Trouble> {
        let healthy = self.can_write();
        let now = Timestamp::now();
        self.run(|writer| if healthy { writer.flush(now) } else { writer.probe(now) })
    }

    /// Stores the last counts and closes the store, so that nothing is left to recover. A store
    /// that could not be opened is tried once more: what is not stored now is lost.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        self.opening.hurry();
        let stored = self.store_counts();
        if let Err(error) = &stored {
            tracing::warn!(%error, "the last maintenance before the store is closed failed");
        }
        match (self.opening.take(), stored) {
            (Some(writer), _) => writer.close(),
            (None, Err(error)) => Err(StoreError::Unavailable(error.to_string())),
            (None, Ok(())) => Ok(()),
        }
    }

    fn append(&mut self, group: &[&Batch]) -> Result<Vec<Vec<Finding>>, Trouble> {
        let begun = Instant::now();
        let outcome = self.run(|writer| writer.append(group, Timestamp::now()));
        if matches!(outcome, Err(Trouble::NotOpen(_) | Trouble::Append(AppendError::Locked { .. }))) {
            // No commit; a locked group is on its way to several.
            return outcome;
        }
        let events: usize = group.iter().map(|batch| batch.events.len()).sum();
        self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a group has far fewer than 2^52 events")]
        self.metrics.commit_events.observe(events as f64);
        if let Some(waited) = self.opening.sync_time() {
            self.metrics.sync_seconds.observe(waited.as_secs_f64());
        }
        outcome
    }

    /// Runs one transaction. A panic is an unknown outcome, and so the end of this writer.
    ///
    /// invariant 5: what a writer holds in memory dies with it, and the next one reads the store.
    fn run<T>(
        &mut self,
        transaction: impl FnOnce(&mut dyn Writer) -> Result<T, AppendError>,
    ) -> Result<T, Trouble> {
        let outcome = match self.opening.open() {
            Ok(writer) => {
                let caught = catch_unwind(AssertUnwindSafe(|| transaction(writer)));
                caught.unwrap_or_else(|_| Err(panicked())).map_err(Trouble::Append)
            }
            Err(reason) => Err(Trouble::NotOpen(reason)),
        };
        if let Err(Trouble::Append(AppendError::Unknown(error))) = &outcome {
            if self.can_write() {
                tracing::error!(%error, "the outcome of a commit is not known; opening the store again");
            }
            self.opening.give_up(error);
            self.unknown_commits += 1;
        }
        match &outcome {
            Ok(_) => {
                self.opening.succeeded();
                self.health.set(true);
            }
            // Locked: that something else has a lock does not tell whether anything else can be
            // written.
            Err(Trouble::Append(AppendError::Locked { .. })) => {}
            Err(error) => self.note_failure(error),
        }
        outcome
    }

    /// Counts a failure. The store cannot write then, unless it is damage under one batch.
    fn note_failure(&self, error: &Trouble) {
        self.metrics.commit_failures.inc();
        if !is_damage(error) {
            self.health.set(false);
        }
    }
}

/// Which of these topics the store does not hold; a damaged one counts as held.
fn missing_of(writer: &mut dyn Writer, topics: &[&Topic]) -> Result<Vec<bool>, StoreError> {
    match writer.missing(topics) {
        Err(StoreError::Damaged(_)) => {}
        asked => return asked,
    }
    let one = |topic: &&Topic| match writer.missing(&[*topic]) {
        Ok(missing) => Ok(missing.first().copied().unwrap_or_default()),
        Err(StoreError::Damaged(_)) => Ok(false),
        Err(error) => Err(error),
    };
    topics.iter().map(one).collect()
}

fn panicked() -> AppendError {
    AppendError::Unknown(StoreError::Unavailable("the store's writer panicked".to_owned()))
}

fn is_damage(error: &Trouble) -> bool {
    matches!(error, Trouble::Append(AppendError::Failed(StoreError::Damaged(_))))
}

/// The answer to a batch of a group that was not committed. Where there is no writer it is
/// [`PublishError::Unavailable`], whatever keeps the store from being opened: the same events can
/// be stored once that is mended.
fn refusal(error: &Trouble) -> PublishError {
    let text = error.to_string();
    if is_damage(error) { PublishError::Damaged(text) } else { PublishError::Unavailable(text) }
}
