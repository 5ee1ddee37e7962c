//! invariant 10: one process owns a store, by an operating system's lock on a file beside it.
//!
//! Not a lock on the database file: closing any handle on that would drop SQLite's own locks. Not SQLite's
//! `locking_mode=EXCLUSIVE`: other tools may read the store. The lock goes with the process, however it ends.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::files;
use super::mark::lock_path;
use super::schema;
use crate::store::StoreError;

/// How long to wait for an owner that is about to go: a process that was killed holds its lock until the system
/// has taken back all of its memory. Well under the 5 s within which a second process is told that it may not.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// The lock, held while this lives.
#[derive(Debug)]
pub(super) struct Ownership {
    /// None where whoever only reads found none, and may make none.
    lock: Option<File>,
    /// The file of a lock that was made to read only, and goes with it.
    made: Option<PathBuf>,
}

/// What the lock is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Change,
    Read,
}

impl Ownership {
    /// Takes the lock of the store at `path`, waiting for [`PATIENCE`] at most. Beside a file that is certainly no store
    /// no lock is made.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        Self::take_for(path, Purpose::Change)
    }

    /// As [`Ownership::take`], for whoever changes nothing, and leaves no lock where there was none. Where it may make none,
    /// it does without: a server would have made one.
    pub(super) fn take_to_read(path: &Path) -> Result<Self, StoreError> {
        Self::take_for(path, Purpose::Read)
    }

    /// Whether this is a lock, and not only the right to read where there can be none.
    pub(super) fn may_change(&self) -> bool {
        self.lock.is_some()
    }

    fn take_for(path: &Path, purpose: Purpose) -> Result<Self, StoreError> {
        schema::refuse_foreign(path)?;
        let begun = Instant::now();
        loop {
            match Self::try_take(path, purpose) {
                Err(StoreError::Owned { .. }) if begun.elapsed() < PATIENCE => thread::sleep(PAUSE),
                taken => return taken,
            }
        }
    }

    fn try_take(path: &Path, purpose: Purpose) -> Result<Self, StoreError> {
        let lock_path = lock_path(path);
        let failed = |error| StoreError::Unavailable(format!("{}: {error}", lock_path.display()));
        let owned = || StoreError::Owned { path: path.display().to_string() };
        let (lock, is_new) = match open(&lock_path, path) {
            Err(error) if purpose == Purpose::Read && may_not_write(&error) => {
                let Some(lock) = found(&lock_path).map_err(failed)? else {
                    return Ok(Self { lock: None, made: None });
                };
                (lock, false)
            }
            opened => opened.map_err(failed)?,
        };
        match lock.try_lock() {
            // A reader that was done may have removed it between its opening and its locking: the next look finds another.
            Ok(()) if !is_named(&lock_path, &lock).map_err(failed)? => Err(owned()),
            Ok(()) => Ok(Self {
                lock: Some(lock),
                made: Some(lock_path).filter(|_| is_new && purpose == Purpose::Read),
            }),
            Err(TryLockError::WouldBlock) => Err(owned()),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        if let Some(path) = &self.made {
            // While the lock is held, so that it is nobody else's. Left behind it does no harm.
            let _ = fs::remove_file(path);
        }
    }
}

/// Opens the file of a lock, making it where it is missing, and tells whether it was.
fn open(lock_path: &Path, store: &Path) -> io::Result<(File, bool)> {
    match files::make_beside(lock_path, store) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((files::open(lock_path)?, false)),
        made => Ok((made?, true)),
    }
}

/// Opens the file of a lock that may only be read, where there is one.
fn found(lock_path: &Path) -> io::Result<Option<File>> {
    match File::open(lock_path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn may_not_write(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Whether the file still has this name.
fn is_named(lock_path: &Path, lock: &File) -> io::Result<bool> {
    let locked = lock.metadata()?;
    match fs::metadata(lock_path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (locked.dev(), locked.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn a_lock_that_was_removed_and_made_anew_is_not_owned() {
        // invariant 10: who holds the first of them would own the store beside whoever holds the second.
        let home = tempdir().unwrap();
        let store = home.path().join("log.db");
        let path = lock_path(&store);
        let (first, _) = open(&path, &store).unwrap();
        assert!(is_named(&path, &first).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_named(&path, &first).unwrap());
        let (second, _) = open(&path, &store).unwrap();
        assert!(!is_named(&path, &first).unwrap() && is_named(&path, &second).unwrap());
    }

    #[test]
    fn a_reader_removes_the_lock_that_it_made_and_no_other() {
        let home = tempdir().unwrap();
        let store = home.path().join("log.db");
        let lock = lock_path(&store);
        drop(Ownership::take_to_read(&store).unwrap());
        assert!(!lock.exists());
        drop(Ownership::take(&store).unwrap());
        drop(Ownership::take_to_read(&store).unwrap());
        assert!(lock.exists(), "somebody may have it open, to lock it next");
    }
}
