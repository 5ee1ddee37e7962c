//! Events by their keys: one event whole, or where and when many were stored.

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};

use super::body;
use super::failure::Failure;
use super::headers;
use super::openapi::{EventProblems, LookupProblems};
use super::params::{Query, segment, topic};
use super::render;
use super::state::State;
use crate::api;
use crate::domain::Topic;
use crate::intake::{self, Format};
use crate::store::Key;

/// Read one event
///
/// Both parts of the path are percent-encoded. `GET /event` takes them as parameters. `repeats`
/// says how it was repeated, if it is among the events that were
/// repeated most recently.
#[utoipa::path(
    get,
    path = "/events/{topic}/{event_id}",
    tag = "read",
    params(api::Key),
    responses((status = 200, description = "The event", body = api::Event<'static>), EventProblems),
)]
pub(super) async fn event(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, Failure> {
    Query::none(&request)?;
    let topic = topic(&segment(&request, 1, "topic")?)?;
    let event_id = segment(&request, 2, "event_id")?;
    found(&state, topic, event_id).await
}

/// The parameters, for the document.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query, which is read by hand so that errors name the parameter")]
struct KeyQuery {
    /// The topic: 1 to 255 bytes of UTF-8, no control characters.
    #[param(
        min_length = 1,
        max_length = 255,
        example = "orders",
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
    )]
    topic: String,
    /// The id within the topic: 1 to 255 bytes of UTF-8, no control characters.
    #[param(
        min_length = 1,
        max_length = 255,
        example = "order-1",
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
    )]
    event_id: String,
}

/// Read one event, whatever its names
///
/// The same as `GET /events/{topic}/{event_id}`, with the names as parameters. Browsers, URL
/// libraries and proxies change some paths before they send them: they remove the parts `.` and
/// `..`, and some decode `%2F`.
#[utoipa::path(
    get,
    path = "/event",
    tag = "read",
    params(KeyQuery),
    responses((status = 200, description = "The event", body = api::Event<'static>), EventProblems),
)]
pub(super) async fn event_by_query(
    state: Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Failure> {
    let mut query = Query::of(&request)?;
    let topic = topic(&query.name("topic")?)?;
    let event_id = query.name("event_id")?;
    query.finish()?;
    found(&state, topic, event_id).await
}

async fn found(state: &State, topic: Topic, event_id: String) -> Result<HttpResponse, Failure> {
    let Some(stored) = state.reader.event(Key { topic: topic.clone(), event_id }).await? else {
        return Err(Failure::new(api::Code::EventNotFound, "this topic has no event with this id"));
    };
    let mut body = Vec::new();
    let repeats = state.reader.repeats(topic, stored.seq).await?;
    render::event_with(&mut body, &stored, repeats).map_err(|error| Failure::internal(&error))?;
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}

/// Look up events by their keys
///
/// Tells for each key where and when it was stored, or null, in the order of the request. Stores nothing.
#[utoipa::path(
    post,
    path = "/events/lookup",
    tag = "read",
    request_body = Vec<api::Key>,
    responses((status = 200, description = "One answer for each key", body = Vec<Option<api::Found>>),
        LookupProblems),
)]
pub(super) async fn lookup(
    state: Data<State>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Failure> {
    Query::none(&request)?;
    if !matches!(headers::content_format(request.headers()), Ok(Format::Json)) {
        return Err(Failure::new(api::Code::UnsupportedType, "keys are sent as application/json"));
    }
    let mut permit = body::permit(&state, &request);
    let bytes = body::read(&state, &request, payload, &mut permit).await?;
    let parsed = intake::keys(&bytes, state.intake_limits())?;
    if !parsed.invalid.is_empty() {
        return Err(Failure::invalid(&parsed.invalid));
    }
    let found = state.reader.lookup(keys(parsed.valid)?).await?;
    let answer: Vec<_> = found
        .into_iter()
        .map(|found| found.map(|at| api::Found { seq: at.seq, received_at: render::time(at.received_at) }))
        .collect();
    Ok(HttpResponse::Ok().json(answer))
}

fn keys(keys: Vec<api::Key>) -> Result<Vec<Key>, Failure> {
    keys.into_iter().map(|key| Ok(Key { topic: topic(&key.topic)?, event_id: key.event_id })).collect()
}
