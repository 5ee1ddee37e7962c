//! What the store reads of its index: blocks, filters with fences, segments of positions.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| sekali::store::fuzzing::read_index(data));
