//! A copy of a store while a server runs on it: another process that only reads, as any other reader does.
//!
//! All pages are copied within one read transaction, so that the copy is the store of one moment, and commits go on.
//! They stay in the write-ahead log until the copy is made: what that transaction sees cannot be overwritten. SQLite's
//! backup interface copies pages as they are: docs/DESIGN.md has what was measured against it.
//!
//! The ownership of the store is not asked for, and SQLite's own locks are another process's business: closing a file
//! drops those of this process alone.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::Serialize;
use thiserror::Error;

use super::connection::{Database, left_beside, remove_beside};
use super::doctor::{Progress, Tell, check_file};
use super::{existing, file_of, files, history, opening, schema};
use crate::config::Settings;
use crate::store::StoreError;

/// Pages that are copied between two looks at whether to go on: 4 MiB.
const STEP_PAGES: i32 = 1024;

/// Steps of SQLite's virtual machine between two such looks while the copy is checked: some milliseconds.
const CHECK_STEPS: i32 = 100_000;

/// Bytes that are written to learn why a write failed: a quota may be told only past the end of a
/// block.
const MORE_BYTES: usize = 64 << 10;

/// The first bytes of a database (<https://www.sqlite.org/fileformat2.html#magic_header_string>).
const MAGIC: &[u8] = b"SQLite format 3\0";

/// What stands behind the name of a copy that is being made.
const PARTIAL: &str = ".partial";

/// A copy that is whole, checked and on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Its size.
    pub bytes: u64,
    /// The events in it.
    pub events: u64,
    /// The topics in it.
    pub topics: u64,
    /// The version of its schema.
    pub schema_version: i64,
}

/// Why there is no copy. Nothing is left of it then.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The name is taken.
    #[error("{path} is there already, and a backup replaces nothing: name another file, or remove it")]
    Exists {
        /// The name.
        path: String,
    },
    /// The name is free, and what SQLite kept beside an earlier file of that name is not gone.
    #[error(
        "a store of that name left files, and SQLite would take them for a part of the copy: \
         remove {files}, or name another file"
    )]
    LeftOver {
        /// These files.
        files: String,
    },
    /// Another backup writes the same file, or it is the store.
    #[error("{path} is in use, by another backup or as the store itself")]
    Busy {
        /// The file.
        path: String,
    },
    /// The file cannot be written.
    #[error("{path} cannot be written: {reason}")]
    Destination {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// Somebody said to stop.
    #[error("interrupted; there is no copy")]
    Interrupted,
    /// What was copied is not whole.
    #[error("the copy is damaged, and so, most likely, is the store (`sekali doctor` says more): {0}")]
    Wrong(String),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Copies the configured store to a file that is not there yet, and checks the copy. Blocks; `tell` is told of it some
/// times a second, and `stop` ends it.
///
/// # Errors
/// Whatever it is, nothing is left of the copy, and the store is as it was.
pub fn copy(
    settings: &Settings,
    to: &Path,
    tell: Tell<'_>,
    stop: &Arc<AtomicBool>,
) -> Result<Copied, BackupError> {
    let database =
        Database { path: existing(file_of(settings)?)?, lock_timeout: settings.store.lock_timeout };
    schema::refuse_foreign(&database.path)?;
    let source = database.open_to_read().map_err(StoreError::from)?;
    let version = schema::check_store(&database, &source)?;
    let partial = Partial::begin(to, &database.path)?;
    copy_pages(&source, &partial, tell, stop)?;
    // Closed before the check: the server need not keep anything for this reader any longer.
    drop(source);
    if version == schema::VERSION {
        end_history(&partial)?;
    }
    partial.file.sync_all().map_err(|error| unwritten(&partial.path, &error))?;
    let copied = check(&partial.path, version, tell, stop)?;
    partial.finish(to)?;
    Ok(copied)
}

/// Copies every page, as of one moment after this begins.
fn copy_pages(
    source: &Connection,
    partial: &Partial,
    tell: Tell<'_>,
    stop: &AtomicBool,
) -> Result<(), BackupError> {
    // Held to the end: without it SQLite would begin the copy anew after each commit of the server.
    let moment = source.unchecked_transaction().map_err(StoreError::from)?;
    let page: u64 = moment.pragma_query_value(None, "page_size", number).map_err(StoreError::from)?;
    let failed = |error| partial.failed(error);
    let mut target = partial.open()?;
    // A copy that is not finished is removed: nothing has to be undone in it, and it is synced once, at its end.
    target.pragma_update(None, "journal_mode", "OFF").map_err(failed)?;
    target.pragma_update(None, "synchronous", "OFF").map_err(failed)?;
    let backup = Backup::new(&moment, &mut target).map_err(failed)?;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(BackupError::Interrupted);
        }
        let copied = backup.step(STEP_PAGES).map_err(failed)?;
        let at = backup.progress();
        let bytes = |pages: i32| u64::from(pages.unsigned_abs()) * page;
        let (done, total) = (bytes(at.pagecount - at.remaining), bytes(at.pagecount));
        tell(Progress { stage: "copying", done, total });
        match copied {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ => return Err(StoreError::Unavailable("something else has locked it".to_owned()).into()),
        }
    }
}

