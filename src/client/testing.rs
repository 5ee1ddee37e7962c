//! A small log in memory that speaks the contract, for tests: it can fail, lose answers and lose events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use actix_web::http::StatusCode;
use actix_web::web::{self, Data, Json, Path, Query};
use actix_web::{App, HttpResponse, HttpServer};
use serde::Deserialize;

use crate::api::{
    Code, EventFault, EventInput, EventResult, Found, Key, Problem, PublishAnswer, Stats, TopicPage,
    TopicStats, Totals,
};
use crate::domain::Counts;

const HISTORY: &str = "k3f9";
const NOW: &str = "2026-01-01T00:00:00.000000Z";

/// What happens to a publish in place of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failure {
    /// 503, and nothing is stored.
    Refused,
    /// 503 after everything was stored.
    AnswerLost,
    /// The answer of another server.
    Nonsense,
}

/// What the log holds and how it behaves.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Ids and lines by topic; the place is the seq.
    pub(crate) topics: BTreeMap<String, Vec<(String, EventInput)>>,
    /// Counts by topic.
    counts: BTreeMap<String, Counts>,
    /// The next publishes fail like this.
    pub(crate) failures: VecDeque<Failure>,
    /// More events in a request are 413; 0 is no limit.
    pub(crate) batch_events: usize,
    /// An event that holds this is acknowledged and not stored.
    pub(crate) loses: Option<String>,
    /// Whether each of the next answers with counters is that of a node that does not know yet of the duplicates that
    /// another one answered.
    pub(crate) behind: VecDeque<bool>,
    /// Publish requests seen.
    pub(crate) requests: usize,
}

/// A running log.
pub(crate) struct FakeLog {
    /// Its address.
    pub(crate) url: String,
    /// Its content.
    pub(crate) state: Arc<Mutex<State>>,
}

type Shared = Data<Mutex<State>>;

impl FakeLog {
    /// Starts a log on a thread of its own, which ends with the process.
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, (ready, address)) = (Data::from(Arc::clone(&state)), mpsc::channel());
        thread::spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let app = move || App::new().app_data(shared.clone()).configure(routes);
                let server = HttpServer::new(app).workers(1).bind(("127.0.0.1", 0)).unwrap();
                ready.send(server.addrs()[0]).unwrap();
                server.run().await.unwrap();
            });
        });
        Self { url: format!("http://{}", address.recv().unwrap()), state }
    }
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .app_data(web::PayloadConfig::new(64 << 20))
        .route("/publish", web::post().to(publish))
        .route("/events", web::get().to(events))
        .route("/events/lookup", web::post().to(lookup))
        .route("/topics", web::get().to(topics))
        .route("/topic", web::get().to(topic))
        .route("/topics/{topic}", web::get().to(topic_by_path))
        .route("/stats", web::get().to(stats))
        .route("/health/ready", web::get().to(HttpResponse::Ok));
}

async fn publish(state: Shared, body: String) -> HttpResponse {
    let mut log = state.lock().unwrap();
    log.requests += 1;
    let failure = log.failures.pop_front();
    if matches!(failure, Some(Failure::Nonsense)) {
        return HttpResponse::Ok().body("<html>");
    }
    if log.batch_events > 0 && body.lines().count() > log.batch_events {
        return problem(Code::BatchTooLarge);
    }
    if matches!(failure, Some(Failure::Refused)) {
        return problem(Code::Overloaded);
    }
    let results: Vec<_> = body.lines().map(|line| log.store(line)).collect();
    if failure.is_some() {
        return problem(Code::StoreUnavailable);
    }
    HttpResponse::Ok().json(PublishAnswer { results: Some(results), ..PublishAnswer::default() })
}

fn problem(code: Code) -> HttpResponse {
    HttpResponse::build(StatusCode::from_u16(code.status()).unwrap())
        .insert_header(("Retry-After", "0"))
        .json(Problem::new(code, "a test", Vec::new()))
}

#[derive(Deserialize)]
struct Range {
    topic: String,
    after: Option<u64>,
    limit: Option<u64>,
}

async fn events(state: Shared, range: Query<Range>) -> String {
    let log = state.lock().unwrap();
    let stored = log.topics.get(&range.topic).into_iter().flatten().zip(1..);
    let line = |((_, event), seq): (&(String, EventInput), u64)| {
        let text = serde_json::to_string(event).unwrap();
        text.replacen('{', &format!("{{\"seq\":{seq},\"received_at\":\"{NOW}\","), 1) + "\n"
    };
    let skipped = stored.skip(usize::try_from(range.after.unwrap_or(0)).unwrap());
    skipped.take(usize::try_from(range.limit.unwrap_or(u64::MAX)).unwrap()).map(line).collect()
}

