//! The comparison of payloads, for the fuzzer (`cfg(fuzzing)`) and the inputs that it found.

use serde_json::Value;

use super::PayloadHasher;
use super::oracle;

/// Compares two payloads by their digests: as trees of them compare, and as another parser sees it where that is
/// exact.
///
/// # Panics
/// Where that does not hold.
pub fn compare_payloads(left: &str, right: &str) {
    let parse = |text| serde_json::from_str::<Value>(text).ok();
    let (Some(one), Some(other)) = (parse(left), parse(right)) else { return };
    let hasher = PayloadHasher::new(&[7; 16]);
    let same = hasher.digest(left, |_| ()) == hasher.digest(right, |_| ());
    assert_eq!(same, oracle::same_value(left, right), "{left} {right}");
    if is_exact(&one) && is_exact(&other) {
        assert_eq!(same, one == other, "{left} {right}");
    }
}

/// Whether every number in it is a whole one that the other parser keeps exactly.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_i64() || number.is_u64(),
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use arbitrary::{Arbitrary, Unstructured};

    use super::*;
    use crate::domain::testing::replay;

    #[test]
    fn inputs_that_a_fuzzer_found_are_compared_rightly() {
        replay("payloads", |data| {
            if let Ok((left, right)) = Arbitrary::arbitrary_take_rest(Unstructured::new(data)) {
                compare_payloads(left, right);
            }
        });
    }
}
