//! The body and the answer of `POST /publish`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::EventFault;
use crate::domain::{Counts, Fault, Verdict};

/// An event as a producer sends it. Any other field is an error that names it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"topic": "orders", "event_id": "order-1", "timestamp": "2026-11-22T10:00:00Z",
    "source": "shop", "payload": {"amount": 12.50}}))]
pub struct EventInput {
    /// The stream that the event belongs to: 1 to 255 bytes of UTF-8, no control characters.
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub topic: String,
    /// Unique within its topic, and the same whenever the event is sent again: 1 to 255 bytes of UTF-8, no
    /// control characters.
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub event_id: String,
    /// RFC 3339, with `T` or one space; fraction and offset optional (without an offset it is UTC). February 29 of a
    /// leap year is a day too, and 23:59:60 UTC a leap second: the pattern cannot say either.
    #[schema(
        max_length = 64,
        example = "2026-11-22T10:00:00Z",
        pattern = "^[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:[.][0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?$"
    )]
    pub timestamp: String,
    /// Who produced it: 1 to 255 bytes of UTF-8, no control characters.
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub source: String,
    /// Any JSON object; given back byte for byte.
    #[schema(value_type = Object)]
    pub payload: Box<serde_json::value::RawValue>,
}

/// The fate of every event of a request. Everything reported accepted or duplicate is durable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"received": 3, "accepted": 1, "duplicates": 2, "conflicts": 1, "rejected": 0,
    "results": [{"status": "accepted", "seq": 41}, {"status": "duplicate", "seq": 17},
                {"status": "duplicate", "seq": 18, "conflict": true}]}))]
pub struct PublishAnswer {
    /// Events in the request: accepted, duplicates and rejected together.
    pub received: u64,
    /// New events, now stored.
    pub accepted: u64,
    /// Events whose `(topic, event_id)` was stored already.
    pub duplicates: u64,
    /// Duplicates whose payload is another value than the stored one.
    pub conflicts: u64,
    /// Invalid events, with `invalid=skip` only.
    pub rejected: u64,
    /// One result for each event, in the order of the request; left out for `Prefer: return=minimal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<Vec<EventResult>>,
}

/// The fate of one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum EventResult {
    /// New, and now stored.
    Accepted {
        /// Its position in its topic, from 1.
        seq: u64,
    },
    /// Stored before.
    Duplicate {
        /// The position of the stored event in its topic.
        seq: u64,
        /// Present and true where the payload is another value than the stored one.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        conflict: bool,
    },
    /// Not valid, and not stored.
    Rejected {
        /// The first rule that it breaks.
        error: EventFault,
    },
}

impl PublishAnswer {
    /// The answer with these counts and, unless only the counts are wanted, results.
    #[must_use]
    pub fn new(counts: Counts, results: Option<Vec<EventResult>>) -> Self {
        Self {
            received: counts.received() + counts.rejected,
            accepted: counts.accepted,
            duplicates: counts.duplicates,
            conflicts: counts.conflicts,
            rejected: counts.rejected,
            results,
        }
    }
}

impl EventResult {
    /// The result of an event that the log decided.
    #[must_use]
    pub fn decided(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Accepted { seq } => Self::Accepted { seq },
            Verdict::Duplicate { seq, conflict } => Self::Duplicate { seq, conflict },
            Verdict::Refused(refusal) => Self::rejected(&Fault::from(refusal)),
        }
    }

    /// The result of an event that breaks a rule.
    #[must_use]
    pub fn rejected(fault: &Fault) -> Self {
        Self::Rejected { error: EventFault::from(fault) }
    }
}
