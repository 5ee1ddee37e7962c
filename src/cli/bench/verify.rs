//! What `bench` checks: every event that was sent is stored exactly once and unchanged, nothing else is, and
//! the counters tell the same story.

use std::collections::HashMap;

use uuid::Uuid;

use super::plan::Plan;
use crate::api::{Event, TopicStats};

/// Faults that are shown; there may be as many as events.
const SHOWN: usize = 10;

/// What a run found wrong.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// How many.
    pub(super) count: u64,
    /// The first of them.
    pub(super) shown: Vec<String>,
}

/// What was sent to one topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Events, duplicates included.
    pub(super) all: u64,
    /// Different events.
    pub(super) unique: u64,
}

/// Looks at what is stored and compares it with the plan.
#[derive(Debug)]
pub(super) struct Verifier<'a> {
    plan: &'a Plan,
    /// The index of each id, and the seq under which it was read; 0 before.
    expected: HashMap<Uuid, (u64, u64)>,
    /// By topic.
    sent: Vec<Sent>,
    /// The next seq, by topic.
    next: Vec<u64>,
    /// What is wrong so far.
    pub(super) faults: Faults,
}

impl Faults {
    /// Counts a fault, and keeps it if it is one of the first.
    pub(super) fn add(&mut self, fault: impl FnOnce() -> String) {
        self.count += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(fault());
        }
    }

    fn check(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.add(fault);
        }
    }
}

impl<'a> Verifier<'a> {
    /// Expects the first `unique` events of the plan, in topics to which so much was sent.
    pub(super) fn new(plan: &'a Plan, unique: u64, sent: Vec<Sent>) -> Self {
        let expected = (0..unique).map(|index| (plan.event(index).id, (index, 0))).collect();
        Self { plan, expected, next: vec![1; sent.len()], sent, faults: Faults::default() }
    }

    /// Looks at an event that a read of this topic gave.
    pub(super) fn stored(&mut self, topic: usize, event: &Event<'_>) {
        let (seq, next) = (event.seq, self.next[topic]);
        self.faults
            .check(seq == next, || format!("{}: seq {seq} where {next} follows", self.plan.topics()[topic]));
        self.next[topic] = seq + 1;
        let id = Uuid::parse_str(&event.event_id).ok();
        let Some((index, seen)) = id.and_then(|known| self.expected.get_mut(&known)) else {
            return self.faults.add(|| format!("{} was never sent to {}", event.event_id, event.topic));
        };
        let first = *seen;
        self.faults
            .check(first == 0, || format!("{} is stored twice: seq {first} and {seq}", event.event_id));
        *seen = seq;
        let made = self.plan.event(*index);
        let same = made.topic == topic && self.plan.is_same(&made, event);
        self.faults.check(same, || format!("{} is stored with other content than sent", event.event_id));
    }

    /// Whether anything was sent to this topic.
    pub(super) fn expects(&self, topic: usize) -> bool {
        self.sent[topic].all > 0
    }

    /// Whether these counters of a topic lack duplicates, which may come later: those that another node answered.
    pub(super) fn lacks(&self, topic: usize, stats: &TopicStats) -> bool {
        let Sent { all, unique } = self.sent[topic];
        stats.duplicates < all - unique
    }

    /// Looks at the counters of a topic. Each event of the `lost` ones (sent in requests that had no answer, and
    /// were sent again) may have been counted once more.
    pub(super) fn counted(&mut self, topic: usize, stats: &TopicStats, lost: u64) {
        let Sent { all, unique } = self.sent[topic];
        let name = &stats.topic;
        let (accepted, duplicates, conflicts) = (stats.accepted, stats.duplicates, stats.conflicts);
        self.faults
            .check(accepted == unique, || format!("{name} counts {accepted} accepted of {unique} sent"));
        let expected = all - unique..=all - unique + lost;
        self.faults.check(expected.contains(&duplicates), || {
            format!("{name} counts {duplicates} duplicates, not {} to {}", expected.start(), expected.end())
        });
        self.faults
            .check(conflicts == 0, || format!("{name} counts {conflicts} conflicts, and none was sent"));
        let (end, read) = (stats.last_seq, self.next[topic] - 1);
        self.faults.check(end == read, || format!("{name} has last_seq {end}, and {read} was the last read"));
    }

    /// The index and the seq of so many events, to be looked up.
    pub(super) fn sample(&self, count: usize) -> Vec<(u64, u64)> {
        self.expected.values().copied().take(count).collect()
    }

    /// Looks at what a lookup of an event of the sample gave.
    pub(super) fn found(&mut self, (index, seq): (u64, u64), found: Option<u64>) {
        let holds = found == Some(seq).filter(|known| *known > 0);
        self.faults.check(holds, || {
            format!("{}: the read gave seq {seq}, the lookup {found:?}", self.plan.event(index).id)
        });
    }

