//! What reading gives: events, topics, lookups.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::domain::{Counts, Lateness};

/// The header that names the history of the seqs in an answer, also where its format has no room for it.
pub const HISTORY_HEADER: &str = "sekali-history";

/// A stored event.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Event<'a> {
    /// Its position in its topic: 1, 2, 3, ... in commit order, without gaps.
    pub seq: u64,
    /// The stream that it belongs to.
    #[serde(borrow)]
    pub topic: Cow<'a, str>,
    /// Its id, unique within the topic.
    #[serde(borrow)]
    pub event_id: Cow<'a, str>,
    /// When it happened, as it was sent.
    #[serde(borrow)]
    pub timestamp: Cow<'a, str>,
    /// Who produced it.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// The payload, byte for byte as it was sent.
    #[serde(borrow)]
    #[schema(value_type = Object)]
    pub payload: &'a RawValue,
    /// When the log stored it: RFC 3339, UTC, microseconds.
    #[serde(borrow)]
    pub received_at: Cow<'a, str>,
    /// Only where one event is read, and only of the events that were repeated most recently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<Repeats>,
}

/// How an event was repeated, since it is among those that were repeated most recently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Repeats {
    /// Duplicates of it.
    pub duplicates: u64,
    /// Those of them with another payload than the stored one.
    pub conflicts: u64,
    /// When the last one came: RFC 3339, UTC, microseconds.
    pub last_at: String,
    /// The source of the last one.
    pub last_source: String,
    /// Whether the payload of the last one was another.
    pub last_conflict: bool,
}

/// Events of one topic in one order.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<'a> {
    /// The topic that was asked for.
    #[serde(borrow)]
    pub topic: Cow<'a, str>,
    /// The history that the seqs belong to; sent back with `after` it finds out whether they still name
    /// the same events.
    #[serde(borrow, default)]
    pub history: Cow<'a, str>,
    /// How many events follow.
    pub count: u64,
    /// The events.
    #[serde(borrow)]
    pub events: Vec<Event<'a>>,
    /// The last seq given, or the given `after` where no event was (ascending).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<u64>,
    /// The last seq given, or the given `before` where no event was (descending).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_before: Option<u64>,
}

/// What makes an event the same event: its topic and its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Path)]
pub struct Key {
    /// The topic: 1 to 255 bytes of UTF-8, no control characters.
    #[schema(
        min_length = 1,
        max_length = 255,
        example = "orders",
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
    )]
    #[param(
        min_length = 1,
        max_length = 255,
        example = "orders",
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
    )]
    pub topic: String,
    /// The id within the topic: 1 to 255 bytes of UTF-8, no control characters.
    #[schema(
        min_length = 1,
        max_length = 255,
        example = "order-1",
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
    )]
    #[param(
        min_length = 1,
        max_length = 255,
        example = "order-1",
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
    )]
    pub event_id: String,
}

/// Where and when a key was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Found {
    /// The position of the event in its topic.
    pub seq: u64,
    /// When the log stored it: RFC 3339, UTC, microseconds.
    pub received_at: String,
}

/// One topic and what was counted in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicStats {
    /// Its name.
    pub topic: String,
    /// The history that its seqs belong to.
    #[serde(default)]
    pub history: String,
    /// How many consumer actors it is split into, by the configuration.
    pub lanes: usize,
    /// Events stored since the store was made.
    pub accepted: u64,
    /// Events that repeated a stored key.
    pub duplicates: u64,
    /// Duplicates with another payload than the stored one.
    pub conflicts: u64,
    /// The first seq that can be read.
    pub first_seq: u64,
    /// The last seq given.
    pub last_seq: u64,
    /// When the last event was stored: RFC 3339, UTC, microseconds.
    pub last_received_at: String,
}

/// One topic, and who repeats its events, and how late.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopicDetail {
    /// What the list of topics has of it.
    #[serde(flatten)]
    pub stats: TopicStats,
    /// The upper ends of the first buckets of every `late`, in seconds, included; the last bucket has none.
    pub late_up_to_seconds: Vec<u32>,
    /// Duplicates by how long after their event they came, each in one bucket.
    pub late: Vec<u64>,
    /// The sources that are counted by name, `limits.sources` at most, in the order of their bytes.
    pub sources: Vec<Source>,
    /// All other sources together.
    pub other: SourceStats,
}

/// A source and what was counted of it in a topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Source {
    /// Its name.
    pub source: String,
    /// What it sent.
    #[serde(flatten)]
    pub stats: SourceStats,
}

/// What was counted of a source in a topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SourceStats {
    /// Its events that were stored.
    pub accepted: u64,
    /// Its events that repeated a stored key, whoever had sent that.
    pub duplicates: u64,
    /// Duplicates with another payload than the stored one.
    pub conflicts: u64,
    /// Duplicates of all that it sent, from 0 to 1.
    pub duplicate_share: f64,
    /// Conflicts of all that it sent, from 0 to 1.
    pub conflict_share: f64,
    /// Its duplicates by how long after their event they came, in the buckets of `late_up_to_seconds`.
    pub late: Vec<u64>,
}

impl SourceStats {
    /// Counts as they are shown.
    #[must_use]
    pub fn new(counts: Counts, lateness: &Lateness) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 16 digits")]
        let share = |part: u64| if part == 0 { 0.0 } else { part as f64 / counts.received() as f64 };
        let Counts { accepted, duplicates, conflicts, .. } = counts;
        Self {
            accepted,
            duplicates,
            conflicts,
            duplicate_share: share(duplicates),
            conflict_share: share(conflicts),
            late: lateness.buckets.to_vec(),
        }
    }
}

/// A page of topics, in the order of their names' bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicPage {
    /// The topics.
    pub topics: Vec<TopicStats>,
    /// The last name given, or the given `after` where no topic was; null where neither is.
    pub next_after: Option<String>,
}
