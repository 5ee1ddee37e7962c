//! A pretended store: one topic `t` with as many events as wanted.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::config::{
    Cache, Compat, Durability, Limits, Log, LogFormat, Metrics, Router, Server, Settings, Store, StoreUrl,
};
use crate::domain::{Counts, Event, HistoryId, Kinship, Parts, StoredEvent, Topic};
use crate::store::{
    AppendError, Batch, Engine, Finding, Found, Key, News, Order, Page, PageQuery, Reader, Repeats,
    SourceCounts, StoreError, Tally, TopicCounts, TopicSources, Totals, Writer,
};

/// Settings as a test wants them: small, on a free port.
pub(crate) fn settings() -> Settings {
    let second = Duration::from_secs(1);
    Settings {
        server: Server {
            bind: "127.0.0.1:0".to_owned(),
            ops_bind: None,
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            workers: 1,
            request_timeout: second,
            head_timeout: second * 10,
            body_timeout: second,
            body_grace: second,
            body_min_rate: 0,
            drain_timeout: second * 10,
            write_timeout: second * 30,
            keep_alive: second * 75,
            answer_min_rate: 0,
            shutdown_timeout: second * 5,
            follow_heartbeat: second,
            follow_timeout: second,
        },
        limits: Limits {
            body: 100_000,
            compression_ratio: 0,
            compressed_members: 20,
            batch_events: 10,
            event: 10_000,
            depth: 8,
            in_flight_events: 1_000,
            in_flight_bytes: 1_000_000,
            free_disk: 0,
            store_bytes: None,
            topics: None,
            connections: 1_000,
            connections_per_address: 500,
            drain_bytes: 1_000_000,
            new_topics_per_minute: None,
            followers: 2,
            followers_per_address: 2,
            lookup_keys: 8,
            answer_bytes: 64 << 20,
            sources: 5,
        },
        router: Router { shards: 1, lanes: 1, idle: second, consumers: 10 },
        cache: Cache { keys: 100, keys_per_topic: 10 },
        store: Store {
            url: StoreUrl::Sqlite(PathBuf::from("unused")),
            password_file: None,
            durability: Durability::Full,
            commit_events: 100,
            commit_bytes: 1 << 20,
            commit_topics: None,
            writers: 1,
            readers: 1,
            lock_timeout: second,
            connect_timeout: second,
            statement_timeout: second,
            seal_keys: 1_000,
            wal_bytes: 1 << 20,
            repeated_keys: 10,
        },
        metrics: Metrics { topics: 2, topic_names: Vec::new() },
        topics: std::collections::BTreeMap::new(),
        log: Log { level: "info".to_owned(), format: LogFormat::Auto },
        compat: Compat::default(),
    }
}

/// A store whose topic `t` has the events 1 to `events`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fake {
    pub(crate) events: u64,
    /// A seq that does not read back.
    pub(crate) missing: Option<u64>,
    /// Whether no read succeeds.
    pub(crate) unavailable: bool,
    /// How often the store was restored under its readers.
    pub(crate) restores: Arc<AtomicU64>,
    /// Where nothing is ever said.
    pub(crate) news: Arc<News>,
}

/// The history that the pretended store had before it was restored, and the events that were kept.
pub(crate) const PARENT: &str = "before";
pub(crate) const SHARED: u64 = 2;

impl Fake {
    /// The history that pages have now; a test may begin another one meanwhile.
    fn history_now(&self) -> HistoryId {
        let number = self.restores.load(Ordering::Relaxed);
        HistoryId::parse(&format!("fake{number}")).unwrap()
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.unavailable { Err(StoreError::Unavailable("the disk is on fire".to_owned())) } else { Ok(()) }
    }

    fn has(&self, topic: &Topic) -> bool {
        topic.as_str() == "t" && self.events > 0
    }

    fn found(&self, key: &Key) -> Option<u64> {
        let seq = key.event_id.strip_prefix("a/").and_then(|seq| seq.parse().ok())?;
        (self.has(&key.topic) && (1..=self.events).contains(&seq)).then_some(seq)
    }

    fn counts(&self) -> TopicCounts {
        TopicCounts {
            topic: Topic::parse("t").unwrap(),
            counts: Counts { accepted: self.events, duplicates: 2, conflicts: 1, rejected: 0 },
            first_seq: 1,
            last_seq: self.events,
            last_received_at: Timestamp::UNIX_EPOCH,
        }
    }
}

