//! A lane of a topic: what its consumer and the writer share, and the events of it that are on their way.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

use super::error::PublishError;
use super::hot_cache::{Hasher, HotCache, Key, Known, Waiter, repeated};
use super::messages::Share;
use super::new_topics::Made;
use super::reply::Reply;
use crate::domain::{Event, Second, Topic, Verdict};
use crate::metrics::Metrics;
use crate::store::{Batch, Decision, Repeat, Tally};
#[cfg(test)]
use crate::testing::{Moment, pass};

/// What all lanes share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) hasher: Hasher,
    pub(super) tally: Arc<Tally>,
    /// See `Engine::era`.
    pub(super) era: Arc<AtomicU64>,
    pub(super) metrics: Arc<Metrics>,
}

/// What is known of a lane's keys. Its consumer asks and the writer settles, each on its own thread: so a verdict
/// needs no way back through the consumer, and a consumer may go while its events are on their way.
pub(super) struct Lane {
    topic: Topic,
    cache: HotCache,
    shared: Shared,
}

/// Events of one request and one lane that the cache could not decide, and where their verdicts go. Whoever drops
/// it unsettled fails them.
pub(super) struct Part {
    passed: Vec<PassedEvent>,
    lane: Arc<Lane>,
    reply: Reply,
}

/// One event that was passed on.
struct PassedEvent {
    /// Its index in the request.
    index: u32,
    key: Key,
    /// Whether others wait for this event's verdict.
    marked: bool,
}

impl Lane {
    pub(super) fn new(topic: Topic, cache: HotCache, shared: Shared) -> Self {
        Self { topic, cache, shared }
    }

    /// Decides what the cache knows; gives the rest, to be passed on.
    pub(super) fn decide(self: &Arc<Self>, share: Share, reply: &Reply) -> Option<(Batch, Part)> {
        let Share { events, indexes } = share;
        self.cache.enter(self.shared.era.load(Ordering::Acquire));
        // The part is there before the first mark, so that a panic fails who waits for one.
        let passed = Vec::with_capacity(events.len());
        let mut part = Part { passed, lane: Arc::clone(self), reply: reply.clone() };
        let (mut rest, mut decided) = (Vec::with_capacity(events.len()), Vec::new());
        for (event, index) in events.into_iter().zip(indexes) {
            #[cfg(test)]
            pass(Moment::Decide);
            let key = self.shared.hasher.key(&event);
            let waiter = || Waiter { reply: reply.clone(), index, source: event.source().into() };
            let marked = match self.cache.ask(key, waiter) {
                Known::Stored(decision) => {
                    report_repeat(reply, &event, decision.verdict);
                    decided.push((index, decision, event));
                    continue;
                }
                Known::Waits => continue,
                Known::Marked => true,
                Known::Nothing => false,
            };
            part.passed.push(PassedEvent { index, key, marked });
            rest.push(event);
        }
        if !decided.is_empty() {
            self.count(decided.iter().map(|(_, decision, event)| (event.source(), *decision)));
            reply.decide(decided.iter().map(|(index, Decision { verdict, .. }, _)| (*index, *verdict)));
        }
        if rest.is_empty() {
            return None;
        }
        Some((Batch { topic: self.topic.clone(), events: rest }, part))
    }

    /// Counts duplicates that the writer does not see, each with its source. They come now: that, too, is only shown.
    fn count<'a>(&self, repeats: impl ExactSizeIterator<Item = (&'a str, Decision)>) {
        self.shared.metrics.cache_hits.inc_by(repeats.len() as u64);
        let now = Timestamp::now();
        let second = Second::of(now);
        let repeats = repeats.filter_map(|(source, Decision { verdict, stored_at })| match verdict {
            Verdict::Duplicate { seq, conflict } => {
                Some(Repeat { source, seq, conflict, late: stored_at.until(second) })
            }
            Verdict::Accepted { .. } | Verdict::Refused(_) => None,
        });
        self.shared.tally.count(&self.topic, now, repeats);
    }

    /// Answers who waited for the decision on an event, which is the one that they sent too.
    fn answer_waiters(&self, waiters: Vec<Waiter>, event: &Event, first: Decision) {
        for Waiter { reply, index, source } in waiters {
            let verdict = repeated(first.verdict);
            if let Verdict::Refused(_) = verdict {
                self.shared.tally.reject(1);
            } else {
                report_repeat(&reply, event, verdict);
                self.count(iter::once((&*source, Decision { verdict, ..first })));
            }
            reply.decide([(index, verdict)]);
        }
    }
}

impl Part {
    /// The topics that the address of the request made.
    pub(super) fn made(&self) -> Option<&Made> {
        self.reply.made()
    }

    /// Gives verdicts, or the error, to the events, which are those of its batch, and to who waits for them.
    pub(super) fn settle(mut self, events: &[Event], outcome: Result<Vec<Decision>, PublishError>) {
        debug_assert_eq!(events.len(), self.passed.len(), "a batch stays with its part");
        match outcome {
            Ok(decisions) if decisions.len() == self.passed.len() => self.decide(events, &decisions),
            // Which verdict is whose cannot be known.
            Ok(_) => self.fail(&PublishError::ActorFailed),
            Err(error) => self.fail(&error),
        }
    }

