//! Ten times the load that it can take.

use std::time::Duration;

use tempfile::tempdir;

use super::producers::{BATCH, Plan, Seen, check, goodput, p99, run};
use super::{lasting, memory, or_long};
use crate::support::{Process, alone, array, event, say};

/// Connections that are enough for the peak; as many batches may be in flight.
const BUSY: u64 = 4;

/// How many times as many there are under overload.
const TIMES: u64 = 10;

/// What requests in flight, their connections and the filters of what comes meanwhile may take beside what the log has at its
/// peak, in bytes. The hot caches are small here: they fill with what comes, to what is configured.
const MORE: u64 = 48 << 20;

// invariant 8: memory is bounded, whatever is offered.
#[actix_web::test]
async fn ten_times_the_load_keeps_the_goodput_and_the_rest_is_refused_at_once() {
    let _alone = alone();
    let home = tempdir().unwrap();
    let config = format!(
        "[limits]\nin_flight_events = {}\nbatch_events = {}\n[store]\nseal_keys = 10000\n[cache]\nkeys = 10000\n",
        2 * BUSY * BATCH,
        BUSY * BATCH
    );
    let process = Process::configured(home.path(), &config);
    let peak = Plan { name: "peak", count: BUSY, pace: None, lasting: lasting() };
    let at_peak = run(process.address(), peak);
    let rate = goodput(&at_peak, peak);
    let before = memory(&process);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let pace = Duration::from_secs_f64((BUSY * BATCH) as f64 / rate);
    let tenfold = Plan { name: "tenfold", count: BUSY * TIMES, pace: Some(pace), lasting: lasting() };
    let seen = run(process.address(), tenfold);
    let after = memory(&process);
    // Again, since a store that grows, and a machine that others use, are not as fast as they were.
    let again = run(process.address(), Plan { name: "again", ..peak });
    let kept = goodput(&seen, tenfold) * 2.0 / (rate + goodput(&again, peak));
    let times = |of: fn(&Seen) -> &Vec<Duration>| p99(seen.iter().flat_map(of).copied());
    let (accepted, refused) = (times(|seen| &seen.accepted_in), times(|seen| &seen.refused_in));
    let refusals: usize = seen.iter().map(|seen| seen.refused_in.len()).sum();
    say(&format!(
        "tenfold: {rate:.0} events/s at the peak, {:.0} after it, {kept:.2} of their mean kept, {refusals} requests refused; p99 of accepted {accepted:?}, of \
         refused {refused:?}; memory {} MiB, then {} MiB",
        goodput(&again, peak),
        before >> 20,
        after >> 20
    ));
    assert!(refusals > 0, "it is too much");
    // The producers take their share of the same cores, and so may others: only a long run, on a
    // machine of its own, says how much is left.
    assert!(kept >= or_long(0.05, 0.8), "of the peak {kept:.2} is left");
    let hang = Duration::from_mins(1);
    let (longest, at_once) = or_long((hang, hang), (Duration::from_secs(2), Duration::from_secs(1)));
    assert!(accepted < longest && refused < at_once, "{accepted:?} {refused:?}");
    assert!(after < before + MORE, "memory grew from {before} to {after} bytes");
    process.publish(array([event("after", "1")])).await.ok();
    check(&process, &at_peak).await;
    check(&process, &seen).await;
    check(&process, &again).await;
}
