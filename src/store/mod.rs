//! The face of the store: append a group with a verdict for each event, read, look up, count.
//!
//! An [`Engine`] gives out any number of [`Reader`]s and as many [`Writer`]s at a time as it says. What is behind this face,
//! which index finds a key, how durability is reached, is the engine's own business. The face suits an
//! engine over a network as well as a file: reads are async, the writer owns a thread and may block, and
//! an error of the writer says whether the group is known to have failed.

#[cfg(test)]
pub(crate) mod contract;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod memory;
mod news;
mod postgres;
mod repeated;
mod sources;
mod sqlite;
mod tally;
mod transfer;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

pub use error::{AppendError, StoreError};
pub use memory::MemoryStore;
pub use news::{Listener, News};
pub use postgres::PostgresStore;
pub use repeated::Repeats;
pub use sources::{Repeat, SourceCounts};
pub use sqlite::{
    BackupError, Checked, Copied, Cure, Doctor, Fault, Part, Progress, Report, SqliteStore, Tell, copy,
};
pub use tally::Tally;
pub use transfer::{TransferError, Transferred, transfer};

use crate::config::{Settings, StoreUrl};
use crate::domain::{Counts, Event, HistoryId, Kinship, Lateness, Second, StoredEvent, Topic, Verdict};
use crate::metrics::StoreSample;

/// A store: where events, their keys and their counters live.
pub trait Engine: Send + Sync {
    /// A handle for reading; cheap, any number of them.
    fn reader(&self) -> Arc<dyn Reader>;

    /// How many writers may be open at once. Two of them are never given events of one topic at the same time.
    fn writers(&self) -> usize {
        1
    }

    /// Opens a writer and rebuilds all that it holds in memory from the store. Blocks. The caller drops a
    /// writer before it opens another one in its place.
    ///
    /// # Errors
    /// When the store cannot be opened for writing now; it may be tried again.
    fn open_writer(&self) -> Result<Box<dyn Writer>, StoreError>;

    /// Where duplicates that the hot caches answered, and rejected events, are counted until the writer
    /// stores them.
    fn tally(&self) -> Arc<Tally>;

    /// Where it is said which topics have new events. The pipeline says it of what it commits; an engine that others
    /// write to says it of theirs.
    fn news(&self) -> Arc<News>;

    /// Counts how often the way to the store was made anew. What is known of stored keys may be known of another store
    /// after that, such as one that took over and lacks the last commits, so hot caches are emptied. Never changes where
    /// the store cannot be another one.
    fn era(&self) -> Arc<AtomicU64> {
        Arc::default()
    }

    /// The space that the store takes and has; `None` where the engine cannot tell, such as that of a
    /// database elsewhere. Asked about twice a second.
    fn space(&self) -> Option<Space> {
        None
    }

    /// When an acknowledged event is on disk: `full` or `relaxed`.
    fn durability(&self) -> &'static str;
}

/// Opens the configured store. Blocks.
///
/// # Errors
/// Why it cannot be opened.
pub fn open(settings: &Settings) -> Result<Arc<dyn Engine>, StoreError> {
    match &settings.store.url {
        StoreUrl::Sqlite(_) => Ok(Arc::new(SqliteStore::open(settings)?)),
        StoreUrl::Postgres(url) => Ok(Arc::new(PostgresStore::open(settings, url)?)),
    }
}

/// Bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes of the store, its write-ahead log included.
    pub store_bytes: u64,
    /// Bytes that its file system has left for this process.
    pub free_bytes: u64,
}

/// Events of one topic, in the order in which they get their seqs.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The topic of every event here.
    pub topic: Topic,
    /// The events; never none.
    pub events: Vec<Event>,
}

/// What was decided on one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Its fate.
    pub verdict: Verdict,
    /// When the event with its key was stored, which is now where it was accepted. An engine may say an earlier second: by
    /// one, or by a 256th of the time since then.
    pub stored_at: Second,
}

/// What a commit found out about one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// All there is to know.
    Decided(Decision),
    /// A duplicate whose payload has other bytes than the stored one. Whether it is a conflict is decided by a
    /// comparison of the values, which no commit waits for.
    Differs {
        /// The position of the event that is stored.
        seq: u64,
        /// As [`Decision::stored_at`].
        stored_at: Second,
    },
}

