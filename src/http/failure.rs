//! Every error answer: a problem document with the status of its code. Causes go to the log, safe words to
//! the client.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONNECTION, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};

use crate::api::{Code, EventError, PROBLEM_JSON, Problem};
use crate::domain::HistoryId;
use crate::intake::{BodyError, Invalid};
use crate::pipeline::PublishError;
use crate::store::StoreError;

/// The seconds after which a client may send a request again that was refused with 429 or 503, unless told otherwise.
const RETRY_AFTER_SECONDS: u32 = 1;

/// The same where the disk has no room: somebody has to make some.
const NO_ROOM_SECONDS: u32 = 10;
/// The characters of a parameter's name that an error repeats: a client may choose any name.
const NAME_SHOWN: usize = 100;

/// The errors of one answer, where nothing of the request is stored: ten thousand bad events fit into a
/// few kilobytes, and all their errors are megabytes.
const ERRORS_MAX: usize = 100;

/// Why a request is not answered as asked.
#[derive(Debug)]
pub(super) struct Failure {
    code: Code,
    detail: String,
    errors: Vec<EventError>,
    /// The number of all errors, where `errors` has only the first.
    errors_total: Option<u32>,
    fork: Option<Fork>,
    unread: Option<Unread>,
    /// Seconds in `Retry-After`, where they differ from [`RETRY_AFTER_SECONDS`].
    retry_after: Option<u32>,
}

/// Where a reader of an older history resumes.
#[derive(Debug, Clone)]
struct Fork {
    history: HistoryId,
    common_seq: u64,
}

/// Why the store could not be read, for the log, which is not told at each request.
#[derive(Debug, Clone)]
pub(super) struct Unread(pub(super) String);

impl Failure {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            errors_total: None,
            fork: None,
            unread: None,
            retry_after: None,
        }
    }

    /// What kind of failure it is.
    pub(super) fn code(&self) -> Code {
        self.code
    }

    /// What happened, in words for the client.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// A parameter that breaks a rule, which is the end of a sentence.
    pub(super) fn parameter(name: &str, rule: &str) -> Self {
        Self::new(Code::InvalidParameter, format!("parameter {name:.NAME_SHOWN$} {rule}"))
    }

    /// A refusal of an address that uses more than its share. `share` names what it uses and the limit
    /// that bounds it, such as "this address has 70 followers (`limits.followers_per_address`)".
    pub(super) fn too_many_requests(share: impl fmt::Display) -> Self {
        Self::new(Code::TooManyRequests, format!("{share}; other addresses are served; send again later"))
    }

    /// The same refusal, for a client that should wait `seconds` before it sends again.
    pub(super) fn after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// A cursor of another history, past the last seq that both share. `cause` is the sentence that says
    /// what happened.
    pub(super) fn history_changed(cause: &str, current: &HistoryId, common_seq: u64) -> Self {
        let detail = format!("{cause}; resume with after={common_seq}&history={current}");
        let fork = Some(Fork { history: current.clone(), common_seq });
        Self { fork, ..Self::new(Code::HistoryChanged, detail) }
    }

    /// A fault of ours, whose cause is for the log alone.
    pub(super) fn internal(cause: &dyn fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed");
        Self::new(Code::Internal, "the server made a mistake; its log says more")
    }

    /// Events, or keys, that break rules: too large for the whole request, or invalid.
    pub(super) fn invalid(invalid: &[Invalid]) -> Self {
        let too_large = invalid.iter().any(Invalid::too_large);
        let code = if too_large { Code::EventTooLarge } else { Code::InvalidEvents };
        let total: usize = invalid.iter().map(|bad| bad.faults.len()).sum();
        let errors = invalid
            .iter()
            .flat_map(|bad| bad.faults.iter().map(|fault| EventError::new(bad.index, fault)))
            .take(ERRORS_MAX)
            .collect();
        let errors_total = (total > ERRORS_MAX).then(|| u32::try_from(total).unwrap_or(u32::MAX));
        Self { errors_total, ..Self::faulty(code, invalid.len(), errors) }
    }

    /// This many events with these errors.
    pub(super) fn faulty(code: Code, count: usize, errors: Vec<EventError>) -> Self {
        let detail = match count {
            1 => "1 item of the request breaks a rule; see errors".to_owned(),
            _ => format!("{count} items of the request break a rule; see errors"),
        };
        Self { errors, ..Self::new(code, detail) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let mut response = HttpResponse::build(status);
        response.content_type(PROBLEM_JSON);
        if is_for_later(status) {
            response.insert_header((RETRY_AFTER, self.retry_after.unwrap_or(RETRY_AFTER_SECONDS)));
        }
        if self.code == Code::ShuttingDown {
            response.force_close().insert_header((CONNECTION, "close"));
        }
        let errors_total = self.errors_total.and_then(|total| usize::try_from(total).ok());
        let problem =
            Problem { errors_total, ..Problem::new(self.code, self.detail.clone(), self.errors.clone()) };
        let mut response = response.json(match &self.fork {
            None => problem,
            Some(Fork { history, common_seq }) => {
                let (history, common_seq) = (Some(history.to_string()), Some(*common_seq));
                Problem { history, common_seq, ..problem }
            }
        });
        // For who counts answers: the body is bytes by then.
        response.extensions_mut().insert(self.code);
        if let Some(unread) = &self.unread {
            response.extensions_mut().insert(unread.clone());
        }
        response
    }
}

