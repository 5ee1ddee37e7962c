//! A static filter: is a key in a run? No, or probably.
//!
//! A split block Bloom filter (the one of the Parquet format): each key sets one bit in each of eight words of
//! one block of 32 bytes, so that a question touches one cache line. The block is chosen by the key's upper
//! bits, so that a filter is filled from front to back by keys in their order.

/// Bits for each key. Twelve give about one false "probably" in 200 questions.
const BITS_PER_KEY: u64 = 12;

const WORDS: usize = 8;
const BLOCK_BITS: u64 = WORDS as u64 * 32;

/// Odd multipliers that spread a key's lower bits over the words (Parquet format, "Bloom filter").
const SALTS: [u32; WORDS] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// A filter over the keys of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    blocks: Vec<[u32; WORDS]>,
}

impl Filter {
    /// A filter without keys, sized for so many.
    pub(super) fn for_keys(keys: u64) -> Self {
        Self { blocks: vec![[0; WORDS]; blocks_for(keys)] }
    }

    /// The bytes of a filter for so many keys.
    pub(super) fn bytes_for(keys: u64) -> usize {
        blocks_for(keys) * WORDS * 4
    }

    pub(super) fn insert(&mut self, key: u128) {
        let at = self.block_of(key);
        for (word, bit) in self.blocks[at].iter_mut().zip(mask(key)) {
            *word |= bit;
        }
    }

    /// Whether the key may have been inserted; certain where it says no.
    pub(super) fn may_contain(&self, key: u128) -> bool {
        let block = &self.blocks[self.block_of(key)];
        // All words, also where the first says no: a branch that is guessed wrong takes longer.
        block.iter().zip(mask(key)).fold(0, |missing, (word, bit)| missing | (!word & bit)) == 0
    }

    /// The filter as bytes, little endian.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.blocks.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The filter in these bytes; `None` where they are not whole blocks.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (blocks, rest) = bytes.as_chunks::<{ WORDS * 4 }>();
        let words = |block: &[u8; WORDS * 4]| {
            let (words, _) = block.as_chunks::<4>();
            std::array::from_fn(|word| u32::from_le_bytes(words[word]))
        };
        (rest.is_empty() && !blocks.is_empty()).then(|| Self { blocks: blocks.iter().map(words).collect() })
    }

    #[expect(clippy::cast_possible_truncation, reason = "the upper half of a product with a length is less")]
    fn block_of(&self, key: u128) -> usize {
        let upper = key >> 64;
        ((upper * self.blocks.len() as u128) >> 64) as usize
    }
}

fn blocks_for(keys: u64) -> usize {
    usize::try_from((keys * BITS_PER_KEY).div_ceil(BLOCK_BITS).max(1)).unwrap_or(usize::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower bits are as random as the others")]
fn mask(key: u128) -> [u32; WORDS] {
    let lower = key as u32;
    SALTS.map(|salt| 1 << (lower.wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_says_no_to_a_key_that_is_in_it(keys in prop::collection::vec(any::<u128>(), 0..300)) {
            let mut filter = Filter::for_keys(keys.len() as u64);
            for key in &keys {
                filter.insert(*key);
            }
            let again = Filter::from_bytes(&filter.to_bytes()).unwrap();
            prop_assert_eq!(&again, &filter);
            prop_assert!(keys.iter().all(|key| again.may_contain(*key)));
        }
    }

    #[test]
    fn says_yes_wrongly_about_once_in_two_hundred() {
        let hasher = crate::store::index::Hasher::new(&[7; 16]);
        let mut filter = Filter::for_keys(100_000);
        for number in 0..100_000 {
            filter.insert(hasher.key(number, ""));
        }
        let wrong = (100_000..200_000).filter(|number| filter.may_contain(hasher.key(*number, ""))).count();
        assert!(wrong < 600, "{wrong} of 100,000");
    }

    #[test]
    fn bytes_that_are_no_filter_are_refused() {
        assert_eq!(Filter::from_bytes(&[]), None);
        assert_eq!(Filter::from_bytes(&[0; 31]), None);
        assert!(Filter::from_bytes(&[0; 64]).is_some());
    }
}
