//! The transaction of a group commit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, params};

use super::checkpoint::Checkpointer;
use super::index::{Index, Slices};
use super::mark::Marker;
use super::times::{Marked, Times};
use super::topics::{self, Remembered, TopicId, TopicState};
use super::{Options, Shared, explain, opening, repeats, rows, schema, sources};
use crate::config::Durability;
use crate::domain::{Counts, Refusal, Second, Topic, Verdict};
use crate::store::index::{Entry, Hasher};
use crate::store::sources as by_source;
use crate::store::tally::Lot;
use crate::store::{AppendError, Batch, Finding, StoreError, Tally, Writer};
#[cfg(test)]
use crate::testing::{Moment, pass};

mod import;
mod known;

/// The one connection that writes, and what it remembers of the store.
pub(super) struct SqliteWriter {
    connection: Connection,
    options: Arc<Options>,
    tally: Arc<Tally>,
    checkpointer: Arc<Checkpointer>,
    /// None where the file is not served.
    marker: Option<Arc<Marker>>,
    index: Index,
    hasher: Hasher,
    /// True of the store at all times: changed only after a commit that is known to have succeeded.
    remembered: Remembered,
    topics_total: u64,
    next_pos: u64,
    times: Times,
    /// How long the last `COMMIT` took: SQLite writes and syncs the write-ahead log within it.
    sync_time: Option<Duration>,
    /// Whether a commit was not synced yet (durability relaxed).
    unsynced: bool,
    /// Whether something else held the lock for `store.lock_timeout`, and was not seen to let it go since.
    locked_out: bool,
}

/// How long a commit waits for a lock that the one before it did not get: each in a queue would wait for
/// `store.lock_timeout` else, one after the other.
const LOCKED_OUT_TIMEOUT: Duration = Duration::from_millis(10);

/// What a transaction changes, until it is committed.
#[derive(Default)]
struct Staged {
    topics: HashMap<Topic, StagedTopic, RandomState>,
    topics_total: u64,
    /// Events that are not stored: invalid ones, and those of topics that are one too many.
    rejected: u64,
    next_pos: u64,
    /// The new events, by topic, in the order of the log.
    events: Vec<(TopicId, Entry)>,
    /// The new events by key.
    keys: HashMap<u128, Entry, RandomState>,
    slices: Slices,
    marked: Marked,
    /// Whether what was taken of the events that were repeated most recently is written.
    repeated: bool,
}

struct StagedTopic {
    state: TopicState,
    /// Whether an event of it was stored before.
    repeated: bool,
}

/// Whether a commit with relaxed durability waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    Now,
    Later,
}

