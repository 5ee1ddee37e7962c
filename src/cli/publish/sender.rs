//! Sends batches until the fate of every event in them is known.

use std::cell::Cell;
use std::time::Duration;

use actix_web::web::Bytes;
use serde::{Deserialize, Serialize};

use super::input::{InputEvent, InputPlace};
use crate::api::{Code, EventFault, EventResult};
use crate::client::{Attempts, Client, ClientError, Retry};

/// Conflicts that are named.
pub(super) const CONFLICTS_NAMED: usize = 10;

/// Sends batches, again where that may help.
pub(super) struct Sender {
    client: Client,
    retry: Retry,
    /// Bytes of a request at most: fewer once one took too long, more again with each that did not.
    bytes: Cell<usize>,
}

/// What became of events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    /// New, and now stored.
    pub(super) accepted: u64,
    /// Stored before.
    pub(super) duplicates: u64,
    /// Duplicates with another payload than the stored one.
    pub(super) conflicts: u64,
    /// Not valid, never stored.
    pub(super) rejected: u64,
    /// The first of the conflicts.
    pub(super) conflicting: Vec<Conflict>,
}

/// An event that was stored before with another payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Conflict {
    /// Where it stands in the input.
    pub(super) place: InputPlace,
    pub(super) topic: String,
    pub(super) event_id: String,
    /// The seq of the event that is stored.
    pub(super) seq: u64,
}

/// What a sender says while it works.
pub(super) trait Listener {
    /// An event will never be stored as it is.
    fn rejected(&self, place: InputPlace, fault: &EventFault);
    /// The payload of an event is not the stored one.
    fn conflicts(&self, conflict: &Conflict);
    /// A request failed and is sent again after the delay.
    fn again(&self, error: &ClientError, delay: Duration);
    /// A request of so many events took too long and is sent in two.
    fn halved(&self, error: &ClientError, events: usize);
}

/// A batch whose fate is not known, with what is known of the parts that it was split into.
#[derive(Debug)]
pub(super) struct Unknown {
    /// What is known.
    pub(super) tally: Tally,
    /// The first event whose fate is not known.
    pub(super) from: Option<InputPlace>,
    /// Why.
    pub(super) error: ClientError,
}

/// An event that is sent.
#[derive(Clone, Copy)]
struct Line<'a> {
    place: InputPlace,
    json: &'a [u8],
}

/// What to do after a request that failed.
enum Failure {
    /// The event, or one of the events, is at fault: each half may fare better.
    OfEvents(ClientError),
    /// It took too long: each half may not.
    TooSlow(ClientError),
    /// Nothing more.
    Final(ClientError),
}

impl Sender {
    /// A sender of requests of up to so many bytes.
    pub(super) fn new(client: Client, retry: Retry, bytes: usize) -> Self {
        Self { client, retry, bytes: Cell::new(bytes) }
    }

    /// Sends a batch. Where the server finds it too large, or it takes too long, it goes in two halves.
    pub(super) async fn send(
        &self,
        batch: &[InputEvent],
        listener: &impl Listener,
    ) -> Result<Tally, Box<Unknown>> {
        let mut tally = Tally::default();
        let mut lines = Vec::with_capacity(batch.len());
        for event in batch {
            match &event.json {
                Ok(json) => lines.push(Line { place: event.place, json }),
                Err(fault) => tally.reject(event.place, fault, listener),
            }
        }
        let mut attempts = self.retry.attempts();
        let mut parts = vec![&*lines];
        while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
            let halves = || part.split_at(part.len() / 2);
            let bytes = bytes_of(part);
            if part.len() > 1 && bytes > self.bytes.get() {
                let (front, back) = halves();
                parts.extend([back, front]);
                continue;
            }
            match (self.publish(part, &mut attempts, listener).await, part) {
                (Ok(results), _) => {
                    self.bytes.set(self.bytes.get().saturating_add(self.bytes.get() / 8));
                    tally.add(part, &results, listener);
                }
                (Err(Failure::OfEvents(error)), [line]) => tally.reject(line.place, &fault(&error), listener),
                (Err(Failure::OfEvents(_)), _) => {
                    let (front, back) = halves();
                    parts.extend([back, front]);
                }
                (Err(Failure::TooSlow(error)), _) => {
                    listener.halved(&error, part.len());
                    self.bytes.set(bytes / 2);
                    let (front, back) = halves();
                    parts.extend([back, front]);
                }
                (Err(Failure::Final(error)), _) => {
                    let from = part.first().map(|line| line.place);
                    return Err(Box::new(Unknown { tally, from, error }));
                }
            }
        }
        Ok(tally)
    }

    async fn publish(
        &self,
        part: &[Line<'_>],
        attempts: &mut Attempts,
        listener: &impl Listener,
    ) -> Result<Vec<EventResult>, Failure> {
        let mut lines = Vec::with_capacity(bytes_of(part));
        for line in part {
            lines.extend_from_slice(line.json);
            lines.push(b'\n');
        }
        let body = Bytes::from(lines);
        loop {
            let error = match self.client.publish(body.clone(), part.len()).await {
                Ok(answer) => {
                    attempts.progress();
                    return Ok(answer.results.unwrap_or_default());
                }
                Err(error) => error,
            };
            if is_fault_of_events(&error) {
                attempts.progress();
                return Err(Failure::OfEvents(error));
            }
            if part.len() > 1 && is_of_code(&error, Code::BodyTimeout) {
                attempts.progress();
                return Err(Failure::TooSlow(error));
            }
            // Once is chance; a link or a proxy that gives requests no more time does it again.
            if part.len() > 1 && attempts.failed() > 0 && may_be_slow(&error) {
                let told = error.clone();
                let waited = attempts.wait(error, &mut |_, _| {}).await;
                return Err(waited.map_or_else(Failure::Final, |()| Failure::TooSlow(told)));
            }
            let mut again = |failed: &ClientError, delay| listener.again(failed, delay);
            attempts.wait(error, &mut again).await.map_err(Failure::Final)?;
        }
    }
}

