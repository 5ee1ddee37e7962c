//! A disk that fails: 503 with `Retry-After`, reads go on, and everything heals by itself. A failed sync is believed
//! by nobody.

use std::thread;

use fuser::Errno;
use sekali::api::Code;

use super::disk::{Call, Cut, Fault};
use super::load::Load;
use super::mount::Disk;
use super::{CONFIG, Case, stop_and_examine};
use crate::support::{Process, event, say, until};

/// Faults that go away by themselves, and after how many calls they come.
const PASSING: [(Call, Errno); 4] = [
    (Call::Sync, Errno::EIO),
    (Call::Sync, Errno::ENOSPC),
    (Call::Write, Errno::EIO),
    (Call::Write, Errno::ENOSPC),
];

/// Faults that stay until somebody mends the disk; the last one is a file system that is remounted read-only.
const STAYING: [(Call, Errno); 4] = [
    (Call::Sync, Errno::EIO),
    (Call::Write, Errno::EIO),
    (Call::Write, Errno::ENOSPC),
    (Call::Change, Errno::EROFS),
];

const AFTER: [u64; 3] = [0, 1, 5];

/// Cuts the power after a fault, and checks what is there when it comes back.
async fn check_after_a_cut(case: &mut Case, disk: &mut Disk, process: Process) {
    disk.die();
    drop(process);
    disk.revive(Cut::Wholly, &mut case.rng);
    let process = Process::configured(disk.path(), CONFIG);
    case.check(&process).await;
}

/// Has the doctor look at what is left, and says how much was seen.
async fn end(case: &Case, disk: &Disk, what: &str) {
    stop_and_examine(Process::configured(disk.path(), CONFIG), disk.path()).await;
    let (answers, failed) = (case.history.acknowledged(), disk.failed());
    say(&format!("{what}: {answers} acknowledged events, {failed} failed calls"));
}

// invariant 5: an outcome that is not known is never a success; what a failed sync was to write is written again.
#[actix_web::test]
async fn a_call_that_fails_once_loses_nothing_even_with_a_power_cut_behind_it() {
    let mut case = Case::new("faults that pass");
    let Some(mut disk) = Disk::new("faults that pass") else { return };
    for (call, errno) in PASSING {
        for after in AFTER {
            let process = Process::configured(disk.path(), CONFIG);
            case.check(&process).await;
            let before = disk.failed();
            disk.break_with(Some(Fault { call, errno, after, failures: 1 }));
            let load = case.send(&process, || disk.failed() > before).await;
            until("the log is ready again", async || process.is_ready().await).await;
            let syncs = disk.syncs();
            until("it goes on", async || disk.syncs() > syncs + 5).await;
            case.history.add(load.finish());
            case.check(&process).await;
            check_after_a_cut(&mut case, &mut disk, process).await;
        }
    }
    end(&case, &disk, "faults that pass").await;
}

// invariant 2: a commit whose sync failed may look whole to the next process, which must not let it be lost then.
#[actix_web::test]
async fn what_a_failed_sync_left_is_durable_before_the_next_process_speaks_of_it() {
    let mut case = Case::new("a kill after a failed sync");
    for after in [3, 11, 20, 30] {
        let Some(mut disk) = Disk::new("a kill after a failed sync") else { return };
        let process = Process::configured(disk.path(), CONFIG);
        let load = case.send(&process, || true).await;
        case.history.add(load.finish());
        let before = disk.failed();
        disk.break_with(Some(Fault { call: Call::Sync, errno: Errno::EIO, after, failures: u64::MAX }));
        let load = Load::start(process.address(), 3, &mut case.rng, &case.pool);
        while disk.failed() == before {
            thread::yield_now();
        }
        drop(process);
        case.history.add(load.finish());
        disk.break_with(None);

        let process = Process::configured(disk.path(), CONFIG);
        case.check(&process).await;
        let load = case.send(&process, || true).await;
        case.history.add(load.finish());
        check_after_a_cut(&mut case, &mut disk, process).await;
        case.begin_anew();
    }
}

#[actix_web::test]
async fn a_disk_that_fails_is_503_until_it_is_mended_and_reads_go_on() {
    let mut case = Case::new("faults that stay");
    let Some(mut disk) = Disk::new("faults that stay") else { return };
    for (call, errno) in STAYING {
        for after in AFTER {
            let process = Process::configured(disk.path(), CONFIG);
            case.check(&process).await;
            disk.break_with(Some(Fault { call, errno, after, failures: u64::MAX }));
            let load = case.send_until_refused(&process).await;
            process.publish(event("other", "refused")).await.problem(Code::StoreUnavailable);
            case.history.add(load.finish());
            case.check(&process).await;
            disk.break_with(None);
            until("the log is ready again", async || process.is_ready().await).await;
            let load = case.send(&process, || true).await;
            case.history.add(load.finish());
            case.check(&process).await;
            check_after_a_cut(&mut case, &mut disk, process).await;
        }
    }
    end(&case, &disk, "faults that stay").await;
}