/// Lets the first server of the copy begin a new history: its events may be others than those that the
/// store gets after the copy.
fn end_history(partial: &Partial) -> Result<(), BackupError> {
    let failed = |error| partial.failed(error);
    let copy = partial.open()?;
    // Without this SQLite would map a `-shm` file, which not every file system can.
    copy.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(failed)?;
    history::end(&copy).map_err(failed)?;
    // The last connection moves the write-ahead log into the file, and removes it.
    copy.close().map_err(|(_, error)| failed(error))
}

/// Checks a copy as far as that can be done without its index: that it is a store of this version, that SQLite finds
/// nothing wrong with it, and that its counters agree with its rows.
fn check(path: &Path, version: i64, tell: Tell<'_>, stop: &Arc<AtomicBool>) -> Result<Copied, BackupError> {
    let bytes = fs::metadata(path).map_err(|error| unwritten(path, &error))?.len();
    tell(Progress { stage: "checking", done: bytes, total: bytes });
    let checked = examine(path, bytes, stop);
    if stop.load(Ordering::Relaxed) {
        return Err(BackupError::Interrupted);
    }
    match checked {
        Ok(copied) if copied.schema_version == version => Ok(copied),
        Ok(_) => Err(BackupError::Wrong("its schema has another version".to_owned())),
        Err(StoreError::Damaged(what)) => Err(BackupError::Wrong(what)),
        Err(other) => Err(other.into()),
    }
}

fn examine(path: &Path, bytes: u64, stop: &Arc<AtomicBool>) -> Result<Copied, StoreError> {
    let database = Database { path: path.to_owned(), lock_timeout: Duration::ZERO };
    let mut connection = database.open_unchanging()?;
    let stop = Arc::clone(stop);
    connection.progress_handler(CHECK_STEPS, Some(move || stop.load(Ordering::Relaxed)))?;
    let schema_version = schema::check_store(&database, &connection)?;
    let (_, faults) = check_file(&connection)?;
    if let Some(fault) = faults.into_iter().next() {
        return Err(StoreError::Damaged(fault));
    }
    if schema_version == schema::VERSION {
        opening::verify(&connection)?;
        if !history::current(&connection)?.ended {
            return Err(StoreError::Damaged("it does not say that its history ends".to_owned()));
        }
    }
    let count = |what: &str| connection.query_row(&format!("SELECT {what} FROM totals"), [], number);
    Ok(Copied { bytes, events: count("accepted")?, topics: count("topics")?, schema_version })
}

fn number(row: &rusqlite::Row<'_>) -> rusqlite::Result<u64> {
    row.get::<_, i64>(0).map(i64::cast_unsigned)
}

fn unwritten(path: &Path, error: &io::Error) -> BackupError {
    BackupError::Destination { path: path.display().to_string(), reason: error.to_string() }
}

/// A file beside the copy's name, removed unless it is finished.
struct Partial {
    path: PathBuf,
    /// Locked, so that two backups of one name do not write into each other, and one that was killed does not keep
    /// the next one from its name.
    file: File,
    finished: bool,
}

impl Partial {
    fn begin(to: &Path, source: &Path) -> Result<Self, BackupError> {
        refuse_existing(to)?;
        refuse_left_over(to)?;
        let mut name: OsString = to.into();
        name.push(PARTIAL);
        let path = PathBuf::from(name);
        remove_left(&path, source)?;
        let file = match files::make(&path) {
            // Another backup was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(busy(&path)),
            // Of the name that was given: nobody knows the other one.
            made => made.map_err(|error| unwritten(to, &error))?,
        };
        lock(&file, &path)?;
        // Another backup may have taken it for a file that was left, before it was locked.
        if !is_named(&file, &path).map_err(|error| unwritten(&path, &error))? {
            return Err(busy(&path));
        }
        // Of a backup that was killed: SQLite would take it for a part of this copy.
        remove_beside(&path);
        Ok(Self { path, file, finished: false })
    }