impl SqliteWriter {
    pub(super) fn open(options: &Arc<Options>, shared: Shared) -> Result<Self, StoreError> {
        let Shared { tally, checkpointer, memory, marker } = shared;
        let mut connection = options.database.open_to_write()?;
        checkpointer.watch(&mut connection)?;
        opening::verify(&connection)?;
        let (topics, epoch) = connection.query_row("SELECT topics, tally_epoch FROM totals", [], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
        })?;
        tally.resume(epoch);
        let hasher = Hasher::new(&schema::index_key(&connection)?);
        let index = Index::open(&mut connection, &options.database, memory, &hasher, options.sealing)?;
        tally.repeated().load(|| explain::read("repeats", repeats::load(&connection)))?;
        Ok(Self {
            next_pos: rows::last_pos(&connection)? + 1,
            times: explain::read("times", Times::load(&connection))?,
            sync_time: None,
            connection,
            options: Arc::clone(options),
            tally,
            checkpointer,
            marker,
            index,
            hasher,
            remembered: Remembered::default(),
            topics_total: topics,
            // A commit of the writer before this one may not be synced.
            unsynced: options.durability == Durability::Relaxed,
            locked_out: false,
        })
    }

    /// What makes this store's keys.
    pub(super) fn hasher(&self) -> Hasher {
        self.hasher.clone()
    }

    /// Writes the whole group inside the transaction that is open.
    fn write(
        &mut self,
        group: &[&Batch],
        now: Timestamp,
        staged: &mut Staged,
    ) -> Result<Vec<Vec<Finding>>, StoreError> {
        for batch in group {
            self.stage(&batch.topic, staged)?;
        }
        let known = self.find(group, staged)?;
        let mut known = known.into_iter();
        let (mut rows, second) = (rows::Appender::new(&self.connection, now)?, Second::of(now));
        let mut findings = Vec::with_capacity(group.len());
        for batch in group {
            findings.push(self.write_batch(batch, &mut known, (&mut rows, second), staged)?);
        }
        if !staged.events.is_empty() {
            staged.marked = self.times.mark(self.next_pos, second);
            staged.marked.write(&self.connection)?;
        }
        // Between two maintenances all events are new rows and nothing else, whatever number of topics they have.
        let maintained = group.is_empty();
        let lot = if maintained || self.tally.is_large() { self.tally.take() } else { None };
        let repeats = match &lot {
            Some((_, lot)) => self.write_repeats(lot)?,
            None => Counts::default(),
        };
        let repeated = if maintained { self.tally.repeated().take() } else { None };
        if let Some(changes) = repeated {
            let write = || repeats::write(&self.connection, &changes);
            explain::write(&self.connection, "repeats", write)?;
            staged.repeated = true;
        }
        self.index.write_slices(&self.connection, staged.events.len(), &mut staged.slices)?;
        self.write_totals(staged, repeats, lot.map(|(epoch, _)| epoch))?;
        Ok(findings)
    }

    /// The key of each event of the group whose topic is part of the transaction, in their order, and what is stored
    /// of it. All are looked for together: their look-ups do not wait for each other.
    fn find(
        &mut self,
        group: &[&Batch],
        staged: &Staged,
    ) -> Result<impl IntoIterator<Item = (u128, Option<Entry>)> + use<>, StoreError> {
        let mut keys = Vec::with_capacity(group.iter().map(|batch| batch.events.len()).sum());
        for batch in group {
            if let Some(topic) = staged.topics.get(&batch.topic) {
                let id = topic.state.id.0;
                keys.extend(batch.events.iter().map(|event| self.hasher.key(id, event.event_id())));
            }
        }
        let found = self.index.find(&self.connection, &keys)?;
        Ok(keys.into_iter().zip(found))
    }

    fn write_batch(
        &self,
        batch: &Batch,
        known: &mut impl Iterator<Item = (u128, Option<Entry>)>,
        (rows, now): (&mut rows::Appender<'_>, Second),
        staged: &mut Staged,
    ) -> Result<Vec<Finding>, StoreError> {
        let Staged { topics, next_pos, events, keys, rejected, .. } = staged;
        let Some(topic) = topics.get_mut(&batch.topic) else {
            *rejected += batch.events.len() as u64;
            let verdict = Verdict::Refused(Refusal::TopicLimit);
            return Ok(vec![Finding::decided(verdict, now); batch.events.len()]);
        };
        let mut findings = Vec::with_capacity(batch.events.len());
        for (event, (key, stored)) in batch.events.iter().zip(known) {
            #[cfg(test)]
            pass(Moment::Write);
            let digest = self.hasher.digest(event.payload().as_bytes());
            let finding = if let Some(first) = stored {
                topic.repeated = true;
                repeat(first, digest, self.times.stored_at(&self.connection, first.pos, now)?)
            } else if let Some(first) = keys.get(&key).copied() {
                topic.repeated = true;
                repeat(first, digest, now)
            } else {
                // invariant 6: a seq is used by an event of the same transaction, or not at all.
                let entry = Entry { key, pos: *next_pos, seq: topic.state.last_seq + 1, digest };
                rows.append(topic.state.id, (entry.pos, entry.seq), event)?;
                (*next_pos, topic.state.last_seq) = (entry.pos + 1, entry.seq);
                keys.insert(key, entry);
                events.push((topic.state.id, entry));
                Finding::decided(Verdict::Accepted { seq: entry.seq }, now)
            };
            findings.push(finding);
        }
        Ok(findings)
    }

    /// Makes the topic part of this transaction, unless it is new and one too many.
    fn stage(&self, name: &Topic, staged: &mut Staged) -> Result<(), StoreError> {
        if staged.topics.contains_key(name) {
            return Ok(());
        }
        let limit = self.options.topic_limit.unwrap_or(u64::MAX);
        let state = match self.find_topic(name)? {
            Some(state) => state,
            None if staged.topics_total < limit => {
                staged.topics_total += 1;
                topics::create(&self.connection, name)?
            }
            None => return Ok(()),
        };
        staged.topics.insert(name.clone(), StagedTopic { state, repeated: false });
        Ok(())
    }

    /// Writes the counts that waited in memory, and gives their sum. Those of a topic that is damaged are lost:
    /// they must not keep every other event from being stored.
    fn write_repeats(&self, lot: &Lot) -> Result<Counts, StoreError> {
        let mut sum = Counts { rejected: lot.rejected, ..Counts::default() };
        for (name, of_topic) in &lot.topics {
            match self.find_topic(name) {
                Ok(Some(state)) => {
                    let counts = of_topic.sum();
                    topics::count(&self.connection, state.id, counts)?;
                    let (limit, earlier) = (self.options.sealing.sources, || self.index.sources(state.id));
                    sources::add(&self.connection, state.id, of_topic.iter(), earlier, limit)?;
                    sum += counts;
                }
                Ok(None) => {
                    tracing::error!(topic = %name, "a topic that had events is gone; its repeats are not counted");
                }
                Err(StoreError::Damaged(what)) => {
                    tracing::error!(what, "repeats of a damaged topic are not counted");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }

    fn write_totals(&self, staged: &Staged, repeats: Counts, epoch: Option<u64>) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "UPDATE totals SET topics = ?1, accepted = accepted + ?2, duplicates = duplicates + ?3,
                 conflicts = conflicts + ?4, rejected = rejected + ?5, tally_epoch = ifnull(?6, tally_epoch)",
            )?
            .execute(params![
                staged.topics_total.cast_signed(),
                (staged.events.len() as u64).cast_signed(),
                repeats.duplicates.cast_signed(),
                repeats.conflicts.cast_signed(),
                (repeats.rejected + staged.rejected).cast_signed(),
                epoch.map(u64::cast_signed)
            ])?;
        Ok(())
    }

    /// invariant 4: one transaction with everything in it. With relaxed durability it waits for the disk only if
    /// `sync` says so; SQLite keeps the order of commits either way.
    fn transact(
        &mut self,
        group: &[&Batch],
        now: Timestamp,
        sync: Sync,
    ) -> Result<Vec<Vec<Finding>>, AppendError> {
        let failed = |error: rusqlite::Error| AppendError::Failed(error.into());
        self.checkpointer.make_room(&self.connection);
        if self.options.durability == Durability::Relaxed {
            self.connection.pragma_update(None, "synchronous", sync.pragma()).map_err(failed)?;
        }
        self.begin().map_err(failed)?;
        let mut staged =
            Staged { topics_total: self.topics_total, next_pos: self.next_pos, ..Staged::default() };
        let written = self.write(group, now, &mut staged).map_err(|error| self.roll_back(error));
        match written.and_then(|findings| self.commit().map(|()| findings)) {
            Ok(findings) => {
                self.learn(staged, sync, (group, &findings, now));
                Ok(findings)
            }
            Err(error) => {
                self.index.put_back(staged.slices);
                Err(error)
            }
        }
    }

    /// Begins a transaction as soon as nothing else has the lock.
    fn begin(&mut self) -> rusqlite::Result<()> {
        let patience = if self.locked_out { LOCKED_OUT_TIMEOUT } else { self.options.database.lock_timeout };
        self.connection.busy_timeout(patience.min(self.options.database.lock_timeout))?;
        let begun = self.connection.execute_batch("BEGIN IMMEDIATE");
        let code = begun.as_ref().err().and_then(rusqlite::Error::sqlite_error_code);
        self.locked_out = code == Some(ErrorCode::DatabaseBusy);
        begun
    }

    /// Ends a transaction that cannot be committed. What is known afterwards depends on whether that worked.
    fn roll_back(&self, cause: StoreError) -> AppendError {
        if self.connection.is_autocommit() || self.connection.execute_batch("ROLLBACK").is_ok() {
            self.tally.put_back();
            return AppendError::Failed(cause);
        }
        AppendError::Unknown(cause)
    }

    fn commit(&mut self) -> Result<(), AppendError> {
        let begun = Instant::now();
        match self.connection.execute_batch("COMMIT") {
            Ok(()) => {
                self.sync_time = Some(begun.elapsed());
                Ok(())
            }
            // A lock is refused before anything is written. Any other error may have come after the write.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                Err(self.roll_back(error.into()))
            }
            Err(error) => Err(AppendError::Unknown(error.into())),
        }
    }

    /// Takes over into memory what was committed.
    fn learn(
        &mut self,
        staged: Staged,
        sync: Sync,
        (group, findings, now): (&[&Batch], &[Vec<Finding>], Timestamp),
    ) {
        #[cfg(test)]
        pass(Moment::Learn);
        self.tally.stored();
        if staged.repeated {
            self.tally.repeated().stored();
        }
        // Counted before the answers, and stored with the counts of the hot caches: nothing else about a repeat is.
        for (batch, of_batch) in group.iter().zip(findings) {
            let mut repeats = by_source::repeats(batch, of_batch, now).peekable();
            if staged.topics.get(&batch.topic).is_some_and(|topic| topic.repeated) && repeats.peek().is_some()
            {
                self.tally.count(&batch.topic, now, repeats);
            }
        }
        self.unsynced = self.options.durability == Durability::Relaxed && sync == Sync::Later;
        self.topics_total = staged.topics_total;
        self.next_pos = staged.next_pos;
        #[cfg(test)]
        pass(Moment::Learn);
        self.times.committed(staged.marked);
        self.remembered.learn(staged.topics.into_iter().map(|(name, topic)| (name, topic.state)));
        let pairs = group.iter().zip(findings).flat_map(|(batch, of)| batch.events.iter().zip(of));
        let accepted =
            pairs.filter(|(_, finding)| matches!(finding.verdict(), Some(Verdict::Accepted { .. })));
        self.index.committed(staged.slices, &staged.events, accepted.map(|(event, _)| event.source()));
        self.checkpointer.committed();
        self.mark_synced();
    }

    /// Lets the mark beside the store say how far it is synced.
    fn mark_synced(&self) {
        if let Some(marker) = self.marker.as_ref().filter(|_| !self.unsynced) {
            marker.synced(self.next_pos - 1, Instant::now());
        }
    }
}

