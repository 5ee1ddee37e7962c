//! invariant 10: one process owns a store, by an operating system's lock on a file beside it.
//!
//! Not a lock on the database file: closing any handle on that would drop SQLite's own locks. Not SQLite's
//! `locking_mode=EXCLUSIVE`: other tools may read the store. The lock goes with the process, however it ends.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::store::StoreError;

/// The lock, held while this lives.
#[derive(Debug)]
pub(super) struct Ownership {
    _lock: File,
}

impl Ownership {
    /// Takes the lock of the store at `path`, at once or not at all.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
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
