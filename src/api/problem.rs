//! Errors as RFC 9457 problem documents, and the one table from code to status.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::Fault;

/// The media type of problem documents (RFC 9457, section 3).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request was not answered as asked. Names are stable and listed in docs/API.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The body is not JSON.
    NotJson,
    /// The body does not decompress, or the connection broke while it was read.
    BadEncoding,
    /// A browser sends a request for a page of another origin.
    CrossOrigin,
    /// No such path.
    NotFound,
    /// No such event.
    EventNotFound,
    /// No such topic.
    TopicNotFound,
    /// The path does not know the method.
    MethodNotAllowed,
    /// No format that the caller accepts.
    NotAcceptable,
    /// The head took longer than `server.head_timeout`.
    HeadTimeout,
    /// The body took longer than `server.body_timeout`, or came below `server.body_min_rate`.
    BodyTimeout,
    /// A cursor names an event of another history.
    HistoryChanged,
    /// The body is over `limits.body`, as it is sent or after decompression, or has more members than
    /// `limits.compressed_members`.
    BodyTooLarge,
    /// The body is over `limits.compression_ratio`.
    RatioTooLarge,
    /// More events than `limits.batch_events`, or more keys than `limits.lookup_keys`.
    BatchTooLarge,
    /// An event over `limits.event`.
    EventTooLarge,
    /// A content type that is none of ours.
    UnsupportedType,
    /// A content encoding that is none of ours.
    UnsupportedEncoding,
    /// A name in `Host` that is none of the log's.
    HostNotAllowed,
    /// Events that break a rule.
    InvalidEvents,
    /// A parameter, or a body that is no list of events, breaks a rule.
    InvalidParameter,
    /// The client's address has used up its share of a limit.
    TooManyRequests,
    /// The client's address made more new topics than `limits.new_topics_per_minute`.
    TooManyTopics,
    /// Stored data is damaged.
    StoreDamaged,
    /// A fault of ours.
    Internal,
    /// All clients together use up `limits.in_flight_*`, `limits.answer_bytes`, `limits.connections` or
    /// `limits.followers`.
    Overloaded,
    /// The server is stopping.
    ShuttingDown,
    /// The store cannot be written or read now, or could not say whether it wrote.
    StoreUnavailable,
    /// The disk has less free than `limits.free_disk`.
    DiskLow,
    /// The store has more bytes than `limits.store_bytes`.
    StoreFull,
}

impl Code {
    /// Every code, for documents and tests.
    pub const ALL: [Self; 29] = [
        Self::NotJson,
        Self::BadEncoding,
        Self::CrossOrigin,
        Self::NotFound,
        Self::EventNotFound,
        Self::TopicNotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::HistoryChanged,
        Self::BodyTooLarge,
        Self::RatioTooLarge,
        Self::BatchTooLarge,
        Self::EventTooLarge,
        Self::UnsupportedType,
        Self::UnsupportedEncoding,
        Self::HostNotAllowed,
        Self::InvalidEvents,
        Self::InvalidParameter,
        Self::TooManyRequests,
        Self::TooManyTopics,
        Self::StoreDamaged,
        Self::Internal,
        Self::Overloaded,
        Self::ShuttingDown,
        Self::StoreUnavailable,
        Self::DiskLow,
        Self::StoreFull,
    ];

    /// The HTTP status, the stable name and the title: the one table of docs/API.md.
    #[must_use]
    pub fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::NotJson => (400, "not_json", "The body is not JSON"),
            Self::BadEncoding => (400, "bad_encoding", "The body cannot be read"),
            Self::CrossOrigin => (403, "cross_origin", "From a page of another origin"),
            Self::NotFound => (404, "not_found", "No such path"),
            Self::EventNotFound => (404, "event_not_found", "No such event"),
            Self::TopicNotFound => (404, "topic_not_found", "No such topic"),
            Self::MethodNotAllowed => (405, "method_not_allowed", "Method not allowed"),
            Self::NotAcceptable => (406, "not_acceptable", "No acceptable format"),
            Self::HeadTimeout => (408, "head_timeout", "The head came too slowly"),
            Self::BodyTimeout => (408, "body_timeout", "The body came too slowly"),
            Self::HistoryChanged => (409, "history_changed", "The history of the topic changed"),
            Self::BodyTooLarge => (413, "body_too_large", "The body is too large"),
            Self::RatioTooLarge => (413, "ratio_too_large", "The body is compressed too well"),
            Self::BatchTooLarge => (413, "batch_too_large", "Too many events in one request"),
            Self::EventTooLarge => (413, "event_too_large", "An event is too large"),
            Self::UnsupportedType => (415, "unsupported_type", "Content type not known"),
            Self::UnsupportedEncoding => (415, "unsupported_encoding", "Content encoding not known"),
            Self::HostNotAllowed => (421, "host_not_allowed", "Not a name of this log"),
            Self::InvalidEvents => (422, "invalid_events", "Invalid events"),
            Self::InvalidParameter => (422, "invalid_parameter", "Invalid parameter"),
            Self::TooManyRequests => (429, "too_many_requests", "This address uses more than its share"),
            Self::TooManyTopics => (429, "too_many_topics", "This address makes too many topics"),
            Self::StoreDamaged => (500, "store_damaged", "Stored data is damaged"),
            Self::Internal => (500, "internal", "Internal error"),
            Self::Overloaded => (503, "overloaded", "Overloaded"),
            Self::ShuttingDown => (503, "shutting_down", "Shutting down"),
            Self::StoreUnavailable => (503, "store_unavailable", "The store is not available"),
            Self::DiskLow => (507, "disk_low", "The disk is nearly full"),
            Self::StoreFull => (507, "store_full", "The store is full"),
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        self.row().0
    }

    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().1
    }
}