    fn decide(&mut self, events: &[Event], decisions: &[Decision]) {
        let mut decided = Vec::with_capacity(decisions.len());
        // An event is taken out when it is settled, so that whatever is left is failed when this is dropped.
        for (event, decision) in events.iter().zip(decisions).rev() {
            #[cfg(test)]
            pass(Moment::Settle);
            let Some(PassedEvent { index, key, marked }) = self.passed.pop() else { break };
            report_repeat(&self.reply, event, decision.verdict);
            decided.push((index, decision.verdict));
            if marked {
                let waiters = self.lane.cache.settle(key, Some(*decision));
                self.lane.answer_waiters(waiters, event, *decision);
            } else {
                self.lane.cache.learn(key, *decision);
            }
        }
        self.reply.decide(decided);
    }

    /// Whether the events are stored is not known.
    fn fail(&mut self, error: &PublishError) {
        while let Some(PassedEvent { key, marked, .. }) = self.passed.pop() {
            self.reply.fail(error);
            let waiters = if marked { self.lane.cache.settle(key, None) } else { Vec::new() };
            for waiter in waiters {
                waiter.reply.fail(error);
            }
        }
    }
}

impl Drop for Part {
    /// invariant 5: who held it has failed, and with it everyone who waits.
    fn drop(&mut self) {
        self.fail(&PublishError::ActorFailed);
    }
}

/// One line for each conflict and, at debug, for each other duplicate; never the payload.
fn report_repeat(reply: &Reply, event: &Event, verdict: Verdict) {
    let Verdict::Duplicate { seq, conflict } = verdict else { return };
    let (topic, event_id) = (event.topic(), event.event_id());
    if conflict {
        tracing::warn!(
            topic,
            event_id,
            seq,
            request_id = reply.request().map(tracing::field::display),
            "conflict: the event is stored with another payload, which stays"
        );
    } else {
        let request_id = reply.request().map(tracing::field::display);
        tracing::debug!(topic, event_id, seq, request_id, "duplicate: the event is stored already");
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::Receiver;

    use super::*;
    use crate::domain::{Address, Parts};
    use crate::pipeline::Budget;
    use crate::pipeline::hot_cache::Room;
    use crate::pipeline::reply::Outcome;
    use crate::testing::Heard;

    fn lane() -> Arc<Lane> {
        let shared = Shared {
            hasher: Hasher::new(),
            tally: Arc::default(),
            era: Arc::default(),
            metrics: Arc::default(),
        };
        let cache = HotCache::new(9, Arc::new(Room::new(9)));
        Arc::new(Lane::new(Topic::parse("a").unwrap(), cache, shared))
    }

    /// What the lane makes of a request of two new events, and where its reply arrives.
    fn ask(lane: &Arc<Lane>) -> (Option<(Batch, Part)>, Receiver<Outcome>) {
        let (reply, receiver) = Reply::new(2, Budget::new(1, 1).permit(Address::UNKNOWN), Arc::default());
        let event = |event_id| {
            let (timestamp, payload) = ("2026-01-01T00:00:00Z", "{\"p\":\"SECRET\"}");
            Event::pack(Parts { topic: "a", event_id, timestamp, source: "test", payload })
        };
        let share = Share { events: vec![event("1"), event("2")], indexes: vec![0, 1] };
        (lane.decide(share, &reply), receiver)
    }

    #[test]
    fn a_part_with_too_few_verdicts_or_none_at_all_fails_with_everyone_who_waits() {
        let too_few = Decision { verdict: Verdict::Accepted { seq: 1 }, stored_at: Second(1) };
        for verdicts in [Some(vec![too_few]), None] {
            let lane = lane();
            let (passed_on, mut first) = ask(&lane);
            let (nothing, mut waiting) = ask(&lane);
            assert!(nothing.is_none(), "the same events wait for the first ones");
            let (batch, part) = passed_on.unwrap();
            match verdicts {
                Some(verdicts) => part.settle(&batch.events, Ok(verdicts)),
                None => drop(part),
            }
            for receiver in [&mut first, &mut waiting] {
                assert_eq!(receiver.try_recv().unwrap(), Err(PublishError::ActorFailed));
            }
            let (again, _part) = ask(&lane).0.unwrap();
            assert_eq!(again.events.len(), 2, "nothing stays marked, and nothing was learned");
        }
    }

    #[test]
    fn every_conflict_is_logged_also_that_of_who_waited_and_no_payload() {
        let lines = |level, conflict| {
            let heard = Heard::at(level);
            let lane = lane();
            let (batch, part) = ask(&lane).0.unwrap();
            let (waits, _receiver) = ask(&lane);
            assert!(waits.is_none(), "the same events wait for the first ones");
            let decision = |seq| {
                let verdict = Verdict::Duplicate { seq, conflict };
                Decision { verdict, stored_at: Second(1) }
            };
            part.settle(&batch.events, Ok(vec![decision(7), decision(8)]));
            assert!(ask(&lane).0.is_none(), "the cache knows them now");
            heard.said()
        };
        let conflicts = lines(tracing::Level::WARN, true);
        for id in ["event_id=\"1\" seq=7", "event_id=\"2\" seq=8"] {
            assert_eq!(conflicts.matches(id).count(), 3, "sent, waited, cached: {conflicts}");
        }
        assert_eq!(lines(tracing::Level::INFO, false), "", "duplicates are for debug");
        let duplicates = lines(tracing::Level::DEBUG, false);
        assert_eq!(duplicates.matches("duplicate: ").count(), 6, "{duplicates}");
        assert!(!duplicates.contains("SECRET") && !conflicts.contains("SECRET"));
    }
}
