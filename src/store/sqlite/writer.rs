//! The transaction of a group commit.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, params};
use serde::de::IgnoredAny;

use super::checkpoint::Checkpointer;
use super::rows::First;
use super::topics::{self, Remembered, TopicState};
use super::{Options, rows};
use crate::config::Durability;
use crate::domain::{Counts, Refusal, Topic, Verdict, same_value};
use crate::store::{AppendError, Batch, StoreError, Tally, Writer};

/// The one connection that writes, and what it remembers of the store.
pub(super) struct SqliteWriter {
    connection: Connection,
    options: Arc<Options>,
    tally: Arc<Tally>,
    checkpointer: Arc<Checkpointer>,
    /// True of the store at all times: changed only after a commit that is known to have succeeded.
    remembered: Remembered,
    topics_total: u64,
    /// Whether a commit was not synced yet (durability relaxed).
    unsynced: bool,
}

/// What a transaction changes, until it is committed.
#[derive(Default)]
struct Staged {
    topics: HashMap<Topic, StagedTopic>,
    topics_total: u64,
    /// Events of topics that are one too many.
    refused: u64,
}

struct StagedTopic {
    state: TopicState,
    counts: Counts,
}

/// Whether a commit with relaxed durability waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    Now,
    Later,
}

impl SqliteWriter {
    pub(super) fn open(
        options: &Arc<Options>,
        tally: Arc<Tally>,
        checkpointer: Arc<Checkpointer>,
    ) -> Result<Self, StoreError> {
        let mut connection = options.database.open_to_write()?;
        checkpointer.watch(&mut connection)?;
        let (topics, epoch) = connection.query_row("SELECT topics, tally_epoch FROM totals", [], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
        })?;
        tally.resume(epoch);
        let options = Arc::clone(options);
        let remembered = Remembered::default();
        // A commit of the writer before this one may not be synced.
        let unsynced = options.durability == Durability::Relaxed;
        Ok(Self { connection, options, tally, checkpointer, remembered, topics_total: topics, unsynced })
    }

    /// Writes the whole group inside the transaction that is open.
    fn write(
        &self,
        group: &[&Batch],
        now: Timestamp,
        staged: &mut Staged,
    ) -> Result<Vec<Vec<Verdict>>, StoreError> {
        let mut verdicts = Vec::with_capacity(group.len());
        for batch in group {
            verdicts.push(self.write_batch(batch, now, staged)?);
        }
        let mut sum = Counts { rejected: staged.refused, ..Counts::default() };
        for topic in staged.topics.values() {
            topics::update(&self.connection, topic.state, topic.counts, now)?;
            sum += topic.counts;
        }
        let epoch = self.write_tally(now, &mut sum)?;
        self.write_totals(staged.topics_total, sum, epoch)?;
        Ok(verdicts)
    }

    fn write_batch(
        &self,
        batch: &Batch,
        now: Timestamp,
        staged: &mut Staged,
    ) -> Result<Vec<Verdict>, StoreError> {
        let Some(topic) = self.stage(&batch.topic, staged)? else {
            staged.refused += batch.events.len() as u64;
            return Ok(vec![Verdict::Refused(Refusal::TopicLimit); batch.events.len()]);
        };
        let mut verdicts = Vec::with_capacity(batch.events.len());
        for event in &batch.events {
            let seq = topic.state.last_seq + 1;
            let verdict = match rows::insert_if_new(&self.connection, topic.state.id, seq, event, now)? {
                None => Verdict::Accepted { seq },
                Some(first) => {
                    Verdict::Duplicate { seq: first.seq, conflict: conflicts(&first, event.payload())? }
                }
            };
            // invariant 6: a seq is used by an event of the same transaction, or not at all.
            if let Verdict::Accepted { .. } = verdict {
                topic.state.last_seq = seq;
            }
            topic.counts.count(verdict);
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }

    /// The topic as this transaction has it; `None` if it is new and one too many.
    fn stage<'s>(
        &self,
        name: &Topic,
        staged: &'s mut Staged,
    ) -> Result<Option<&'s mut StagedTopic>, StoreError> {
        if !staged.topics.contains_key(name) {
            let state = match self.remembered.find(&self.connection, name)? {
                Some(state) => state,
                None if self.options.topic_limit.is_some_and(|limit| staged.topics_total >= limit) => {
                    return Ok(None);
                }
                None => {
                    staged.topics_total += 1;
                    topics::create(&self.connection, name)?
                }
            };
            staged.topics.insert(name.clone(), StagedTopic { state, counts: Counts::default() });
        }
        Ok(staged.topics.get_mut(name))
    }

    /// Writes the counts that waited in memory, and gives their epoch.
    fn write_tally(&self, now: Timestamp, sum: &mut Counts) -> Result<Option<u64>, StoreError> {
        let Some((epoch, lot)) = self.tally.take() else { return Ok(None) };
        for (name, counts) in &lot.topics {
            let state = topics::load(&self.connection, name)?
                .ok_or_else(|| StoreError::Damaged(format!("topic {name} had an event and is gone")))?;
            topics::update(&self.connection, state, *counts, now)?;
        }
        *sum += lot.sum();
        Ok(Some(epoch))
    }

    fn write_totals(&self, topics: u64, sum: Counts, epoch: Option<u64>) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "UPDATE totals SET topics = ?1, accepted = accepted + ?2, duplicates = duplicates + ?3,
                 conflicts = conflicts + ?4, rejected = rejected + ?5, tally_epoch = ifnull(?6, tally_epoch)",
            )?
            .execute(params![
                topics.cast_signed(),
                sum.accepted.cast_signed(),
                sum.duplicates.cast_signed(),
                sum.conflicts.cast_signed(),
                sum.rejected.cast_signed(),
                epoch.map(u64::cast_signed)
            ])?;
        Ok(())
    }

    /// invariant 4: one transaction with everything in it. With relaxed durability it waits for the disk only if `sync` says
    /// so; SQLite keeps the order of commits either way.
    fn transact(
        &mut self,
        group: &[&Batch],
        now: Timestamp,
        sync: Sync,
    ) -> Result<Vec<Vec<Verdict>>, AppendError> {
        let failed = |error: rusqlite::Error| AppendError::Failed(error.into());
        self.checkpointer.make_room(&self.connection);
        if self.options.durability == Durability::Relaxed {
            self.connection.pragma_update(None, "synchronous", sync.pragma()).map_err(failed)?;
        }
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        let mut staged = Staged { topics_total: self.topics_total, ..Staged::default() };
        let verdicts = self.write(group, now, &mut staged).map_err(|error| self.roll_back(error))?;
        self.commit()?;
        self.tally.stored();
        self.unsynced = self.options.durability == Durability::Relaxed && sync == Sync::Later;
        self.topics_total = staged.topics_total;
        self.remembered.learn(staged.topics.into_iter().map(|(name, topic)| (name, topic.state)));
        self.checkpointer.committed();
        Ok(verdicts)
    }

    /// Ends a transaction that cannot be committed. What is known afterwards depends on whether that worked.
    fn roll_back(&self, cause: StoreError) -> AppendError {
        if self.connection.is_autocommit() || self.connection.execute_batch("ROLLBACK").is_ok() {
            self.tally.put_back();
            return AppendError::Failed(cause);
        }
        AppendError::Unknown(cause)
    }

    fn commit(&self) -> Result<(), AppendError> {
        match self.connection.execute_batch("COMMIT") {
            Ok(()) => Ok(()),
            // A lock is refused before anything is written. Any other error may have come after the write.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                Err(self.roll_back(error.into()))
            }
            Err(error) => Err(AppendError::Unknown(error.into())),
        }
    }
}

