//! What the process counts about itself, registered once for `/metrics`; `/stats` reads its runtime counts here. What is
//! only read when somebody asks for it is in `sampled`. docs/OPERATIONS.md says what each metric means.

mod queued;
mod sampled;

pub use queued::Queued;
pub use sampled::{OwnSample, Sample, SpaceLimits, StoreSample, TopicSample};

use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use uuid::Uuid;

use crate::domain::Counts;

/// Before the name of every metric.
const PREFIX: &str = "sekali";

/// The kinds of actors, as labels name them.
pub const ROUTER: &str = "router";
/// See [`ROUTER`].
pub const CONSUMER: &str = "consumer";
/// See [`ROUTER`].
pub const WRITER: &str = "writer";
/// See [`ROUTER`].
pub const COMPARER: &str = "comparer";

/// The limits past which a connection is refused, as labels name them.
const CONNECTION_LIMITS: [&str; 2] = ["connections", "connections_per_address"];
/// The reasons for which the log ends a connection, as labels name them.
const CONNECTION_ENDS: [&str; 6] = ["head", "idle", "unread_body", "unread_answer", "room", "share"];

/// The metrics of one process. Handles are shared atomics: cloning one shares it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    started: Instant,
    /// Tells this process from the one before: an uptime that falls may also be an answer that comes late.
    process: Family<ProcessLabels, Gauge>,
    accepted: Counter,
    duplicates: Counter,
    conflicts: Counter,
    rejected: Counter,
    /// Answers by method, route and status.
    pub requests: Family<RequestLabels, Counter>,
    /// Answers that are problems, by their code.
    pub refusals: Family<RefusalLabels, Counter>,
    /// Open connections.
    pub connections: Gauge,
    /// The most open connections of the first listener.
    pub connections_limit: Gauge,
    /// Connections that got no place, by the limit that was reached.
    pub connections_refused: Family<RefusalLabels, Counter>,
    /// Connections that the log has ended, by reason.
    pub connections_ended: Family<RefusalLabels, Counter>,
    /// Publish requests, from the first byte of the body to the verdicts.
    pub publish_seconds: Histogram,
    /// Group commits, sync included.
    pub commit_seconds: Histogram,
    /// Events of a group commit.
    pub commit_events: Histogram,
    /// The part of group commits that waits for the disk, as the store measures it.
    pub sync_seconds: Histogram,
    /// Group commits that failed, or whose outcome was unknown.
    pub commit_failures: Counter,
    /// Duplicates that a hot cache answered.
    pub cache_hits: Counter,
    /// Consumer actors alive.
    pub consumers: Gauge,
    /// Clients that follow a topic.
    pub followers: Gauge,
    /// Followers that were cut off because they took nothing.
    pub followers_cut: Counter,
    /// Answers that were cut off because the client took them too slowly.
    pub answers_cut: Counter,
    /// Actors started again after a panic, by kind.
    pub actor_restarts: Family<ActorLabels, Counter>,
    /// Events that wait for an actor, by its kind.
    queued_events: Family<ActorLabels, Gauge>,
}

/// Which answer of the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The HTTP method; static, like the route, so that counting an answer allocates nothing.
    pub method: &'static str,
    /// The route's pattern, never the path itself: topics must not become labels.
    pub route: &'static str,
    /// The HTTP status.
    pub status: u16,
}

/// Why a request was not answered as asked, or a connection refused or ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusalLabels {
    /// For a request, the code of the problem, as docs/API.md lists them.
    pub reason: &'static str,
}

/// Which process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProcessLabels {
    /// A random id that each start of the program chooses.
    run: String,
}

