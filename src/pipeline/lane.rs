//! A lane of a topic: what its consumer, the writer and the comparer share, and the events of it that are on their way.

use std::collections::VecDeque;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

use super::error::PublishError;
use super::hot_cache::{Hasher, HotCache, Key, Known, Waiter, repeated};
use super::messages::Share;
use super::new_topics::Made;
use super::reply::Reply;
use crate::domain::{Address, Event, Second, Topic, Verdict};
use crate::metrics::Metrics;
use crate::store::{Batch, Decision, Finding, Key as StoredKey, Repeat, Tally};
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

/// Duplicates of one request and one lane whose payloads have other bytes than the stored ones. Their verdicts wait for a
/// comparison, and nothing else does. Whoever drops it unsettled fails them.
pub(super) struct Doubts {
    /// By seq, so that those of one stored event stand together.
    events: VecDeque<Doubt>,
    lane: Arc<Lane>,
    reply: Reply,
    /// The era of the commit: see `Engine::era`.
    era: u64,
    /// When the commit was done, by which it is known how late they come.
    committed_at: Second,
}

/// One of them.
struct Doubt {
    event: Event,
    passed: PassedEvent,
    /// The stored event that it repeats.
    seq: u64,
    stored_at: Second,
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
        self.cache.enter(self.era());
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
            self.count_hits(decided.iter().map(|(_, decision, event)| (event.source(), *decision)));
            reply.decide(decided.iter().map(|(index, Decision { verdict, .. }, _)| (*index, *verdict)));
        }
        if rest.is_empty() {
            return None;
        }
        Some((Batch { topic: self.topic.clone(), events: rest }, part))
    }

    fn era(&self) -> u64 {
        self.shared.era.load(Ordering::Acquire)
    }

    /// Counts duplicates that the cache has answered, each with its source. They come now.
    fn count_hits<'a>(&self, repeats: impl ExactSizeIterator<Item = (&'a str, Decision)>) {
        self.shared.metrics.cache_hits.inc_by(repeats.len() as u64);
        self.count(Second::of(Timestamp::now()), repeats);
    }

    /// Counts duplicates that the store has not counted and that came at this second. When they are counted is only shown.
    fn count<'a>(&self, second: Second, repeats: impl Iterator<Item = (&'a str, Decision)>) {
        let repeats = repeats.filter_map(|(source, Decision { verdict, stored_at })| match verdict {
            Verdict::Duplicate { seq, conflict } => {
                Some(Repeat { source, seq, conflict, late: stored_at.until(second) })
            }
            Verdict::Accepted { .. } | Verdict::Refused(_) => None,
        });
        self.shared.tally.count(&self.topic, Timestamp::now(), repeats);
    }

    /// Remembers the decision on an event, and answers who waits for it. The event's own reply gets its verdict from the
    /// caller.
    fn settle(&self, passed: &PassedEvent, (event, decision): (&Event, Decision), reply: &Reply) {
        report_repeat(reply, event, decision.verdict);
        if passed.marked {
            let waiters = self.cache.settle(passed.key, Some(decision));
            self.answer_waiters(waiters, event, decision);
        } else {
            self.cache.learn(passed.key, decision);
        }
    }

    /// Says why an event has no verdict, to its request and to who waits for it.
    fn fail(&self, passed: &PassedEvent, error: &PublishError, reply: &Reply) {
        reply.fail(error);
        let waiters = if passed.marked { self.cache.settle(passed.key, None) } else { Vec::new() };
        for waiter in waiters {
            waiter.reply.fail(error);
        }
    }

    /// Answers who waited for the decision on an event, which is the one that they sent too.
    fn answer_waiters(&self, waiters: Vec<Waiter>, event: &Event, first: Decision) {
        for Waiter { reply, index, source } in waiters {
            let verdict = repeated(first.verdict);
            if let Verdict::Refused(_) = verdict {
                self.shared.tally.reject(1);
            } else {
                report_repeat(&reply, event, verdict);
                self.count_hits(iter::once((&*source, Decision { verdict, ..first })));
            }
            reply.decide([(index, verdict)]);
        }
    }
}

impl Part {
    /// The address that the request counts for.
    pub(super) fn address(&self) -> Address {
        self.reply.address()
    }

    /// The topics that the address of the request made.
    pub(super) fn made(&self) -> Option<&Made> {
        self.reply.made()
    }

    /// Gives verdicts, or the error, to the events, which are those of its batch, and to who waits for them. Gives back
    /// those that have to be compared first.
    pub(super) fn settle(
        mut self,
        events: Vec<Event>,
        outcome: Result<Vec<Finding>, PublishError>,
    ) -> Option<Doubts> {
        debug_assert_eq!(events.len(), self.passed.len(), "a batch stays with its part");
        match outcome {
            Ok(findings) if findings.len() == self.passed.len() => return self.decide(events, findings),
            // Which verdict is whose cannot be known.
            Ok(_) => self.fail(&PublishError::ActorFailed),
            Err(error) => self.fail(&error),
        }
        None
    }

