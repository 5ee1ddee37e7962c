//! The keys, positions and sources of the events that are in no sealed run yet.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::entry::Entry;
use super::positions::{POSITIONS_PER_SEGMENT, Segment};

/// The most missing seqs for which a place stands in: half a megabyte of memory. Rows are lost by the page, a few
/// dozen at once; a greater distance is a number that is wrong.
const MISSING_MAX: u64 = 1 << 16;

/// Recent events by key, and by topic and seq. About 55 bytes an event.
#[derive(Debug, Default, Clone)]
pub(in crate::store) struct Recent {
    /// Entries, packed: a slot of 32 bytes lies in one line of the processor's cache.
    entries: HashMap<u128, u128, RandomState>,
    topics: HashMap<i64, TopicTail, RandomState>,
    sources: Names,
    last_pos: u64,
}

#[derive(Debug, Default, Clone)]
struct TopicTail {
    first_seq: u64,
    positions: Vec<u64>,
    /// The source of each of them, by its number.
    sources: Vec<u32>,
}

/// The names of sources, each with a number.
#[derive(Debug, Default, Clone)]
pub(in crate::store) struct Names {
    numbers: HashMap<Arc<str>, u32, RandomState>,
    all: Vec<Arc<str>>,
    /// The last one that was asked for: most events have the source of the event before.
    last: u32,
}

impl Names {
    /// The number of a name.
    fn number(&mut self, name: &str) -> u32 {
        if self.all.get(self.last as usize).is_some_and(|last| **last == *name) {
            return self.last;
        }
        self.last = match self.numbers.get(name) {
            Some(number) => *number,
            None => self.add(name),
        };
        self.last
    }

    fn add(&mut self, name: &str) -> u32 {
        let (name, number) = (Arc::<str>::from(name), u32::try_from(self.all.len()).unwrap_or(u32::MAX));
        self.numbers.insert(Arc::clone(&name), number);
        self.all.push(name);
        number
    }

    /// How often each of these numbers is there, by their names, in the order in which they come first.
    pub(in crate::store) fn count(&self, numbers: &[u32]) -> Vec<(Arc<str>, u64)> {
        count(&self.all, numbers)
    }
}

fn count(names: &[Arc<str>], numbers: &[u32]) -> Vec<(Arc<str>, u64)> {
    let mut places: HashMap<u32, usize, RandomState> = HashMap::default();
    let mut counts: Vec<(Arc<str>, u64)> = Vec::new();
    for some in numbers.chunk_by(|left, right| left == right) {
        let Some(name) = names.get(some[0] as usize) else { continue };
        let place = *places.entry(some[0]).or_insert_with(|| {
            counts.push((Arc::clone(name), 0));
            counts.len() - 1
        });
        counts[place].1 += some.len() as u64;
    }
    counts
}

/// A copy of the sources of a topic's events, to be counted later.
pub(in crate::store) struct Sent {
    numbers: Vec<u32>,
    names: Vec<Arc<str>>,
}

impl Sent {
    /// How many events each source sent, in the order in which they came first.
    pub(in crate::store) fn count(&self) -> Vec<(Arc<str>, u64)> {
        count(&self.names, &self.numbers)
    }
}

impl TopicTail {
    /// The seq that follows.
    fn next(&self) -> u64 {
        self.first_seq + self.positions.len() as u64
    }
}

impl Recent {
    /// Nothing, with room for so many keys: to grow a large table takes longer than a commit should.
    pub(in crate::store) fn with_capacity(keys: usize) -> Self {
        let entries = HashMap::with_capacity_and_hasher(keys, RandomState::default());
        Self { entries, ..Self::default() }
    }

    /// Adds an event behind all others: a new key, and the next seq of its topic.
    pub(in crate::store) fn push(&mut self, topic: i64, entry: Entry, source: &str) {
        debug_assert!(!self.entries.contains_key(&entry.key), "a key is new when it is pushed");
        let next = self.topics.get(&topic).map_or(entry.seq, TopicTail::next);
        debug_assert_eq!(next, entry.seq, "seqs have no gaps");
        self.restore(topic, entry, source);
    }

    /// Adds an event from its row, which may be damaged. Of two with one key the first counts.
    pub(in crate::store) fn restore(&mut self, topic: i64, entry: Entry, source: &str) {
        self.restore_place(topic, entry.seq, entry.pos, source);
        self.entries.entry(entry.key).or_insert(entry.packed());
    }

