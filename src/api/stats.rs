//! The answer of `GET /stats`. The long names are those that users of the first version read.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::Counts;

/// What the log counted, since this process started and since the store was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Seconds since this process started.
    pub uptime_seconds: f64,
    /// Since this process started.
    pub runtime: Totals,
    /// Since the store was made.
    pub persistent: Totals,
    /// Threads that run consumer actors (`router.shards`).
    pub shards: usize,
    /// The synced-before-the-answer setting of the store: `full` or `relaxed`.
    pub durability: String,
    /// The current history of the store: another one where the store was restored.
    #[serde(default)]
    pub history: String,
    /// How many topics there are.
    pub topics_total: u64,
    /// Their names, 1,000 at most, in the order of their bytes.
    pub topics: Vec<String>,
}

/// Events by verdict; received = unique + duplicate, and conflicts are among the duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// Valid events that were decided.
    pub total_events_received: u64,
    /// Events stored.
    pub total_unique_events_processed: u64,
    /// Events whose key was stored before.
    pub total_duplicate_events_dropped: u64,
    /// Duplicates with another payload than the stored one.
    pub total_conflicts: u64,
    /// Invalid events, counted apart.
    pub total_events_rejected: u64,
}

/// The answer of a health check that found nothing wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}

impl From<Counts> for Totals {
    fn from(counts: Counts) -> Self {
        Self {
            total_events_received: counts.received(),
            total_unique_events_processed: counts.accepted,
            total_duplicate_events_dropped: counts.duplicates,
            total_conflicts: counts.conflicts,
            total_events_rejected: counts.rejected,
        }
    }
}
