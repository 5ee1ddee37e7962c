//! Bodies: whatever is sent, what is taken for an event keeps every rule, and each item is valid or invalid.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sekali::domain::{check_name, check_payload, check_timestamp};
use sekali::intake::{self, Format, Limits};

const LIMITS: Limits = Limits { items: 50, item_bytes: 2_000, depth: 10 };

fuzz_target!(|data: &[u8]| {
    for format in [Format::Json, Format::NdJson] {
        let Ok(parsed) = intake::events(data, format, LIMITS) else { continue };
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
    if let Ok(keys) = intake::keys(data, LIMITS) {
        assert!(keys.valid.len() + keys.invalid.len() <= LIMITS.items);
    }
});
