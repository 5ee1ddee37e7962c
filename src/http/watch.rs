//! Around every request: its id, refusal while stopping or of a page that must not ask, one log line, one count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::web::{Data, Payload};
use actix_web::{Error, HttpMessage, ResponseError};

use super::answers;
use super::body;
use super::connections::{Answered, Connection};
use super::failure::{Failure, Unread};
use super::guard;
use super::path;
use super::peer::Peer;
use super::state::State;
use super::trace::{Origin, Published, X_REQUEST_ID};
use crate::api::Code;
use crate::metrics::{RefusalLabels, RequestLabels};

/// Answered until the end: a process that stops in order is alive, and who asks would kill it otherwise.
pub(super) const LIVE: &str = "/health/live";

/// The pattern of a path, which the path's resource holds: the router would put it together anew for each request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route(pub(super) &'static str);

/// What the lines about requests are written as, so that `log.level` can have them apart from all others.
const TARGET: &str = "sekali::requests";

/// A method that is not told by its name.
const OTHER: &str = "other";

/// The bytes of a path that are written: with so many lines a second as failed requests have, 200 KB a second at most.
const PATH_MAX: usize = 2_048;

/// Whether a line is written for each request, also one that went well.
pub(super) fn writes_each() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

pub(super) async fn watch<B: MessageBody + Unpin + 'static>(
    state: Data<State>,
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<Answered<BoxBody>>, Error> {
    let started = Instant::now();
    let connection = request.conn_data::<Arc<Connection>>().cloned();
    if let Some(connection) = &connection {
        connection.begin(request.headers());
    }
    let origin = Origin::of(request.headers());
    let socket = request.peer_addr().map(|address| address.ip());
    let peer = Peer::find(socket, request.headers(), &state.server.trusted_proxies);
    request.extensions_mut().insert(origin.id.clone());
    request.extensions_mut().insert(peer);
    path::match_as_sent(&mut request);
    let admitted = if state.stopping() && request.path() != LIVE {
        Err(Failure::new(Code::ShuttingDown, "the log is stopping"))
    } else {
        guard::check(request.request(), &state.server.allowed_hosts)
    };
    let mut response = match admitted {
        Ok(()) => answers::bounded(&state.answers, next.call(request).await?),
        Err(refusal) => {
            let unread = request.extract::<Payload>().await?;
            body::discard(unread).await;
            request.into_response(refusal.error_response())
        }
    };
    if let Some(value) = origin.header() {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    guard::seal(response.headers_mut());
    record(&state, &response, (&origin, peer), started);
    Ok(response.map_body(|_, body| Answered::new(body, connection)))
}

fn record<B: MessageBody + 'static>(
    state: &State,
    response: &ServiceResponse<B>,
    (origin, peer): (&Origin, Peer),
    started: Instant,
) {
    let (request, status) = (response.request(), response.status().as_u16());
    // The pattern and never the path, a known method and never any word: labels must not grow without bound.
    let route = request.app_data().map_or("none", |Route(pattern)| *pattern);
    let method = match known(request.method()) {
        served @ ("GET" | "HEAD" | "POST") => served,
        _ => OTHER,
    };
    let code = response.response().extensions().get::<Code>().copied();
    if let Some(code) = code {
        state.metrics.refusals.get_or_create(&RefusalLabels { reason: code.as_str() }).inc();
    }
    if let Some(Unread(cause)) = response.response().extensions().get() {
        let request_id = &origin.id;
        if state.unread.admits() {
            tracing::warn!(%request_id, cause, "the store cannot be read: requests are answered 503");
        } else {
            tracing::debug!(%request_id, cause, "the store cannot be read");
        }
    }
    state.metrics.requests.get_or_create(&RequestLabels { method, route, status }).inc();
    // Not 503 and 507: a log that is overloaded, or cannot write, must not say so for each request that it
    // refuses.
    let failed = status >= 400 && !matches!(status, 503 | 507);
    if failed || writes_each() {
        write(response, (origin, peer), (route, code), started.elapsed());
    }
}

/// The line about a request: never what was in its body, never one of its headers but its id. It tells what happened, and
/// so is info; whether one that went well has a line at all is asked before.
fn write<B: MessageBody + 'static>(
    response: &ServiceResponse<B>,
    (origin, peer): (&Origin, Peer),
    (route, code): (&str, Option<Code>),
    took: Duration,
) {
    let status = response.status().as_u16();
    let parent = origin.parent.as_ref();
    let published = response.response().extensions().get::<Published>().copied();
    let sent = match response.response().body().size() {
        BodySize::Sized(bytes) => Some(bytes),
        BodySize::None | BodySize::Stream => None,
    };
    macro_rules! line {
        ($words:literal) => {
            tracing::info!(
                target: TARGET,
                request_id = %origin.id,
                parent_id = parent.map(|parent| &*parent.span),
                sampled = parent.map(|parent| parent.sampled),
                peer = peer.socket.map(tracing::field::display),
                // The client that a trusted proxy names.
                forwarded = peer.forwarded.map(tracing::field::display),
                method = known(response.request().method()),
                route,
                path = beginning(response.request().path()),
                status,
                code = code.map(Code::as_str),
                micros = micros(took),
                decide_micros = published.map(|of| micros(of.deciding)),
                received_bytes = published.map(|of| of.bytes),
                sent_bytes = sent,
                topics = published.map(|of| of.topics),
                accepted = published.map(|of| of.counts.accepted),
                duplicates = published.map(|of| of.counts.duplicates),
                conflicts = published.map(|of| of.counts.conflicts),
                rejected = published.map(|of| of.counts.rejected),
                $words
            )
        };
    }
    // Each is a kind of line of its own, with its own limit (`telemetry`): the refusals of one address must
    // not take the lines of all others.
    match status {
        ..400 => line!("answered"),
        429 => line!("refused for the address"),
        _ => line!("not answered as asked"),
    }
}

/// A method by its name, where it is one of HTTP's own: the name of a span, which is made of it, is one of a few.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => OTHER,
    }
}

/// As much of a path as is written: the longest that names an event has two names of 255 bytes, percent-encoded.
fn beginning(path: &str) -> &str {
    &path[..path.floor_char_boundary(PATH_MAX)]
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