/// Which kind of actor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ActorLabels {
    /// `router`, `consumer`, `writer` or `comparer`.
    pub actor: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that start at zero.
    #[must_use]
    pub fn new() -> Self {
        // From 0.1 ms to 26 s: a commit on a fast disk, and a request that waited for a locked store.
        let seconds = || Histogram::new(exponential_buckets(0.000_1, 2.0, 19));
        let mut metrics = Self {
            registry: Registry::with_prefix(PREFIX),
            started: Instant::now(),
            process: Family::default(),
            accepted: Counter::default(),
            duplicates: Counter::default(),
            conflicts: Counter::default(),
            rejected: Counter::default(),
            requests: Family::default(),
            refusals: Family::default(),
            connections: Gauge::default(),
            connections_limit: Gauge::default(),
            connections_refused: Family::default(),
            connections_ended: Family::default(),
            publish_seconds: seconds(),
            commit_seconds: seconds(),
            commit_events: Histogram::new(exponential_buckets(1.0, 2.0, 16)),
            sync_seconds: seconds(),
            commit_failures: Counter::default(),
            cache_hits: Counter::default(),
            consumers: Gauge::default(),
            followers: Gauge::default(),
            followers_cut: Counter::default(),
            answers_cut: Counter::default(),
            actor_restarts: Family::default(),
            queued_events: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let to = &mut self.registry;
        to.register("events_accepted", "New events stored", self.accepted.clone());
        to.register("events_duplicate", "Events whose key was stored before", self.duplicates.clone());
        to.register(
            "events_conflict",
            "Duplicates with another payload than the stored one",
            self.conflicts.clone(),
        );
        to.register("events_rejected", "Invalid events", self.rejected.clone());
        to.register("http_requests", "Answers by method, route and status", self.requests.clone());
        to.register("refusals", "Answers that are problems, by code", self.refusals.clone());
        to.register("connections", "Open connections", self.connections.clone());
        to.register(
            "connections_limit",
            "limits.connections, or less where the process may not open as many files",
            self.connections_limit.clone(),
        );
        to.register(
            "connections_refused",
            "Connections that got no place, by the limit that was reached",
            self.connections_refused.clone(),
        );
        to.register(
            "connections_ended",
            "Connections that the log has ended, by reason",
            self.connections_ended.clone(),
        );
        to.register_with_unit("publish", "Publish requests", Unit::Seconds, self.publish_seconds.clone());
        to.register_with_unit(
            "commit",
            "Group commits, sync included",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        to.register("commit_events", "Events of a group commit", self.commit_events.clone());
        to.register(
            "commit_failures",
            "Group commits that failed or are unknown",
            self.commit_failures.clone(),
        );
        to.register("cache_hits", "Duplicates that a hot cache answered", self.cache_hits.clone());
        to.register("consumers", "Consumer actors alive", self.consumers.clone());
        to.register("followers", "Clients that follow a topic", self.followers.clone());
        to.register(
            "followers_cut",
            "Followers cut off because they took nothing",
            self.followers_cut.clone(),
        );
        to.register(
            "answers_cut",
            "Answers cut off because the client took them too slowly",
            self.answers_cut.clone(),
        );
        to.register("actor_restarts", "Actors started again after a panic", self.actor_restarts.clone());
        to.register(
            "queued_events",
            "Events that wait for an actor; for the writer, until they are committed",
            self.queued_events.clone(),
        );
        to.register_with_unit(
            "sync",
            "The statement of a group commit that waits for the disk",
            Unit::Seconds,
            self.sync_seconds.clone(),
        );
        to.register("process_info", "1, and which run of the program answers", self.process.clone());
        self.begin();
    }

    /// Makes the label sets that are there from the start, so that a rate sees the first one.
    fn begin(&self) {
        let run = Uuid::new_v4().simple().to_string();
        self.process.get_or_create(&ProcessLabels { run }).set(1);
        for (family, reasons) in [
            (&self.connections_refused, &CONNECTION_LIMITS[..]),
            (&self.connections_ended, &CONNECTION_ENDS[..]),
        ] {
            for reason in reasons {
                drop(family.get_or_create(&RefusalLabels { reason }));
            }
        }
        for actor in [ROUTER, CONSUMER, WRITER, COMPARER] {
            let labels = ActorLabels { actor };
            drop((self.queued_events.get_or_create(&labels), self.actor_restarts.get_or_create(&labels)));
        }
    }

    /// Counts so many events as waiting for an actor of this kind, until what is given here is dropped.
    #[must_use]
    pub fn queue(&self, actor: &'static str, events: usize) -> Queued {
        Queued::new(self.queued_events.get_or_create(&ActorLabels { actor }).clone(), events)
    }

    /// Counts decided and rejected events.
    pub fn count(&self, counts: Counts) {
        self.accepted.inc_by(counts.accepted);
        self.duplicates.inc_by(counts.duplicates);
        self.conflicts.inc_by(counts.conflicts);
        self.rejected.inc_by(counts.rejected);
    }

    /// Events by verdict since the process started.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            accepted: self.accepted.get(),
            duplicates: self.duplicates.get(),
            conflicts: self.conflicts.get(),
            rejected: self.rejected.get(),
        }
    }

    /// Time since the process started, by a clock that never goes back.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Everything in Prometheus' text format, version 0.0.4, which every reader of metrics knows.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub fn text(&self, sample: Sample) -> Result<String, std::fmt::Error> {
        let (mut text, mut sampled) = (String::new(), Registry::with_prefix(PREFIX));
        sample.register(&mut sampled);
        // Read together with the counters: a reader can compute rates however late the answer comes.
        let uptime = ConstGauge::new(self.uptime().as_secs_f64());
        sampled.register_with_unit("uptime", "Time since the process started", Unit::Seconds, uptime);
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        prometheus_client::encoding::text::encode(&mut text, &sampled)?;
        Ok(classic(&text))
    }
}

