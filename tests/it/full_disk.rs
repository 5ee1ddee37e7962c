//! A disk without room: 503, reads go on, nothing is doubled afterwards.
//!
//! A disk that turns read-only cannot be had here: the kernel refuses to remount one with files open for
//! writing (EBUSY). `process_limits` makes every write fail in another way.

use std::fs;

use sekali::api::Code;

use crate::support::disk::SmallDisk;
use crate::support::{Client, Log, event_with, everything, seqs, until};

/// Publishes are taken until the disk has nothing left.
const WITHOUT_RESERVE: &str = "[limits]\nfree_disk = 0\n";

/// Events of 16 KiB.
fn large(number: usize) -> String {
    event_with("t", &number.to_string(), &format!("{{\"text\":\"{}\"}}", "x".repeat(16 << 10)))
}

/// Publishes until the log refuses, and gives how many events were accepted.
async fn publish_until_refused(log: &Client) -> usize {
    for number in 0..10_000 {
        let answer = log.publish(large(number)).await;
        if answer.status != 200 {
            answer.problem(Code::StoreUnavailable);
            return number;
        }
        assert_eq!(answer.fates(), [format!("accepted {}", number + 1)]);
    }
    panic!("the disk is never full");
}

#[actix_web::test]
async fn a_full_disk_is_503_and_the_same_event_is_accepted_once_there_is_room() {
    // invariant 4: an event and its counters change together, or not at all.
    // invariant 5: a commit that failed, also in its middle, is never a success and never a duplicate.
    let Some(disk) = SmallDisk::of_kib(6_144, "a full disk") else { return };
    let log = Log::inside(disk.path(), WITHOUT_RESERVE);
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 4 << 20]).unwrap();
    let accepted = publish_until_refused(&log).await;
    assert!(accepted > 0);
    check_reads(&log, accepted).await;
    assert!(!log.is_ready().await);
    log.publish(large(accepted)).await.problem(Code::StoreUnavailable);

    fs::remove_file(ballast).unwrap();
    until("the log is ready again", async || log.is_ready().await).await;
    assert_eq!(log.publish(large(accepted)).await.fates(), [format!("accepted {}", accepted + 1)]);
    assert_eq!(log.publish(large(0)).await.fates(), ["duplicate 1"]);
    check_reads(&log, accepted + 1).await;
    check_reads(&log.restarted_with(WITHOUT_RESERVE), accepted + 1).await;
}

#[actix_web::test]
async fn a_disk_that_is_full_at_once_recovers_as_well() {
    let Some(disk) = SmallDisk::of_kib(2_048, "a disk that is full at once") else { return };
    let log = Log::inside(disk.path(), WITHOUT_RESERVE);
    log.publish(large(0)).await.ok();
    let ballast = disk.fill();
    for _ in 0..2 {
        log.publish(large(1)).await.problem(Code::StoreUnavailable);
    }
    check_reads(&log, 1).await;
    fs::remove_file(ballast).unwrap();
    until("the event is accepted", async || log.publish(large(1)).await.status == 200).await;
    assert_eq!(log.publish(large(1)).await.fates(), ["duplicate 2"]);
    check_reads(&log, 2).await;
}

/// Everything accepted is there once, and the counts agree.
async fn check_reads(log: &Client, accepted: usize) {
    let events = everything(log, "t").await;
    assert_eq!(seqs(&events), (1..=accepted as u64).collect::<Vec<_>>());
    let [received, unique, duplicates, ..] = log.totals("persistent").await;
    assert_eq!((received, unique), (unique + duplicates, accepted as u64));
    assert_eq!(log.read("/topics/t").await["accepted"], accepted);
}

#[actix_web::test]
async fn a_disk_that_is_nearly_full_refuses_publishes_and_nothing_else() {
    let Some(disk) = SmallDisk::of_kib(16_384, "a disk that is nearly full") else { return };
    let log = Log::inside(disk.path(), "[limits]\nfree_disk = \"4MiB\"\n");
    log.publish(large(0)).await.ok();
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 12 << 20]).unwrap();
    until("the log sees it", async || !log.is_ready().await).await;
    let refused = log.publish(large(1)).await;
    refused.problem(Code::DiskLow);
    assert_eq!(refused.header("retry-after"), Some("10"));
    log.get("/health/ready").await.problem(Code::DiskLow);
    log.get("/health/live").await.ok();
    check_reads(&log, 1).await;
    assert!(log.metric("sekali_store_disk_free_bytes").await < f64::from(4 << 20));
    fs::remove_file(ballast).unwrap();
    until("the log is ready again", async || log.is_ready().await).await;
    assert_eq!(log.publish(large(1)).await.fates(), ["accepted 2"], "nothing of it was stored");
}

#[actix_web::test]
async fn a_store_over_its_limit_refuses_publishes_and_nothing_else() {
    let log = Log::configured("[limits]\nstore_bytes = \"1MiB\"\n");
    let mut accepted = 0;
    let refused = loop {
        let answer = log.publish(large(accepted)).await;
        if answer.status != 200 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 100_000, "the store has no limit");
    };
    refused.problem(Code::StoreFull);
    check_reads(&log, accepted).await;
    log.get("/health/ready").await.problem(Code::StoreFull);
    let log = log.restarted_with("[limits]\nstore_bytes = \"10GiB\"\n");
    assert_eq!(log.publish(large(accepted)).await.fates(), [format!("accepted {}", accepted + 1)]);
}
