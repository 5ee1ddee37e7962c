//! Reads, on connections of their own, so that they neither wait for the writer nor hold it back.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::checkpoint::Checkpointer;
use super::index::SharedMemory;
use super::rows::Rows;
use super::runs::{self, Search};
use super::topics::{TopicId, TopicState};
use super::{Options, Shared, connection, history, page, rows, sources, topics};
use crate::domain::{Counts, HistoryId, Kinship, StoredEvent, Topic};
use crate::metrics::{OwnSample, StoreSample};
use crate::store::index::{Entry, Hasher};
use crate::store::sources::SourceCounts;
use crate::store::tally::Snapshot;
use crate::store::{
    Found, Key, PAGE_BYTES, Page, PageQuery, Reader, Repeats, StoreError, StoredPayload, Tally, TopicCounts,
    TopicSources, Totals,
};

/// A few connections that only read, each used by one read at a time on a thread that may block.
pub(super) struct SqliteReader {
    options: Arc<Options>,
    /// It stays the same as long as the file is open.
    history: HistoryId,
    tally: Arc<Tally>,
    /// Recent keys and positions, and what memory holds of the runs. Whoever reads looks here first and into the
    /// file after that: what is sealed in between is then seen in one of the two, and never in neither.
    memory: SharedMemory,
    hasher: Hasher,
    checkpointer: Arc<Checkpointer>,
    idle: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
}

impl SqliteReader {
    pub(super) fn new(options: Arc<Options>, history: HistoryId, shared: &Shared, hasher: Hasher) -> Self {
        let Shared { tally, checkpointer, memory, .. } = shared.clone();
        let places = Arc::new(Semaphore::new(options.readers));
        Self { options, history, tally, memory, hasher, checkpointer, idle: Arc::default(), places }
    }

    /// Where a key is looked for.
    fn keys(&self) -> Keys {
        Keys { memory: self.memory.clone(), hasher: self.hasher.clone() }
    }

    /// Runs `read` on a thread that may block. A connection is kept for the next read unless this one failed.
    async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let gone = |_| StoreError::Unavailable("the store is closing".to_owned());
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(gone)?;
        let (idle, options) = (Arc::clone(&self.idle), Arc::clone(&self.options));
        let result = tokio::task::spawn_blocking(move || {
            let _place = place;
            let waiting = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match waiting {
                Some(connection) => connection,
                None => options.database.open_to_read()?,
            };
            let value = read(&connection)?;
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            Ok(value)
        });
        result.await.unwrap_or_else(|error| Err(StoreError::Unavailable(format!("a read failed: {error}"))))
    }
}

#[async_trait]
impl Reader for SqliteReader {
    async fn page(&self, query: PageQuery) -> Result<Page, StoreError> {
        let memory = self.memory.clone();
        let events = self.read(move |connection| page::read(connection, &memory, &query)).await?;
        Ok(Page { history: self.history.clone(), events })
    }

    async fn history(&self) -> Result<HistoryId, StoreError> {
        Ok(self.history.clone())
    }

    async fn kinship(&self, topic: Topic, other: HistoryId) -> Result<Kinship, StoreError> {
        if other == self.history {
            return Ok(Kinship::Same);
        }
        self.read(move |connection| history::kinship(connection, &topic, &other)).await
    }

    async fn event(&self, key: Key) -> Result<Option<StoredEvent>, StoreError> {
        let keys = self.keys();
        let read = move |connection: &Connection| {
            let Some((topic, entry)) = keys.find(connection, &key)? else { return Ok(None) };
            Rows::of(connection, topic, key.topic.as_str())?.at((entry.seq, entry.pos)).map(Some)
        };
        self.read(read).await
    }

    async fn payloads(&self, wanted: &[Key]) -> Result<Vec<Result<StoredPayload, StoreError>>, StoreError> {
        let (keys, wanted) = (self.keys(), wanted.to_vec());
        self.read(move |connection| {
            let (mut found, mut bytes) = (Vec::new(), 0);
            for key in &wanted {
                let payload = keys.payload(connection, key);
                bytes += payload.as_ref().map_or(0, |payload| payload.json.len());
                if bytes > PAGE_BYTES && !found.is_empty() {
                    break;
                }
                found.push(payload);
            }
            Ok(found)
        })
        .await
    }

