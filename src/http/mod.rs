//! The HTTP server: one handler for each path of the contract, over a reader and the pipeline.

mod accept;
mod activity;
mod answers;
mod arrival;
mod body;
mod connections;
mod console;
mod events;
mod failure;
mod fields;
mod follow;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod headers;
mod history;
mod inflate;
mod keys;
mod observe;
mod openapi;
mod params;
mod path;
mod pause;
mod peer;
mod publish;
mod reads;
mod render;
mod scrape;
mod server;
mod state;
mod stream;
mod topics;
mod trace;
mod watch;

#[cfg(test)]
pub(crate) mod tests;

use actix_web::dev::Handler;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::{FromRequest, HttpResponse, Resource, Responder, ResponseError, web};

pub use server::{Bound, bind, bind_ops};
pub use state::State;

use crate::api::Code;
use failure::Failure;
use watch::Route;

/// Every path. The busiest comes first, since they are tried in this order.
fn routes(app: &mut web::ServiceConfig) {
    app.service(post("/publish", publish::publish))
        .service(get("/events", events::events))
        .service(post("/events/lookup", keys::lookup))
        .service(get("/events/{topic}/{event_id}", keys::event))
        .service(get("/event", keys::event_by_query))
        .service(get("/topics", topics::topics))
        .service(get("/topics/{topic}", topics::one))
        .service(get("/topic", topics::one_by_query))
        .service(get("/stats", observe::stats))
        .configure(observed)
        .service(get("/openapi.json", openapi::document))
        .service(get("/", console::page))
        .service(get("/console/{file:.*}", console::part))
        .service(get("/docs", openapi::to_page))
        .service(get("/docs/{file:.*}", openapi::page))
        .default_service(web::to(not_found));
}

/// The paths that say how the log is doing, which both listeners have.
fn observed(app: &mut web::ServiceConfig) {
    app.service(get("/health", observe::health))
        .service(get(watch::LIVE, observe::live))
        .service(get("/health/ready", observe::ready))
        .service(get("/metrics", observe::metrics));
}

/// Every path of the listener for health and metrics.
fn ops_routes(app: &mut web::ServiceConfig) {
    app.configure(observed).default_service(web::to(not_found));
}

/// The first version's paths with a slash at their end, which its framework accepted.
fn first_version_routes(app: &mut web::ServiceConfig) {
    app.service(sending(resource("/publish/", "/publish"), publish::publish))
        .service(reading(resource("/events/", "/events"), events::events))
        .service(reading(resource("/stats/", "/stats"), observe::stats));
}

/// A path to read, where HEAD answers as GET does, without the body.
fn get<F, Args>(path: &'static str, handler: F) -> Resource
where
    F: Handler<Args> + Clone,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    reading(resource(path, path), handler)
}

fn reading<F, Args>(resource: Resource, handler: F) -> Resource
where
    F: Handler<Args> + Clone,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    resource
        .route(web::get().to(handler.clone()))
        .route(web::head().to(handler))
        .default_service(web::to(|| async { method_not_allowed("GET, HEAD") }))
}

/// A path to send something to.
fn post<F, Args>(path: &'static str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    sending(resource(path, path), handler)
}

fn sending<F, Args>(resource: Resource, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    resource.route(web::post().to(handler)).default_service(web::to(|| async { method_not_allowed("POST") }))
}

/// A path that knows under which pattern it is counted.
fn resource(path: &'static str, counted_as: &'static str) -> Resource {
    web::resource(path).app_data(Route(counted_as))
}

fn method_not_allowed(allowed: &'static str) -> HttpResponse {
    let failure = Failure::new(Code::MethodNotAllowed, format!("this path knows {allowed}"));
    let mut response = failure.error_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

async fn not_found() -> HttpResponse {
    Failure::new(Code::NotFound, "there is nothing at this path; /docs lists what there is").error_response()
}
