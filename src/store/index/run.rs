//! A sealed run: sorted entries in blocks, of which memory holds a filter and the first key of each block.

use super::block::{ENTRIES_PER_BLOCK, pack};
use super::entry::Entry;
use super::filter::Filter;

/// Which part of the log a run covers, and where its blocks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Span {
    /// How often its keys were merged.
    pub(in crate::store) level: u8,
    /// The first position of the log that it covers.
    pub(in crate::store) first_pos: u64,
    /// The last one.
    pub(in crate::store) last_pos: u64,
    /// Its entries.
    pub(in crate::store) entries: u64,
    /// The id of its first block; the others follow.
    pub(in crate::store) first_block: u64,
}

impl Span {
    /// How many blocks the entries fill.
    pub(in crate::store) fn blocks(&self) -> u64 {
        self.entries.div_ceil(ENTRIES_PER_BLOCK as u64)
    }

    /// The id behind its last block.
    pub(in crate::store) fn end_block(&self) -> u64 {
        self.first_block + self.blocks()
    }
}

/// What memory holds of a run: 12 bits a key for the filter, half a bit for the fences.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct Run {
    pub(in crate::store) span: Span,
    filter: Filter,
    /// The upper half of the first key of each block.
    fences: Vec<u64>,
}

impl Run {
    /// A run from what [`Run::to_bytes`] gave; `None` where that is not of a run with this span.
    pub(in crate::store) fn load(span: Span, bytes: &[u8]) -> Option<Self> {
        let (filter, rest) = bytes.split_at_checked(Filter::bytes_for(span.entries))?;
        let (numbers, odd) = rest.as_chunks::<8>();
        let fences: Vec<_> = numbers.iter().map(|fence| u64::from_le_bytes(*fence)).collect();
        let fits = odd.is_empty() && fences.len() as u64 == span.blocks();
        fits.then_some(Self { span, filter: Filter::from_bytes(filter)?, fences })
    }

    /// Filter and fences, to be stored.
    pub(in crate::store) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.filter.to_bytes();
        bytes.extend(self.fences.iter().flat_map(|fence| fence.to_le_bytes()));
        bytes
    }

    /// Whether its filter is that of another run.
    pub(in crate::store) fn has_filter_of(&self, other: &Self) -> bool {
        self.filter == other.filter
    }

    /// Whether its fences are those of another run.
    pub(in crate::store) fn has_fences_of(&self, other: &Self) -> bool {
        self.fences == other.fences
    }

    /// Whether the run may hold this key; certain where it says no.
    pub(in crate::store) fn may_contain(&self, key: u128) -> bool {
        self.filter.may_contain(key)
    }

    /// The ids of the blocks that may hold this key: none, or one, and seldom two, where two blocks begin with
    /// the same upper half.
    pub(in crate::store) fn blocks_of(&self, key: u128) -> std::ops::Range<u64> {
        if !self.may_contain(key) {
            return 0..0;
        }
        let upper = upper(key);
        let before = self.fences.partition_point(|fence| *fence < upper).saturating_sub(1);
        let end = self.fences.partition_point(|fence| *fence <= upper);
        self.span.first_block + before as u64..self.span.first_block + end as u64
    }
}

/// Builds a run from sorted entries, block by block.
pub(in crate::store) struct RunBuilder {
    run: Run,
    pending: Vec<Entry>,
}

/// A block that is full.
pub(in crate::store) struct Built {
    pub(in crate::store) id: u64,
    pub(in crate::store) bytes: Vec<u8>,
}

impl RunBuilder {
    /// Begins a run whose number of entries is known.
    pub(in crate::store) fn new(span: Span) -> Self {
        let fences = Vec::with_capacity(usize::try_from(span.blocks()).unwrap_or(0));
        let run = Run { span, filter: Filter::for_keys(span.entries), fences };
        Self { run, pending: Vec::with_capacity(ENTRIES_PER_BLOCK) }
    }

    /// Adds the next entry, and gives a block where that fills one.
    pub(in crate::store) fn push(&mut self, entry: Entry) -> Option<Built> {
        self.run.filter.insert(entry.key);
        self.pending.push(entry);
        (self.pending.len() == ENTRIES_PER_BLOCK).then(|| self.pack())
    }

    /// Ends the run, with its last block where that is not full.
    pub(in crate::store) fn finish(mut self) -> (Run, Option<Built>) {
        let last = (!self.pending.is_empty()).then(|| self.pack());
        debug_assert_eq!(
            self.run.fences.len() as u64,
            self.run.span.blocks(),
            "as many entries as were announced"
        );
        (self.run, last)
    }

    fn pack(&mut self) -> Built {
        let id = self.run.span.first_block + self.run.fences.len() as u64;
        self.run.fences.push(upper(self.pending[0].key));
        let bytes = pack(id, &self.pending);
        self.pending.clear();
        Built { id, bytes }
    }
}

fn upper(key: u128) -> u64 {
    (key >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::store::index::Block;

    fn build(entries: &[Entry]) -> (Run, BTreeMap<u64, Vec<u8>>) {
        let span =
            Span { level: 0, first_pos: 1, last_pos: 9, entries: entries.len() as u64, first_block: 40 };
        let mut builder = RunBuilder::new(span);
        let mut blocks: Vec<_> = entries.iter().filter_map(|entry| builder.push(*entry)).collect();
        let (run, last) = builder.finish();
        blocks.extend(last);
        (run, blocks.into_iter().map(|built| (built.id, built.bytes)).collect())
    }

    fn find(run: &Run, blocks: &BTreeMap<u64, Vec<u8>>, key: u128) -> Option<Entry> {
        run.blocks_of(key).find_map(|id| Block::check(id, &blocks[&id]).unwrap().find(key))
    }

    proptest! {
        /// Few upper halves, so that neighbouring blocks begin with the same one.
        #[test]
        fn finds_what_is_in_it_and_nothing_else(
            keys in prop::collection::btree_set((0..4_u128, 0..300_u128).prop_map(|(upper, lower)| upper << 64 | lower), 1..700),
        ) {
            let entries: Vec<_> = keys.iter().map(|key| Entry { key: *key, pos: 1, seq: 2, digest: 3 }).collect();
            let (run, blocks) = build(&entries);
            prop_assert_eq!(blocks.len() as u64, run.span.blocks());
            for entry in &entries {
                prop_assert_eq!(find(&run, &blocks, entry.key), Some(*entry));
            }
            for upper in 0..5 {
                for lower in 0..310 {
                    let key = upper << 64 | lower;
                    prop_assert_eq!(find(&run, &blocks, key).is_some(), keys.contains(&key));
                }
            }
            let again = Run::load(run.span, &run.to_bytes());
            prop_assert_eq!(again.as_ref(), Some(&run));
        }
    }

    #[test]
    fn bytes_of_another_run_are_refused() {
        let (run, _) = build(&[Entry { key: 1, pos: 1, seq: 1, digest: 1 }]);
        let bytes = run.to_bytes();
        assert_eq!(Run::load(run.span, &bytes[1..]), None);
        assert_eq!(Run::load(run.span, &[]), None);
        assert_eq!(Run::load(Span { entries: 1_000, ..run.span }, &bytes), None);
    }
}
