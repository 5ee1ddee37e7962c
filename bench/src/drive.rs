//! Sends every connection's requests, one in flight on each, and measures.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use hdrhistogram::Histogram;

use crate::plan::Request;
use crate::process::{Meter, Used};

/// What a peer said of the events of one request.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Answered {
    /// Events answered as new.
    pub(crate) accepted: u64,
    /// Events answered as stored before.
    pub(crate) duplicates: u64,
    /// Events with another answer than the plan's.
    pub(crate) wrong: u64,
}

impl Answered {
    /// Counts one verdict against that of the plan.
    pub(crate) fn count(&mut self, accepted: bool, planned: bool) {
        self.accepted += u64::from(accepted);
        self.duplicates += u64::from(!accepted);
        self.wrong += u64::from(accepted != planned);
    }

    fn add(&mut self, more: Self) {
        self.accepted += more.accepted;
        self.duplicates += more.duplicates;
        self.wrong += more.wrong;
    }
}

/// A connection that sends a request and waits for the whole answer.
pub(crate) trait Connection {
    /// A request in the peer's form.
    type Content;

    /// Sends one request and reads its answer.
    async fn exchange(&mut self, request: &Request<Self::Content>) -> anyhow::Result<Answered>;
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Driven {
    /// From the first request to the last answer.
    pub(crate) took: Duration,
    /// Events sent and answered.
    pub(crate) events: u64,
    /// The new ones of them, by the plan.
    pub(crate) new: u64,
    /// What the answers said.
    pub(crate) answered: Answered,
    /// From the first byte of a request to the last of its answer, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// What it cost.
    pub(crate) used: Used,
}

/// What one connection did.
struct Done {
    events: u64,
    new: u64,
    answered: Answered,
    latency: Histogram<u64>,
}

/// Sends the requests of all connections beside each other, until there are no more or the time is over.
///
/// # Errors
/// When a connection breaks or a peer answers with an error; the others are given up then.
pub(crate) async fn drive<C: Connection>(
    lanes: Vec<(&mut C, impl Iterator<Item = anyhow::Result<Request<C::Content>>>)>,
    limit: Duration,
    meter: &Meter,
) -> anyhow::Result<Driven> {
    let before = meter.read()?;
    let started = Instant::now();
    let lanes = lanes.into_iter().map(|(connection, requests)| send(connection, requests, started + limit));
    let all = try_join_all(lanes).await?;
    let took = started.elapsed();
    let used = meter.read()?.since(before);
    let mut driven = Driven::empty(took, used)?;
    for done in all {
        driven.events += done.events;
        driven.new += done.new;
        driven.answered.add(done.answered);
        driven.latency.add(&done.latency)?;
    }
    Ok(driven)
}

async fn send<C: Connection>(
    connection: &mut C,
    requests: impl Iterator<Item = anyhow::Result<Request<C::Content>>>,
    end: Instant,
) -> anyhow::Result<Done> {
    let mut done = Done { events: 0, new: 0, answered: Answered::default(), latency: histogram()? };
    for request in requests {
        let request = request?;
        let started = Instant::now();
        if started >= end {
            break;
        }
        let answered = connection.exchange(&request).await?;
        done.latency.record(micros(started.elapsed()))?;
        done.events += request.new.len() as u64;
        done.new += request.new.iter().filter(|new| **new).count() as u64;
        done.answered.add(answered);
    }
    Ok(done)
}

impl Driven {
    /// Nothing yet.
    pub(crate) fn empty(took: Duration, used: Used) -> anyhow::Result<Self> {
        let latency = histogram()?;
        Ok(Self { took, events: 0, new: 0, answered: Answered::default(), latency, used })
    }

    /// Takes in what was measured after this.
    pub(crate) fn add(&mut self, more: &Self) -> anyhow::Result<()> {
        self.took += more.took;
        self.events += more.events;
        self.new += more.new;
        self.answered.add(more.answered);
        self.latency.add(&more.latency)?;
        self.used = self.used.plus(more.used);
        Ok(())
    }

    /// Whether every answer was that of the plan.
    pub(crate) fn as_planned(&self) -> bool {
        let Answered { accepted, duplicates, wrong } = self.answered;
        wrong == 0 && accepted == self.new && accepted + duplicates == self.events
    }
}

/// Times in microseconds, to three digits.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new(3)?)
}

/// A time in microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes every event as new.
    struct Forgetful;

    impl Connection for Forgetful {
        type Content = ();

        async fn exchange(&mut self, request: &Request<()>) -> anyhow::Result<Answered> {
            let mut answered = Answered::default();
            for planned in &request.new {
                answered.count(true, *planned);
            }
            Ok(answered)
        }
    }

    async fn forgetful(new: Vec<bool>, limit: Duration) -> Driven {
        let mut connection = Forgetful;
        let requests = [Ok(Request { content: (), new })].into_iter();
        drive(vec![(&mut connection, requests)], limit, &Meter::of_this_process()).await.unwrap()
    }

    #[tokio::test]
    async fn a_repeat_that_is_answered_as_new_is_not_as_planned() {
        let right = forgetful(vec![true, true], Duration::MAX / 4).await;
        assert!(right.as_planned(), "{right:?}");
        let wrong = forgetful(vec![true, false], Duration::MAX / 4).await;
        assert!(!wrong.as_planned(), "{wrong:?}");
        assert_eq!((wrong.events, wrong.new, wrong.answered.wrong), (2, 1, 1));
    }

    #[tokio::test]
    async fn nothing_is_sent_when_the_time_is_over() {
        assert_eq!(forgetful(vec![true], Duration::ZERO).await.events, 0);
    }
}
