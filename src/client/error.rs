//! Why a request has no answer, in words for a person, and whether sending it again can help.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::api::{Code, Problem};

/// Errors of single events that are shown; an answer may hold ten thousand.
const SHOWN: usize = 10;

/// Why a request has no answer. After every one but [`ClientError::Url`] the server may have done what it was
/// asked to; sending the same event ids again is safe.
#[derive(Debug, Clone, Error)]
pub enum ClientError {
    /// The address is none that can be used.
    #[error("{0}")]
    Url(String),
    /// No connection to the server.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// The server.
        url: String,
        /// What the network said.
        reason: String,
    },
    /// The connection ended before the answer did.
    #[error("the connection to {url} broke: {reason}")]
    Broken {
        /// The server.
        url: String,
        /// What the network said.
        reason: String,
    },
    /// No answer in time.
    #[error("{url} did not answer within {} s", waited.as_secs())]
    Timeout {
        /// The server.
        url: String,
        /// How long the client waited.
        waited: Duration,
    },
    /// An answer that says no.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// A later answer of a read belongs to another history than the first one.
    #[error("the history of topic {topic} at {url} changed from {first} to {now} during the read")]
    HistoryChanged {
        /// The server.
        url: String,
        /// The topic that was read.
        topic: String,
        /// The history of the first answer.
        first: String,
        /// The history of the later one.
        now: String,
    },
    /// An answer that is none of the contract's.
    #[error("the server at {url} is not a sekali log (unexpected answer: {reason})")]
    Unreadable {
        /// The server.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

/// An answer with an error status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The server.
    pub url: String,
    /// The HTTP status.
    pub status: u16,
    /// When the server wants to be asked again.
    pub retry_after: Option<Duration>,
    /// Where it sends its clients instead, control characters escaped.
    pub location: Option<String>,
    /// What it said; `None` where it was no problem document (a proxy, or another server).
    pub problem: Option<Problem>,
}

impl ClientError {
    /// Whether the same request may succeed later: the answer is missing or cut off, or its status says
    /// that the server has no time now. A 500 is final: the log's own say that its store is damaged or
    /// that the program has a fault, which another attempt does not mend.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Timeout { .. } => true,
            Self::Refused(refused) => matches!(refused.status, 408 | 425 | 429 | 502..=504 | 507),
            Self::Url(_) | Self::HistoryChanged { .. } | Self::Unreadable { .. } => false,
        }
    }

    /// How long the server asks to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.refused().and_then(|refused| refused.retry_after)
    }

    /// The answer, where there was one that says no.
    #[must_use]
    pub fn refused(&self) -> Option<&Refused> {
        if let Self::Refused(refused) = self { Some(refused) } else { None }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(problem) = &self.problem else {
            write!(formatter, "{} answers with HTTP status {}", self.url, self.status)?;
            return match &self.location {
                Some(location) if (300..400).contains(&self.status) => {
                    write!(formatter, ", a redirect to {location}; name the server's own address with --url")
                }
                _ => Ok(()),
            };
        };
        write!(formatter, "{} ({} {}): {}", problem.title, self.status, problem.code, problem.detail)?;
        // Where a path of ours is not there, the address is to blame.
        if [Code::NotFound, Code::MethodNotAllowed].iter().any(|code| code.as_str() == problem.code) {
            write!(formatter, " (asked at {})", self.url)?;
        }
        for error in problem.errors.iter().take(SHOWN) {
            let field = error.fault.field.as_deref().unwrap_or("the event");
            write!(formatter, "\n  event {}: {field}: {}", error.index, error.fault.detail)?;
        }
        match problem.errors_total.unwrap_or(problem.errors.len()).saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(formatter, "\n  and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Code, EventError, EventFault};

    fn refused(status: u16, problem: Option<Problem>) -> Refused {
        Refused { url: "http://h".to_owned(), status, retry_after: None, location: None, problem }
    }

    #[test]
    fn only_answers_that_may_change_are_transient() {
        let transient = |status| ClientError::Refused(Box::new(refused(status, None))).is_transient();
        assert!([408, 425, 429, 502, 503, 504, 507].into_iter().all(transient));
        assert!(![301, 400, 401, 404, 409, 413, 422, 500, 501, 505].into_iter().any(transient));
    }

    #[test]
    fn a_refusal_shows_the_problem_and_its_first_errors() {
        let fault = EventFault {
            field: Some("source".to_owned()),
            code: "empty".to_owned(),
            detail: "must not be empty".to_owned(),
        };
        let errors = (0..12).map(|index| EventError { index, fault: fault.clone() }).collect();
        let text =
            refused(422, Some(Problem::new(Code::InvalidEvents, "12 events are bad", errors))).to_string();
        assert!(text.starts_with("Invalid events (422 invalid_events): 12 events are bad\n"), "{text}");
        assert!(text.contains("\n  event 9: source: must not be empty\n  and 2 more"), "{text}");
        assert_eq!(refused(404, None).to_string(), "http://h answers with HTTP status 404");
        let moved = Refused { location: Some("http://other/".to_owned()), ..refused(308, None) };
        assert!(moved.to_string().contains("308, a redirect to http://other/; name"), "{moved}");
        let told = |code| refused(404, Some(Problem::new(code, "it is not there", Vec::new()))).to_string();
        assert!(told(Code::NotFound).ends_with("it is not there (asked at http://h)"));
        assert!(told(Code::TopicNotFound).ends_with("it is not there"));
    }
}
