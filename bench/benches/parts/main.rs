//! How long each part of sekali takes on its own, on the public face of the crate. docs/BENCHMARKS.md says what
//! there is.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

mod appending;
mod parsing;
mod publishing;
mod reading;

use std::time::Duration;

use criterion::Criterion;
use mimalloc::MiMalloc;

/// The program's own allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// As in the comparison.
const TOPICS: u32 = 4;

/// Events that a store holds before something is added to it: each of [`MANY_TOPICS`] has some of them.
const FILLED: usize = 100_000;

/// As in the comparison of very many topics with four.
const MANY_TOPICS: u32 = 10_000;

fn main() {
    // Much shorter than criterion's own 3 s and 5 s a bench, because making what is appended takes up to three
    // times as long as appending it, and does not count: so all of them stay within three minutes.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    parsing::bodies(&mut criterion);
    parsing::payloads(&mut criterion);
    appending::groups(&mut criterion);
    reading::pages_and_keys(&mut criterion);
    publishing::requests(&mut criterion);
    criterion.final_summary();
}