impl Finding {
    /// A finding that is a verdict.
    #[must_use]
    pub fn decided(verdict: Verdict, stored_at: Second) -> Self {
        Self::Decided(Decision { verdict, stored_at })
    }

    /// The verdict, where there is one already.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Decided(Decision { verdict, .. }) => Some(*verdict),
            Self::Differs { .. } => None,
        }
    }
}

/// A writer of a store. It owns a thread and may block.
pub trait Writer: Send {
    /// Appends a group of batches in one transaction, together with the counts of what it accepts, and returns when it is
    /// durable. Gives a finding on each event of each batch, in their order; a key that is twice in the group is accepted
    /// once. No payload is parsed here, and no stored one is read. Duplicates of equal bytes are in the [`Tally`] when it
    /// returns: [`Writer::flush`] stores them. An engine may do so here too, with the group or beside it, above all where much
    /// waits. The caller counts those that differ, when they are compared.
    ///
    /// # Errors
    /// [`AppendError::Failed`]: nothing of the group is stored, and this writer can go on.
    /// [`AppendError::Locked`]: the same. Where the group has several topics, those that are named are to be appended each in
    /// a group of its own, and what is left without them: so only those fail that something else has locked indeed.
    /// [`AppendError::Unknown`]: all or nothing of it is stored; drop this writer and open another one.
    fn append(&mut self, group: &[&Batch], now: Timestamp) -> Result<Vec<Vec<Finding>>, AppendError>;

    /// Which of these topics the store does not hold, in their order. Asked before a group, and only where
    /// an address has made nearly as many topics as it may.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn missing(&mut self, topics: &[&Topic]) -> Result<Vec<bool>, StoreError>;

    /// Stores what waits in the [`Tally`] and syncs what no commit synced yet; writes nothing where there is
    /// nothing. Called at least once a second.
    ///
    /// # Errors
    /// As [`Writer::append`], of what is not stored now: an engine may store counts in several
    /// transactions, and [`AppendError::Failed`] says no more than that this writer can go on. The
    /// [`Tally`] knows which counts wait.
    fn flush(&mut self, now: Timestamp) -> Result<(), AppendError>;

    /// Commits a change that means nothing, to learn whether the store can write again.
    ///
    /// # Errors
    /// As [`Writer::append`].
    fn probe(&mut self, now: Timestamp) -> Result<(), AppendError>;

    /// How long the last commit that succeeded waited for the disk; `None` where the engine cannot tell.
    fn sync_time(&self) -> Option<Duration> {
        None
    }

    /// Tidies up before a clean stop, so that the next start has nothing to recover.
    ///
    /// # Errors
    /// When that did not succeed; no event is lost, the next start does it. Counts that could not be stored stay in the
    /// [`Tally`].
    fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// Reads of a store. All of them see every event that was acknowledged before they were called.
#[async_trait]
pub trait Reader: Send + Sync {
    /// A page of one topic; empty for an unknown topic. It ends before `query.limit` where the events' texts
    /// pass [`PAGE_BYTES`] together, but holds at least one event if there is any.
    async fn page(&self, query: PageQuery) -> Result<Page, StoreError>;

    /// The current history. Where a seq is read beside it, this is read first: a seq that is labelled
    /// with an older history than its own is refused later or names the same event, never another one.
    async fn history(&self) -> Result<HistoryId, StoreError>;

    /// Which seqs of a topic name the same events in this history and in the current one.
    async fn kinship(&self, topic: Topic, history: HistoryId) -> Result<Kinship, StoreError>;

    /// The event with this key.
    async fn event(&self, key: Key) -> Result<Option<StoredEvent>, StoreError>;

    /// The payloads that are stored under a first part of these keys, in the same order: at least one, and no more
    /// than pass [`PAGE_BYTES`] together. What is wrong with one of them is said in its place.
    ///
    /// # Errors
    /// When the store cannot be read at all.
    async fn payloads(&self, keys: &[Key]) -> Result<Vec<Result<StoredPayload, StoreError>>, StoreError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for key in keys {
            let payload = match self.event(key.clone()).await? {
                Some(stored) => Ok(StoredPayload::of(&stored)),
                None => Err(gone(key)),
            };
            bytes += payload.as_ref().map_or(0, |payload| payload.json.len());
            if bytes > PAGE_BYTES && !found.is_empty() {
                break;
            }
            found.push(payload);
        }
        Ok(found)
    }

