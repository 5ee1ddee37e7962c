//! Reads that are tried again: each request by itself, and a range of events from the last whole line on.

use std::time::Duration;

use actix_web::web::Bytes;
use serde::Deserialize;

use super::error::ClientError;
use super::lines::Lines;
use super::retry::{Attempts, Retry};
use super::{Client, Order, Range};
use crate::api::{Found, Key, Stats, TopicStats};

/// Hears of every attempt that failed and is followed by another after the delay.
pub type Failed = fn(&ClientError, Duration);

/// A client that reads, with the patience for it.
#[derive(Clone)]
pub struct Patient {
    /// Sends each request once.
    pub client: Client,
    /// How long each request is tried again.
    pub retry: Retry,
    /// Hears of attempts that failed.
    pub failed: Failed,
}

/// The events that a topic had when the read began, over any number of connections.
pub struct Reading {
    patient: Patient,
    topic: String,
    range: Range,
    /// The history of the first answer: what comes later must belong to it too.
    history: Option<String>,
    /// Lines that are still to come; not known before the first answer.
    missing: Option<u64>,
    lines: Option<Lines>,
    attempts: Attempts,
    last: Bytes,
}

impl Patient {
    /// What the server counts.
    ///
    /// # Errors
    /// When there is no answer, or one that says no.
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.retry.run(|| self.client.stats(), self.failed).await
    }

    /// One topic.
    ///
    /// # Errors
    /// When there is no answer, or one that says no.
    pub async fn topic(&self, topic: &str) -> Result<TopicStats, ClientError> {
        self.retry.run(|| self.client.topic(topic), self.failed).await
    }

    /// All topics, in the order of their names' bytes.
    ///
    /// # Errors
    /// When there is no answer, or one that says no.
    pub async fn topics(&self) -> Result<Vec<TopicStats>, ClientError> {
        let mut topics = Vec::new();
        let mut after = None;
        loop {
            let ask = || self.client.topics(after.as_deref());
            let mut page = self.retry.run(ask, self.failed).await?;
            let is_last = page.topics.is_empty() || page.next_after.is_none();
            topics.append(&mut page.topics);
            if is_last {
                return Ok(topics);
            }
            after = page.next_after;
        }
    }

    /// Where each of these keys is stored.
    ///
    /// # Errors
    /// When there is no answer, one that says no, or one of another length.
    pub async fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Found>>, ClientError> {
        self.retry.run(|| self.client.lookup(keys), self.failed).await
    }

    /// Reads the events that a topic has now.
    #[must_use]
    pub fn events(&self, topic: &str, range: Range) -> Reading {
        Reading {
            patient: self.clone(),
            topic: topic.to_owned(),
            range,
            history: None,
            missing: None,
            lines: None,
            attempts: self.retry.attempts(),
            last: Bytes::new(),
        }
    }
}

impl Reading {
    /// The next event, without its line end; `None` after the last. No event is given twice, and none is
    /// left out, however often the connection breaks.
    ///
    /// # Errors
    /// When nothing came for as long as the patience lasts, or an answer says no.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.attempt().await {
                Ok(Some(line)) => {
                    self.attempts.progress();
                    self.missing = self.missing.map(|missing| missing.saturating_sub(1));
                    self.last = line.clone();
                    return Ok(Some(line));
                }
                Ok(None) => return Ok(None),
                // What broke is the end of the answer behind the last event.
                Err(_) if self.missing == Some(0) && self.lines.is_some() => return Ok(None),
                Err(error) => {
                    self.resume();
                    self.attempts.wait(error, &mut self.patient.failed).await?;
                }
            }
        }
    }

    /// The seq of the last event that was given.
    #[must_use]
    pub fn last_seq(&self) -> Option<u64> {
        #[derive(Deserialize)]
        struct Line {
            seq: u64,
        }
        serde_json::from_slice(&self.last).ok().map(|Line { seq }| seq)
    }

    /// The history of the events that were given, where the server says it.
    #[must_use]
    pub fn history(&self) -> Option<&str> {
        self.history.as_deref()
    }

    async fn attempt(&mut self) -> Result<Option<Bytes>, ClientError> {
        if let Some(lines) = &mut self.lines {
            return lines.next().await;
        }
        let client = &self.patient.client;
        let missing = if let Some(missing) = self.missing {
            missing
        } else {
            // The end is that of the first answer: events that come meanwhile are of the next read.
            let (range, count, history) = client.within(&self.topic, &self.range).await?;
            (self.range, self.history) = (range, history);
            *self.missing.insert(count)
        };
        let (lines, history) = client.lines(&self.topic, &self.range, missing).await?;
        // The end of the read is a seq of the first answer's history.
        if let (Some(first), Some(now)) = (&self.history, history)
            && *first != now
        {
            let (topic, first) = (self.topic.clone(), first.clone());
            return Err(ClientError::HistoryChanged { url: client.url().to_owned(), topic, first, now });
        }
        self.lines.insert(lines).next().await
    }

    /// The next attempt begins behind the last event that came.
    fn resume(&mut self) {
        self.lines = None;
        let Some(seq) = self.last_seq() else { return };
        match self.range.order {
            Order::Asc => self.range.after = Some(seq),
            Order::Desc => self.range.before = Some(seq),
        }
        self.range.history.clone_from(&self.history);
        self.range.limit = self.range.limit.and(self.missing);
    }
}