impl Tally {
    /// Every event whose fate is known.
    pub(super) fn known(&self) -> u64 {
        self.accepted + self.duplicates + self.rejected
    }

    /// Adds what became of other events.
    pub(super) fn merge(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.rejected += other.rejected;
        let room = CONFLICTS_NAMED.saturating_sub(self.conflicting.len());
        self.conflicting.extend(other.conflicting.into_iter().take(room));
    }

    fn reject(&mut self, place: InputPlace, fault: &EventFault, listener: &impl Listener) {
        self.rejected += 1;
        listener.rejected(place, fault);
    }

    fn add(&mut self, lines: &[Line<'_>], results: &[EventResult], listener: &impl Listener) {
        for (line, result) in lines.iter().zip(results) {
            match result {
                EventResult::Accepted { .. } => self.accepted += 1,
                EventResult::Duplicate { conflict, seq } => {
                    self.duplicates += 1;
                    if *conflict {
                        self.conflict(line, *seq, listener);
                    }
                }
                EventResult::Rejected { error } => self.reject(line.place, error, listener),
            }
        }
    }

    fn conflict(&mut self, line: &Line<'_>, seq: u64, listener: &impl Listener) {
        #[derive(Deserialize)]
        struct Key {
            topic: String,
            event_id: String,
        }
        self.conflicts += 1;
        let Ok(Key { topic, event_id }) = serde_json::from_slice(line.json) else { return };
        let conflict = Conflict { place: line.place, topic, event_id, seq };
        listener.conflicts(&conflict);
        if self.conflicting.len() < CONFLICTS_NAMED {
            self.conflicting.push(conflict);
        }
    }
}

/// How many bytes a request of these lines has.
fn bytes_of(lines: &[Line<'_>]) -> usize {
    lines.iter().map(|line| line.json.len() + 1).sum()
}

fn is_of_code(error: &ClientError, code: Code) -> bool {
    let problem = error.refused().and_then(|refused| refused.problem.as_ref());
    problem.is_some_and(|problem| problem.code == code.as_str())
}

/// Whether a request may have failed for the time that its body takes on its way.
fn may_be_slow(error: &ClientError) -> bool {
    match error {
        ClientError::Timeout { .. } | ClientError::Broken { .. } => true,
        _ => error.refused().is_some_and(|refused| refused.status == 408),
    }
}

/// Whether the server refused the request for what is in it, so that a part of it may pass.
fn is_fault_of_events(error: &ClientError) -> bool {
    let Some(refused) = error.refused() else { return false };
    let code = refused.problem.as_ref().map(|problem| problem.code.as_str());
    refused.status == 413 || matches!(code, Some("not_json" | "invalid_events"))
}

/// The refusal of a request of one event, as a fault of that event.
fn fault(error: &ClientError) -> EventFault {
    let problem = error.refused().and_then(|refused| refused.problem.clone());
    match problem {
        Some(problem) => match problem.errors.into_iter().next() {
            Some(first) => first.fault,
            None => EventFault { field: None, code: problem.code, detail: problem.detail },
        },
        None => EventFault { field: None, code: "refused".to_owned(), detail: error.to_string() },
    }
}