/// An error answer (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A name of the problem as a URI: `urn:sekali:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The problem in a few words, the same for every occurrence.
    pub title: String,
    /// The HTTP status, repeated.
    pub status: u16,
    /// The stable code, listed in docs/API.md.
    pub code: String,
    /// What happened this time.
    pub detail: String,
    /// The rules that bad events break, where events are at fault: all of them, or the first 100 of a
    /// request of which nothing is stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<EventError>,
    /// The number of all errors, where `errors` has only the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors_total: Option<usize>,
    /// The current history, with the code `history_changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
    /// The greatest seq up to which both histories have the same events of the topic, with the code
    /// `history_changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_seq: Option<u64>,
}

impl Problem {
    /// The document of this code.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>, errors: Vec<EventError>) -> Self {
        let (status, name, title) = code.row();
        Self {
            kind: format!("urn:sekali:problem:{name}"),
            title: title.to_owned(),
            status,
            code: name.to_owned(),
            detail: detail.into(),
            errors,
            errors_total: None,
            history: None,
            common_seq: None,
        }
    }
}

/// One rule that one event of a request breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventError {
    /// Which event of the request, from 0; in NDJSON, lines that are not empty are counted.
    pub index: usize,
    /// The rule.
    #[serde(flatten)]
    pub fault: EventFault,
}

/// A rule that an event breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventFault {
    /// The field at fault; null where the event as a whole is.
    pub field: Option<String>,
    /// The stable code of the rule, listed in docs/API.md.
    pub code: String,
    /// One sentence for a person.
    pub detail: String,
}

impl From<&Fault> for EventFault {
    fn from(fault: &Fault) -> Self {
        Self {
            field: fault.field.as_ref().map(ToString::to_string),
            code: fault.code.as_str().to_owned(),
            detail: fault.detail.clone(),
        }
    }
}

impl EventError {
    /// The fault of the event at `index`.
    #[must_use]
    pub fn new(index: usize, fault: &Fault) -> Self {
        Self { index, fault: EventFault::from(fault) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FaultCode;

    const DOCUMENT: &str = include_str!("../../docs/API.md");

    /// The rows of the table with this head: what stands in the first cell, and in the second.
    fn table(head: &str) -> Vec<(&'static str, &'static str)> {
        let rows = DOCUMENT.lines().skip_while(|line| !line.starts_with(head)).skip(2);
        let cells = rows.map_while(|line| line.strip_prefix("| ")?.split_once(" | "));
        cells.map(|(first, rest)| (first, rest.split(" | ").next().unwrap())).collect()
    }

    #[test]
    fn every_code_stands_in_the_documents_table_at_its_status() {
        let documented: Vec<_> = table("| status | code |")
            .into_iter()
            .flat_map(|(status, codes)| codes.split(", ").map(move |code| format!("{status} {code}")))
            .collect();
        let expected = Code::ALL.map(|code| format!("{} `{}`", code.status(), code.as_str()));
        assert_eq!(documented, expected);
    }

    #[test]
    fn every_fault_of_an_event_stands_in_the_documents_table() {
        let documented: Vec<_> =
            table("| code of an event's fault |").into_iter().map(|(code, _)| code).collect();
        assert_eq!(documented, FaultCode::ALL.map(|code| format!("`{}`", code.as_str())));
    }

    #[test]
    fn codes_have_names_of_their_own() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
