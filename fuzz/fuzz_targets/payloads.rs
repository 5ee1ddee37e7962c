//! Two payloads: the same value or not, in either order, and as another parser sees it where that is exact.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sekali::domain::same_value;
use serde_json::Value;

/// Whether every number in it is a whole one that the other parser keeps exactly.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_i64() || number.is_u64(),
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        _ => true,
    }
}

fuzz_target!(|texts: (&str, &str)| {
    let (left, right) = texts;
    let parse = |text| serde_json::from_str::<Value>(text).ok();
    let (Some(one), Some(other)) = (parse(left), parse(right)) else { return };
    let same = same_value(left, right);
    assert!(same_value(left, left) && same_value(right, right), "a value is itself");
    assert_eq!(same, same_value(right, left), "in either order");
    if is_exact(&one) && is_exact(&other) {
        assert_eq!(same, one == other, "{left} {right}");
    }
});
