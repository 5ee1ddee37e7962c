//! How the log is doing: counts, health, metrics.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::failure::Failure;
use super::openapi::{HealthProblems, LiveProblems, MetricsProblems, ReadProblems};
use super::params::Query;
use super::peer::Peer;
use super::scrape;
use super::state::State;
use super::topics::TOPICS_MAX;
use crate::api::{Code, FirstVersionStats, Health, Stats, Totals};

/// Read what the log counted
///
/// After a 200 to a publish both counts include it.
#[utoipa::path(
    get,
    path = "/stats",
    tag = "observe",
    responses((status = 200, description = "The counts", body = Stats), ReadProblems),
)]
pub(super) async fn stats(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, Failure> {
    Query::none(&request)?;
    let turn = state.reads.turn(Peer::of(&request).address()).await?;
    let history = turn.history().await?;
    let totals = turn.totals().await?;
    let listed = turn.topics(None, TOPICS_MAX).await?;
    let mut topics: Vec<_> = listed.into_iter().map(|found| found.topic.to_string()).collect();
    if totals.topics > topics.len() as u64 {
        scrape::add_shown(&state, &*turn, &mut topics).await?;
    }
    drop(turn);
    let counted = Stats {
        uptime_seconds: state.metrics.uptime().as_secs_f64(),
        runtime: Totals::from(state.metrics.counts()),
        persistent: Totals::from(totals.counts),
        shards: state.pipeline.shards(),
        durability: state.pipeline.durability().to_owned(),
        history: history.to_string(),
        topics_total: totals.topics,
        topics,
    };
    Ok(if state.first_version {
        HttpResponse::Ok().json(FirstVersionStats::from(counted))
    } else {
        HttpResponse::Ok().json(counted)
    })
}

/// Is the process alive?
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "observe",
    responses((status = 200, description = "It is, also while it stops", body = Health), LiveProblems),
)]
pub(super) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "ok".to_owned() })
}

/// Can the log take events?
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "observe",
    responses((status = 200, description = "It can", body = Health), HealthProblems),
)]
pub(super) async fn ready(state: Data<State>) -> Result<HttpResponse, Failure> {
    if !state.pipeline.ready() {
        return Err(Failure::new(Code::StoreUnavailable, "the store cannot write now"));
    }
    state.pipeline.look_for_room()?;
    Ok(live().await)
}

/// The same as /health/ready
#[utoipa::path(
    get,
    path = "/health",
    tag = "observe",
    responses((status = 200, description = "It can", body = Health), HealthProblems),
)]
pub(super) async fn health(state: Data<State>) -> Result<HttpResponse, Failure> {
    ready(state).await
}

/// Metrics for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "observe",
    responses((status = 200, description = "Prometheus text", body = String,
        content_type = "text/plain"), MetricsProblems),
)]
pub(super) async fn metrics(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, Failure> {
    let sample = scrape::sample(&state, Peer::of(&request).address()).await;
    let text = state.metrics.text(sample).map_err(|error| Failure::internal(&error))?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}
