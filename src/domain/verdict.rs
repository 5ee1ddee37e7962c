//! The fate of an event: stored, a repeat, refused, or never an event at all.

use std::borrow::Cow;
use std::ops::AddAssign;

use super::event::Field;

/// What the store did with one valid event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// New: stored, at this position in its topic.
    Accepted {
        /// The position of the event in its topic, from 1.
        seq: u64,
    },
    /// Its `(topic, event_id)` is stored already; the stored event stays as it is.
    Duplicate {
        /// The position of the event that is stored.
        seq: u64,
        /// Whether the payload is another JSON value than the stored one.
        conflict: bool,
    },
    /// Valid, and still not stored, because of a limit of this log.
    Refused(Refusal),
}

/// Why a valid event was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its topic is new and the log holds `limits.topics` of them already.
    TopicLimit,
}

/// Events by verdict. `received` is derived, so that it always equals accepted plus duplicates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events stored.
    pub accepted: u64,
    /// Events whose key was stored before, conflicts included.
    pub duplicates: u64,
    /// Duplicates with another payload than the stored one.
    pub conflicts: u64,
    /// Events that were not valid, or refused by a limit.
    pub rejected: u64,
}

impl Counts {
    /// Valid events that were decided: accepted and duplicates.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.accepted + self.duplicates
    }

    /// Counts one more event with this verdict.
    pub fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Accepted { .. } => self.accepted += 1,
            Verdict::Duplicate { conflict, .. } => {
                self.duplicates += 1;
                self.conflicts += u64::from(conflict);
            }
            Verdict::Refused(_) => self.rejected += 1,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.rejected += other.rejected;
    }
}

impl<'a> FromIterator<&'a Verdict> for Counts {
    fn from_iter<I: IntoIterator<Item = &'a Verdict>>(verdicts: I) -> Self {
        let mut counts = Self::default();
        for verdict in verdicts {
            counts.count(*verdict);
        }
        counts
    }
}

/// One rule that an event breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field at fault; `None` where the event as a whole is.
    pub field: Option<Cow<'static, str>>,
    /// The rule, as a stable code.
    pub code: FaultCode,
    /// One sentence for a person.
    pub detail: String,
}

/// The rules an event can break. Their names in answers are stable and listed in docs/API.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultCode {
    /// Not a JSON object.
    NotAnObject,
    /// An NDJSON line that is not JSON.
    NotJson,
    /// A required field is missing.
    MissingField,
    /// A field that events do not have.
    UnknownField,
    /// The same field twice in one event.
    DuplicateField,
    /// A field has another JSON type than it must.
    WrongType,
    /// A string of no bytes.
    Empty,
    /// A string over its limit.
    TooLong,
    /// A control character (Unicode Cc) in a name.
    ControlCharacter,
    /// A string with a lone surrogate, which is no Unicode text.
    LoneSurrogate,
    /// Not an RFC 3339 time.
    BadTimestamp,
    /// Nested deeper than `limits.depth`.
    TooDeep,
    /// More bytes than `limits.event`.
    EventTooLarge,
    /// A new topic past `limits.topics`.
    TopicLimit,
}

impl FaultCode {
    /// Every code, for documents and tests.
    pub const ALL: [Self; 14] = [
        Self::NotAnObject,
        Self::NotJson,
        Self::MissingField,
        Self::UnknownField,
        Self::DuplicateField,
        Self::WrongType,
        Self::Empty,
        Self::TooLong,
        Self::ControlCharacter,
        Self::LoneSurrogate,
        Self::BadTimestamp,
        Self::TooDeep,
        Self::EventTooLarge,
        Self::TopicLimit,
    ];

    /// The stable name of the rule.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAnObject => "not_an_object",
            Self::NotJson => "not_json",
            Self::MissingField => "missing_field",
            Self::UnknownField => "unknown_field",
            Self::DuplicateField => "duplicate_field",
            Self::WrongType => "wrong_type",
            Self::Empty => "empty",
            Self::TooLong => "too_long",
            Self::ControlCharacter => "control_character",
            Self::LoneSurrogate => "lone_surrogate",
            Self::BadTimestamp => "bad_timestamp",
            Self::TooDeep => "too_deep",
            Self::EventTooLarge => "event_too_large",
            Self::TopicLimit => "topic_limit",
        }
    }
}

impl Fault {
    /// A fault of the event as a whole.
    #[must_use]
    pub fn of_event(code: FaultCode, detail: impl Into<String>) -> Self {
        Self { field: None, code, detail: detail.into() }
    }

    /// A fault of one field.
    #[must_use]
    pub fn of_field(field: impl Into<Cow<'static, str>>, code: FaultCode, detail: impl Into<String>) -> Self {
        Self { field: Some(field.into()), code, detail: detail.into() }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TopicLimit => Self::of_field(
                Field::Topic.as_str(),
                FaultCode::TopicLimit,
                "the topic is new, and the log holds as many topics as limits.topics allows",
            ),
        }
    }
}
