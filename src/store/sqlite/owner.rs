//! invariant 10: one process owns a store, by an operating system's lock on a file beside it.
//!
//! Not a lock on the database file: closing any handle on that would drop SQLite's own locks. Not SQLite's
//! `locking_mode=EXCLUSIVE`: other tools may read the store. The lock goes with the process, however it ends.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::store::StoreError;

/// How long to wait for an owner that is about to go: a process that was killed holds its lock until the system
/// has taken back all of its memory. Well under the 5 s within which a second process is told that it may not.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// The lock, held while this lives.
#[derive(Debug)]
pub(super) struct Ownership {
    _lock: File,
}

impl Ownership {
    /// Takes the lock of the store at `path`, waiting for [`PATIENCE`] at most.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let begun = Instant::now();
        loop {
            match Self::try_take(path) {
                Err(StoreError::Owned { .. }) if begun.elapsed() < PATIENCE => thread::sleep(PAUSE),
                taken => return taken,
            }
        }
    }

    fn try_take(path: &Path) -> Result<Self, StoreError> {
        let lock_path = lock_path(path);
        let failed = |error| StoreError::Unavailable(format!("{}: {error}", lock_path.display()));
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Owned { path: path.display().to_string() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(".lock");
    name.into()
}
