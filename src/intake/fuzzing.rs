//! The parsers of bodies, for the fuzzer (`cfg(fuzzing)`) and the inputs that it found.

use super::{Format, Limits, events, keys};
use crate::domain::{check_name, check_payload, check_timestamp};

const LIMITS: Limits = Limits { items: 50, item_bytes: 2_000, depth: 10, extra_fields: false };

/// Reads bytes as each kind of body: what is taken for an event keeps every rule.
///
/// # Panics
/// Where it does not.
pub fn read_bodies(data: &[u8]) {
    for (format, extra_fields) in
        [(Format::Json, false), (Format::NdJson, false), (Format::Json, true), (Format::NdJson, true)]
    {
        let limits = Limits { extra_fields, ..LIMITS };
        let Ok(parsed) = events(data, format, limits) else { continue };
        assert!(parsed.valid.len() + parsed.invalid.len() <= LIMITS.items);
        assert!(parsed.invalid.is_sorted_by(|one, next| one.index < next.index));
        for event in &parsed.valid {
            let parts = event.parts();
            for name in [parts.topic, parts.event_id, parts.source] {
                assert!(check_name(name).is_ok(), "{name:?}");
            }
            assert!(check_timestamp(parts.timestamp).is_ok(), "{:?}", parts.timestamp);
            assert!(parts.payload.starts_with('{') && check_payload(parts.payload, LIMITS.depth).is_ok());
            assert!(serde_json::from_str::<serde_json::Value>(parts.payload).is_ok(), "{}", parts.payload);
        }
    }
    if let Ok(found) = keys(data, LIMITS) {
        assert!(found.valid.len() + found.invalid.len() <= LIMITS.items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::replay;

    #[test]
    fn bodies_that_a_fuzzer_found_keep_the_rules() {
        replay("intake", read_bodies);
    }
}
