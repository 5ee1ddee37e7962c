//! Ids that look like random UUIDs and are a function of a number, so that any earlier one can be repeated
//! without keeping it.

/// Numbers have at most so many bits. A UUID of version 4 has 122 that are free; these are the ones around its
/// version, and the other 62 follow from them.
pub(super) const NUMBER_BITS: u32 = 60;

const MASK: u64 = (1 << NUMBER_BITS) - 1;

/// Bytes of a UUID as text.
pub(super) const ID_BYTES: usize = 36;

/// Spreads all bits over all others. From `SplitMix64` (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators, 2014).
pub(super) fn spread(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// The same within [`NUMBER_BITS`]: shifts and odd factors stay invertible there, so two numbers never meet.
pub(super) fn shuffle(seed: u64, number: u64) -> u64 {
    let mut bits = (number ^ spread(seed)) & MASK;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9) & MASK;
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) & MASK;
    bits ^ (bits >> 31)
}

/// Writes the UUID that belongs to shuffled bits.
pub(super) fn write_id(shuffled: u64, out: &mut Vec<u8>) {
    let high = ((shuffled >> 12) << 16) | 0x4000 | (shuffled & 0x0FFF);
    let low = (spread(shuffled) >> 2) | (1 << 63);
    hex(high, 8..16, out);
    out.push(b'-');
    hex(high, 4..8, out);
    out.push(b'-');
    hex(high, 0..4, out);
    out.push(b'-');
    hex(low, 12..16, out);
    out.push(b'-');
    hex(low, 0..12, out);
}

/// Writes these hexadecimal digits of a number; digit 0 is the last one.
fn hex(bits: u64, digits: std::ops::Range<u32>, out: &mut Vec<u8>) {
    for digit in digits.rev() {
        out.push(b"0123456789abcdef"[((bits >> (4 * digit)) & 0xF) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn id(seed: u64, number: u64) -> String {
        let mut out = Vec::new();
        write_id(shuffle(seed, number), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_number_has_an_id_of_its_own_in_the_form_of_version_4() {
        let ids: HashSet<_> = (0..200_000).map(|number| id(1, number)).collect();
        assert_eq!(ids.len(), 200_000);
        for id in ids {
            let parts: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!((id.len(), parts), (ID_BYTES, vec![8, 4, 4, 4, 12]));
            assert!(id.as_bytes()[14] == b'4' && b"89ab".contains(&id.as_bytes()[19]), "{id}");
        }
    }

    /// The number that an odd factor takes to 1, modulo 2^64: each round doubles the bits that are right.
    fn inverse(factor: u64) -> u64 {
        (0..6).fold(factor, |guess, _| guess.wrapping_mul(2_u64.wrapping_sub(factor.wrapping_mul(guess))))
    }

    /// What `bits ^ (bits >> by)` was made of.
    fn unshift(shifted: u64, by: u32) -> u64 {
        (0..NUMBER_BITS / by).fold(shifted, |bits, _| shifted ^ (bits >> by))
    }

    #[test]
    fn shuffled_bits_can_be_put_back_so_that_no_two_numbers_meet() {
        for number in [0, 1, 2, 12_345, 49_999_999, 1 << 40, MASK] {
            let mut bits = unshift(shuffle(7, number), 31);
            bits = unshift(bits.wrapping_mul(inverse(0x94D0_49BB_1331_11EB)) & MASK, 27);
            bits = unshift(bits.wrapping_mul(inverse(0xBF58_476D_1CE4_E5B9)) & MASK, 30);
            assert_eq!(bits ^ (spread(7) & MASK), number);
        }
    }

    #[test]
    fn ids_are_spread_over_their_whole_range() {
        let first_digits: HashSet<_> = (0..1000).map(|number| id(1, number).as_bytes()[0]).collect();
        assert_eq!(first_digits.len(), 16);
        assert_ne!(id(1, 5), id(2, 5));
        assert_eq!(id(1, 5), id(1, 5));
    }
}
