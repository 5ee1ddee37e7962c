//! The other end of the HTTP contract: an asynchronous client on the tokio runtime.
//!
//! It sends a request once; [`Retry`] and [`Patient`] send it again. Events travel as raw NDJSON in both
//! directions, so that no payload is read and written again on its way.

mod error;
mod follow;
mod http;
mod lines;
mod reading;
mod retry;
mod retry_after;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;
mod url;

use std::time::Duration;

use actix_web::web::Bytes;
use hyper::header::HeaderValue;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::{ClientError, Refused};
pub use follow::{Begin, Cursor, Following};
pub use lines::Lines;
pub use reading::{Failed, Patient, Reading};
pub use retry::{Attempts, Retry};

use crate::api::{Found, Key, PublishAnswer, Stats, TopicPage, TopicStats};
use http::{Http, Request};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    http: Http,
}

/// Which events of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Range {
    /// Only those with a greater seq.
    pub after: Option<u64>,
    /// Only those with a smaller seq.
    pub before: Option<u64>,
    /// The history that `after` (descending: `before`) belongs to; seqs are taken as they are without.
    pub history: Option<String>,
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
    fn within(&self, topic: &TopicStats) -> (Self, u64) {
        let end = self.before.unwrap_or(u64::MAX).min(topic.last_seq + 1);
        let first = self.after.map_or(1, |after| after.saturating_add(1)).max(topic.first_seq);
        let count = end.saturating_sub(first).min(self.limit.unwrap_or(u64::MAX));
        (Self { before: Some(end), ..self.clone() }, count)
    }
}

impl Client {
    /// A client of the server at this address, such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// When the address is none, or is `https`.
    pub fn new(address: &str) -> Result<Self, ClientError> {
        Ok(Self { http: Http::new(address)? })
    }

    /// The address of the server.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.http.url
    }

    /// Publishes events, one a line; invalid ones are skipped and come back as rejected results.
    ///
    /// # Errors
    /// When the fate of an event is not known, or the answer has not one result for each of the `events`.
    pub async fn publish(&self, lines: Bytes, events: usize) -> Result<PublishAnswer, ClientError> {
        let request = Request::post("/publish?invalid=skip", NDJSON, lines);
        let answer: PublishAnswer = self.http.read(request).await?;
        let results = answer.results.as_ref().map_or(0, Vec::len);
        if results == events {
            return Ok(answer);
        }
        Err(self.http.unreadable(format!("{results} results for {events} events")))
    }

    /// A range as far as the topic has events now, how many those are, and the topic's history, where it
    /// has one.
    ///
    /// # Errors
    /// When there is no answer, or one that says no.
    async fn within(&self, topic: &str, wanted: &Range) -> Result<(Range, u64, Option<String>), ClientError> {
        match self.topic(topic).await {
            Ok(stats) => {
                let (range, count) = wanted.within(&stats);
                Ok((range, count, Some(stats.history).filter(|history| !history.is_empty())))
            }
            Err(ClientError::Refused(refused)) if refused.status == 404 => {
                Ok((Range { before: Some(1), ..wanted.clone() }, 0, None))
            }
            Err(error) => Err(error),
        }
    }

    /// The events of a range, of which there are so many, one a line, and their history, where the server
    /// says it.
    ///
    /// # Errors
    /// When there is no answer, or one that says no.
    async fn lines(
        &self,
        topic: &str,
        range: &Range,
        count: u64,
    ) -> Result<(Lines, Option<String>), ClientError> {
        let query = [urlencoded(&[("topic", topic)]), urlencoded(range)].join("&");
        let (body, history) = self.http.stream(Request::get(format!("/events?{query}"), NDJSON)).await?;
        Ok((Lines::new(self.http.url.clone(), body, count), history))
    }

    /// Follows a topic, which need not exist yet: the events that there are, then those that come.
    ///
    /// # Errors
    /// When there is no answer, or one that says no.
    pub async fn follow(&self, topic: &str, begin: &Begin) -> Result<Following, ClientError> {
        let mut query = vec![("topic", topic.to_owned())];
        if let Begin::After(Cursor { seq, history }) = begin {
            query.push(("after", seq.to_string()));
            query.extend(history.clone().map(|history| ("history", history)));
        }
        let mut request = Request::get(format!("/events?{}", urlencoded(&query)), "text/event-stream");
        if let Begin::Had(last) = begin {
            let id = HeaderValue::try_from(last.to_string())
                .map_err(|_| self.http.unreadable(format!("the id {last} of an event is no header")))?;
            request = request.with("last-event-id", id);
        }
        let (body, _) = self.http.stream(request).await?;
        Ok(Following::new(self.http.url.clone(), body, begin.clone()))
    }

    /// Where each of these keys is stored.
    ///
    /// # Errors
    /// When there is no answer, one that says no, or one of another length.
    pub async fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Found>>, ClientError> {
        let body = serde_json::to_vec(keys).map_err(|error| self.http.unreadable(error.to_string()))?;
        let request = Request::post("/events/lookup", JSON, body.into());
        let found: Vec<_> = self.http.read(request).await?;
        if found.len() == keys.len() {
            return Ok(found);
        }
        Err(self.http.unreadable(format!("{} results for {} keys", found.len(), keys.len())))
    }

    /// The first topics after this name, in the order of their names' bytes.
    ///
    /// # Errors
    /// When there is no answer, or one that says no.
    pub async fn topics(&self, after: Option<&str>) -> Result<TopicPage, ClientError> {
        match after {
            None => self.get("/topics").await,
            Some(name) => self.get(&format!("/topics?{}", urlencoded(&[("after", name)]))).await,
        }
    }

    /// One topic, asked for by a query: in a path the names `.` and `..` would be taken for parts of it.
    ///
    /// # Errors
    /// When there is no answer, or one that says no.
    pub async fn topic(&self, topic: &str) -> Result<TopicStats, ClientError> {
        self.get(&format!("/topic?{}", urlencoded(&[("topic", topic)]))).await
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
        tokio::time::timeout(patience, self.http.send(Request::get("/health/ready", "*/*")))
            .await
            .map_err(|_| self.http.timeout(patience))?
            .map(drop)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.http.read(Request::get(path, JSON)).await
    }
}

/// Parameters as a query. Names and numbers always have such a form.
fn urlencoded(parameters: &impl Serialize) -> String {
    serde_urlencoded::to_string(parameters).unwrap_or_default()
}