fn stored(seq: u64) -> StoredEvent {
    let event_id = format!("a/{seq}");
    let parts = Parts {
        topic: "t",
        event_id: &event_id,
        timestamp: "2026-01-01T00:00:00Z",
        source: "s",
        payload: "{\"n\":\n1.0}",
    };
    StoredEvent { seq, received_at: Timestamp::UNIX_EPOCH, event: Event::pack(parts) }
}

#[async_trait]
impl Reader for Fake {
    async fn page(&self, query: PageQuery) -> Result<Page, StoreError> {
        self.check()?;
        let range = query.first.max(1)..=query.last.min(self.events);
        let seqs: Vec<_> = match query.order {
            Order::Ascending => range.take(query.limit).collect(),
            Order::Descending => range.rev().take(query.limit).collect(),
        };
        let events = seqs.into_iter().filter(|seq| Some(*seq) != self.missing).map(stored).collect();
        Ok(Page { history: self.history_now(), events })
    }

    async fn history(&self) -> Result<HistoryId, StoreError> {
        self.check()?;
        Ok(self.history_now())
    }

    async fn kinship(&self, _topic: Topic, history: HistoryId) -> Result<Kinship, StoreError> {
        self.check()?;
        if history == self.history_now() {
            return Ok(Kinship::Same);
        }
        Ok(if history.as_str() == PARENT { Kinship::SharedUpTo(SHARED) } else { Kinship::Unknown })
    }

    async fn event(&self, key: Key) -> Result<Option<StoredEvent>, StoreError> {
        self.check()?;
        Ok(self.found(&key).map(stored))
    }

    async fn lookup(&self, keys: Vec<Key>) -> Result<Vec<Option<Found>>, StoreError> {
        let at = |seq| Found { seq, received_at: Timestamp::UNIX_EPOCH };
        Ok(keys.iter().map(|key| self.found(key).map(at)).collect())
    }

    async fn topic(&self, topic: Topic) -> Result<Option<TopicCounts>, StoreError> {
        self.check()?;
        Ok(self.has(&topic).then(|| self.counts()))
    }

    async fn sources(&self, topic: Topic) -> Result<Option<TopicSources>, StoreError> {
        let named = |duplicates| SourceCounts { accepted: self.events, duplicates, ..Default::default() };
        Ok(self.topic(topic).await?.map(|topic| TopicSources {
            topic,
            named: vec![("s".to_owned(), named(2))],
            other: SourceCounts::default(),
        }))
    }

    async fn repeats(&self, _topic: Topic, seq: u64) -> Result<Option<Repeats>, StoreError> {
        Ok((seq == 1).then(|| Repeats {
            duplicates: 2,
            conflicts: 1,
            last_at: Timestamp::UNIX_EPOCH,
            last_source: "\"other\"".to_owned(),
            last_conflict: true,
        }))
    }

    async fn topics(&self, after: Option<String>, _limit: usize) -> Result<Vec<TopicCounts>, StoreError> {
        let wanted = self.events > 0 && after.is_none_or(|after| after.as_str() < "t");
        Ok(if wanted { vec![self.counts()] } else { Vec::new() })
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        Ok(Totals { counts: self.counts().counts, topics: u64::from(self.events > 0) })
    }
}

impl Engine for Fake {
    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(self.clone())
    }

    fn open_writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        Ok(Box::new(Nowhere))
    }

    fn tally(&self) -> Arc<Tally> {
        Arc::new(Tally::default())
    }

    fn news(&self) -> Arc<News> {
        Arc::clone(&self.news)
    }

    fn durability(&self) -> &'static str {
        "full"
    }
}

/// A writer that stores nothing.
struct Nowhere;

impl Writer for Nowhere {
    fn missing(&mut self, topics: &[&Topic]) -> Result<Vec<bool>, StoreError> {
        Ok(vec![false; topics.len()])
    }

    fn append(&mut self, _group: &[&Batch], _now: Timestamp) -> Result<Vec<Vec<Finding>>, AppendError> {
        Err(AppendError::Failed(StoreError::Unavailable("it is only pretended".to_owned())))
    }

    fn flush(&mut self, _now: Timestamp) -> Result<(), AppendError> {
        Ok(())
    }

    fn probe(&mut self, _now: Timestamp) -> Result<(), AppendError> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}
