//! The text of a configuration file, for the fuzzer (`cfg(fuzzing)`) and the inputs that it found.

use super::raw::{Overrides, Raw};
use super::validate::validate;

/// Reads a configuration: refused with reasons, or settings that keep every bound.
///
/// # Panics
/// Where it is neither.
pub fn read_file(text: &str) {
    let overrides = Overrides::default();
    match Raw::new(Some(("fuzzed.toml", text)), &overrides).and_then(|raw| validate(&raw)) {
        Ok(settings) => {
            assert!(settings.limits.event <= settings.limits.body);
            assert!(settings.limits.body <= settings.limits.in_flight_bytes / 5);
            assert!((1_000..=16_000_000).contains(&settings.store.seal_keys));
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::replay;

    #[test]
    fn files_that_a_fuzzer_found_are_refused_or_keep_every_bound() {
        replay("config", |data| {
            if let Ok(text) = str::from_utf8(data) {
                read_file(text);
            }
        });
    }
}
