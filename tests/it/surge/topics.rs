//! Very many topics in a short time.

use std::time::Instant;

use sekali::api::Code;
use tempfile::tempdir;

use super::{memory, or_long};
use crate::support::{Process, alone, array, event, say};

/// Topics of a request.
const AT_ONCE: u64 = 1_000;

/// What one more topic may take of the log's memory: the seals, which are small here, bound what is kept of it. In bytes.
const EACH: u64 = 128;

/// What may come and go, in bytes: the allocator takes 32 MiB from the system at a time.
const BESIDE: u64 = 48 << 20;

// invariant 8: the number of topics ever seen does not grow the memory.
#[actix_web::test]
async fn very_many_topics_are_accepted_and_memory_stays() {
    let _alone = alone();
    let home = tempdir().unwrap();
    let config = "[limits]\nnew_topics_per_minute = 0\n[router]\nconsumers = 256\n[cache]\nkeys = 10000\n[store]\nseal_keys = 2000\n";
    let process = Process::configured(home.path(), config);
    let count = or_long(8_000, 100_000);
    let (begun, mut early) = (Instant::now(), 0);
    for first in (0..count / AT_ONCE).map(|request| request * AT_ONCE) {
        let events = (first..first + AT_ONCE).map(|number| event(&format!("topic {number}"), "1"));
        let answer = process.publish(array(events)).await;
        assert_eq!(answer.counts(), [AT_ONCE, AT_ONCE, 0, 0, 0]);
        if first == AT_ONCE * 3 {
            early = memory(&process);
        }
    }
    let (took, late) = (begun.elapsed(), memory(&process));
    say(&format!("topics: {count} in {took:?}, memory {} MiB, then {} MiB", early >> 20, late >> 20));
    assert_eq!(process.read("/stats").await["topics_total"], count);
    assert!(late < early + count * EACH + BESIDE, "from {early} to {late} bytes");
}

#[actix_web::test]
async fn very_many_topics_are_refused_where_a_limit_is_set() {
    let _alone = alone();
    let home = tempdir().unwrap();
    let process = Process::configured(home.path(), "[limits]\ntopics = 100\n");
    let events =
        |first: u64| array((first..first + AT_ONCE).map(|number| event(&format!("topic {number}"), "1")));
    let answer = process.publish_skipping(events(0)).await;
    assert_eq!(answer.counts(), [AT_ONCE, 100, 0, 0, AT_ONCE - 100]);
    let before = memory(&process);
    for first in (1..or_long(5, 100)).map(|request| request * AT_ONCE) {
        process.publish(events(first)).await.problem(Code::InvalidEvents);
    }
    let after = memory(&process);
    assert!(after < before + BESIDE, "from {before} to {after} bytes");
    assert_eq!(process.read("/stats").await["topics_total"], 100);
}