    /// A connection that writes the copy.
    fn open(&self) -> Result<Connection, BackupError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(&self.path, flags).map_err(|error| self.failed(error))
    }

    /// Why the copy cannot be written, as far as the system says it.
    fn failed(&self, error: rusqlite::Error) -> BackupError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => unwritten(&self.path, &Errno::NOSPC.into()),
            Some(ErrorCode::SystemIoFailure) => match self.write_more() {
                Err(cause) => unwritten(&self.path, &cause),
                Ok(()) => BackupError::Store(error.into()),
            },
            _ => BackupError::Store(error.into()),
        }
    }

    /// Writes more behind what is there, to learn from the system why SQLite could not: it does not
    /// say whether the disk failed, a quota is used up, or this process may not write larger files.
    /// The copy is lost anyway.
    fn write_more(&self) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        self.file.write_all_at(&vec![0; MORE_BYTES], end)?;
        self.file.sync_all()
    }

    /// Gives the copy its name, for good.
    fn finish(mut self, to: &Path) -> Result<(), BackupError> {
        // SQLite has opened it by its name.
        if !is_named(&self.file, &self.path).map_err(|error| unwritten(&self.path, &error))? {
            return Err(busy(&self.path));
        }
        let renamed = match renameat_with(CWD, &self.path, CWD, to, RenameFlags::NOREPLACE) {
            // A file system that cannot promise that.
            Err(Errno::INVAL | Errno::NOSYS) => {
                refuse_existing(to)?;
                fs::rename(&self.path, to)
            }
            Err(Errno::EXIST) => return Err(BackupError::Exists { path: to.display().to_string() }),
            renamed => renamed.map_err(io::Error::from),
        };
        renamed.map_err(|error| unwritten(to, &error))?;
        self.finished = true;
        let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| unwritten(directory, &error))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed is written over by the next backup of this name.
            let _ = fs::remove_file(&self.path);
            remove_beside(&self.path);
        }
    }
}

/// Removes the file that a backup that was killed left under this name. No other file is removed, and
/// none is written into: the copy is written to a new file.
fn remove_left(path: &Path, source: &Path) -> Result<(), BackupError> {
    let failed = |error| unwritten(path, &error);
    let file = match files::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed)?,
    };
    lock(&file, path)?;
    let found = file.metadata().map_err(failed)?;
    let source = fs::metadata(source).map_err(failed)?;
    let is_source = (found.dev(), found.ino()) == (source.dev(), source.ino());
    // It may have got its last name before it was locked.
    if is_source || !is_named(&file, path).map_err(failed)? {
        return Err(busy(path));
    }
    if !files::is_own(&found) || !begins_as_a_copy(path).map_err(failed)? {
        let reason = "the name is taken by a file that no backup left: remove it, or name another file";
        return Err(failed(io::Error::other(reason)));
    }
    fs::remove_file(path).map_err(failed)
}

/// Whether a file begins as a copy does that was not finished: as a database, or with nothing.
fn begins_as_a_copy(path: &Path) -> io::Result<bool> {
    let mut beginning = Vec::new();
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut beginning)?;
    Ok(beginning.iter().all(|byte| *byte == 0) || beginning == MAGIC)
}

fn lock(file: &File, path: &Path) -> Result<(), BackupError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => busy(path),
        TryLockError::Error(error) => unwritten(path, &error),
    })
}

/// Whether a file has this name, and no other.
fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let opened = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((opened.dev(), opened.ino(), opened.nlink()) == (named.dev(), named.ino(), 1)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn busy(path: &Path) -> BackupError {
    BackupError::Busy { path: path.display().to_string() }
}

fn refuse_existing(path: &Path) -> Result<(), BackupError> {
    // A link that leads nowhere is there too.
    match fs::symlink_metadata(path) {
        Ok(_) => Err(BackupError::Exists { path: path.display().to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unwritten(path, &error)),
    }
}

/// Nobody would see what these do to the copy before it is opened: its check reads the file alone.
fn refuse_left_over(path: &Path) -> Result<(), BackupError> {
    let files: Vec<_> = left_beside(path).iter().map(|file| file.display().to_string()).collect();
    if files.is_empty() { Ok(()) } else { Err(BackupError::LeftOver { files: files.join(" and ") }) }
}