    async fn lookup(&self, wanted: Vec<Key>) -> Result<Vec<Option<Found>>, StoreError> {
        let keys = self.keys();
        let look_up = move |connection: &Connection, key: &Key| {
            let Some((_, entry)) = keys.find(connection, key)? else { return Ok(None) };
            Ok(Some(Found { seq: entry.seq, received_at: rows::received_at(connection, entry.pos)? }))
        };
        self.read(move |connection| wanted.iter().map(|key| look_up(connection, key)).collect()).await
    }

    async fn topic(&self, topic: Topic) -> Result<Option<TopicCounts>, StoreError> {
        let (tally, memory) = (self.tally.snapshot_of(&topic), self.memory.clone());
        self.read(move |connection| {
            let Some(TopicState { id, .. }) = topics::load(connection, &topic)? else { return Ok(None) };
            Ok(counted(connection, &memory, tally, &[id])?.pop())
        })
        .await
    }

    async fn sources(&self, topic: Topic) -> Result<Option<TopicSources>, StoreError> {
        let (tally, memory) = (Arc::clone(&self.tally), self.memory.clone());
        let limit = self.options.sealing.sources;
        self.read(move |connection| {
            let Some(TopicState { id, .. }) = topics::load(connection, &topic)? else { return Ok(None) };
            explained(connection, &memory, &tally, (id, &topic), limit)
        })
        .await
    }

    async fn repeats(&self, topic: Topic, seq: u64) -> Result<Option<Repeats>, StoreError> {
        Ok(self.tally.repeated().of(&(topic, seq)))
    }

    async fn topics(&self, after: Option<String>, limit: usize) -> Result<Vec<TopicCounts>, StoreError> {
        let (tally, memory) = (Arc::clone(&self.tally), self.memory.clone());
        self.read(move |connection| {
            let mut last = after;
            loop {
                let some = topics::after(connection, last.as_deref(), limit)?;
                let ids: Vec<_> = some.iter().map(|(id, _)| *id).collect();
                let page = counted(connection, &memory, tally.snapshot(), &ids)?;
                // An empty page would be the end for whoever reads on.
                last = match some.into_iter().next_back() {
                    Some((_, name)) if page.is_empty() => Some(name),
                    _ => return Ok(page),
                };
            }
        })
        .await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        let tally = self.tally.snapshot();
        self.read(move |connection| {
            let snapshot = connection.unchecked_transaction()?;
            let mut totals = totals(&snapshot)?;
            totals.counts += tally.missing_from(epoch(&snapshot)?).sum();
            Ok(totals)
        })
        .await
    }

    async fn sample(&self) -> Result<StoreSample, StoreError> {
        let (memory, options) = (self.memory.clone(), Arc::clone(&self.options));
        let checkpoints_blocked = self.checkpointer.blocked();
        // Not on a thread that must not block: it asks the file system.
        self.read(move |_| {
            let [recent_keys, runs, merges] = memory.read().amounts().map(|amount| amount as u64);
            let path = &options.database.path;
            let database_bytes = fs::metadata(path).map_or(0, |file| file.len());
            let wal_bytes = connection::left_wal(path);
            let free_bytes = connection::space(path).map(|space| space.free_bytes);
            let own = OwnSample { recent_keys, runs, merges, wal_bytes, free_bytes, checkpoints_blocked };
            Ok(StoreSample { database_bytes, own: Some(own) })
        })
        .await
    }
}

/// What is counted of topics, without those of which no event is known yet: the commit that makes them is being
/// taken over into memory, and nobody was answered.
fn counted(
    connection: &Connection,
    memory: &SharedMemory,
    tally: Snapshot,
    ids: &[TopicId],
) -> Result<Vec<TopicCounts>, StoreError> {
    let recent: Vec<_> = {
        let memory = memory.read();
        ids.iter().map(|id| memory.last_event(*id)).collect()
    };
    let snapshot = connection.unchecked_transaction()?;
    let missing = tally.missing_from(epoch(&snapshot)?);
    let mut page = Vec::with_capacity(ids.len());
    for (id, last) in ids.iter().zip(recent) {
        page.extend(topics::one(&snapshot, *id, last)?);
    }
    for found in &mut page {
        found.counts += missing.of(&found.topic);
    }
    Ok(page)
}

