//! The other end of the HTTP contract: an asynchronous client on the actix runtime.
//!
//! It sends a request once; [`Retry`] is for those who want more. Events travel as raw NDJSON in both
//! directions, so that no payload is read and written again on its way.

mod error;
mod follow;
mod lines;
mod retry;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod url;

use std::time::Duration;

use actix_web::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use actix_web::web::Bytes;
use awc::{ClientRequest, ClientResponse, Connector};
use futures_util::StreamExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::{ClientError, Refused};
pub use follow::{Begin, Following};
pub use lines::Lines;
pub use retry::Retry;

use crate::api::{Found, Key, Problem, PublishAnswer, Stats, TopicPage, TopicStats};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take; over the server's own `server.request_timeout`.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// The longest answer that is read as a whole, in bytes.
const ANSWER_MAX: usize = 64 << 20;
/// How long an unused connection is kept: shorter than the other end keeps one (the log 75 s, proxies between as a rule 5 s or
/// more), since a request on a connection that is being closed is lost.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// Connections at once; more requests wait for one.
const CONNECTIONS: usize = 1024;

/// A client of one server. Belongs to the thread that made it.
#[derive(Clone)]
pub struct Client {
    http: awc::Client,
    url: String,
}

/// Which events of a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Range {
    /// Only those with a greater seq.
    pub after: Option<u64>,
    /// Only those with a smaller seq.
    pub before: Option<u64>,
    /// So many at most, 1 to 10,000; all of them without.
    pub limit: Option<u64>,
    /// In which order.
    pub order: Order,
}

/// The order of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The oldest first.
    #[default]
    Asc,
    /// The newest first.
    Desc,
}

impl Range {
    /// This range as far as the topic has events now, and how many those are: seqs have no gaps.
    fn within(self, topic: &TopicStats) -> (Self, u64) {
        let end = self.before.unwrap_or(u64::MAX).min(topic.last_seq + 1);
        let first = self.after.map_or(1, |after| after.saturating_add(1)).max(topic.first_seq);
        let count = end.saturating_sub(first).min(self.limit.unwrap_or(u64::MAX));
        (Self { before: Some(end), ..self }, count)
    }
}

impl Client {
    /// A client of the server at this address, such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// When the address is none, or is `https`.
    pub fn new(address: &str) -> Result<Self, ClientError> {
        let connector =
            Connector::new().timeout(CONNECT_TIMEOUT).conn_keep_alive(KEEP_ALIVE).limit(CONNECTIONS);
        let http =
            awc::Client::builder().connector(connector).timeout(ANSWER_TIMEOUT).disable_redirects().finish();
        Ok(Self { http, url: url::check(address)? })
    }

    /// The address of the server.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Publishes events, one a line; invalid ones are skipped and come back as rejected results.
    ///
    /// # Errors
    /// When the fate of an event is not known, or the answer has not one result for each of the `events`.
    pub async fn publish(&self, lines: Bytes, events: usize) -> Result<PublishAnswer, ClientError> {
        let request = self.http.post(self.address("/publish?invalid=skip"));
        let request = request.insert_header((CONTENT_TYPE, "application/x-ndjson"));
        let answer: PublishAnswer = self.read(request, lines).await?;
        let results = answer.results.as_ref().map_or(0, Vec::len);
        if results == events {
            return Ok(answer);
        }
        Err(self.unreadable(format!("{results} results for {events} events")))
    }

    /// The events that a topic has now, one a line.
    ///
    /// # Errors
    /// When there is no answer, or one that says no.
    pub async fn events(&self, topic: &str, wanted: Range) -> Result<Lines, ClientError> {
        let (range, count) = match self.topic(topic).await {
            Ok(stats) => wanted.within(&stats),
            Err(ClientError::Refused(refused)) if refused.status == 404 => {
                (Range { before: Some(1), ..wanted }, 0)
            }
            Err(error) => return Err(error),
        };
        let query = [urlencoded(&[("topic", topic)]), urlencoded(&range)].join("&");
        let request = self.http.get(self.address(&format!("/events?{query}")));
        let answer = self.send(request.insert_header((ACCEPT, "application/x-ndjson")), Bytes::new()).await?;
        Ok(Lines::new(self.url.clone(), answer.boxed_local(), count))
    }

    /// Follows a topic, which need not exist yet: the events that there are, then those that come.
    ///
    /// # Errors
    /// When there is no answer, or one that says no.
    pub async fn follow(&self, topic: &str, begin: Begin) -> Result<Following, ClientError> {
        let mut request = self.http.get(self.address("/events")).insert_header((ACCEPT, "text/event-stream"));
        let mut query = vec![("topic", topic.to_owned())];
        match begin {
            Begin::After(seq) => query.push(("after", seq.to_string())),
            Begin::Had(seq) => request = request.insert_header(("Last-Event-ID", seq.to_string())),
        }
        let request = request.query(&query).map_err(|error| self.unreadable(error.to_string()))?;
        let answer = self.send(request, Bytes::new()).await?;
        Ok(Following::new(self.url.clone(), answer.boxed_local(), begin))
    }

