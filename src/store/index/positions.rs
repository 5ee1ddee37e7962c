//! Where the events of a topic are: positions in the order of seq, packed into segments.

/// Positions of a full segment, so that it fits into a page and is unpacked in microseconds.
pub(super) const POSITIONS_PER_SEGMENT: usize = 512;

/// Positions of consecutive seqs of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Segment {
    /// The topic's number.
    pub(in crate::store) topic: i64,
    /// The seq of the first position.
    pub(in crate::store) first_seq: u64,
    /// Ascending positions: seq counts in the order of the log.
    pub(in crate::store) positions: Vec<u64>,
}

impl Segment {
    /// The positions as bytes: the first one, then each distance to the one before, 7 bits a byte.
    pub(in crate::store) fn pack(&self) -> Vec<u8> {
        debug_assert!(self.positions.is_sorted(), "seq follows the log");
        let mut bytes = Vec::with_capacity(self.positions.len() + 8);
        let mut before = 0;
        for position in &self.positions {
            write_number(&mut bytes, position - before);
            before = *position;
        }
        bytes
    }

    /// The positions in these bytes; `None` where they end within a number.
    pub(in crate::store) fn unpack(mut bytes: &[u8]) -> Option<Vec<u64>> {
        let (mut positions, mut before) = (Vec::new(), 0_u64);
        while !bytes.is_empty() {
            before = before.checked_add(read_number(&mut bytes)?)?;
            positions.push(before);
        }
        Some(positions)
    }
}

fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(0x80 | (number & 0x7f).to_le_bytes()[0]);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn positions_come_back(positions in prop::collection::btree_set(0..1_u64 << 40, 0..50)) {
            let segment = Segment { topic: 1, first_seq: 1, positions: positions.into_iter().collect() };
            prop_assert_eq!(Segment::unpack(&segment.pack()), Some(segment.positions));
        }

        #[test]
        fn any_bytes_are_read_without_a_fault(bytes: Vec<u8>) {
            let _ = Segment::unpack(&bytes);
        }
    }

    #[test]
    fn neighbours_take_a_byte_each() {
        let segment = Segment { topic: 1, first_seq: 1, positions: (1_000_000..1_000_512).collect() };
        assert_eq!(segment.pack().len(), 3 + 511);
    }
}
