//! Headers: a list means the same in one line and in several.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| sekali::http::fuzzing::read_headers(data));
