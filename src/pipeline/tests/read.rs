//! A reader of which a test holds and fails what the comparer reads, on top of another one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::domain::{HistoryId, Kinship, StoredEvent, Topic};
use crate::metrics::StoreSample;
use crate::store::{
    Found, Key, Page, PageQuery, Reader, Repeats, StoreError, StoredPayload, TopicCounts, TopicSources,
    Totals,
};

/// What happens to one read of payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadFault {
    /// Nothing can be read.
    Unavailable,
    /// One of those that are asked for cannot be read, and which one is not said.
    Damaged,
    /// The first payload reads as no JSON.
    NoJson,
}

/// What a test tells all readers of a store.
pub(super) struct Reads {
    faults: Mutex<VecDeque<ReadFault>>,
    /// The ids of each read, in their order, and its thread.
    asked: Mutex<Vec<(Vec<String>, ThreadId)>>,
    /// A permit lets one read pass.
    gate: Semaphore,
}

/// Permits of a gate that is open.
const OPEN: usize = 1 << 20;

impl Default for Reads {
    fn default() -> Self {
        Self { faults: Mutex::default(), asked: Mutex::default(), gate: Semaphore::new(OPEN) }
    }
}

impl Reads {
    /// The next reads fail like this, one after the other.
    pub(super) fn fail_next(&self, faults: &[ReadFault]) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// Lets no read pass until the gate is opened.
    pub(super) fn close_gate(&self) {
        self.gate.forget_permits(OPEN);
    }

    pub(super) fn open_gate(&self) {
        self.gate.add_permits(OPEN);
    }

    /// The ids of each read that was begun, in their order, and its thread.
    pub(super) fn asked(&self) -> Vec<(Vec<String>, ThreadId)> {
        self.asked.lock().unwrap().clone()
    }
}

/// The reader.
pub(super) struct ScriptedReader {
    pub(super) inner: Arc<dyn Reader>,
    pub(super) reads: Arc<Reads>,
}

#[async_trait]
impl Reader for ScriptedReader {
    async fn payloads(&self, keys: &[Key]) -> Result<Vec<Result<StoredPayload, StoreError>>, StoreError> {
        let ids = keys.iter().map(|key| key.event_id.clone()).collect();
        self.reads.asked.lock().unwrap().push((ids, thread::current().id()));
        self.reads.gate.acquire().await.unwrap().forget();
        let fault = self.reads.faults.lock().unwrap().pop_front();
        let why = || "on purpose".to_owned();
        match fault {
            Some(ReadFault::Unavailable) => return Err(StoreError::Unavailable(why())),
            Some(ReadFault::Damaged) => return Err(StoreError::Damaged(why())),
            Some(ReadFault::NoJson) | None => {}
        }
        let mut found = self.inner.payloads(keys).await?;
        if let (Some(ReadFault::NoJson), Some(Ok(first))) = (fault, found.first_mut()) {
            "{\"".clone_into(&mut first.json);
        }
        Ok(found)
    }

    async fn page(&self, query: PageQuery) -> Result<Page, StoreError> {
        self.inner.page(query).await
    }

    async fn history(&self) -> Result<HistoryId, StoreError> {
        self.inner.history().await
    }

    async fn kinship(&self, topic: Topic, history: HistoryId) -> Result<Kinship, StoreError> {
        self.inner.kinship(topic, history).await
    }

    async fn event(&self, key: Key) -> Result<Option<StoredEvent>, StoreError> {
        self.inner.event(key).await
    }

    async fn lookup(&self, keys: Vec<Key>) -> Result<Vec<Option<Found>>, StoreError> {
        self.inner.lookup(keys).await
    }

    async fn topic(&self, topic: Topic) -> Result<Option<TopicCounts>, StoreError> {
        self.inner.topic(topic).await
    }

    async fn sources(&self, topic: Topic) -> Result<Option<TopicSources>, StoreError> {
        self.inner.sources(topic).await
    }

    async fn repeats(&self, topic: Topic, seq: u64) -> Result<Option<Repeats>, StoreError> {
        self.inner.repeats(topic, seq).await
    }

    async fn topics(&self, after: Option<String>, limit: usize) -> Result<Vec<TopicCounts>, StoreError> {
        self.inner.topics(after, limit).await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.inner.totals().await
    }

    async fn sample(&self) -> Result<StoreSample, StoreError> {
        self.inner.sample().await
    }
}
