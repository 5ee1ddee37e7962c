//! What the first version called the answers of `POST /publish` and `GET /stats`, beside what they
//! hold by default. `compat.first_version` adds it; `docs/FIRST_VERSION.md` explains each member.

use serde::Serialize;

use super::publish::PublishAnswer;
use super::stats::Stats;

/// What the first version said to every publish.
const MESSAGE: &str = "Events processed";

/// The answer of `POST /publish` with the first version's members.
#[derive(Debug, Serialize)]
pub struct FirstVersionAnswer {
    #[serde(flatten)]
    answer: PublishAnswer,
    message: &'static str,
    total_received_in_batch: u64,
    newly_processed: u64,
    duplicates_dropped_in_batch: u64,
}

/// The answer of `GET /stats` with the first version's members.
#[derive(Debug, Serialize)]
pub struct FirstVersionStats {
    #[serde(flatten)]
    stats: Stats,
    #[serde(rename = "runtime_stats (in-memory)")]
    runtime: RuntimeStats,
    #[serde(rename = "persistent_stats (from_db)")]
    persistent: PersistentStats,
    received: u64,
    unique_processed: u64,
    duplicate_dropped: u64,
    uptime: f64,
}

/// What the first version counted since its process started.
#[derive(Debug, Serialize)]
struct RuntimeStats {
    total_events_received: u64,
    total_duplicate_events_dropped: u64,
}

/// What the first version read from its database.
#[derive(Debug, Serialize)]
struct PersistentStats {
    total_unique_events_processed: u64,
    known_topics: Vec<String>,
}

impl From<PublishAnswer> for FirstVersionAnswer {
    fn from(answer: PublishAnswer) -> Self {
        Self {
            message: MESSAGE,
            total_received_in_batch: answer.received,
            newly_processed: answer.accepted,
            duplicates_dropped_in_batch: answer.duplicates,
            answer,
        }
    }
}

impl From<Stats> for FirstVersionStats {
    fn from(stats: Stats) -> Self {
        // All three from one source: clients wait until received is the sum of the other two.
        let all = stats.persistent;
        Self {
            runtime: RuntimeStats {
                total_events_received: stats.runtime.total_events_received,
                total_duplicate_events_dropped: stats.runtime.total_duplicate_events_dropped,
            },
            persistent: PersistentStats {
                total_unique_events_processed: all.total_unique_events_processed,
                known_topics: stats.topics.clone(),
            },
            received: all.total_events_received,
            unique_processed: all.total_unique_events_processed,
            duplicate_dropped: all.total_duplicate_events_dropped,
            uptime: stats.uptime_seconds,
            stats,
        }
    }
}
