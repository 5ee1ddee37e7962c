//! Configuration files: refused with reasons, or settings that keep every bound.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| sekali::config::fuzzing::read_file(text));
