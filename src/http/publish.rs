//! `POST /publish`: a body becomes events, the pipeline decides them, the answer tells the fate of each.

use std::collections::HashSet;
use std::time::Instant;

use actix_web::http::header::HeaderName;
use actix_web::web::{Data, Payload};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, ResponseError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answers;
use super::body;
use super::failure::{Failure, NOT_STORED};
use super::headers;
use super::openapi::PublishProblems;
use super::params::Query;
use super::peer::Peer;
use super::state::State;
use super::trace::Published;
use super::watch;
use crate::api::{Code, EventError, EventInput, EventResult, FirstVersionAnswer, PublishAnswer};
use crate::domain::{Counts, Event, Fault, RequestId, Verdict};
use crate::intake::{self, Invalid};
use crate::pipeline::Permit;

/// What happens to a request with invalid events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnInvalid {
    /// It is refused as a whole.
    Refuse,
    /// They are rejected one by one, and the others stored.
    Skip,
}

/// The parameters, for the document.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query, which is read by hand so that errors name the parameter")]
struct PublishQuery {
    /// `skip` stores the valid events and rejects the invalid ones one by one; without it one invalid event
    /// refuses the whole request.
    #[param(pattern = "^skip$")]
    invalid: Option<String>,
}

/// The forms of a JSON body, for the document.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the body, which intake reads")]
pub(super) enum PublishBody {
    /// One event.
    One(EventInput),
    /// An array of events.
    Many(Vec<EventInput>),
    /// A batch.
    Batch(PublishBatch),
}

/// Events under a name.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishBatch {
    /// The events.
    events: Vec<EventInput>,
}

/// The bytes of one result in an answer: a status, a seq and whether it is a conflict have 70 at most,
/// with the members of the first version twice as many.
const RESULT_BYTES: usize = 128;

/// Publish events
///
/// The body is one event, an array of events or `{"events":[...]}`; or NDJSON, one event a line. It may be
/// compressed (`Content-Encoding: gzip`, `deflate`, `br` or `zstd`). After 200 every event that is reported
/// accepted or duplicate is durable. After 429, 503, 507, or no answer at all, send the same events again: it is
/// safe.
#[utoipa::path(
    post,
    path = "/publish",
    tag = "publish",
    params(
        PublishQuery,
        ("Prefer" = Option<String>, Header, description = "`return=minimal` leaves out the results"),
    ),
    request_body(
        description = "Events",
        content(
            (PublishBody = "application/json"),
            (String = "application/x-ndjson"),
            (String = "application/ndjson"),
            (String = "application/jsonl"),
        ),
    ),
    responses((status = 200, description = "All events are decided, and durable", body = PublishAnswer,
        headers(("Preference-Applied" = String, description = "`return=minimal`, where the results are left out"))),
        PublishProblems),
)]
pub(super) async fn publish(state: Data<State>, request: HttpRequest, payload: Payload) -> HttpResponse {
    match take(&state, &request, payload).await {
        Ok(answer) => answer,
        Err(failure) if rests(failure.code()) => state.pauses.after(failure.error_response()),
        Err(failure) => failure.error_response(),
    }
}

/// Whether the connection of a request that was refused rests: a client that ignores `Retry-After` would send
/// it again at once.
fn rests(refused: Code) -> bool {
    matches!(
        refused,
        Code::Overloaded | Code::TooManyRequests | Code::TooManyTopics | Code::DiskLow | Code::StoreFull
    )
}

async fn take(state: &State, request: &HttpRequest, payload: Payload) -> Result<HttpResponse, Failure> {
    let started = Instant::now();
    let on_invalid = on_invalid(request)?;
    let format = headers::content_format(request.headers())?;
    if let Err(refused) = state.pipeline.look_for_room() {
        body::discard(payload).await;
        return Err(refused.into());
    }
    let mut permit = body::permit(state, request);
    // To inflate and to parse costs the most: who would be refused after it is refused before it.
    let length = headers::content_length(request.headers()).unwrap_or(usize::MAX);
    if let Err(refused) = permit.look_for_events(length) {
        body::discard(payload).await;
        return Err(refused.into());
    }
    let bytes = body::read(state, request, payload, &mut permit).await?;
    if let Some(id) = request.extensions().get::<RequestId>() {
        permit.name(id.clone());
    }
    // Looked again: others have come while the body did.
    permit.look_for_events(bytes.len())?;
    let parsed = intake::events(&bytes, format, state.intake_limits())?;
    // Counted for the line about the request, and only where there is one.
    let topics = watch::writes_each().then(|| topics_of(&parsed.valid));
    let received = bytes.len();
    drop(bytes);
    permit.charge_events(parsed.valid.len())?;
    if !parsed.invalid.is_empty() {
        state.pipeline.reject(parsed.invalid.len() as u64);
        if on_invalid == OnInvalid::Refuse {
            return Err(Failure::invalid(&parsed.invalid));
        }
    }
    // Taken before anything is stored: afterwards every event has its verdict.
    let minimal = headers::prefers_minimal(request.headers());
    let count = if minimal { 0 } else { parsed.valid.len() + parsed.invalid.len() };
    let room = state.answers.room(Peer::of(request).address(), count * RESULT_BYTES)?;
    // Also where they are duplicates: what a topic's clients send makes it busy.
    state.shown.note(parsed.valid.iter().map(Event::topic));
    let decided_from = Instant::now();
    let verdicts = decide(state, parsed.valid, permit).await?;
    if on_invalid == OnInvalid::Refuse {
        check_refusals(&verdicts)?;
    }
    state.metrics.publish_seconds.observe(started.elapsed().as_secs_f64());
    let counts = counts(&verdicts, &parsed.invalid);
    let results = (!minimal).then(|| results(&verdicts, &parsed.invalid));
    let mut response = answer(PublishAnswer::new(counts, results), state.first_version);
    answers::attach(&mut response, room);
    if let Some(topics) = topics {
        response.extensions_mut().insert(Published {
            topics,
            counts,
            bytes: received,
            deciding: decided_from.elapsed(),
        });
    }
    Ok(response)
}