/// Whether the same request may succeed at another time, so that its answer has `Retry-After`.
pub(super) fn is_for_later(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE
    )
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let (code, detail) = match &error {
            PublishError::OverShare(_) => return Self::too_many_requests(error),
            PublishError::TooManyTopics { seconds } => {
                return Self::new(Code::TooManyTopics, error.to_string()).after(*seconds);
            }
            PublishError::DiskLow => {
                return Self::new(Code::DiskLow, error.to_string()).after(NO_ROOM_SECONDS);
            }
            PublishError::StoreFull => {
                return Self::new(Code::StoreFull, error.to_string()).after(NO_ROOM_SECONDS);
            }
            PublishError::Overloaded => (Code::Overloaded, error.to_string()),
            PublishError::Stopping => (Code::ShuttingDown, error.to_string()),
            PublishError::Unavailable(_) | PublishError::ActorFailed => {
                (Code::StoreUnavailable, NOT_STORED.to_owned())
            }
            PublishError::Damaged(_) => (Code::StoreDamaged, DAMAGED.to_owned()),
        };
        match error {
            // The pipeline says once what keeps it from writing, and that it is overloaded.
            PublishError::Overloaded
            | PublishError::OverShare(_)
            | PublishError::TooManyTopics { .. }
            | PublishError::DiskLow
            | PublishError::StoreFull
            | PublishError::Unavailable(_) => {
                tracing::debug!(cause = %error, "a publish was refused");
            }
            PublishError::Stopping | PublishError::Damaged(_) | PublishError::ActorFailed => {
                tracing::warn!(cause = %error, "a publish was not decided");
            }
        }
        Self::new(code, detail)
    }
}

/// What a client may know when it is unknown whether its events are stored.
pub(super) const NOT_STORED: &str =
    "not every event is known to be stored; send the same events again, which is safe";

const DAMAGED: &str = "stored data does not read back; the server's log says more";

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged(cause) => {
                tracing::error!(cause, "stored data is damaged");
                Self::new(Code::StoreDamaged, DAMAGED)
            }
            StoreError::Unavailable(cause) => {
                let failure = Self::new(Code::StoreUnavailable, "the store cannot be read now");
                Self { unread: Some(Unread(cause)), ..failure }
            }
            StoreError::Owned { .. }
            | StoreError::Newer { .. }
            | StoreError::Older { .. }
            | StoreError::HalfCopied { .. }
            | StoreError::InUse { .. }
            | StoreError::Foreign { .. } => Self::internal(&error),
        }
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        let code = match error {
            BodyError::NotJson(_) => Code::NotJson,
            BodyError::NotAList(_) => Code::InvalidParameter,
            BodyError::TooMany(_) => Code::BatchTooLarge,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_errors_are_named_and_all_are_counted() {
        let bad = |index| {
            let fault = crate::domain::Fault::of_event(crate::domain::FaultCode::NotAnObject, "no");
            Invalid { index, faults: vec![fault; 2] }
        };
        let shown = |items: usize| {
            let failure = Failure::invalid(&(0..items).map(bad).collect::<Vec<_>>());
            (failure.errors.len(), failure.errors_total, failure.detail)
        };
        let said = |count: usize| format!("{count} items of the request break a rule; see errors");
        assert_eq!(shown(50), (100, None, said(50)));
        assert_eq!(shown(10_000), (100, Some(20_000), said(10_000)));
    }

    #[test]
    fn an_address_over_its_share_is_told_when_to_send_again() {
        let wait = |failure: Failure| {
            let response = failure.error_response();
            let seconds = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
            (response.status().as_u16(), seconds)
        };
        let throttled = || Failure::too_many_requests("this address has 9 of 8 places");
        assert_eq!(wait(throttled()), (429, Some("1".to_owned())));
        assert_eq!(wait(throttled().after(30)), (429, Some("30".to_owned())));
        assert_eq!(wait(Failure::new(Code::Overloaded, "full")), (503, Some("1".to_owned())));
        assert_eq!(wait(Failure::new(Code::InvalidEvents, "bad")), (422, None));
        let told = throttled().to_string();
        assert!(told.starts_with("too_many_requests: this address has 9 of 8 places; other"), "{told}");
    }
}
