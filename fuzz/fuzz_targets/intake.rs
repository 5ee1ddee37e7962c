//! Bodies: whatever is sent, what is taken for an event keeps every rule, and each item is valid or invalid.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| sekali::intake::fuzzing::read_bodies(data));
