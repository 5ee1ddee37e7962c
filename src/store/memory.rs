//! A store in memory: the simplest thing that keeps the contract, and so the oracle of the tests. It forgets
//! everything when it is dropped; nothing offers it to users.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use super::sources::{SourceCounts, Sources, repeats};
use super::{
    AppendError, Batch, Engine, Finding, Found, Key, News, Order, PAGE_BYTES, Page, PageQuery, Reader,
    Repeats, StoreError, Tally, TopicCounts, TopicSources, Totals, Writer,
};
use crate::domain::{Counts, Event, HistoryId, Kinship, Refusal, Second, StoredEvent, Topic, Verdict};

/// Sources of a topic that are named: the default of `limits.sources`.
const SOURCES: usize = 50;

/// A store in memory.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    history: HistoryId,
    log: Arc<Mutex<Log>>,
    tally: Arc<Tally>,
    news: Arc<News>,
    topic_limit: Option<u64>,
}

#[derive(Debug, Default)]
struct Log {
    topics: BTreeMap<Topic, TopicLog>,
    rejected: u64,
    epoch: u64,
}

#[derive(Debug, Default)]
struct TopicLog {
    /// The event with seq n at n - 1.
    events: Vec<StoredEvent>,
    /// The seq of each id.
    seqs: HashMap<String, u64>,
    /// What came, by source.
    sources: Sources,
}

impl MemoryStore {
    /// An empty store that takes at most so many topics.
    #[must_use]
    pub fn new(topic_limit: Option<u64>) -> Self {
        Self {
            history: HistoryId::first(),
            log: Arc::default(),
            tally: Arc::default(),
            news: Arc::default(),
            topic_limit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for MemoryStore {
    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(self.clone())
    }

    fn open_writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        self.tally.resume(self.lock().epoch);
        Ok(Box::new(self.clone()))
    }

    fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    fn news(&self) -> Arc<News> {
        Arc::clone(&self.news)
    }

    fn durability(&self) -> &'static str {
        "memory"
    }
}

impl Writer for MemoryStore {
    fn append(&mut self, group: &[&Batch], now: Timestamp) -> Result<Vec<Vec<Finding>>, AppendError> {
        let mut log = self.lock();
        if let Some((epoch, lot)) = self.tally.take() {
            log.epoch = epoch;
            log.rejected += lot.rejected;
            for (topic, sources) in &lot.topics {
                let topic = log.topics.entry(topic.clone()).or_default();
                sources.iter().for_each(|(name, counts)| topic.sources.add(name, counts, SOURCES));
            }
            self.tally.stored();
        }
        let append = |batch: &&Batch| {
            let findings = log.append(batch, now, self.topic_limit);
            if repeats(batch, &findings, now).next().is_some() {
                self.tally.count(&batch.topic, now, repeats(batch, &findings, now));
            }
            findings
        };
        Ok(group.iter().map(append).collect())
    }

    fn missing(&mut self, topics: &[&Topic]) -> Result<Vec<bool>, StoreError> {
        let log = self.lock();
        Ok(topics.iter().map(|topic| !log.topics.contains_key(*topic)).collect())
    }

    fn flush(&mut self, now: Timestamp) -> Result<(), AppendError> {
        self.append(&[], now).map(drop)
    }

