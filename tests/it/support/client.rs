//! A real HTTP client that talks to one log.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::web::Bytes;
use awc::{ClientRequest, Connector};
use serde_json::Value;

use super::{Answer, Sse};

/// The longest that a client waits for an answer.
const PATIENCE: Duration = Duration::from_mins(2);

/// The largest answer that a client takes.
const ANSWER_MAX: usize = 256 << 20;

/// A client with connections of its own.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    http: awc::Client,
}

impl Client {
    /// A client of the log at this address.
    pub(crate) fn of(address: SocketAddr) -> Self {
        let connector = Connector::new().timeout(PATIENCE).limit(0);
        let http = awc::Client::builder().connector(connector).timeout(PATIENCE).disable_redirects().finish();
        Self { address, http }
    }

    /// Where the log listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A request to be filled and given to [`Client::send`].
    pub(crate) fn request(&self, method: Method, path: &str) -> ClientRequest {
        self.http.request(method, format!("http://{}{path}", self.address))
    }

    /// A `POST` to be filled.
    pub(crate) fn post(&self, path: &str) -> ClientRequest {
        self.request(Method::POST, path)
    }

    /// Sends a request and reads the whole answer; an error where the connection breaks.
    pub(crate) async fn try_send(
        &self,
        request: ClientRequest,
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let mut response = request.send_body(body.into()).await.map_err(|error| error.to_string())?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answered = response.body().limit(ANSWER_MAX).await.map_err(|error| error.to_string())?;
        Ok(Answer { status, headers, body: answered })
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(&self, request: ClientRequest, body: impl Into<Bytes>) -> Answer {
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
    pub(crate) fn following(&self, path: &str, last_event: Option<u64>) -> ClientRequest {
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
        let sent = self.following(path, last_event).send().await;
        let mut response = sent.map_err(|error| error.to_string())?;
        if response.status().as_u16() == 200 {
            return Ok(Sse::new(response));
        }
        let body = response.body().await.map_err(|error| error.to_string())?;
        Err(format!("{} {}", response.status(), String::from_utf8_lossy(&body)))
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