    /// Adds the place of an event whose key is not known. Where seqs are missing before it, the place before stands
    /// in for theirs, and a place whose seq is taken is left out: who reads such a seq finds a row that says
    /// otherwise, which is damage and not a wrong answer.
    pub(in crate::store) fn restore_place(&mut self, topic: i64, seq: u64, pos: u64, source: &str) {
        self.pass(pos);
        let number = self.sources.number(source);
        let tail =
            self.topics.entry(topic).or_insert_with(|| TopicTail { first_seq: seq, ..TopicTail::default() });
        if let Some(last) = tail.positions.last().copied()
            && let Some(missing @ 1..=MISSING_MAX) = seq.checked_sub(tail.next())
        {
            let missing = usize::try_from(missing).unwrap_or(0);
            tail.positions.extend(std::iter::repeat_n(last, missing));
            tail.sources.extend(std::iter::repeat_n(self.sources.number(""), missing));
        }
        if seq == tail.next() {
            tail.positions.push(pos);
            tail.sources.push(number);
        }
    }

    /// Passes a position of which nothing is known.
    pub(in crate::store) fn pass(&mut self, pos: u64) {
        debug_assert!(pos > self.last_pos, "positions ascend");
        self.last_pos = pos;
    }

    pub(in crate::store) fn find(&self, key: u128) -> Option<Entry> {
        Some(Entry::unpack(key, *self.entries.get(&key)?))
    }

    pub(in crate::store) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The greatest position in it; 0 where it is empty.
    pub(in crate::store) fn last_pos(&self) -> u64 {
        self.last_pos
    }

    /// The seqs of a topic that are in it; they have no gaps.
    pub(in crate::store) fn seqs(&self, topic: i64) -> Option<RangeInclusive<u64>> {
        let tail = self.topics.get(&topic)?;
        Some(tail.first_seq..=tail.next() - 1)
    }

    /// The seq and position of each event of a topic between two seqs, in the order of seq.
    pub(in crate::store) fn positions(
        &self,
        topic: i64,
        first: u64,
        last: u64,
    ) -> impl DoubleEndedIterator<Item = (u64, u64)> {
        let (start, all) =
            self.topics.get(&topic).map_or((1, &[][..]), |tail| (tail.first_seq, &tail.positions));
        let index =
            |seq: u64| usize::try_from(seq.saturating_sub(start)).unwrap_or(usize::MAX).min(all.len());
        let begin = index(first);
        let wanted = &all[begin..index(last.saturating_add(1)).max(begin)];
        wanted.iter().enumerate().map(move |(at, pos)| (start + (begin + at) as u64, *pos))
    }

    /// How many events of a topic behind a seq each source sent, in the order in which they came first.
    pub(in crate::store) fn sources(&self, topic: i64, after: u64) -> Vec<(Arc<str>, u64)> {
        self.sources.count(self.numbers(topic, after))
    }

    /// The sources of a topic's events behind a seq: copied, which is much less than to count them.
    pub(in crate::store) fn sent(&self, topic: i64, after: u64) -> Sent {
        let numbers = self.numbers(topic, after).to_vec();
        let names = if numbers.is_empty() { Vec::new() } else { self.sources.all.clone() };
        Sent { numbers, names }
    }

    /// The sources of a topic's events behind a seq, by their numbers.
    fn numbers(&self, topic: i64, after: u64) -> &[u32] {
        let Some(tail) = self.topics.get(&topic) else { return &[] };
        let known = usize::try_from((after + 1).saturating_sub(tail.first_seq)).unwrap_or(usize::MAX);
        tail.sources.get(known..).unwrap_or_default()
    }

    /// The names of all sources.
    pub(in crate::store) fn names(&self) -> &Names {
        &self.sources
    }

    /// Everything, in the order of the keys.
    pub(in crate::store) fn sorted(&self) -> Vec<Entry> {
        let mut entries: Vec<_> =
            self.entries.iter().map(|(key, packed)| Entry::unpack(*key, *packed)).collect();
        entries.sort_unstable();
        entries
    }

    /// How many segments the positions of all topics take.
    pub(in crate::store) fn segment_count(&self) -> usize {
        self.topics.values().map(|tail| tail.positions.len().div_ceil(POSITIONS_PER_SEGMENT)).sum()
    }

