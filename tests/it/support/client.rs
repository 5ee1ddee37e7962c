//! A real HTTP client that talks to one log.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use actix_web::http::Method;
use actix_web::rt::time::timeout;
use actix_web::web::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Response;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;

use super::request::Request;
use super::{Answer, Sse};

/// The longest that a client waits for an answer.
const PATIENCE: Duration = Duration::from_mins(2);

/// How long an unused connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The largest answer that a client takes.
const ANSWER_MAX: usize = 256 << 20;

/// A client with connections of its own.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    http: legacy::Client<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// A client of the log at this address.
    pub(crate) fn of(address: SocketAddr) -> Self {
        Self::from(None, address)
    }

    /// A client whose connections come from this address.
    pub(crate) fn at(own: IpAddr, address: SocketAddr) -> Self {
        Self::from(Some(own), address)
    }

    fn from(own: Option<IpAddr>, address: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_local_address(own);
        connector.set_connect_timeout(Some(PATIENCE));
        connector.set_nodelay(true);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_ALIVE)
            .build(connector);
        Self { address, http }
    }

    /// Where the log listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A request to be filled and given to [`Client::send`].
    pub(crate) fn request(&self, method: impl AsRef<str>, path: &str) -> Request {
        Request::new(method, &format!("http://{}{path}", self.address))
    }

    /// A `POST` to be filled.
    pub(crate) fn post(&self, path: &str) -> Request {
        self.request(Method::POST, path)
    }

    /// Sends a request and reads the whole answer; an error where the connection breaks.
    pub(crate) async fn try_send(&self, request: Request, body: impl Into<Bytes>) -> Result<Answer, String> {
        let (head, incoming) = self.start(request, body.into()).await?.into_parts();
        let body = Limited::new(incoming, ANSWER_MAX).collect().await.map_err(|error| error.to_string())?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
    }

    /// Sends a request; gives the answer as soon as its head is there.
    async fn start(&self, request: Request, body: Bytes) -> Result<Response<Incoming>, String> {
        let answered = timeout(PATIENCE, self.http.request(request.with(body))).await;
        answered.map_err(|_| "no answer in time".to_owned())?.map_err(|error| format!("{error:?}"))
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(&self, request: Request, body: impl Into<Bytes>) -> Answer {
        self.try_send(request, body).await.unwrap()
    }

    /// Publishes a JSON body.
    pub(crate) async fn publish(&self, body: impl Into<Bytes>) -> Answer {
        self.publish_as("application/json", body).await
    }

    /// Publishes a body of this content type.
    pub(crate) async fn publish_as(&self, content_type: &str, body: impl Into<Bytes>) -> Answer {
        self.send(self.post("/publish").content_type(content_type), body).await
    }

    /// Publishes a JSON body and skips what is invalid.
    pub(crate) async fn publish_skipping(&self, body: impl Into<Bytes>) -> Answer {
        self.send(self.post("/publish?invalid=skip").content_type("application/json"), body).await
    }

    /// Looks up keys.
    pub(crate) async fn lookup(&self, keys: Value) -> Answer {
        self.send(self.post("/events/lookup").content_type("application/json"), keys.to_string()).await
    }

    /// Reads a path.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_as(path, "*/*").await
    }

    /// Reads a path in this format.
    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send(self.request(Method::GET, path).insert_header(("accept", accept)), "").await
    }

    /// A request to follow, with the last event that came before.
    pub(crate) fn following(&self, path: &str, last_event: Option<u64>) -> Request {
        let request = self.request(Method::GET, path).insert_header(("accept", "text/event-stream"));
        match last_event {
            Some(seq) => request.insert_header(("last-event-id", seq.to_string())),
            None => request,
        }
    }

    /// Follows a path, which must be a 200.
    pub(crate) async fn follow(&self, path: &str, last_event: Option<u64>) -> Sse {
        self.try_follow(path, last_event).await.unwrap()
    }

    /// Follows a path; an error where there is no connection, or no 200.
    pub(crate) async fn try_follow(&self, path: &str, last_event: Option<u64>) -> Result<Sse, String> {
        let response = self.start(self.following(path, last_event), Bytes::new()).await?;
        if response.status().as_u16() == 200 {
            return Ok(Sse::new(response));
        }
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        Err(format!("{status} {}", String::from_utf8_lossy(&body)))
    }

    /// Reads a path that answers 200 with JSON.
    pub(crate) async fn read(&self, path: &str) -> Value {
        self.get(path).await.ok().json()
    }

    /// A number of `/stats`: `runtime` or `persistent`, as received, unique, duplicate, conflicts, rejected.
    pub(crate) async fn totals(&self, which: &str) -> [u64; 5] {
        let stats = self.read("/stats").await;
        [
            "total_events_received",
            "total_unique_events_processed",
            "total_duplicate_events_dropped",
            "total_conflicts",
            "total_events_rejected",
        ]
        .map(|name| stats[which][name].as_u64().unwrap_or_else(|| panic!("{which}.{name} in {stats}")))
    }

    /// The value of a metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.ok().text().to_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
    }

    /// Whether the log says that it can write.
    pub(crate) async fn is_ready(&self) -> bool {
        self.get("/health/ready").await.status == 200
    }
}