impl Writer for SqliteWriter {
    fn append(&mut self, group: &[&Batch], now: Timestamp) -> Result<Vec<Vec<Verdict>>, AppendError> {
        self.transact(group, now, Sync::Later)
    }

    fn flush(&mut self, now: Timestamp) -> Result<(), AppendError> {
        if !self.unsynced && self.tally.is_empty() {
            return Ok(());
        }
        self.probe(now)
    }

    fn probe(&mut self, now: Timestamp) -> Result<(), AppendError> {
        self.transact(&[], now, Sync::Now).map(drop)
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.checkpointer.finish(&self.connection)
    }
}

/// Whether a repeat has another payload than the event that is stored.
fn conflicts(first: &First, payload: &str) -> Result<bool, StoreError> {
    if first.payload == payload {
        return Ok(false);
    }
    // Only valid JSON can be compared; a panic over a damaged row would fail the whole group.
    serde_json::from_str::<IgnoredAny>(&first.payload)
        .map_err(|error| StoreError::Damaged(format!("the payload of seq {}: {error}", first.seq)))?;
    Ok(!same_value(&first.payload, payload))
}

impl Sync {
    fn pragma(self) -> &'static str {
        match self {
            Self::Now => "FULL",
            Self::Later => "NORMAL",
        }
    }
}