async fn lookup(state: Shared, keys: Json<Vec<Key>>) -> Json<Vec<Option<Found>>> {
    let log = state.lock().unwrap();
    let find = |key: &Key| {
        let seq = log.seq(&key.topic, &key.event_id)?;
        Some(Found { seq, received_at: NOW.to_owned() })
    };
    Json(keys.iter().map(find).collect())
}

async fn topics(state: Shared, page: Query<BTreeMap<String, String>>) -> Json<TopicPage> {
    let log = state.lock().unwrap();
    let after = page.get("after").cloned().unwrap_or_default();
    // Two a page, so that a client has to turn pages.
    let topics: Vec<_> = log.topics.keys().filter(|name| **name > after).take(2).collect();
    let next_after = topics.last().map_or(after, ToString::to_string);
    let topics = topics.into_iter().map(|name| log.topic_stats(name)).collect();
    Json(TopicPage { topics, next_after: Some(next_after) })
}

#[derive(Deserialize)]
struct Named {
    topic: String,
}

async fn topic(state: Shared, query: Query<Named>) -> HttpResponse {
    state.lock().unwrap().answer_topic(&query.topic)
}

async fn topic_by_path(state: Shared, name: Path<String>) -> HttpResponse {
    state.lock().unwrap().answer_topic(&name)
}

async fn stats(state: Shared) -> Json<Stats> {
    let mut log = state.lock().unwrap();
    let mut counts = Counts::default();
    log.counts.values().for_each(|of_topic| counts += *of_topic);
    if log.is_behind() {
        counts.duplicates = 0;
    }
    Json(Stats {
        uptime_seconds: 1.0,
        runtime: Totals::from(counts),
        persistent: Totals::from(counts),
        shards: 1,
        durability: "full".to_owned(),
        history: HISTORY.to_owned(),
        topics_total: log.topics.len() as u64,
        topics: log.topics.keys().cloned().collect(),
    })
}

impl State {
    fn answer_topic(&mut self, name: &str) -> HttpResponse {
        if !self.topics.contains_key(name) {
            return problem(Code::TopicNotFound);
        }
        let mut counted = self.topic_stats(name);
        if self.is_behind() {
            counted.duplicates = 0;
        }
        HttpResponse::Ok().json(counted)
    }

    fn store(&mut self, line: &str) -> EventResult {
        let Ok(event) = serde_json::from_str::<EventInput>(line) else {
            let fault =
                EventFault { field: None, code: "not_json".to_owned(), detail: "no event".to_owned() };
            return EventResult::Rejected { error: fault };
        };
        let known = self.seq(&event.topic, &event.event_id);
        let counts = self.counts.entry(event.topic.clone()).or_default();
        if let Some(seq) = known {
            let first = &self.topics[&event.topic][usize::try_from(seq).unwrap() - 1].1;
            let conflict = first.payload.get() != event.payload.get();
            counts.duplicates += 1;
            counts.conflicts += u64::from(conflict);
            return EventResult::Duplicate { seq, conflict };
        }
        counts.accepted += 1;
        let stored = self.topics.entry(event.topic.clone()).or_default();
        if !self.loses.as_ref().is_some_and(|part| line.contains(part)) {
            stored.push((event.event_id.clone(), event));
        }
        EventResult::Accepted { seq: stored.len() as u64 }
    }

    /// Whether the answer with counters that is made now is one of those that lack duplicates.
    fn is_behind(&mut self) -> bool {
        self.behind.pop_front().unwrap_or(false)
    }

    fn seq(&self, topic: &str, event_id: &str) -> Option<u64> {
        let place = self.topics.get(topic)?.iter().position(|(id, _)| id == event_id)?;
        Some(place as u64 + 1)
    }

    fn topic_stats(&self, name: &str) -> TopicStats {
        let counts = self.counts[name];
        TopicStats {
            topic: name.to_owned(),
            history: HISTORY.to_owned(),
            lanes: 1,
            accepted: counts.accepted,
            duplicates: counts.duplicates,
            conflicts: counts.conflicts,
            first_seq: 1,
            last_seq: self.topics[name].len() as u64,
            last_received_at: NOW.to_owned(),
        }
    }
}
