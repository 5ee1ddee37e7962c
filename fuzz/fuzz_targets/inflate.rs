//! Compressed bodies: the same in one piece and in many, within the limit, and all that was charged is given back.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| sekali::http::fuzzing::inflate(data));
