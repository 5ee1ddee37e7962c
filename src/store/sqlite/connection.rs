//! Opening connections, and what SQLite's errors mean here.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};

use crate::store::{Space, StoreError};

/// The page size of new stores, in bytes: SQLite's default, which matches most disks' blocks.
pub(super) const PAGE_SIZE: u32 = 4096;

/// Memory for pages of one connection, in KiB. Enough for the upper levels of the indexes.
const CACHE_KIB: i32 = 16 * 1024;

/// What SQLite adds to a database's name for the files whose content is part of the database. What else it keeps beside it
/// ([`SHM`]) is made again by whoever opens it first.
const BESIDE: [&str; 2] = [WAL, "-journal"];

const WAL: &str = "-wal";

const SHM: &str = "-shm";

/// Where the database is and how long to wait for it.
#[derive(Debug, Clone)]
pub(super) struct Database {
    pub(super) path: PathBuf,
    pub(super) lock_timeout: Duration,
}

impl Database {
    /// Opens a connection that writes. It never checkpoints by itself: see `checkpoint`.
    ///
    /// # Errors
    /// Also where the file cannot have a write-ahead log, such as on a file system without shared memory: without
    /// one, readers and the writer would lock each other out, and `synchronous` would promise less.
    pub(super) fn open_to_write(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = self.open(flags)?;
        connection.pragma_update(None, "page_size", PAGE_SIZE)?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            let path = self.path.display();
            return Err(StoreError::Unavailable(format!(
                "{path} cannot have a write-ahead log (its journal mode stays {mode:?}): put it on a local file system"
            )));
        }
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // The writer makes a topic's row before its first event; to look for it at every event would be for nothing.
        connection.pragma_update(None, "foreign_keys", false)?;
        Ok(connection)
    }

    /// Opens a connection that only reads.
    pub(super) fn open_to_read(&self) -> rusqlite::Result<Connection> {
        self.open(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
    }

    /// Opens a connection to a file that nobody changes while it is read: without locks, and with no files beside it.
    pub(super) fn open_unchanging(&self) -> rusqlite::Result<Connection> {
        let path = percent_encode(self.path.as_os_str().as_bytes(), NON_ALPHANUMERIC);
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        self.made_ready(Connection::open_with_flags(format!("file:{path}?immutable=1"), flags)?)
    }

    fn open(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        self.made_ready(Connection::open_with_flags(&self.path, flags)?)
    }

    fn made_ready(&self, connection: Connection) -> rusqlite::Result<Connection> {
        connection.busy_timeout(self.lock_timeout)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    }
}

/// invariant 9: says so where the last process left work behind; SQLite takes it over when the file is opened.
pub(super) fn report_recovery(path: &Path) {
    let wal_bytes = left_wal(path);
    if wal_bytes > 0 {
        tracing::info!(
            store = %path.display(),
            wal_bytes,
            "the store was not closed cleanly; recovering it from its write-ahead log"
        );
    }
}

/// The bytes of the store at this path and of its write-ahead log, and those that its disk has left;
/// `None` where the system does not tell.
pub(super) fn space(path: &Path) -> Option<Space> {
    // A file system that tells no size, as some in user space do, does not tell what is left either.
    let disk = statvfs(path).ok().filter(|disk| disk.f_blocks > 0)?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    let database = fs::metadata(path).map_or(0, |file| file.len());
    Some(Space { store_bytes: database + left_wal(path), free_bytes })
}

/// The bytes of the write-ahead log that the last process left; 0 where it closed the store.
pub(super) fn left_wal(path: &Path) -> u64 {
    fs::metadata(beside(path, WAL)).map_or(0, |left| left.len())
}

/// The files of another database that SQLite would take for parts of one that gets this name.
pub(super) fn left_beside(path: &Path) -> Vec<PathBuf> {
    let files = BESIDE.iter().map(|suffix| beside(path, suffix));
    // A link may lead to something later.
    let holds = |file: &fs::Metadata| file.len() > 0 || file.is_symlink();
    files.filter(|file| fs::symlink_metadata(file).is_ok_and(|file| holds(&file))).collect()
}

/// The files that SQLite keeps beside a database while it is open.
pub(super) fn kept_beside(path: &Path) -> impl Iterator<Item = PathBuf> {
    BESIDE.into_iter().chain([SHM]).map(|suffix| beside(path, suffix))
}

/// Removes what SQLite left beside a database that is given up.
pub(super) fn remove_beside(path: &Path) {
    for file in kept_beside(path) {
        // What is not there, or cannot be removed, is told of by whoever writes the database next.
        let _ = fs::remove_file(file);
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(suffix);
    name.into()
}

/// Reading a value of a wrong type means damage, and so does a constraint that fails: the one that a repeated
/// key breaks is dealt with in its statement, all others hold as long as rows fit together. Everything about
/// the disk may pass.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows, Utf8Error,
    };
    matches!(
        error,
        FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | QueryReturnedNoRows
            | Utf8Error(..)
    ) || matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation)
    )
}

/// The limit of this process that may be the cause of a failed write: SQLite does not say which
/// error the system gave.
fn file_limit() -> String {
    let limit = getrlimit(Resource::Fsize).current;
    limit.map_or_else(String::new, |bytes| {
        format!(" (files of this process may have {bytes} bytes at most: see `ulimit -f`)")
    })
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            _ if is_damage(&error) => Self::Damaged(error.to_string()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Unavailable(format!("something else has locked it ({error})"))
            }
            Some(ErrorCode::SystemIoFailure) => Self::Unavailable(format!("{error}{}", file_limit())),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_cannot_have_a_write_ahead_log_is_refused() {
        let database = Database { path: ":memory:".into(), lock_timeout: Duration::ZERO };
        let refused = database.open_to_write().unwrap_err();
        assert!(
            matches!(&refused, StoreError::Unavailable(why) if why.contains("journal mode")),
            "{refused}"
        );
    }
}