    /// Where each of these keys is stored.
    ///
    /// # Errors
    /// When there is no answer, one that says no, or one of another length.
    pub async fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Found>>, ClientError> {
        let body = serde_json::to_vec(keys).map_err(|error| self.unreadable(error.to_string()))?;
        let request = self.http.post(self.address("/events/lookup"));
        let request = request.insert_header((CONTENT_TYPE, "application/json"));
        let found: Vec<_> = self.read(request, body.into()).await?;
        if found.len() == keys.len() {
            return Ok(found);
        }
        Err(self.unreadable(format!("{} results for {} keys", found.len(), keys.len())))
    }

    /// All topics, in the order of their names' bytes.
    ///
    /// # Errors
    /// When there is no answer, or one that says no.
    pub async fn topics(&self) -> Result<Vec<TopicStats>, ClientError> {
        let mut topics = Vec::new();
        let mut page: TopicPage = self.get("/topics").await?;
        while !page.topics.is_empty() {
            topics.append(&mut page.topics);
            let Some(after) = &page.next_after else { break };
            page = self.get(&format!("/topics?{}", urlencoded(&[("after", after)]))).await?;
        }
        Ok(topics)
    }

    /// One topic.
    ///
    /// # Errors
    /// When there is no answer, or one that says no.
    pub async fn topic(&self, topic: &str) -> Result<TopicStats, ClientError> {
        self.get(&format!("/topics/{}", utf8_percent_encode(topic, NON_ALPHANUMERIC))).await
    }

    /// What the server counts.
    ///
    /// # Errors
    /// When there is no answer, or one that says no.
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.get("/stats").await
    }

    /// Asks whether the server is ready: whether its store can write.
    ///
    /// # Errors
    /// When it is not, or when there is no answer within `patience`.
    pub async fn ready(&self, patience: Duration) -> Result<(), ClientError> {
        let request = self.http.get(self.address("/health/ready"));
        tokio::time::timeout(patience, self.send(request, Bytes::new()))
            .await
            .map_err(|_| self.timeout(patience))?
            .map(drop)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let request = self.http.get(self.address(path)).insert_header((ACCEPT, "application/json"));
        self.read(request, Bytes::new()).await
    }

    /// Sends a request and reads its answer as a whole.
    async fn read<T: DeserializeOwned>(&self, request: ClientRequest, body: Bytes) -> Result<T, ClientError> {
        let exchange = async {
            let mut answer = self.send(request, body).await?;
            let bytes = answer.body().limit(ANSWER_MAX).await.map_err(|error| self.broken(&error))?;
            serde_json::from_slice(&bytes).map_err(|error| self.unreadable(error.to_string()))
        };
        tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_| self.timeout(ANSWER_TIMEOUT))?
    }

    /// Sends a request; an answer with another status than 200 is an error.
    async fn send(&self, request: ClientRequest, body: Bytes) -> Result<ClientResponse, ClientError> {
        let sent = if body.is_empty() { request.send() } else { request.send_body(body) };
        let answer = sent.await.map_err(|error| ClientError::of_send(&self.url, error, ANSWER_TIMEOUT))?;
        if answer.status().as_u16() == 200 { Ok(answer) } else { Err(self.refused(answer).await) }
    }

    async fn refused(&self, mut answer: ClientResponse) -> ClientError {
        let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let problem = match answer.body().limit(ANSWER_MAX).await {
            Ok(bytes) => serde_json::from_slice::<Problem>(&bytes).ok(),
            Err(_) => None,
        };
        ClientError::Refused(Box::new(Refused {
            url: self.url.clone(),
            status: answer.status().as_u16(),
            retry_after: seconds.map(Duration::from_secs),
            problem,
        }))
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn broken(&self, error: &awc::error::PayloadError) -> ClientError {
        ClientError::Broken { url: self.url.clone(), reason: error.to_string() }
    }

    fn unreadable(&self, reason: String) -> ClientError {
        ClientError::Unreadable { url: self.url.clone(), reason }
    }

    fn timeout(&self, waited: Duration) -> ClientError {
        ClientError::Timeout { url: self.url.clone(), waited }
    }
}

/// Parameters as a query. Names and numbers always have such a form.
fn urlencoded(parameters: &impl Serialize) -> String {
    serde_urlencoded::to_string(parameters).unwrap_or_default()
}
