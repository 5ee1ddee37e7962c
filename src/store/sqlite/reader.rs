//! Reads, on connections of their own, so that they neither wait for the writer nor hold it back.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::{Options, rows, topics};
use crate::domain::{Counts, StoredEvent, Topic};
use crate::store::{Found, Key, PageQuery, Reader, StoreError, Tally, TopicCounts, Totals};

/// A few connections that only read, each used by one read at a time on a thread that may block.
pub(super) struct SqliteReader {
    options: Arc<Options>,
    tally: Arc<Tally>,
    idle: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
}

impl SqliteReader {
    pub(super) fn new(options: Arc<Options>, tally: Arc<Tally>) -> Self {
        let places = Arc::new(Semaphore::new(options.readers));
        Self { options, tally, idle: Arc::default(), places }
    }

    /// Runs `read` in one read transaction. A connection is kept for the next read unless this one failed.
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
            let mut connection = match waiting {
                Some(connection) => connection,
                None => options.database.open_to_read()?,
            };
            let transaction = connection.transaction()?;
            let value = read(&transaction)?;
            transaction.finish()?;
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            Ok(value)
        });
        result.await.unwrap_or_else(|error| Err(StoreError::Unavailable(format!("a read failed: {error}"))))
    }
}

#[async_trait]
impl Reader for SqliteReader {
    async fn page(&self, query: PageQuery) -> Result<Vec<StoredEvent>, StoreError> {
        self.read(move |connection| rows::page(connection, &query)).await
    }

    async fn event(&self, key: Key) -> Result<Option<StoredEvent>, StoreError> {
        self.read(move |connection| rows::event(connection, key.topic.as_str(), &key.event_id)).await
    }

    async fn lookup(&self, keys: Vec<Key>) -> Result<Vec<Option<Found>>, StoreError> {
        let find_all = move |connection: &Connection| {
            keys.iter().map(|key| rows::find(connection, key.topic.as_str(), &key.event_id)).collect()
        };
        self.read(find_all).await
    }

    async fn topic(&self, topic: Topic) -> Result<Option<TopicCounts>, StoreError> {
        let tally = self.tally.snapshot();
        self.read(move |connection| {
            let missing = tally.missing_from(epoch(connection)?);
            let mut found = topics::one(connection, &topic)?;
            if let Some(found) = &mut found {
                found.counts += missing.of(&topic);
            }
            Ok(found)
        })
        .await
    }

    async fn topics(&self, after: Option<String>, limit: usize) -> Result<Vec<TopicCounts>, StoreError> {
        let tally = self.tally.snapshot();
        self.read(move |connection| {
            let missing = tally.missing_from(epoch(connection)?);
            let mut page = topics::list(connection, after.as_deref(), limit)?;
            for found in &mut page {
                found.counts += missing.of(&found.topic);
            }
            Ok(page)
        })
        .await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        let tally = self.tally.snapshot();
        self.read(move |connection| {
            let mut totals = totals(connection)?;
            totals.counts += tally.missing_from(epoch(connection)?).sum();
            Ok(totals)
        })
        .await
    }
}

fn totals(connection: &Connection) -> rusqlite::Result<Totals> {
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
