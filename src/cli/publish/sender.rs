//! Sends batches until the fate of every event in them is known.

use std::time::Duration;

use actix_web::web::Bytes;
use serde::Serialize;

use super::input::{InputEvent, InputPlace};
use crate::api::{EventFault, EventResult};
use crate::client::{Client, ClientError, Retry};

/// Sends batches, again where that may help.
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) retry: Retry,
}

/// What became of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    /// New, and now stored.
    pub(super) accepted: u64,
    /// Stored before.
    pub(super) duplicates: u64,
    /// Duplicates with another payload than the stored one.
    pub(super) conflicts: u64,
    /// Not valid, never stored.
    pub(super) rejected: u64,
}

/// What a sender says while it works.
pub(super) trait Listener {
    /// An event will never be stored as it is.
    fn rejected(&self, place: InputPlace, fault: &EventFault);
    /// A request failed and is sent again after the delay.
    fn again(&self, error: &ClientError, delay: Duration);
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

impl Sender {
    /// Sends a batch. Where the server finds it too large, it goes in two halves.
    pub(super) async fn send(
        &self,
        batch: &[InputEvent],
        listener: &impl Listener,
    ) -> Result<Tally, Box<Unknown>> {
        let mut tally = Tally::default();
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            let sent = self.publish(part, listener).await;
            match (sent, part) {
                (Ok(results), _) => tally.add(part, &results, listener),
                (Err(error), [event]) if is_fault_of_events(&error) => {
                    tally.rejected += 1;
                    listener.rejected(event.place, &fault(&error));
                }
                (Err(error), _) if part.len() > 1 && is_fault_of_events(&error) => {
                    let (front, back) = part.split_at(part.len() / 2);
                    parts.extend([back, front]);
                }
                (Err(error), _) => {
                    let from = part.first().map(|event| event.place);
                    return Err(Box::new(Unknown { tally, from, error }));
                }
            }
        }
        Ok(tally)
    }

    async fn publish(
        &self,
        part: &[InputEvent],
        listener: &impl Listener,
    ) -> Result<Vec<EventResult>, ClientError> {
        let mut lines = Vec::with_capacity(part.iter().map(|event| event.json.len() + 1).sum());
        for event in part {
            lines.extend_from_slice(&event.json);
            lines.push(b'\n');
        }
        let body = Bytes::from(lines);
        let attempt = || self.client.publish(body.clone(), part.len());
        let answer = self.retry.run(attempt, |error, delay| listener.again(error, delay)).await?;
        Ok(answer.results.unwrap_or_default())
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
    }

    fn add(&mut self, events: &[InputEvent], results: &[EventResult], listener: &impl Listener) {
        for (event, result) in events.iter().zip(results) {
            match result {
                EventResult::Accepted { .. } => self.accepted += 1,
                EventResult::Duplicate { conflict, .. } => {
                    self.duplicates += 1;
                    self.conflicts += u64::from(*conflict);
                }
                EventResult::Rejected { error } => {
                    self.rejected += 1;
                    listener.rejected(event.place, error);
                }
            }
        }
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
