//! The parsers of what the store keeps, for the fuzzer (`cfg(fuzzing)`) and the inputs that it found.

use super::index::{Block, Run, Segment, Span};

/// Reads bytes as each part of the dedup index.
///
/// # Panics
/// Where a parser takes something for whole that is not.
pub fn read_index(data: &[u8]) {
    if let Some(positions) = Segment::unpack(data) {
        assert!(positions.is_sorted(), "positions ascend");
        let segment = Segment { topic: 1, first_seq: 1, positions };
        assert_eq!(Segment::unpack(&segment.pack()).as_ref(), Some(&segment.positions));
    }
    let (id, entries) = (data.len() as u64, data.first().copied().map_or(0, u64::from));
    if let Some(block) = Block::check(id, data) {
        for entry in block.entries() {
            let _ = block.find(entry.key);
        }
    }
    let span = Span { level: 0, first_pos: 1, last_pos: entries.max(1), entries, first_block: 1 };
    if let Some(run) = Run::load(span, data) {
        assert_eq!(run.to_bytes(), data, "what is read is what was stored");
        let _ = run.blocks_of(u128::from(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::replay;

    #[test]
    fn bytes_that_a_fuzzer_found_are_whole_or_refused() {
        replay("index", read_index);
    }
}
