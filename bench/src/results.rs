//! What runs leave behind: raw figures as JSON, from which tables and charts are made.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk::millis;
use crate::drive::Driven;
use crate::environment::Environment;

/// The peers to which all others are related: the first of these that takes part.
const REFERENCES: [&str; 2] = ["nats", "postgres-seqs"];

/// One run of `compare`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// Where it ran.
    pub(crate) environment: Environment,
    /// Who took part.
    pub(crate) peers: Vec<Participant>,
    /// How events were sent.
    pub(crate) shapes: Vec<ShapeUsed>,
    /// Every single measurement.
    pub(crate) measurements: Vec<Measurement>,
}

/// A peer of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Participant {
    /// Its name.
    pub(crate) name: String,
    /// What an acknowledgement of it means.
    pub(crate) promise: String,
    /// Its version; none where it was not found.
    pub(crate) version: Option<String>,
}

/// A way of sending of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ShapeUsed {
    /// Its name.
    pub(crate) name: String,
    /// Connections, with one request in flight on each.
    pub(crate) connections: u32,
    /// Events of a request.
    pub(crate) batch: u32,
    /// Events in all.
    pub(crate) events: u64,
    /// Nothing more was sent after so many seconds.
    pub(crate) limit_seconds: u64,
}

/// One peer, shape and round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// The peer's name.
    pub(crate) peer: String,
    /// The shape's name.
    pub(crate) shape: String,
    /// Counted from 1.
    pub(crate) round: u32,
    /// The figures, or what went wrong.
    pub(crate) outcome: Outcome,
}

/// How a measurement ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It ran to its end.
    Measured(Figures),
    /// It broke off.
    Failed(String),
}

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Events sent and answered.
    pub(crate) events: u64,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
    /// Events answered as new.
    pub(crate) accepted: u64,
    /// Events answered as stored before.
    pub(crate) duplicates: u64,
    /// Events whose verdict was not that of the plan.
    pub(crate) wrong: u64,
    /// Events that the peer says it has stored.
    pub(crate) stored: Option<u64>,
    /// Whether all of this is as planned.
    pub(crate) verified: bool,
    /// Time of a request, the median, in milliseconds.
    pub(crate) p50_ms: f64,
    /// All but one in a hundred are faster.
    pub(crate) p99_ms: f64,
    /// The slowest.
    pub(crate) max_ms: f64,
    /// Processor time of the server, in seconds.
    pub(crate) server_cpu_seconds: f64,
    /// Processor time of the client, in seconds.
    pub(crate) client_cpu_seconds: f64,
    /// Memory of the server at the end, in bytes.
    pub(crate) memory_bytes: u64,
    /// What it added to its directory, after it was stopped, in bytes.
    pub(crate) disk_bytes: u64,
}

impl Figures {
    /// The figures of what was driven, and of the peer after it.
    pub(crate) fn new(driven: &Driven, stored: Option<u64>, memory_bytes: u64) -> Self {
        Self {
            events: driven.events,
            seconds: driven.took.as_secs_f64(),
            accepted: driven.answered.accepted,
            duplicates: driven.answered.duplicates,
            wrong: driven.answered.wrong,
            stored,
            verified: driven.as_planned() && stored.is_none_or(|stored| stored == driven.new),
            p50_ms: millis(driven.latency.value_at_quantile(0.5)),
            p99_ms: millis(driven.latency.value_at_quantile(0.99)),
            max_ms: millis(driven.latency.max()),
            server_cpu_seconds: driven.used.server,
            client_cpu_seconds: driven.used.client,
            memory_bytes,
            disk_bytes: 0,
        }
    }

    /// Events a second.
    pub(crate) fn rate(&self) -> f64 {
        number(self.events) / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Processor time of the server for a million events, in seconds.
    pub(crate) fn server_cpu(&self) -> f64 {
        per_million(self.server_cpu_seconds, self.events)
    }

    /// Processor time of the client for a million events, in seconds.
    pub(crate) fn client_cpu(&self) -> f64 {
        per_million(self.client_cpu_seconds, self.events)
    }

    /// Bytes on the disk for each event stored.
    pub(crate) fn disk_per_event(&self) -> f64 {
        number(self.disk_bytes) / number(self.accepted.max(1))
    }

    /// Memory in MiB.
    pub(crate) fn memory_mib(&self) -> f64 {
        number(self.memory_bytes) / f64::from(1 << 20)
    }
}

impl Comparison {
    /// The peer to which all others are related.
    pub(crate) fn reference(&self) -> &'static str {
        let takes_part = |name: &&&str| self.peers.iter().any(|peer| peer.name == **name);
        REFERENCES.iter().find(takes_part).copied().unwrap_or(REFERENCES[0])
    }

    /// The figures of all rounds of a peer and shape that ran to their end.
    pub(crate) fn figures(&self, peer: &str, shape: &str) -> Vec<&Figures> {
        let measurements = self.measurements.iter();
        let of_both =
            measurements.filter(|measurement| measurement.peer == peer && measurement.shape == shape);
        let figures = of_both.filter_map(|measurement| match &measurement.outcome {
            Outcome::Measured(figures) => Some(figures),
            Outcome::Failed(_) => None,
        });
        figures.collect()
    }

    /// The median over the rounds; none where no round ran to its end.
    pub(crate) fn median(&self, peer: &str, shape: &str, of: impl Fn(&Figures) -> f64) -> Option<f64> {
        median(self.figures(peer, shape).into_iter().map(of).collect())
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let high = *values.get(middle)?;
    Some(if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], high) } else { high })
}

/// A count, to calculate with.
pub(crate) fn number(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "figures for people; exact up to 2^53")]
    let number = count as f64;
    number
}

fn per_million(seconds: f64, events: u64) -> f64 {
    seconds * 1e6 / number(events.max(1))
}

/// Writes results as JSON, for people too.
pub(crate) fn write(path: &Path, results: &impl Serialize) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let text = serde_json::to_string_pretty(results)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads results.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} has another form", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process::Used;

    #[test]
    fn verified_are_verdicts_and_a_store_that_are_as_planned() {
        let mut driven = Driven::empty(Duration::from_secs(1), Used::default()).unwrap();
        driven.events = 5;
        driven.new = 4;
        driven.answered.accepted = 4;
        driven.answered.duplicates = 1;
        let verified = |of: &Driven, stored| Figures::new(of, stored, 0).verified;
        assert!(verified(&driven, Some(4)) && verified(&driven, None));
        assert!(!verified(&driven, Some(5)), "it stored an event twice");
        driven.answered.wrong = 1;
        assert!(!verified(&driven, Some(4)), "a verdict was not that of the plan");
    }

    #[test]
    fn medians_are_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