    /// Where and when each of these keys was stored, in the same order.
    async fn lookup(&self, keys: Vec<Key>) -> Result<Vec<Option<Found>>, StoreError>;

    /// What was counted in one topic.
    async fn topic(&self, topic: Topic) -> Result<Option<TopicCounts>, StoreError>;

    /// What was counted in one topic, and by source.
    async fn sources(&self, topic: Topic) -> Result<Option<TopicSources>, StoreError>;

    /// The repeats of the event with this seq, if it is among those that were repeated most recently.
    async fn repeats(&self, topic: Topic, seq: u64) -> Result<Option<Repeats>, StoreError>;

    /// Topics whose names are greater than `after`, in the order of their bytes.
    async fn topics(&self, after: Option<String>, limit: usize) -> Result<Vec<TopicCounts>, StoreError>;

    /// What was counted since the store was made.
    async fn totals(&self) -> Result<Totals, StoreError>;

    /// What the store is made of now, for the metrics.
    async fn sample(&self) -> Result<StoreSample, StoreError> {
        Ok(StoreSample::default())
    }
}

/// The most bytes of event texts in one page, unless a single event has more. One slow reader holds two pages in
/// memory: the one that it is given, and the next.
pub const PAGE_BYTES: usize = 1 << 20;

/// Histories that a store remembers. A cursor of an older one is answered as one of an unknown history:
/// its client reads from the start of the topic.
pub(crate) const HISTORIES_MAX: i64 = 32;

/// Events of one topic, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The history that the store had at that moment, also where there are no events.
    pub history: HistoryId,
    /// The events.
    pub events: Vec<StoredEvent>,
}

/// Which events of a topic to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    /// The topic.
    pub topic: Topic,
    /// The first seq wanted.
    pub first: u64,
    /// The last seq wanted; nothing where it is less than `first`.
    pub last: u64,
    /// The most events.
    pub limit: usize,
    /// From which end.
    pub order: Order,
}

/// The order of seqs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// From the smallest seq.
    #[default]
    Ascending,
    /// From the greatest seq.
    Descending,
}

/// What makes an event the same event. The id is any text: one that breaks the rules is simply not stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The topic.
    pub topic: Topic,
    /// The id within the topic.
    pub event_id: String,
}

/// Where and when a key was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The position of the event in its topic.
    pub seq: u64,
    /// When the log stored it.
    pub received_at: Timestamp,
}

/// The payload of a stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPayload {
    /// The position of the event in its topic.
    pub seq: u64,
    /// The payload as it is stored. That it reads back as JSON is not known.
    pub json: String,
}

impl StoredPayload {
    /// That of an event.
    fn of(stored: &StoredEvent) -> Self {
        Self { seq: stored.seq, json: stored.event.payload().to_owned() }
    }
}

/// An event that a commit has seen is not there any more.
fn gone(key: &Key) -> StoreError {
    let Key { topic, event_id } = key;
    StoreError::Unavailable(format!("topic {topic}: the event {event_id} is not stored any more"))
}

/// What was counted in one topic. Its events have the seqs from `first_seq` to `last_seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicCounts {
    /// The topic.
    pub topic: Topic,
    /// Events by verdict; rejected events have no topic and are not counted here.
    pub counts: Counts,
    /// The first seq that can be read.
    pub first_seq: u64,
    /// The last seq given.
    pub last_seq: u64,
    /// When the last event was stored.
    pub last_received_at: Timestamp,
}

/// What was counted in one topic, and by source: the sums over all sources are the counts of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSources {
    /// The topic.
    pub topic: TopicCounts,
    /// The sources with a name, of which there are `limits.sources` at most, in the order of their bytes.
    pub named: Vec<(String, SourceCounts)>,
    /// All others together.
    pub other: SourceCounts,
}

impl TopicSources {
    /// How late the duplicates of all sources came.
    #[must_use]
    pub fn lateness(&self) -> Lateness {
        let mut sum = self.other.lateness;
        self.named.iter().for_each(|(_, counts)| sum += counts.lateness);
        sum
    }
}

/// What was counted since the store was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events by verdict.
    pub counts: Counts,
    /// Topics that hold an event.
    pub topics: u64,
}