    /// The positions of all topics, in segments, each with the numbers of its sources.
    pub(in crate::store) fn segments(&self) -> impl Iterator<Item = (Segment, &[u32])> {
        self.topics.iter().flat_map(|(topic, tail)| {
            let seqs = (tail.first_seq..).step_by(POSITIONS_PER_SEGMENT);
            let parts = tail.positions.chunks(POSITIONS_PER_SEGMENT);
            let sources = tail.sources.chunks(POSITIONS_PER_SEGMENT);
            seqs.zip(parts.zip(sources)).map(|(first_seq, (part, sources))| {
                let segment = Segment { topic: *topic, first_seq, positions: part.to_vec() };
                (segment, sources)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_plain_map(topics in prop::collection::vec(0..3_i64, 0..60), first in 0..20_u64, last in 0..20_u64) {
            let mut recent = Recent::default();
            let mut model: BTreeMap<(i64, u64), Entry> = BTreeMap::new();
            for (topic, pos) in topics.into_iter().zip(11..) {
                let seq = 5 + model.keys().filter(|(other, _)| *other == topic).count() as u64;
                let entry = Entry { key: u128::from(pos) * 77 % 101, pos, seq, digest: pos };
                recent.push(topic, entry, if pos % 3 == 0 { "x" } else { "y" });
                model.insert((topic, seq), entry);
            }
            for entry in model.values() {
                prop_assert_eq!(recent.find(entry.key), Some(*entry));
            }
            prop_assert_eq!(recent.find(1_000), None);
            prop_assert_eq!(recent.last_pos(), model.values().map(|entry| entry.pos).max().unwrap_or(0));
            let sorted = recent.sorted();
            prop_assert!(sorted.is_sorted() && sorted.len() == model.len() && recent.len() == model.len());
            for topic in 0..4 {
                let expected: Vec<_> = model.range((topic, 0)..(topic + 1, 0))
                    .filter(|((_, seq), _)| (first..=last).contains(seq))
                    .map(|((_, seq), entry)| (*seq, entry.pos)).collect();
                prop_assert_eq!(recent.positions(topic, first, last).collect::<Vec<_>>(), expected);
            }
            for (topic, after) in [(0, first), (1, last), (2, 0), (3, 0)] {
                let of = |third| model.iter().filter(|((of, seq), entry)|
                    *of == topic && *seq > after && (entry.pos % 3 == 0) == third).count() as u64;
                let mut counted: Vec<_> = recent.sources(topic, after);
                prop_assert_eq!(&recent.sent(topic, after).count(), &counted);
                counted.sort();
                let expected: Vec<_> = [("x".into(), of(true)), ("y".into(), of(false))].into_iter()
                    .filter(|(_, count)| *count > 0).collect();
                prop_assert_eq!(counted, expected);
            }
            prop_assert_eq!(recent.segment_count(), recent.segments().count());
            let packed: BTreeMap<_, _> = recent.segments().flat_map(|(segment, _)| {
                let topic = segment.topic;
                (segment.first_seq..).zip(segment.positions).map(move |(seq, pos)| ((topic, seq), pos))
            }).collect();
            let expected: BTreeMap<_, _> = model.iter().map(|(at, entry)| (*at, entry.pos)).collect();
            prop_assert_eq!(packed, expected);
        }
    }
    #[test]
    fn rows_that_do_not_follow_leave_all_others_in_their_places() {
        let mut recent = Recent::default();
        let entry = |key, pos, seq| Entry { key, pos, seq, digest: 0 };
        recent.restore(1, entry(1, 1, 1), "s");
        recent.restore(1, entry(4, 2, 4), "s");
        recent.restore(1, entry(2, 3, 2), "s");
        recent.restore(1, entry(4, 4, 5), "s");
        recent.restore(1, entry(9, 5, 1 << 30), "s");
        recent.restore_place(1, 6, 6, "");
        let places: Vec<_> = recent.positions(1, 1, 9).collect();
        assert_eq!(places, [(1, 1), (2, 1), (3, 1), (4, 2), (5, 4), (6, 6)]);
        assert_eq!(recent.find(4), Some(entry(4, 2, 4)), "the first of two with one key");
        assert_eq!((recent.len(), recent.last_pos()), (4, 6));
    }
}
