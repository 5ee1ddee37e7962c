//! What is read only when somebody asks for the metrics: budgets, caches, the store, topics.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::domain::{Counts, LATE_SECONDS, Lateness};

/// The label of all topics, and of all sources, that have none of their own.
const OTHER: &str = "other";

/// How things are at one moment.
#[derive(Debug, Default)]
pub struct Sample {
    /// Bytes between their arrival and their commit, and how many there may be.
    pub in_flight_bytes: (u64, u64),
    /// Events between their parsing and their commit, and how many there may be.
    pub in_flight_events: (u64, u64),
    /// Bytes of answers that clients have not taken yet, and how many there may be.
    pub answer_bytes: (u64, u64),
    /// Keys in all hot caches, and how many there may be.
    pub cache_keys: (u64, u64),
    /// Actors that live, by their kind.
    pub actors: Vec<(&'static str, u64)>,
    /// Whether the store could write when it last tried.
    pub writable: bool,
    /// The bounds past which publishes are refused for want of space.
    pub space: SpaceLimits,
    /// The store, if it can be read.
    pub store: Option<StoreSample>,
    /// Some topics.
    pub topics: Vec<TopicSample>,
    /// All other topics together, if there are topics.
    pub other_topics: Option<Counts>,
}

/// The bounds of space, of which 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpaceLimits {
    /// Bytes of the disk that must be free.
    pub free_disk: u64,
    /// The most bytes of the store.
    pub store_bytes: u64,
}

/// What a store is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreSample {
    /// Bytes of the database.
    pub database_bytes: u64,
    /// What only an engine has that keeps a dedup index and a write-ahead log of its own. Others have no such metrics: a 0
    /// would say that all is well where there is nothing.
    pub own: Option<OwnSample>,
}

/// A dedup index and a write-ahead log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnSample {
    /// Keys of the dedup index in memory, not sealed yet.
    pub recent_keys: u64,
    /// Sealed runs of the dedup index.
    pub runs: u64,
    /// Merges of runs under way.
    pub merges: u64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: u64,
    /// Bytes that the disk of the store has left; `None` where the system does not tell.
    pub free_bytes: Option<u64>,
    /// Checkpoints that did not come to their end because somebody reads an old state of the store.
    pub checkpoints_blocked: u64,
}

/// What was counted in one topic since the store was made.
#[derive(Debug, Default)]
pub struct TopicSample {
    /// Its name.
    pub topic: String,
    /// By source.
    pub sources: Vec<(String, Counts)>,
    /// Of sources without a name.
    pub other: Counts,
    /// How late its duplicates came.
    pub lateness: Lateness,
}

impl Sample {
    pub(super) fn register(self, to: &mut Registry) {
        let ((bytes, bytes_limit), (events, events_limit)) = (self.in_flight_bytes, self.in_flight_events);
        let ((keys, keys_limit), (answers, answers_limit)) = (self.cache_keys, self.answer_bytes);
        for (name, help, value) in [
            ("in_flight_bytes", "Bytes of requests in flight", bytes),
            ("in_flight_limit_bytes", "limits.in_flight_bytes", bytes_limit),
            ("in_flight_events", "Events of requests in flight", events),
            ("in_flight_limit_events", "limits.in_flight_events", events_limit),
            ("answer_bytes", "Bytes of answers that clients have not taken yet", answers),
            ("answer_limit_bytes", "limits.answer_bytes", answers_limit),
            ("cache_keys", "Keys in all hot caches", keys),
            ("cache_limit_keys", "cache.keys", keys_limit),
            ("store_writable", "1 if the store could write when it last tried, else 0", self.writable.into()),
        ] {
            to.register(name, help, gauge(value));
        }
        if let Some(store) = self.store {
            store.register(self.space, to);
        }
        to.register_collector(Box::new(Labelled {
            name: ("actors", "Actors that live, by kind"),
            label: "actor",
            values: self.actors,
        }));
        to.register_collector(Box::new(Topics::new(self.topics, self.other_topics)));
    }
}

impl StoreSample {
    fn register(self, limits: SpaceLimits, to: &mut Registry) {
        let mut values = vec![("database", self.database_bytes)];
        values.extend(self.own.map(|own| ("wal", own.wal_bytes)));
        let name = ("store_bytes", "Bytes of the store on disk, by part");
        to.register_collector(Box::new(Labelled { name, label: "part", values }));
        if let Some(own) = self.own {
            own.register(limits, to);
        }
    }
}

