//! Batches that wait for a group commit, and which of them are in the next one. No actor.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use lru::LruCache;

use crate::config::Store;
use crate::domain::{Address, Event, Topic};
use crate::store::Batch;
use crate::turns::Turns;

/// The turns in a full group. A turn is this part of the events of a group, or a larger batch: with one
/// batch a turn, a request with many topics would wait for as many large batches of another address.
const TURNS_OF_GROUP: usize = 10;

/// Batches that wait for the next group commit, each with who gets its outcome.
pub(super) struct Pending<W> {
    waiting: Waiting<W>,
    max_events: usize,
    max_bytes: usize,
}

enum Waiting<W> {
    /// A group may have any topics. Addresses take turns with their batches, so that a small request does not
    /// wait until everything is committed that others have in flight.
    Together(Turns<Address, (Batch, W)>),
    /// A group has this many topics at most. Each has a queue, so that no group costs a look at those that are not in it. They
    /// are in the order of their turns: first the one that has waited longest since it came, or since its last turn.
    ByTopic(usize, LruCache<Topic, Queue<W>, RandomState>),
}

/// In the order in which they came.
type Queue<W> = VecDeque<(Batch, W)>;

/// A group, and who gets its outcomes.
type Group<W> = (Vec<Batch>, Vec<W>);

impl<W> Pending<W> {
    /// Groups of at most so many events, bytes and topics, unless a single batch has more.
    pub(super) fn new(settings: &Store) -> Self {
        let waiting = match settings.commit_topics {
            None => Waiting::Together(Turns::default()),
            Some(most) => Waiting::ByTopic(most, LruCache::unbounded_with_hasher(RandomState::default())),
        };
        Self { waiting, max_events: settings.commit_events, max_bytes: settings.commit_bytes }
    }

    /// Adds a batch of this address.
    pub(super) fn push(&mut self, address: Address, batch: Batch, waits: W) {
        match &mut self.waiting {
            Waiting::Together(turns) => _ = turns.push(address, (batch, waits)),
            Waiting::ByTopic(_, topics) => match topics.peek_mut(&batch.topic) {
                Some(queue) => queue.push_back((batch, waits)),
                None => _ = topics.put(batch.topic.clone(), [(batch, waits)].into()),
            },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.waiting {
            Waiting::Together(turns) => turns.is_empty(),
            Waiting::ByTopic(_, topics) => topics.is_empty(),
        }
    }

    /// Takes out the next group: the batches whose turns come next, those of one address and topic in the
    /// order in which they came.
    pub(super) fn next_group(&mut self) -> Group<W> {
        let (mut group, mut room) = ((Vec::new(), Vec::new()), Room::of(self));
        match &mut self.waiting {
            Waiting::Together(turns) => {
                let most = self.max_events / TURNS_OF_GROUP;
                let mut size = |batch: &Batch| room.take(batch).then_some(batch.events.len());
                while let Some((batch, waits)) = turns.pop_sized(most, |(batch, _)| size(batch)) {
                    group.0.push(batch);
                    group.1.push(waits);
                }
            }
            Waiting::ByTopic(most, topics) => {
                for _ in 0..*most {
                    let Some((topic, mut queue)) = topics.pop_lru() else { break };
                    let before = group.0.len();
                    room.fill(&mut group, &mut queue);
                    if queue.is_empty() {
                        continue;
                    }
                    topics.put(topic.clone(), queue);
                    if group.0.len() == before {
                        // It keeps its turn, which did not come.
                        topics.demote(&topic);
                    }
                    break;
                }
            }
        }
        group
    }
}

/// What a group may still take.
struct Room {
    events: usize,
    bytes: usize,
    is_empty: bool,
}

impl Room {
    fn of<W>(pending: &Pending<W>) -> Self {
        Self { events: pending.max_events, bytes: pending.max_bytes, is_empty: true }
    }

    /// Moves the first batches of a queue into the group, up to the first one that does not fit.
    fn fill<W>(&mut self, group: &mut Group<W>, queue: &mut Queue<W>) {
        let fits = queue.iter().take_while(|(batch, _)| self.take(batch)).count();
        group.extend(queue.drain(..fits));
    }

    /// Whether a batch fits, and takes its room if it does. The first one always fits.
    fn take(&mut self, batch: &Batch) -> bool {
        let bytes = batch.events.iter().map(Event::bytes).sum();
        let left = self.events.checked_sub(batch.events.len()).zip(self.bytes.checked_sub(bytes));
        if left.is_none() && !self.is_empty {
            return false;
        }
        (self.events, self.bytes) = left.unwrap_or_default();
        self.is_empty = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, load};
    use crate::domain::Parts;

    const ANY: Address = Address::UNKNOWN;

    fn pending(commit_topics: usize) -> Pending<usize> {
        let mut settings = load(None, &Overrides::default()).unwrap().store;
        (settings.commit_events, settings.commit_bytes) = (5, 1_000);
        settings.commit_topics = Some(commit_topics).filter(|most| *most > 0);
        Pending::new(&settings)
    }

    fn batch(topic: &str, events: usize, payload: &str) -> Batch {
        let parts = Parts { topic, event_id: "1", timestamp: "", source: "s", payload };
        Batch { topic: Topic::trusted(topic), events: vec![Event::pack(parts); events] }
    }