    fn probe(&mut self, now: Timestamp) -> Result<(), AppendError> {
        self.flush(now)
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Log {
    fn append(&mut self, batch: &Batch, now: Timestamp, topic_limit: Option<u64>) -> Vec<Finding> {
        let full = topic_limit.is_some_and(|limit| self.topics.len() as u64 >= limit);
        if full && !self.topics.contains_key(&batch.topic) {
            self.rejected += batch.events.len() as u64;
            let verdict = Verdict::Refused(Refusal::TopicLimit);
            return vec![Finding::decided(verdict, Second::of(now)); batch.events.len()];
        }
        let topic = self.topics.entry(batch.topic.clone()).or_default();
        batch.events.iter().map(|event| topic.append(event, now)).collect()
    }
}

impl TopicLog {
    fn append(&mut self, event: &Event, received_at: Timestamp) -> Finding {
        if let Some(first) = self.find(event.event_id()) {
            let (seq, stored_at) = (first.seq, Second::of(first.received_at));
            if first.event.payload() == event.payload() {
                return Finding::decided(Verdict::Duplicate { seq, conflict: false }, stored_at);
            }
            return Finding::Differs { seq, stored_at };
        }
        let seq = self.events.len() as u64 + 1;
        self.seqs.insert(event.event_id().to_owned(), seq);
        self.events.push(StoredEvent { seq, received_at, event: event.clone() });
        self.sources.add(event.source(), SourceCounts::accepted(1), SOURCES);
        Finding::decided(Verdict::Accepted { seq }, Second::of(received_at))
    }

    fn find(&self, event_id: &str) -> Option<&StoredEvent> {
        let seq = *self.seqs.get(event_id)?;
        self.events.get(usize::try_from(seq - 1).ok()?)
    }

    fn counts(&self, name: &Topic, missing: Counts) -> Option<TopicCounts> {
        let last = self.events.last()?;
        let mut counts = self.sources.sum();
        counts += missing;
        Some(TopicCounts {
            topic: name.clone(),
            counts,
            first_seq: 1,
            last_seq: last.seq,
            last_received_at: last.received_at,
        })
    }
}

#[async_trait]
impl Reader for MemoryStore {
    async fn page(&self, query: PageQuery) -> Result<Page, StoreError> {
        let log = self.lock();
        let page = |events| Page { history: self.history.clone(), events };
        let Some(topic) = log.topics.get(&query.topic) else { return Ok(page(Vec::new())) };
        let wanted = topic.events.iter().filter(|stored| (query.first..=query.last).contains(&stored.seq));
        let ordered: Vec<_> = match query.order {
            Order::Ascending => wanted.collect(),
            Order::Descending => wanted.rev().collect(),
        };
        let mut bytes = 0;
        let fits = ordered.into_iter().take(query.limit).take_while(|stored| {
            let first = bytes == 0;
            bytes += stored.event.bytes();
            first || bytes <= PAGE_BYTES
        });
        Ok(page(fits.cloned().collect()))
    }

    async fn history(&self) -> Result<HistoryId, StoreError> {
        Ok(self.history.clone())
    }

    async fn kinship(&self, _topic: Topic, other: HistoryId) -> Result<Kinship, StoreError> {
        Ok(if other == self.history { Kinship::Same } else { Kinship::Unknown })
    }

    async fn event(&self, key: Key) -> Result<Option<StoredEvent>, StoreError> {
        let log = self.lock();
        Ok(log.topics.get(&key.topic).and_then(|topic| topic.find(&key.event_id)).cloned())
    }

    async fn lookup(&self, keys: Vec<Key>) -> Result<Vec<Option<Found>>, StoreError> {
        let log = self.lock();
        let find = |key: &Key| log.topics.get(&key.topic)?.find(&key.event_id);
        let found = |stored: &StoredEvent| Found { seq: stored.seq, received_at: stored.received_at };
        Ok(keys.iter().map(|key| find(key).map(found)).collect())
    }

    async fn topic(&self, topic: Topic) -> Result<Option<TopicCounts>, StoreError> {
        let missing = self.tally.snapshot_of(&topic);
        let log = self.lock();
        let missing = missing.missing_from(log.epoch).of(&topic);
        Ok(log.topics.get(&topic).and_then(|found| found.counts(&topic, missing)))
    }

    async fn sources(&self, topic: Topic) -> Result<Option<TopicSources>, StoreError> {
        let missing = self.tally.snapshot_of(&topic);
        let log = self.lock();
        let missing = missing.missing_from(log.epoch);
        let explain = |found: &TopicLog| {
            let counts = found.counts(&topic, missing.of(&topic))?;
            let mut sources = found.sources.clone();
            missing.add_to(&topic, &mut sources, SOURCES);
            Some(sources.explain(counts))
        };
        Ok(log.topics.get(&topic).and_then(explain))
    }

    async fn repeats(&self, topic: Topic, seq: u64) -> Result<Option<Repeats>, StoreError> {
        Ok(self.tally.repeated().of(&(topic, seq)))
    }

    async fn topics(&self, after: Option<String>, limit: usize) -> Result<Vec<TopicCounts>, StoreError> {
        let missing = self.tally.snapshot();
        let log = self.lock();
        let missing = missing.missing_from(log.epoch);
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let later = log.topics.range::<str, _>((start, Bound::Unbounded));
        Ok(later.filter_map(|(name, topic)| topic.counts(name, missing.of(name))).take(limit).collect())
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        let missing = self.tally.snapshot();
        let log = self.lock();
        let mut counts = Counts { rejected: log.rejected, ..Counts::default() };
        counts += missing.missing_from(log.epoch).sum();
        for topic in log.topics.values() {
            counts += topic.sources.sum();
        }
        Ok(Totals { counts, topics: log.topics.len() as u64 })
    }
}