    fn decide(&mut self, events: Vec<Event>, findings: Vec<Finding>) -> Option<Doubts> {
        let mut decided = Vec::with_capacity(findings.len());
        let mut doubts = None;
        // An event is taken out when it is settled, so that whatever is left is failed when this is dropped.
        for (event, finding) in events.into_iter().zip(findings).rev() {
            #[cfg(test)]
            pass(Moment::Settle);
            let Some(passed) = self.passed.pop() else { break };
            let decision = match finding {
                Finding::Decided(decision) => decision,
                Finding::Differs { seq, stored_at } => {
                    let doubt = Doubt { event, passed, seq, stored_at };
                    doubts.get_or_insert_with(|| self.doubts()).events.push_front(doubt);
                    continue;
                }
            };
            decided.push((passed.index, decision.verdict));
            self.lane.settle(&passed, (&event, decision), &self.reply);
        }
        self.reply.decide(decided);
        doubts.map(Doubts::in_order)
    }

    /// None yet.
    fn doubts(&self) -> Doubts {
        Doubts {
            events: VecDeque::new(),
            lane: Arc::clone(&self.lane),
            reply: self.reply.clone(),
            era: self.lane.era(),
            committed_at: Second::of(Timestamp::now()),
        }
    }

    /// Whether the events are stored is not known.
    fn fail(&mut self, error: &PublishError) {
        while let Some(passed) = self.passed.pop() {
            self.lane.fail(&passed, error, &self.reply);
        }
    }
}

impl Drop for Part {
    /// invariant 5: who held it has failed, and with it everyone who waits.
    fn drop(&mut self) {
        self.fail(&PublishError::ActorFailed);
    }
}

impl Doubts {
    fn in_order(mut self) -> Self {
        self.events.make_contiguous().sort_by_key(|doubt| doubt.seq);
        self
    }

    /// How many events wait.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Which request they are of: one number for each that is on its way.
    pub(super) fn request(&self) -> usize {
        self.reply.number()
    }

    /// The address that the request counts for.
    pub(super) fn address(&self) -> Address {
        self.reply.address()
    }

    /// The keys of the first events, so many at most and each once.
    pub(super) fn keys(&self, most: usize) -> Vec<StoredKey> {
        let (mut keys, mut last) = (Vec::new(), 0);
        for (seq, event) in self.events() {
            if seq != last {
                if keys.len() == most {
                    break;
                }
                let (topic, event_id) = (self.lane.topic.clone(), event.event_id().to_owned());
                keys.push(StoredKey { topic, event_id });
                last = seq;
            }
        }
        keys
    }

    /// The events that wait, those of one stored event together, each with its seq.
    pub(super) fn events(&self) -> impl Iterator<Item = (u64, &Event)> {
        self.events.iter().map(|doubt| (doubt.seq, &doubt.event))
    }

    /// Settles the first events: each with whether it is a conflict, or with why that is not known.
    ///
    /// invariant 2: between the commit and this the store may have become another one, which lacks the commit. Then
    /// the events are to be sent again.
    pub(super) fn settle(&mut self, outcomes: &[Result<bool, PublishError>]) {
        if self.lane.era() != self.era {
            let error =
                PublishError::Unavailable("the store was reached anew before a comparison".to_owned());
            return self.fail(outcomes.len(), &error);
        }
        // Counted before the answers. An event without a verdict is not: it is sent again.
        let decided =
            || self.events.iter().zip(outcomes).filter_map(|(doubt, outcome)| doubt.decided(outcome));
        if decided().next().is_some() {
            self.lane.count(self.committed_at, decided());
        }
        for outcome in outcomes {
            #[cfg(test)]
            pass(Moment::Judge);
            let Some(doubt) = self.events.pop_front() else { break };
            match (doubt.decided(outcome), outcome) {
                (Some((_, decision)), _) => {
                    self.reply.decide([(doubt.passed.index, decision.verdict)]);
                    self.lane.settle(&doubt.passed, (&doubt.event, decision), &self.reply);
                    if self.lane.era() != self.era {
                        self.lane.cache.forget_one(doubt.passed.key);
                    }
                }
                (None, Err(error)) => self.lane.fail(&doubt.passed, error, &self.reply),
                (None, Ok(_)) => debug_assert!(false, "what is known is decided"),
            }
        }
    }

    /// Fails the first events.
    fn fail(&mut self, events: usize, error: &PublishError) {
        for _ in 0..events {
            let Some(doubt) = self.events.pop_front() else { break };
            self.lane.fail(&doubt.passed, error, &self.reply);
        }
    }
}

impl Doubt {
    /// Its source and decision, where the outcome of its comparison is known.
    fn decided(&self, outcome: &Result<bool, PublishError>) -> Option<(&str, Decision)> {
        let Ok(conflict) = *outcome else { return None };
        let verdict = Verdict::Duplicate { seq: self.seq, conflict };
        Some((self.event.source(), Decision { verdict, stored_at: self.stored_at }))
    }
}

impl Drop for Doubts {
    /// invariant 5: as of [`Part`].
    fn drop(&mut self) {
        self.fail(self.events.len(), &PublishError::ActorFailed);
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
    use crate::domain::Parts;
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
        let too_few = Finding::decided(Verdict::Accepted { seq: 1 }, Second(1));
        for verdicts in [Some(vec![too_few]), None] {
            let lane = lane();
            let (passed_on, mut first) = ask(&lane);
            let (nothing, mut waiting) = ask(&lane);
            assert!(nothing.is_none(), "the same events wait for the first ones");
            let (batch, part) = passed_on.unwrap();
            match verdicts {
                Some(findings) => assert!(part.settle(batch.events, Ok(findings)).is_none()),
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
            let differs = |seq| Finding::Differs { seq, stored_at: Second(1) };
            let mut doubts = part.settle(batch.events, Ok(vec![differs(7), differs(8)])).unwrap();
            doubts.settle(&[Ok(conflict), Ok(conflict)]);
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