    /// The topics of the next group; each batch has a number greater than the one before it of the same topic.
    fn next(pending: &mut Pending<usize>) -> String {
        let (batches, numbers) = pending.next_group();
        for (at, batch) in batches.iter().enumerate() {
            let earlier = batches[..at].iter().zip(&numbers);
            assert!(
                earlier
                    .filter(|(other, _)| other.topic == batch.topic)
                    .all(|(_, number)| *number < numbers[at])
            );
        }
        batches.iter().map(|batch| batch.topic.as_str()).collect()
    }

    /// The topics of each group in which these events, one a batch, are committed.
    fn groups(commit_topics: usize, topics: &str) -> Vec<String> {
        let mut pending = pending(commit_topics);
        for (number, name) in topics.char_indices() {
            pending.push(ANY, batch(&name.to_string(), 1, "{}"), number);
        }
        let mut groups = Vec::new();
        while !pending.is_empty() {
            groups.push(next(&mut pending));
        }
        groups
    }

    #[test]
    fn a_group_has_as_many_topics_as_may_be_and_each_topic_keeps_its_order() {
        assert_eq!(groups(0, "abcabcab"), ["abcab", "cab"]);
        assert_eq!(groups(1, "abacab"), ["aaa", "bb", "c"]);
        assert_eq!(groups(2, "abcab"), ["aabb", "c"]);
    }

    #[test]
    fn a_topic_is_committed_together_however_much_of_others_is_in_between() {
        assert_eq!(groups(1, "abbbbbbbca"), ["aa", "bbbbb", "c", "bb"]);
        assert_eq!(groups(2, "acccccccba"), ["aaccc", "bcccc"]);
    }

    #[test]
    fn a_topic_that_always_has_more_takes_turns_with_the_others() {
        let mut pending = pending(1);
        let mut pushed = 0;
        let mut push = |pending: &mut Pending<usize>, topic| {
            pushed += 1;
            pending.push(ANY, batch(topic, 4, "{}"), pushed);
        };
        for topic in ["a", "a", "b", "c", "b"] {
            push(&mut pending, topic);
        }
        let mut turns = String::new();
        for _ in 0..7 {
            turns += &next(&mut pending);
            push(&mut pending, "a");
        }
        assert_eq!(turns, "abcabaa");
    }

    #[test]
    fn a_topic_whose_batch_does_not_fit_any_more_is_the_first_of_the_next_group() {
        let mut pending = pending(3);
        for (number, (topic, events)) in [("a", 3), ("b", 3), ("c", 2)].into_iter().enumerate() {
            pending.push(ANY, batch(topic, events, "{}"), number);
        }
        assert_eq!([next(&mut pending), next(&mut pending)], ["a", "bc"]);
    }

    #[test]
    fn addresses_take_turns_however_many_batches_of_each_wait() {
        let mut pending = pending(0);
        let [greedy, other, large] = [1, 2, 3].map(|last| Address::of([192, 0, 2, last].into()));
        for number in 0..20 {
            pending.push(greedy, batch("a", 1, "{}"), number);
        }
        for number in 20..22 {
            pending.push(other, batch("b", 1, "{}"), number);
        }
        pending.push(large, batch("c", 4, "{}"), 22);
        // The large one does not fit into the first group, and keeps its turn.
        assert_eq!([0; 3].map(|_| next(&mut pending)), ["ab", "ca", "baaaa"]);
        pending.push(other, batch("b", 1, "{}"), 23);
        assert_eq!(next(&mut pending), "abaaa");
    }

    #[test]
    fn a_turn_of_many_small_batches_is_as_large_as_a_part_of_a_group() {
        let mut settings = load(None, &Overrides::default()).unwrap().store;
        settings.commit_events = 100;
        let mut pending = Pending::new(&settings);
        let [greedy, other] = [1, 2].map(|last| Address::of([192, 0, 2, last].into()));
        for number in 0..20 {
            pending.push(greedy, batch("a", 100, "{}"), number);
        }
        for number in 0..20 {
            pending.push(other, batch(&format!("b{number}"), 1, "{}"), 20 + number);
        }
        let groups: Vec<_> = std::iter::from_fn(|| Some(pending.next_group().0.len())).take(6).collect();
        assert_eq!(groups, [1, 10, 1, 10, 1, 1], "the small ones wait for two of the large ones");
    }

    #[test]
    fn a_batch_that_is_larger_than_a_group_may_be_is_one_of_its_own() {
        for commit_topics in [0, 2] {
            let mut pending = pending(commit_topics);
            let large = format!("\"{}\"", "x".repeat(2_000));
            let batches =
                [batch("a", 1, "{}"), batch("b", 6, "{}"), batch("a", 1, "{}"), batch("c", 1, &large)];
            for (number, batch) in batches.into_iter().enumerate() {
                pending.push(ANY, batch, number);
            }
            let groups = [0; 4].map(|_| next(&mut pending));
            let expected = if commit_topics == 0 { ["a", "b", "a", "c"] } else { ["aa", "b", "c", ""] };
            assert_eq!(groups, expected);
        }
    }
}
