//! Topics and what was counted in them.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::failure::Failure;
use super::openapi::{ReadProblems, TopicProblems};
use super::params::{Query, segment, topic};
use super::peer::Peer;
use super::render;
use super::state::State;
use crate::api::{Code, Source, SourceStats, TopicDetail, TopicPage, TopicStats};
use crate::domain::{HistoryId, LATE_SECONDS, Topic};
use crate::store::{SourceCounts, TopicCounts, TopicSources};

/// The most topics of one answer, and the number without a `limit`.
pub(super) const TOPICS_MAX: usize = 1_000;

/// The parameters, for the document.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query, which is read by hand so that errors name the parameter")]
struct TopicsQuery {
    /// Only topics whose names are greater.
    after: Option<String>,
    /// The most topics; 1,000 without it.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<u64>,
}

/// List topics
///
/// In the order of their names' bytes. Go on with `after=next_after` until no topic comes.
#[utoipa::path(
    get,
    path = "/topics",
    tag = "read",
    params(TopicsQuery),
    responses((status = 200, description = "A page of topics", body = TopicPage), ReadProblems),
)]
pub(super) async fn topics(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, Failure> {
    let mut query = Query::of(&request)?;
    let after = query.take("after");
    let limit = query.number("limit", 1..=TOPICS_MAX as u64)?;
    query.finish()?;
    let limit = limit.and_then(|limit| limit.try_into().ok()).unwrap_or(TOPICS_MAX);
    // Read before any seq: see `Reader::history`.
    let turn = state.reads.turn(Peer::of(&request).address()).await?;
    let history = turn.history().await?;
    let found = turn.topics(after.clone(), limit).await?;
    let next_after = found.last().map(|last| last.topic.to_string()).or(after);
    let topics = found.iter().map(|counts| stats(&state, &history, counts)).collect();
    Ok(HttpResponse::Ok().json(TopicPage { topics, next_after }))
}

/// Read what was counted in a topic, and by source
///
/// `GET /topic` takes the topic as a parameter.
#[utoipa::path(
    get,
    path = "/topics/{topic}",
    tag = "read",
    params(("topic" = String, Path, description = "The topic, percent-encoded", example = "orders", min_length = 1,
        max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")),
    responses((status = 200, description = "The topic", body = TopicDetail), TopicProblems),
)]
pub(super) async fn one(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, Failure> {
    Query::none(&request)?;
    let name = topic(&segment(&request, 1, "topic")?)?;
    found(&state, &request, name).await
}

/// The parameters, for the document.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query, which is read by hand so that errors name the parameter")]
struct TopicQuery {
    /// The topic: 1 to 255 bytes of UTF-8, no control characters.
    #[param(
        min_length = 1,
        max_length = 255,
        example = "orders",
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
    )]
    topic: String,
}

/// Read what was counted in a topic, whatever its name
///
/// The same as `GET /topics/{topic}`, with the topic as a parameter. Browsers, URL libraries and
/// proxies change some paths before they send them: they remove the parts `.` and `..`, and some
/// decode `%2F`.
#[utoipa::path(
    get,
    path = "/topic",
    tag = "read",
    params(TopicQuery),
    responses((status = 200, description = "The topic", body = TopicDetail), TopicProblems),
)]
pub(super) async fn one_by_query(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, Failure> {
    let mut query = Query::of(&request)?;
    let name = topic(&query.name("topic")?)?;
    query.finish()?;
    found(&state, &request, name).await
}

async fn found(state: &State, request: &HttpRequest, name: Topic) -> Result<HttpResponse, Failure> {
    // Read before any seq: see `Reader::history`.
    let turn = state.reads.turn(Peer::of(request).address()).await?;
    let history = turn.history().await?;
    match turn.sources(name).await? {
        Some(found) => Ok(HttpResponse::Ok().json(detail(state, &history, found))),
        None => Err(Failure::new(Code::TopicNotFound, "no event was stored in this topic")),
    }
}

fn detail(state: &State, history: &HistoryId, found: TopicSources) -> TopicDetail {
    let late = found.lateness();
    let shown = |counts: SourceCounts| SourceStats::new(counts.counts(), &counts.lateness);
    let sources =
        found.named.into_iter().map(|(source, counts)| Source { source, stats: shown(counts) }).collect();
    TopicDetail {
        stats: stats(state, history, &found.topic),
        late_up_to_seconds: LATE_SECONDS.to_vec(),
        late: late.buckets.to_vec(),
        sources,
        other: shown(found.other),
    }
}

fn stats(state: &State, history: &HistoryId, found: &TopicCounts) -> TopicStats {
    TopicStats {
        topic: found.topic.to_string(),
        history: history.to_string(),
        lanes: state.pipeline.lanes(found.topic.as_str()),
        accepted: found.counts.accepted,
        duplicates: found.counts.duplicates,
        conflicts: found.counts.conflicts,
        first_seq: found.first_seq,
        last_seq: found.last_seq,
        last_received_at: render::time(found.last_received_at),
    }
}
