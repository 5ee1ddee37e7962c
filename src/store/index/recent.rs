//! The keys and positions of the events that are in no sealed run yet.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use foldhash::fast::RandomState;

use super::entry::Entry;
use super::positions::{POSITIONS_PER_SEGMENT, Segment};

/// Recent events by key, and by topic and seq. About 150 bytes an event.
#[derive(Debug, Default, Clone)]
pub(in crate::store) struct Recent {
    entries: HashMap<u128, Tail, RandomState>,
    topics: HashMap<i64, TopicTail, RandomState>,
    last_pos: u64,
}

/// An entry without its key.
#[derive(Debug, Clone, Copy)]
struct Tail {
    pos: u64,
    seq: u64,
    digest: u64,
}

#[derive(Debug, Default, Clone)]
struct TopicTail {
    first_seq: u64,
    positions: Vec<u64>,
}

impl Recent {
    /// Adds an event behind all others; its topic's seqs come without gaps.
    pub(in crate::store) fn push(&mut self, topic: i64, entry: Entry) {
        debug_assert!(entry.pos > self.last_pos, "positions ascend");
        let Entry { key, pos, seq, digest } = entry;
        self.last_pos = pos;
        let before = self.entries.insert(key, Tail { pos, seq, digest });
        debug_assert!(before.is_none(), "a key is new when it is pushed");
        let tail =
            self.topics.entry(topic).or_insert_with(|| TopicTail { first_seq: seq, positions: Vec::new() });
        debug_assert_eq!(tail.first_seq + tail.positions.len() as u64, seq, "seqs have no gaps");
        tail.positions.push(pos);
    }

    pub(in crate::store) fn find(&self, key: u128) -> Option<Entry> {
        let Tail { pos, seq, digest } = *self.entries.get(&key)?;
        Some(Entry { key, pos, seq, digest })
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
        Some(tail.first_seq..=tail.first_seq + tail.positions.len() as u64 - 1)
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

    /// Everything, in the order of the keys.
    pub(in crate::store) fn sorted(&self) -> Vec<Entry> {
        let entry = |(key, tail): (&u128, &Tail)| Entry {
            key: *key,
            pos: tail.pos,
            seq: tail.seq,
            digest: tail.digest,
        };
        let mut entries: Vec<_> = self.entries.iter().map(entry).collect();
        entries.sort_unstable();
        entries
    }

    /// The positions of all topics, in segments.
    pub(in crate::store) fn segments(&self) -> impl Iterator<Item = Segment> {
        self.topics.iter().flat_map(|(topic, tail)| {
            let seqs = (tail.first_seq..).step_by(POSITIONS_PER_SEGMENT);
            let parts = tail.positions.chunks(POSITIONS_PER_SEGMENT);
            seqs.zip(parts).map(|(first_seq, part)| Segment {
                topic: *topic,
                first_seq,
                positions: part.to_vec(),
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
                recent.push(topic, entry);
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
            let packed: BTreeMap<_, _> = recent.segments().flat_map(|segment| {
                let topic = segment.topic;
                (segment.first_seq..).zip(segment.positions).map(move |(seq, pos)| ((topic, seq), pos))
            }).collect();
            let expected: BTreeMap<_, _> = model.iter().map(|(at, entry)| (*at, entry.pos)).collect();
            prop_assert_eq!(packed, expected);
        }
    }
}