impl Writer for SqliteWriter {
    fn append(&mut self, group: &[&Batch], now: Timestamp) -> Result<Vec<Vec<Finding>>, AppendError> {
        // Without a mark the next start could not know of commits that were not synced.
        let is_known = self.marker.as_ref().is_none_or(|marker| marker.is_kept());
        self.transact(group, now, if is_known { Sync::Later } else { Sync::Now })
    }

    fn missing(&mut self, topics: &[&Topic]) -> Result<Vec<bool>, StoreError> {
        topics.iter().map(|topic| self.lacks(topic)).collect()
    }

    fn flush(&mut self, now: Timestamp) -> Result<(), AppendError> {
        let counted = !self.tally.is_empty() || self.tally.repeated().is_due();
        if !self.unsynced && !counted && !self.index.has_work() {
            self.mark_synced();
            return Ok(());
        }
        self.probe(now)
    }

    fn probe(&mut self, now: Timestamp) -> Result<(), AppendError> {
        self.transact(&[], now, Sync::Now).map(drop)
    }

    fn sync_time(&self) -> Option<Duration> {
        self.sync_time
    }

    fn close(mut self: Box<Self>) -> Result<(), StoreError> {
        // Nothing waits for its time any more.
        self.tally.repeated().hurry();
        if self.tally.repeated().is_due()
            && let Err(AppendError::Failed(error) | AppendError::Unknown(error)) =
                self.probe(Timestamp::UNIX_EPOCH)
        {
            tracing::warn!(%error, "the last repeats of single events are not stored");
        }
        let finish = || self.marker.iter().for_each(|marker| marker.finish(self.next_pos - 1));
        if !self.unsynced {
            finish(); // Also where the write-ahead log stays because something reads it: it is synced.
        }
        self.checkpointer.finish(&self.connection).inspect(|()| finish())
    }
}

/// What is known of an event whose key is stored: equal digests mean equal bytes.
fn repeat(Entry { seq, digest: first, .. }: Entry, digest: u64, stored_at: Second) -> Finding {
    let same = Finding::decided(Verdict::Duplicate { seq, conflict: false }, stored_at);
    if first == digest { same } else { Finding::Differs { seq, stored_at } }
}

impl Sync {
    fn pragma(self) -> &'static str {
        match self {
            Self::Now => "FULL",
            Self::Later => "NORMAL",
        }
    }
}
