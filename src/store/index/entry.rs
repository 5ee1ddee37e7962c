//! What the index knows of one key, in 32 bytes.

use siphasher::sip128::SipHasher13;

/// The bytes of an entry in a block.
pub(super) const ENTRY_BYTES: usize = 32;

/// The largest position and seq: 5 bytes each, a million million.
pub(in crate::store) const MAX_NUMBER: u64 = (1 << 40) - 1;

/// The bits of a digest that are kept.
const DIGEST_MASK: u64 = (1 << 48) - 1;

/// What the index knows of one key. Ordered by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Entry {
    /// The keyed hash of topic and id.
    pub(in crate::store) key: u128,
    /// The place of the event in the log.
    pub(in crate::store) pos: u64,
    /// Its seq in its topic.
    pub(in crate::store) seq: u64,
    /// The keyed hash of its payload's bytes, 48 bits: equal digests mean equal payloads.
    pub(in crate::store) digest: u64,
}

impl Entry {
    /// The entry of a key, from what [`Entry::packed`] gave.
    pub(super) fn unpack(key: u128, packed: u128) -> Self {
        let bits = |shift: u32, max: u64| u64::try_from(packed >> shift & u128::from(max)).unwrap_or(max);
        Self { key, pos: bits(88, MAX_NUMBER), seq: bits(48, MAX_NUMBER), digest: bits(0, DIGEST_MASK) }
    }

    /// Position, seq and digest: 40, 40 and 48 bits.
    pub(super) fn packed(self) -> u128 {
        debug_assert!(self.pos <= MAX_NUMBER && self.seq <= MAX_NUMBER, "a log has fewer than 2^40 events");
        u128::from(self.pos) << 88 | u128::from(self.seq) << 48 | u128::from(self.digest)
    }

    /// An entry as it is stored.
    pub(in crate::store) fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        let (key, rest) = bytes.split_at_mut(16);
        key.copy_from_slice(&self.key.to_be_bytes());
        rest.copy_from_slice(&self.packed().to_be_bytes());
        bytes
    }

    /// The entry in these bytes.
    pub(super) fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let number = |half: &[u8]| half.iter().fold(0, |number, byte| number << 8 | u128::from(*byte));
        let (key, packed) = bytes.split_at(16);
        Self::unpack(number(key), number(packed))
    }
}

/// Makes keys and digests with the store's own secret, so that nobody can aim at a collision.
#[derive(Clone)]
pub(in crate::store) struct Hasher(SipHasher13);

impl Hasher {
    pub(in crate::store) fn new(secret: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(secret))
    }

    /// The key of an id in a topic, by the topic's number.
    pub(in crate::store) fn key(&self, topic: i64, event_id: &str) -> u128 {
        use std::hash::Hasher as _;

        use siphasher::sip128::Hasher128;
        let mut hasher = self.0;
        hasher.write(&topic.to_le_bytes());
        hasher.write(event_id.as_bytes());
        hasher.finish128().as_u128()
    }

    /// The digest of a payload.
    pub(in crate::store) fn digest(&self, payload: &[u8]) -> u64 {
        self.0.hash(payload).h1 & DIGEST_MASK
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_entry_comes_back(key: u128, pos in 0..=MAX_NUMBER, seq in 0..=MAX_NUMBER, digest in 0..=DIGEST_MASK) {
            let entry = Entry { key, pos, seq, digest };
            prop_assert_eq!(Entry::from_bytes(&entry.to_bytes()), entry);
        }

        #[test]
        fn the_order_of_bytes_is_the_order_of_keys(left: u128, right: u128) {
            let bytes = |key| Entry { key, pos: 0, seq: 0, digest: 0 }.to_bytes();
            prop_assert_eq!(bytes(left).cmp(&bytes(right)), left.cmp(&right));
        }
    }

    #[test]
    fn keys_depend_on_secret_topic_and_id() {
        let hasher = Hasher::new(&[1; 16]);
        assert_eq!(hasher.key(1, "a"), hasher.clone().key(1, "a"));
        assert_ne!(hasher.key(1, "a"), hasher.key(2, "a"));
        assert_ne!(hasher.key(1, "a"), hasher.key(1, "b"));
        assert_ne!(hasher.key(1, "a"), Hasher::new(&[2; 16]).key(1, "a"));
    }
}
