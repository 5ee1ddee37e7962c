//! A block: sorted entries that fit into one page of SQLite, with a checksum.

use super::entry::{ENTRY_BYTES, Entry};

/// Entries of a full block. A leaf page of 4,096 bytes holds one record of up to 4,061 bytes (SQLite's file
/// format, "usable size minus 35") without an overflow page; 125 entries and the head take 4,008.
pub(super) const ENTRIES_PER_BLOCK: usize = 125;

/// A checksum of 8 bytes.
const HEAD_BYTES: usize = 8;

/// A block that was found whole.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Block<'a>(&'a [[u8; ENTRY_BYTES]]);

/// Packs sorted entries, [`ENTRIES_PER_BLOCK`] at most. `id` goes into the checksum, so that a block in another
/// one's place is damage too.
pub(super) fn pack(id: u64, entries: &[Entry]) -> Vec<u8> {
    debug_assert!((1..=ENTRIES_PER_BLOCK).contains(&entries.len()), "a block is neither empty nor too large");
    debug_assert!(entries.is_sorted(), "a block is searched by halves");
    let mut bytes = vec![0; HEAD_BYTES];
    for entry in entries {
        bytes.extend_from_slice(&entry.to_bytes());
    }
    let sum = checksum(id, &bytes[HEAD_BYTES..]);
    bytes[..HEAD_BYTES].copy_from_slice(&sum);
    bytes
}

impl<'a> Block<'a> {
    /// A block from the store; `None` if it is damaged.
    pub(in crate::store) fn check(id: u64, bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let (entries, odd) = rest.as_chunks();
        let whole = !entries.is_empty() && odd.is_empty();
        (whole && head == checksum(id, rest)).then_some(Self(entries))
    }

    /// The entry with this key.
    pub(in crate::store) fn find(self, key: u128) -> Option<Entry> {
        let wanted = key.to_be_bytes();
        let at = self.0.partition_point(|entry| entry[..16] < wanted[..]);
        let found = Entry::from_bytes(self.0.get(at)?);
        (found.key == key).then_some(found)
    }

    /// All entries, in the order of their keys.
    pub(in crate::store) fn entries(self) -> impl Iterator<Item = Entry> + use<'a> {
        self.0.iter().map(Entry::from_bytes)
    }
}

/// XXH3 of the entries, seeded with the block's id: it finds damage, not malice.
fn checksum(id: u64, entries: &[u8]) -> [u8; HEAD_BYTES] {
    xxhash_rust::xxh3::xxh3_64_with_seed(entries, id).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(key: u128) -> Entry {
        Entry { key, pos: 1, seq: 2, digest: 3 }
    }

    proptest! {
        #[test]
        fn finds_what_is_in_it_and_nothing_else(
            keys in prop::collection::btree_set(0..400_u128, 1..=ENTRIES_PER_BLOCK),
        ) {
            let entries: Vec<_> = keys.iter().copied().map(entry).collect();
            let bytes = pack(7, &entries);
            let block = Block::check(7, &bytes).unwrap();
            for key in 0..400 {
                prop_assert_eq!(block.find(key), keys.contains(&key).then(|| entry(key)));
            }
            prop_assert_eq!(block.entries().collect::<Vec<_>>(), entries);
        }
    }

    #[test]
    fn damage_is_found() {
        let bytes = pack(7, &[entry(1), entry(2)]);
        assert!(Block::check(8, &bytes).is_none(), "another block's place");
        assert!(Block::check(7, &bytes[..40]).is_none(), "cut short");
        assert!(Block::check(7, &[]).is_none());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(Block::check(7, &flipped).is_none(), "a flipped bit at {at}");
        }
    }

    #[test]
    fn a_full_block_fits_into_a_page() {
        let entries: Vec<_> = (0..ENTRIES_PER_BLOCK as u128).map(entry).collect();
        // One byte for the length of the record's head, three for the type of the blob.
        assert!(pack(1, &entries).len() + 4 <= 4_061);
    }
}