impl OwnSample {
    fn register(self, limits: SpaceLimits, to: &mut Registry) {
        for (name, help, value) in [
            ("store_recent_keys", "Keys of the dedup index in memory, not sealed yet", self.recent_keys),
            ("store_runs", "Sealed runs of the dedup index", self.runs),
            ("store_merges", "Merges of runs under way", self.merges),
        ] {
            to.register(name, help, gauge(value));
        }
        if let Some(free) = self.free_bytes {
            for (name, help, value) in [
                ("store_disk_free_bytes", "Bytes that the disk of the store has left", free),
                ("store_disk_limit_bytes", "limits.free_disk", limits.free_disk),
                ("store_limit_bytes", "limits.store_bytes; 0 is no limit", limits.store_bytes),
            ] {
                to.register(name, help, gauge(value));
            }
        }
        let blocked = ConstCounter::new(self.checkpoints_blocked);
        let help = "Checkpoints held up by somebody who reads an old state of the store";
        to.register("store_checkpoints_blocked", help, blocked);
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

/// A metric with labels, once its values are known.
fn family<L: EncodeLabelSet, V: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    kind: MetricType,
    values: impl Iterator<Item = (L, V)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        value.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// A gauge with one label.
#[derive(Debug)]
struct Labelled {
    /// With its help.
    name: (&'static str, &'static str),
    label: &'static str,
    values: Vec<(&'static str, u64)>,
}

impl Collector for Labelled {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let values = self.values.iter().map(|(of, value)| ([(self.label, *of)], ConstGauge::new(*value)));
        family(&mut encoder, self.name, MetricType::Gauge, values)
    }
}

/// Topics by their labels: two cannot have one, so that one that is called [`OTHER`] is counted with the others.
#[derive(Debug, Default)]
struct Topics {
    counts: BTreeMap<(String, String), Counts>,
    lateness: BTreeMap<String, Lateness>,
}

impl Topics {
    fn new(topics: Vec<TopicSample>, other_topics: Option<Counts>) -> Self {
        let mut all = Self::default();
        for TopicSample { topic, sources, other, lateness } in topics {
            for (source, counts) in sources.into_iter().chain([(OTHER.to_owned(), other)]) {
                if counts != Counts::default() {
                    *all.counts.entry((topic.clone(), source)).or_default() += counts;
                }
            }
            *all.lateness.entry(topic).or_default() += lateness;
        }
        if let Some(counts) = other_topics {
            *all.counts.entry((OTHER.to_owned(), OTHER.to_owned())).or_default() += counts;
        }
        all
    }
}

impl Collector for Topics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        type Counter = (&'static str, &'static str, fn(&Counts) -> u64);
        let counters: [Counter; 3] = [
            ("topic_events_accepted", "Events stored, by topic and source", |of| of.accepted),
            ("topic_events_duplicate", "Duplicates, by topic and source", |of| of.duplicates),
            ("topic_events_conflict", "Conflicts, by topic and source", |of| of.conflicts),
        ];
        for (name, help, value) in counters {
            let values = self.counts.iter().map(|((topic, source), counts)| {
                ([("topic", &**topic), ("source", &**source)], ConstCounter::new(value(counts)))
            });
            family(&mut encoder, (name, help), MetricType::Counter, values)?;
        }
        let help = "How long after their events duplicates came, by topic";
        let unit = Some(&Unit::Seconds);
        let mut metric = encoder.encode_descriptor("topic_lateness", help, unit, MetricType::Histogram)?;
        for (topic, lateness) in &self.lateness {
            let ends = LATE_SECONDS.map(f64::from).into_iter().chain([f64::INFINITY]);
            let buckets: Vec<_> = ends.zip(lateness.buckets).collect();
            #[expect(clippy::cast_precision_loss, reason = "a sum of seconds needs no more than 16 digits")]
            let sum = lateness.seconds as f64;
            let count = lateness.buckets.iter().sum();
            let labels = [("topic", &**topic)];
            metric
                .encode_family(&labels)?
                .encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn topics_have_labels_of_their_own_and_none_twice() {
        let counts = |accepted, duplicates| Counts { accepted, duplicates, ..Counts::default() };
        let mut lateness = Lateness::default();
        for late in [1, 60, 90, u32::MAX] {
            lateness.count(late);
        }
        let topic = |name: &str, source: &str| TopicSample {
            topic: name.to_owned(),
            sources: vec![(source.to_owned(), counts(3, 4))],
            other: counts(1, 0),
            lateness,
        };
        let sample = Sample {
            topics: vec![topic("a \"b\" \\", "x"), topic("other", "other")],
            other_topics: Some(counts(7, 0)),
            store: Some(StoreSample {
                database_bytes: 9,
                own: Some(OwnSample { runs: 5, free_bytes: Some(6), ..OwnSample::default() }),
            }),
            space: SpaceLimits { free_disk: 7, store_bytes: 0 },
            actors: vec![("router", 1)],
            ..Sample::default()
        };
        let text = Metrics::new().text(sample).unwrap();
        let lateness = "sekali_topic_lateness_seconds";
        for line in [
            r#"sekali_topic_events_duplicate_total{topic="a \"b\" \\",source="x"} 4"#,
            r#"sekali_topic_events_accepted_total{topic="a \"b\" \\",source="other"} 1"#,
            r#"sekali_topic_events_accepted_total{topic="other",source="other"} 11"#,
            &format!("{lateness}_bucket{{le=\"60.0\",topic=\"other\"}} 2"),
            &format!("{lateness}_bucket{{le=\"+Inf\",topic=\"other\"}} 4"),
            &format!("{lateness}_count{{topic=\"other\"}} 4"),
            "sekali_store_runs 5",
            "sekali_store_disk_free_bytes 6",
            "sekali_store_disk_limit_bytes 7",
            "sekali_store_limit_bytes 0",
            r#"sekali_store_bytes{part="database"} 9"#,
            r#"sekali_store_bytes{part="wal"} 0"#,
            r#"sekali_actors{actor="router"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn what_a_store_has_not_is_left_out() {
        let store = Some(StoreSample { database_bytes: 9, own: None });
        let space = SpaceLimits { free_disk: 7, store_bytes: 7 };
        let text = Metrics::new().text(Sample { space, store, ..Sample::default() }).unwrap();
        assert!(text.contains("sekali_store_bytes{part=\"database\"} 9"), "{text}");
        for name in ["sekali_store_runs", "part=\"wal\"", "sekali_store_checkpoints_blocked", "limit_bytes 7"]
        {
            assert!(!text.contains(name), "{name} in {text}");
        }
    }
}