/// What is counted of a topic, and by source: what is stored up to its last sealed seq, the recent events behind that,
/// and what waits.
pub(super) fn explained(
    connection: &Connection,
    memory: &SharedMemory,
    tally: &Tally,
    (id, name): (TopicId, &Topic),
    limit: usize,
) -> Result<Option<TopicSources>, StoreError> {
    loop {
        let tally = tally.snapshot_of(name);
        let sealed = topics::sealed_seq(connection, id)?;
        let (last, count_recent) = {
            let memory = memory.read();
            (memory.last_event(id), memory.sources(id, sealed))
        };
        let recent = count_recent();
        let snapshot = connection.unchecked_transaction()?;
        if topics::sealed_seq(&snapshot, id)? != sealed {
            // Some of the recent events were sealed meanwhile, and are counted in the file now.
            continue;
        }
        let missing = tally.missing_from(epoch(&snapshot)?);
        let Some(mut counts) = topics::one(&snapshot, id, last)? else { return Ok(None) };
        let mut by_source = sources::load(&snapshot, id)?;
        for (source, accepted) in recent {
            by_source.add(&source, SourceCounts::accepted(accepted), limit);
        }
        if by_source.sum() != counts.counts {
            return Err(StoreError::Damaged(format!(
                "the counts by source of topic {name} are not those of the topic; `sekali doctor` says more"
            )));
        }
        missing.add_to(name, &mut by_source, limit);
        counts.counts += missing.of(name);
        return Ok(Some(by_source.explain(counts)));
    }
}

/// Where a key is looked for: recent keys, then runs.
struct Keys {
    memory: SharedMemory,
    hasher: Hasher,
}

impl Keys {
    /// The payload of the event with a key, which was stored once.
    fn payload(&self, connection: &Connection, key: &Key) -> Result<StoredPayload, StoreError> {
        let missing =
            || StoreError::Damaged(format!("topic {}: a duplicate's event is not in the index", key.topic));
        let (topic, Entry { pos, seq, .. }) = self.find(connection, key)?.ok_or_else(missing)?;
        let stored = Rows::of(connection, topic, key.topic.as_str())?.at((seq, pos))?;
        Ok(StoredPayload::of(&stored))
    }

    /// The topic and the entry of a key.
    fn find(&self, connection: &Connection, key: &Key) -> Result<Option<(TopicId, Entry)>, StoreError> {
        let Some(topic) = topics::load(connection, &key.topic)? else { return Ok(None) };
        let hash = self.hasher.key(topic.id.0, &key.event_id);
        loop {
            let (recent, runs) = {
                let memory = self.memory.read();
                (memory.recent(hash), memory.runs())
            };
            if let Some(entry) = recent {
                return Ok(Some((topic.id, entry)));
            }
            match runs::search(connection, runs.iter().map(Arc::as_ref), hash)? {
                Search::Found(entry) => return Ok(Some((topic.id, entry))),
                Search::NotThere => return Ok(None),
                // A merge has replaced a run meanwhile; memory knows the new one.
                Search::Outdated(_) if !Arc::ptr_eq(&runs, &self.memory.read().runs()) => {}
                Search::Outdated(block) => return Err(runs::missing_block(block)),
            }
        }
    }
}

pub(super) fn totals(connection: &Connection) -> rusqlite::Result<Totals> {
    let sql = "SELECT topics, accepted, duplicates, conflicts, rejected FROM totals";
    connection.prepare_cached(sql)?.query_row([], |row| {
        let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let counts = Counts {
            accepted: number(1)?,
            duplicates: number(2)?,
            conflicts: number(3)?,
            rejected: number(4)?,
        };
        Ok(Totals { topics: number(0)?, counts })
    })
}

fn epoch(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT tally_epoch FROM totals";
    connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}