/// `OpenMetrics` as Prometheus' older text: there the head of a counter has the name of its samples, and neither units
/// nor an end are marked. `promtool check metrics` reads that one, and finds no help for counters in the other.
fn classic(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match [words.next(), words.next(), words.next(), words.next()] {
            [Some("#"), Some("TYPE"), Some(name), Some("counter")] => {
                if let Some(help) = lines.last_mut() {
                    *help = help.replacen(name, &format!("{name}_total"), 1);
                }
                lines.push(format!("# TYPE {name}_total counter"));
            }
            [Some("#"), Some("UNIT" | "EOF"), ..] => {}
            _ => lines.push(line.to_owned()),
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_events_show_in_the_counts_and_in_the_text() {
        let metrics = Metrics::new();
        let counts = Counts { accepted: 5, duplicates: 3, conflicts: 2, rejected: 1 };
        metrics.count(counts);
        metrics.count(Counts::default());
        assert_eq!(metrics.counts(), counts);
        let text = metrics.text(Sample::default()).unwrap();
        for line in ["sekali_events_accepted_total 5", "sekali_events_conflict_total 2"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    fn value(text: &str, name: &str) -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().parse().unwrap()
    }

    #[test]
    fn each_text_carries_its_time_and_the_process_that_it_is_from() {
        let metrics = Metrics::new();
        let began = metrics.uptime();
        let texts = [0, 1].map(|_| metrics.text(Sample::default()).unwrap());
        let ended = metrics.uptime();
        let [first, second] = texts.each_ref().map(|text| value(text, "sekali_uptime_seconds"));
        assert!(began.as_secs_f64() <= first && first < second, "{first} {second}");
        assert!(second <= ended.as_secs_f64(), "{second} is after {ended:?}");
        let another = Metrics::new().text(Sample::default()).unwrap();
        let [first, second, third] = [&texts[0], &texts[1], &another]
            .map(|text| text.lines().find(|line| line.starts_with("sekali_process_info{run=\"")).unwrap());
        assert!(first == second && first != third && first.ends_with("\"} 1"), "{first} {third}");
    }

    #[test]
    fn the_head_of_each_metric_has_the_name_of_its_samples() {
        let text = Metrics::new().text(Sample::default()).unwrap();
        for line in [
            "# HELP sekali_cache_hits_total Duplicates that a hot cache answered.",
            "# TYPE sekali_cache_hits_total counter",
            "# TYPE sekali_commit_seconds histogram",
            "# TYPE sekali_in_flight_bytes gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("# UNIT") && !text.contains("# EOF"), "those are not of this format: {text}");
        assert!(text.ends_with('\n'));
    }
}
