//! Events by their keys: one event whole, or where and when many were stored.

use std::collections::HashMap;

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use foldhash::fast::RandomState;

use super::answers;
use super::body;
use super::failure::Failure;
use super::headers;
use super::openapi::{EventProblems, LookupProblems};
use super::params::{Query, segment, topic};
use super::peer::Peer;
use super::render;
use super::state::State;
use crate::api;
use crate::domain::Topic;
use crate::intake::{self, Format};
use crate::store::{Found, Key};

/// The keys that are looked up in one turn.
const KEYS_AT_ONCE: usize = 100;

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
    found(&state, &request, topic, event_id).await
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
    found(&state, &request, topic, event_id).await
}

async fn found(
    state: &State,
    request: &HttpRequest,
    topic: Topic,
    event_id: String,
) -> Result<HttpResponse, Failure> {
    let address = Peer::of(request).address();
    let turn = state.reads.turn(address).await?;
    let room = state.room_of_page(address)?;
    let Some(stored) = turn.event(Key { topic: topic.clone(), event_id }).await? else {
        return Err(Failure::new(api::Code::EventNotFound, "this topic has no event with this id"));
    };
    let mut body = Vec::new();
    let repeats = turn.repeats(topic, stored.seq).await?;
    render::event_with(&mut body, &stored, repeats).map_err(|error| Failure::internal(&error))?;
    drop(turn);
    let mut response = HttpResponse::Ok().content_type("application/json").body(body);
    answers::attach(&mut response, room);
    Ok(response)
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
    let limits = intake::Limits { items: state.limits.lookup_keys, ..state.intake_limits() };
    let parsed = intake::keys(&bytes, limits)?;
    drop(bytes);
    if !parsed.invalid.is_empty() {
        return Err(Failure::invalid(&parsed.invalid));
    }
    let (distinct, places) = distinct(keys(parsed.valid)?);
    let mut found = Vec::with_capacity(distinct.len());
    let (address, deadline) = (Peer::of(&request).address(), state.reads.deadline());
    for some in distinct.chunks(KEYS_AT_ONCE) {
        let turn = state.reads.turn_by(deadline, address).await?;
        found.extend(turn.lookup(some.to_vec()).await?);
    }
    if found.len() != distinct.len() {
        return Err(Failure::internal(&"the store gave another number of answers than keys"));
    }
    let shown = |at: &Found| api::Found { seq: at.seq, received_at: render::time(at.received_at) };
    let found: Vec<_> = found.iter().map(|found| found.as_ref().map(shown)).collect();
    let answer: Vec<_> = places.into_iter().map(|place| &found[place]).collect();
    Ok(HttpResponse::Ok().json(answer))
}

/// Each key once, in the order in which they come first, and for each key its place among those.
fn distinct(keys: Vec<Key>) -> (Vec<Key>, Vec<usize>) {
    let mut known = HashMap::with_capacity_and_hasher(keys.len(), RandomState::default());
    let mut places = Vec::with_capacity(keys.len());
    for key in keys {
        let next = known.len();
        places.push(*known.entry(key).or_insert(next));
    }
    let mut once: Vec<_> = known.into_iter().collect();
    once.sort_unstable_by_key(|(_, place)| *place);
    (once.into_iter().map(|(key, _)| key).collect(), places)
}

fn keys(keys: Vec<api::Key>) -> Result<Vec<Key>, Failure> {
    keys.into_iter().map(|key| Ok(Key { topic: topic(&key.topic)?, event_id: key.event_id })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_looked_up_once_and_answered_at_each_of_its_places() {
        let key =
            |topic: &str, id: &str| Key { topic: Topic::parse(topic).unwrap(), event_id: id.to_owned() };
        let asked = [key("b", "1"), key("a", "1"), key("b", "1"), key("a", "2"), key("a", "1")];
        let (once, places) = distinct(asked.to_vec());
        assert_eq!(once, [key("b", "1"), key("a", "1"), key("a", "2")]);
        assert_eq!(places, [0, 1, 0, 2, 1]);
        assert_eq!(distinct(vec![key("t", "x"); 10_000]).0.len(), 1);
    }
}