fn topics_of(events: &[Event]) -> usize {
    events.iter().map(Event::topic).collect::<HashSet<_>>().len()
}

fn counts(verdicts: &[Verdict], invalid: &[Invalid]) -> Counts {
    let mut counts: Counts = verdicts.iter().collect();
    counts.rejected += invalid.len() as u64;
    counts
}

fn on_invalid(request: &HttpRequest) -> Result<OnInvalid, Failure> {
    let mut query = Query::of(request)?;
    let on_invalid = query.word("invalid", &[("skip", OnInvalid::Skip)])?;
    query.finish()?;
    Ok(on_invalid.unwrap_or(OnInvalid::Refuse))
}

/// Waits for the verdicts, but not for ever: the events go on without the one who waits.
async fn decide(state: &State, events: Vec<Event>, permit: Permit) -> Result<Vec<Verdict>, Failure> {
    let count = events.len();
    if count == 0 {
        return Ok(Vec::new());
    }
    let publishing = state.pipeline.publish(events, permit);
    let Ok(decided) = tokio::time::timeout(state.server.request_timeout, publishing).await else {
        tracing::warn!(events = count, "a publish was not decided within server.request_timeout");
        return Err(Failure::new(Code::StoreUnavailable, NOT_STORED));
    };
    let verdicts = decided?;
    if verdicts.len() != count {
        return Err(Failure::internal(&"the pipeline gave another number of verdicts than events"));
    }
    Ok(verdicts)
}

/// Refuses the request where a limit of the log refused some of its events; the others are stored.
fn check_refusals(verdicts: &[Verdict]) -> Result<(), Failure> {
    let refusals = verdicts.iter().enumerate().filter_map(|(index, verdict)| match verdict {
        Verdict::Refused(refusal) => Some(EventError::new(index, &Fault::from(*refusal))),
        Verdict::Accepted { .. } | Verdict::Duplicate { .. } => None,
    });
    let errors: Vec<_> = refusals.collect();
    if errors.is_empty() { Ok(()) } else { Err(Failure::faulty(Code::InvalidEvents, errors.len(), errors)) }
}

fn answer(answer: PublishAnswer, first_version: bool) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if answer.results.is_none() {
        response.insert_header((HeaderName::from_static("preference-applied"), "return=minimal"));
    }
    if first_version { response.json(FirstVersionAnswer::from(answer)) } else { response.json(answer) }
}

/// One result for each event of the request, in its order.
fn results(verdicts: &[Verdict], invalid: &[Invalid]) -> Vec<EventResult> {
    let mut verdicts = verdicts.iter();
    let mut invalid = invalid.iter().peekable();
    let count = verdicts.len() + invalid.len();
    let result = |index| match invalid.next_if(|bad| bad.index == index) {
        Some(bad) => bad.faults.first().map(EventResult::rejected),
        None => verdicts.next().map(|verdict| EventResult::decided(*verdict)),
    };
    (0..count).filter_map(result).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{FaultCode, Refusal};

    #[test]
    fn results_stand_in_the_order_of_the_request() {
        let bad = |index| Invalid { index, faults: vec![Fault::of_event(FaultCode::NotAnObject, "no")] };
        let verdicts = [
            Verdict::Accepted { seq: 9 },
            Verdict::Duplicate { seq: 4, conflict: false },
            Verdict::Duplicate { seq: 5, conflict: true },
            Verdict::Refused(Refusal::TopicLimit),
        ];
        let found: Vec<Value> = results(&verdicts, &[bad(0), bad(2), bad(5)])
            .iter()
            .map(|result| serde_json::to_value(result).unwrap())
            .collect();
        let rejected = |index: usize| found[index]["error"]["code"].as_str().unwrap().to_owned();
        assert_eq!(found.len(), 7);
        assert_eq!(found[1], json!({"status": "accepted", "seq": 9}));
        assert_eq!(found[3], json!({"status": "duplicate", "seq": 4}));
        assert_eq!(found[4], json!({"status": "duplicate", "seq": 5, "conflict": true}));
        assert_eq!([0, 2, 5].map(rejected), ["not_an_object"; 3]);
        assert_eq!(rejected(6), "topic_limit");
    }

    #[test]
    fn refused_events_refuse_the_request_by_name() {
        assert!(check_refusals(&[Verdict::Accepted { seq: 1 }]).is_ok());
        let verdicts = [Verdict::Accepted { seq: 1 }, Verdict::Refused(Refusal::TopicLimit)];
        let failure = check_refusals(&verdicts).unwrap_err();
        assert!(failure.to_string().starts_with("invalid_events: 1 item"), "{failure}");
    }
}
