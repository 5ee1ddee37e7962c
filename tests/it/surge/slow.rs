//! Clients that send a byte a second, and clients that do not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::tempdir;

use super::producers::{Plan, check, goodput, run};
use super::{lasting, memory, or_long};
use crate::support::{Process, Raw, alone, array, event_with, say};

/// What a slow reader may take of the log's memory: two pages of events, one as text, one in its socket's buffer, of
/// 1 MiB each. In bytes.
const EACH_READER: u64 = 4 << 20;

/// What may come and go beside, the page caches of the store's readers among it, in bytes.
const BESIDE: u64 = 48 << 20;

/// The longest that readers may take before they are stalled.
const PATIENCE: Duration = Duration::from_mins(1);

/// Sends a body of spaces, a byte a second.
fn send_slowly(mut raw: Raw, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        raw.send(" ");
        thread::park_timeout(Duration::from_secs(1));
    }
}

#[actix_web::test]
async fn slow_senders_and_slow_readers_harm_nobody() {
    let _alone = alone();
    let home = tempdir().unwrap();
    let process = Process::configured(home.path(), "[store]\nseal_keys = 10000\n[cache]\nkeys = 10000\n");
    // More than all sockets on the way hold, so that readers who do not read stop the stream.
    let (batches, payload) = (or_long(40_u64, 2_000), format!("{{\"text\":\"{}\"}}", "x".repeat(1_000)));
    for batch in 0..batches {
        let events = (0..500).map(|number| event_with("long", &(batch * 500 + number).to_string(), &payload));
        process.publish(array(events)).await.ok();
    }
    let alone = Plan { name: "alone", count: 4, pace: None, lasting: lasting() };
    let without = run(process.address(), alone);
    let before = memory(&process);
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let mut raw = Raw::open(process.address());
            raw.send(
                "GET /events?topic=long HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n",
            );
            raw
        })
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..50)
        .map(|_| {
            let (raw, stop) =
                (Raw::publishing(process.address(), "Content-Length: 100000\r\n"), Arc::clone(&stop));
            thread::spawn(move || send_slowly(raw, &stop))
        })
        .collect();
    // Until what is between the log and them is full, readers are as fast as any.
    let begun = Instant::now();
    let (with, kept) = loop {
        let with = run(process.address(), Plan { name: "beside", ..alone });
        let kept = goodput(&with, alone) / goodput(&without, alone);
        if kept >= or_long(0.1, 0.8) || begun.elapsed() > lasting() + PATIENCE {
            break (with, kept);
        }
    };
    let after = memory(&process);
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.thread().unpark();
        // One that the log has given up meanwhile could not send any more.
        drop(sender.join());
    }
    say(&format!(
        "slow clients: 50 senders and {} readers leave {kept:.2} of the rate; memory {} MiB, then {} MiB",
        readers.len(),
        before >> 20,
        after >> 20
    ));
    assert!(kept >= or_long(0.1, 0.8), "{kept:.2} of the rate is left");
    assert!(after < before + readers.len() as u64 * EACH_READER + BESIDE, "from {before} to {after} bytes");
    check(&process, &with).await;
}
