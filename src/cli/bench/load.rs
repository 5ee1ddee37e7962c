//! The load of `bench`: sends a schedule, so many requests at once, and measures.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use futures_util::{StreamExt, stream};
use indicatif::ProgressBar;

use super::plan::{Plan, Schedule};
use super::verify::{Faults, Sent};
use crate::api::EventResult;
use crate::client::{Client, ClientError, Retry};

/// How long one request is tried again; a server that restarts under load should be back by then.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// How to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Requests at once.
    pub(super) concurrency: usize,
    /// Events of a request.
    pub(super) batch: usize,
}

/// What the answers said, and how long they took.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// By topic.
    pub(super) sent: Vec<Sent>,
    /// Events answered as accepted.
    pub(super) accepted: u64,
    /// Events answered as duplicates.
    pub(super) duplicates: u64,
    /// Events in requests that had no answer and were sent again; each may have been counted before.
    pub(super) lost: u64,
    /// Answers that should not be.
    pub(super) faults: Faults,
    /// From the first request to the last answer.
    pub(super) took: Duration,
    /// Of every request, tries included; in order of their length.
    pub(super) latencies: Vec<Duration>,
}

/// One request.
struct Request {
    body: Bytes,
    events: usize,
}

/// The answer to one request.
struct Answered {
    results: Vec<EventResult>,
    latency: Duration,
}

/// Sends everything.
///
/// # Errors
/// When a request had no answer that says where its events are, for a minute; or was refused.
pub(super) async fn run(
    client: &Client,
    plan: &Plan,
    schedule: Schedule,
    shape: Shape,
    bar: &ProgressBar,
) -> anyhow::Result<Measured> {
    let lost = Cell::new(0);
    let sent = RefCell::new(vec![Sent::default(); plan.topics().len()]);
    let mut measured = Measured::default();
    let mut chunks = Chunks { plan, schedule, batch: shape.batch, next: 0, sent: &sent };
    let started = Instant::now();
    let requests = stream::iter(std::iter::from_fn(|| chunks.next_request().transpose()));
    let mut answers = std::pin::pin!(
        requests.map(async |request| send(client, request?, &lost).await).buffer_unordered(shape.concurrency)
    );
    while let Some(answer) = answers.next().await {
        let Answered { results, latency } = answer?;
        bar.inc(results.len() as u64);
        measured.latencies.push(latency);
        for result in &results {
            measured.count(result);
        }
    }
    measured.took = started.elapsed();
    measured.latencies.sort_unstable();
    measured.lost = lost.get();
    measured.sent = sent.take();
    Ok(measured)
}

async fn send(client: &Client, request: Request, lost: &Cell<u64>) -> anyhow::Result<Answered> {
    let started = Instant::now();
    let failed = |_: &ClientError, _| lost.set(lost.get() + request.events as u64);
    let attempt = || client.publish(request.body.clone(), request.events);
    let answer = Retry::of(PATIENCE).run(attempt, failed).await?;
    Ok(Answered { results: answer.results.unwrap_or_default(), latency: started.elapsed() })
}

impl Measured {
    /// The latency that so many percent of the requests did not exceed.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let at = (self.latencies.len() * percent).div_ceil(100).saturating_sub(1);
        self.latencies.get(at).copied().unwrap_or_default()
    }

    /// Different events, by the plan.
    pub(super) fn unique(&self) -> u64 {
        self.sent.iter().map(|sent| sent.unique).sum()
    }

    /// Events sent, duplicates included.
    pub(super) fn all(&self) -> u64 {
        self.sent.iter().map(|sent| sent.all).sum()
    }

    /// Events a second.
    pub(super) fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people; exact up to 2^53 events")]
        let events = self.all() as f64;
        events / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Compares what the answers said with what was sent.
    pub(super) fn check_answers(&mut self) {
        let (all, unique, lost) = (self.all(), self.unique(), self.lost);
        let (accepted, duplicates) = (self.accepted, self.duplicates);
        if accepted + duplicates != all {
            self.faults.add(|| format!("{all} events were sent, and {} answered", accepted + duplicates));
        }
        // An event whose first answer was lost is answered as a duplicate.
        if accepted > unique || accepted + lost < unique {
            self.faults
                .add(|| format!("{accepted} events were answered as accepted, of {unique} different ones"));
        }
    }

    fn count(&mut self, result: &EventResult) {
        match result {
            EventResult::Accepted { .. } => self.accepted += 1,
            EventResult::Duplicate { conflict, seq } => {
                self.duplicates += 1;
                if *conflict {
                    self.faults.add(|| format!("a repeat of seq {seq} was answered as a conflict"));
                }
            }
            EventResult::Rejected { error } => {
                self.faults.add(|| format!("a valid event was rejected: {}", error.detail));
            }
        }
    }
}

/// Cuts the schedule into requests, and keeps count of what goes to which topic.
struct Chunks<'a> {
    plan: &'a Plan,
    schedule: Schedule,
    batch: usize,
    /// The index of the next event that is new.
    next: u64,
    sent: &'a RefCell<Vec<Sent>>,
}

impl Chunks<'_> {
    fn next_request(&mut self) -> anyhow::Result<Option<Request>> {
        let mut request = Vec::new();
        let mut events = 0;
        for index in self.schedule.by_ref().take(self.batch) {
            let event = self.plan.event(index);
            request.extend(self.plan.line(&event)?);
            request.push(b'\n');
            events += 1;
            let new = u64::from(index == self.next);
            self.next += new;
            let sent = &mut self.sent.borrow_mut()[event.topic];
            sent.all += 1;
            sent.unique += new;
        }
        Ok((events > 0).then(|| Request { body: request.into(), events }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let latencies = (1..=200).map(Duration::from_millis).collect();
        let measured = Measured { latencies, ..Measured::default() };
        assert_eq!(measured.percentile(50), Duration::from_millis(100));
        assert_eq!(measured.percentile(99), Duration::from_millis(198));
        assert_eq!(measured.percentile(100), Duration::from_millis(200));
        assert_eq!(Measured::default().percentile(99), Duration::ZERO);
    }

    #[test]
    fn requests_hold_the_whole_schedule() {
        let plan = Plan::new(3, 4);
        let sent = RefCell::new(vec![Sent::default(); 4]);
        let mut chunks =
            Chunks { plan: &plan, schedule: Schedule::new(3, 1000, 20), batch: 7, next: 0, sent: &sent };
        let mut lines = 0;
        while let Some(request) = chunks.next_request().unwrap() {
            assert!(request.events <= 7);
            assert_eq!(request.body.split(|byte| *byte == b'\n').count(), request.events + 1);
            lines += request.events;
        }
        let measured = Measured { sent: sent.take(), ..Measured::default() };
        assert_eq!((lines, measured.all(), measured.unique()), (1000, 1000, 800));
    }

    #[test]
    fn answers_that_do_not_add_up_are_faults() {
        let faults = |accepted, duplicates, lost| {
            let sent = vec![Sent { all: 10, unique: 8 }];
            let mut measured = Measured { sent, accepted, duplicates, lost, ..Measured::default() };
            measured.check_answers();
            measured.faults.count
        };
        assert_eq!(faults(8, 2, 0), 0);
        assert_eq!(faults(7, 3, 1), 0, "the answer to an accepted event was lost");
        assert_eq!(faults(7, 3, 0), 1);
        assert_eq!(faults(9, 1, 5), 1);
        assert_eq!(faults(8, 1, 0), 1);
    }
}