    /// Names every event that was not read, and gives all faults.
    pub(super) fn finish(mut self) -> Faults {
        for (id, (_, seq)) in &self.expected {
            self.faults.check(*seq > 0, || format!("{id} was sent and is not stored"));
        }
        self.faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::plan::Made;

    const UNIQUE: u64 = 20;

    /// Counters of a run that is right.
    fn counters(plan: &Plan) -> TopicStats {
        TopicStats {
            topic: plan.topics()[0].clone(),
            history: "k3f9".to_owned(),
            lanes: 1,
            accepted: UNIQUE,
            duplicates: 5,
            conflicts: 0,
            first_seq: 1,
            last_seq: UNIQUE,
            last_received_at: String::new(),
        }
    }

    /// Verifies what is stored in a run of one topic; `change` may spoil it.
    fn verify(change: impl FnOnce(&mut Vec<Made>, &mut TopicStats)) -> Vec<String> {
        let plan = Plan::new(1, 1);
        let mut events: Vec<_> = (0..UNIQUE).map(|index| plan.event(index)).collect();
        let mut stats = counters(&plan);
        change(&mut events, &mut stats);
        let mut verifier = Verifier::new(&plan, UNIQUE, vec![Sent { all: UNIQUE + 5, unique: UNIQUE }]);
        for (event, seq) in events.iter().zip(1..) {
            store(&mut verifier, &plan, event, seq);
        }
        verifier.counted(0, &stats, 0);
        verifier.finish().shown
    }

    fn store(verifier: &mut Verifier<'_>, plan: &Plan, event: &Made, seq: u64) {
        let line = String::from_utf8(plan.line(event).unwrap()).unwrap();
        let text = line.replacen('{', &format!("{{\"seq\":{seq},\"received_at\":\"now\","), 1);
        verifier.stored(0, &serde_json::from_str(&text).unwrap());
    }

    fn only_fault(faults: &[String], words: &str) {
        assert!(faults.len() == 1 && faults[0].contains(words), "{words}: {faults:?}");
    }

    #[test]
    fn a_run_that_is_right_has_no_fault() {
        assert_eq!(verify(|_, _| {}), Vec::<String>::new());
        assert_eq!(verify(|events, _| events.reverse()), Vec::<String>::new(), "any order will do");
    }

    #[test]
    fn a_missing_event_is_found() {
        let faults = verify(|events, stats| {
            events.pop();
            stats.last_seq -= 1;
        });
        only_fault(&faults, "is not stored");
    }

    #[test]
    fn an_event_stored_twice_is_found() {
        let faults = verify(|events, stats| {
            events.push(events[3].clone());
            stats.last_seq += 1;
        });
        only_fault(&faults, "is stored twice: seq 4 and 21");
    }

    #[test]
    fn an_event_that_was_never_sent_is_found() {
        let faults = verify(|events, stats| {
            events.push(Plan::new(2, 1).event(0));
            stats.last_seq += 1;
        });
        only_fault(&faults, "was never sent");
    }

    #[test]
    fn a_changed_payload_is_found() {
        only_fault(&verify(|events, _| events[0].payload.insert(1, ' ')), "other content");
    }

    #[test]
    fn wrong_counters_are_found() {
        only_fault(&verify(|_, stats| stats.accepted += 1), "counts 21 accepted of 20");
        only_fault(&verify(|_, stats| stats.duplicates += 1), "counts 6 duplicates, not 5 to 5");
        only_fault(&verify(|_, stats| stats.duplicates -= 1), "counts 4 duplicates");
        only_fault(&verify(|_, stats| stats.conflicts += 1), "counts 1 conflicts");
        only_fault(&verify(|_, stats| stats.last_seq += 1), "last_seq 21");
    }

    #[test]
    fn only_counters_that_are_short_of_duplicates_are_waited_for() {
        let plan = Plan::new(1, 1);
        let verifier = Verifier::new(&plan, UNIQUE, vec![Sent { all: UNIQUE + 5, unique: UNIQUE }]);
        let lacks = |duplicates| verifier.lacks(0, &TopicStats { duplicates, ..counters(&plan) });
        assert_eq!([4, 5, 6].map(lacks), [true, false, false]);
    }

    #[test]
    fn a_gap_and_a_lookup_that_disagrees_are_found() {
        let plan = Plan::new(1, 1);
        let mut verifier = Verifier::new(&plan, 1, vec![Sent { all: 1, unique: 1 }]);
        store(&mut verifier, &plan, &plan.event(0), 2);
        assert_eq!(verifier.sample(9), [(0, 2)]);
        verifier.found((0, 2), Some(2));
        verifier.found((0, 2), None);
        let faults = verifier.finish().shown;
        assert!(faults.len() == 2 && faults[0].contains("seq 2 where 1 follows"), "{faults:?}");
    }

    #[test]
    fn events_of_lost_answers_may_be_counted_once_more() {
        let plan = Plan::new(1, 1);
        let mut verifier = Verifier::new(&plan, 0, vec![Sent { all: 5, unique: 0 }]);
        let stats = TopicStats { accepted: 0, duplicates: 7, last_seq: 0, ..counters(&plan) };
        verifier.counted(0, &stats, 2);
        assert_eq!(verifier.faults.count, 0);
        verifier.counted(0, &stats, 1);
        assert_eq!(verifier.faults.count, 1);
    }
}
