//! Around every request: refusal while stopping, one log line, one count.

use std::time::Instant;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, ResponseError};

use super::failure::Failure;
use super::state::State;
use crate::api::Code;
use crate::metrics::{RefusalLabels, RequestLabels};

/// Answered until the end: a process that stops in order is alive, and who asks would kill it otherwise.
pub(super) const LIVE: &str = "/health/live";

/// The pattern of a path, which the path's resource holds: the router would put it together anew for each request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route(pub(super) &'static str);

pub(super) async fn watch<B: MessageBody>(
    state: Data<State>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let started = Instant::now();
    let response = if state.stopping() && request.path() != LIVE {
        let refusal = Failure::new(Code::ShuttingDown, "the log is stopping");
        request.into_response(refusal.error_response()).map_into_right_body()
    } else {
        next.call(request).await?.map_into_left_body()
    };
    record(&state, &response, started);
    Ok(response)
}

fn record<B>(state: &State, response: &ServiceResponse<B>, started: Instant) {
    let (request, status) = (response.request(), response.status().as_u16());
    // The pattern and never the path, a known method and never any word: labels must not grow without bound.
    let route = request.app_data().map_or("none", |Route(pattern)| *pattern);
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    };
    let micros = started.elapsed().as_micros();
    // Not 503: a log that is overloaded, or cannot write, must not say so for each request that it refuses.
    if status >= 500 && status != 503 {
        tracing::info!(method, route, status, micros, path = request.path(), "answered");
    } else {
        tracing::debug!(method, route, status, micros, path = request.path(), "answered");
    }
    if let Some(code) = response.response().extensions().get::<Code>() {
        state.metrics.refusals.get_or_create(&RefusalLabels { reason: code.as_str() }).inc();
    }
    state.metrics.requests.get_or_create(&RequestLabels { method, route, status }).inc();
}
