//! Configuration files: refused with reasons, or settings that keep every bound.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use sekali::config::{Overrides, load};

thread_local! {
    static FILE: tempfile::TempPath =
        tempfile::NamedTempFile::new().expect("a temporary file").into_temp_path();
}

fuzz_target!(|text: &str| {
    FILE.with(|file| {
        fs::write(file, text).expect("it can be written");
        match load(Some(file), &Overrides::default()) {
            Ok(settings) => {
                assert!(settings.limits.event <= settings.limits.body);
                assert!(settings.limits.body <= settings.limits.in_flight_bytes);
                assert!((1_000..=16_000_000).contains(&settings.store.seal_keys));
            }
            Err(errors) => assert!(!errors.to_string().is_empty()),
        }
    });
});
