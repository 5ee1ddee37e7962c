//! The digests of two payloads: equal or not as their trees are, and as another parser sees it where that is exact.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|texts: (&str, &str)| sekali::domain::fuzzing::compare_payloads(texts.0, texts.1));
