//! Paths and queries: a parameter within its bounds, or refused; a name that is encoded is the same name.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| sekali::http::fuzzing::read_target(data));
