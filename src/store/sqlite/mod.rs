//! The embedded engine: one SQLite file with a write-ahead log, owned by one process.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `owner` | the lock that makes this process the only one |
//! | `schema` | tables, their version, migrations |
//! | `files` | files for their owner alone, and none that somebody else prepared |
//! | `connection` | opening connections; what SQLite's errors mean here |
//! | `writer` | the transaction of a group commit |
//! | `rows` | the rows of events |
//! | `index` | the dedup index: its memory, and how the writer keeps it |
//! | `opening` | the dedup index when a store is opened, or built again |
//! | `runs` | the tables of the dedup index |
//! | `building` | the threads that seal and merge runs |
//! | `topics` | the rows of topics and what the writer remembers of them |
//! | `sources`, `times`, `repeats` | what explains duplicates: counts by source, when events were stored, events that were repeated |
//! | `explain` | going on where these are damaged |
//! | `history` | which seqs still name the same events after a restore |
//! | `mark` | what a server leaves in the lock file, so that a restore is noticed |
//! | `page` | a page of a topic, by its positions |
//! | `reader` | reads, on connections of their own |
//! | `checkpoint` | moving the write-ahead log into the file, off the commit path |
//! | `doctor` | checking a stopped store, and mending its index |
//! | `backup` | a copy of a store that runs |
//! | `transfer` | both ends of a copy from store to store |

mod backup;
mod building;
mod checkpoint;
mod connection;
mod doctor;
mod explain;
mod files;
mod history;
mod index;
mod mark;
mod opening;
mod owner;
mod page;
mod reader;
mod repeats;
mod rows;
mod runs;
mod schema;
mod searchers;
mod sources;
mod times;
mod topics;
mod transfer;
mod writer;

#[cfg(test)]
mod tests;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use self::backup::{BackupError, Copied, copy};
pub use self::doctor::{Checked, Cure, Doctor, Fault, Part, Progress, Report, Tell};
pub(super) use self::transfer::{SqliteOrigin, SqliteTarget};

use self::checkpoint::Checkpointer;
use self::connection::Database;
use self::index::SharedMemory;
use self::mark::{Left, Mark, Marker};
use self::owner::Ownership;
use self::reader::SqliteReader;
use self::writer::SqliteWriter;
use super::{Engine, News, Reader, Space, StoreError, Tally, Writer};
use crate::config::{Durability, Settings, StoreUrl};
use crate::domain::HistoryId;

/// A store in one SQLite file.
pub struct SqliteStore {
    options: Arc<Options>,
    reader: Arc<SqliteReader>,
    shared: Shared,
    news: Arc<News>,
    /// The writer that brought the index into memory, until it is asked for.
    first_writer: Mutex<Option<SqliteWriter>>,
    /// Dropped last: the file is ours until every connection is closed.
    _ownership: Ownership,
}

/// What a store, its reader and its writers share, one writer after the other.
#[derive(Clone)]
struct Shared {
    tally: Arc<Tally>,
    checkpointer: Arc<Checkpointer>,
    memory: SharedMemory,
    /// None where the file is not served.
    marker: Option<Arc<Marker>>,
}

/// What the engine needs of the settings.
#[derive(Debug, Clone)]
struct Options {
    database: Database,
    durability: Durability,
    readers: usize,
    wal_bytes: u64,
    topic_limit: Option<u64>,
    sealing: Sealing,
}

/// Why a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A server serves it. Half a copy is refused, and a restored file begins a new history.
    Serve,
    /// It is copied to another store. Half a copy is refused.
    CopyFrom,
    /// Another store is copied to it, or the rest of one.
    CopyTo,
}

/// How recent events are sealed.
#[derive(Debug, Clone, Copy)]
struct Sealing {
    /// Recent keys that are sealed at once.
    keys: usize,
    /// Sources of a topic that may have a name.
    sources: usize,
}

impl Sealing {
    fn of(settings: &Settings) -> Self {
        Self { keys: settings.store.seal_keys, sources: settings.limits.sources }
    }
}

impl SqliteStore {
    /// Opens the file, making it and its directory where they are missing, and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Owned`], [`StoreError::Newer`], [`StoreError::Foreign`] and [`StoreError::HalfCopied`] are final;
    /// [`StoreError::Unavailable`] says what the disk said.
    pub fn open(settings: &Settings) -> Result<Self, StoreError> {
        let path = make_directory(file_of(settings)?)?;
        let ownership = Ownership::take(&path)?;
        Self::open_owned(path, ownership, settings, Purpose::Serve)
    }

    /// Opens the file that is owned already.
    fn open_owned(
        path: PathBuf,
        ownership: Ownership,
        settings: &Settings,
        purpose: Purpose,
    ) -> Result<Self, StoreError> {
        connection::report_recovery(&path);
        let options = Arc::new(Options {
            database: Database { path, lock_timeout: settings.store.lock_timeout },
            durability: settings.store.durability,
            readers: settings.store.readers,
            wal_bytes: settings.store.wal_bytes,
            topic_limit: settings.limits.topics,
            sealing: Sealing::of(settings),
        });
        make_file(&options.database.path)?;
        schema::prepare(&options.database)?;
        tighten(&options.database.path);
        if purpose != Purpose::CopyTo {
            transfer::refuse_half(&options.database)?;
        }
        let (history, marker) = match purpose {
            Purpose::Serve => begin_serving(&options)?,
            Purpose::CopyFrom | Purpose::CopyTo => {
                (history::current(&options.database.open_to_read()?)?.id, None)
            }
        };
        let tally = Arc::new(Tally::new(settings.store.repeated_keys));
        let checkpointer = Arc::new(Checkpointer::start(&options.database, options.wal_bytes)?);
        let shared = Shared { tally, checkpointer, memory: SharedMemory::default(), marker };
        let writer = SqliteWriter::open(&options, shared.clone())?;
        let reader = SqliteReader::new(Arc::clone(&options), history, &shared, writer.hasher());
        Ok(Self {
            options,
            reader: Arc::new(reader),
            shared,
            news: Arc::default(),
            first_writer: Mutex::new(Some(writer)),
            _ownership: ownership,
        })
    }
}

impl Engine for SqliteStore {
    fn reader(&self) -> Arc<dyn Reader> {
        Arc::<SqliteReader>::clone(&self.reader)
    }

    fn open_writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        let first = self.first_writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = first {
            return Ok(Box::new(writer));
        }
        Ok(Box::new(SqliteWriter::open(&self.options, self.shared.clone())?))
    }

    fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.shared.tally)
    }

    fn news(&self) -> Arc<News> {
        Arc::clone(&self.news)
    }

    fn space(&self) -> Option<Space> {
        connection::space(&self.options.database.path)
    }

    fn durability(&self) -> &'static str {
        self.options.durability.as_str()
    }
}

/// Decides which history a file that is about to be served has, and says beside it that a server runs.
fn begin_serving(options: &Options) -> Result<(HistoryId, Option<Arc<Marker>>), StoreError> {
    let Options { database, durability, .. } = options;
    let (left, booted) = (Left::read(&database.path), mark::boot_id());
    let mut connection = database.open_to_write()?;
    let history = history::resume(&mut connection, &left, &booted)?;
    let (last_pos, durability) = (rows::last_pos(&connection)?, *durability);
    let mark = Mark { history: history.clone(), last_pos, durability, running: true, booted };
    let marker = Marker::begin(&database.path, mark);
    Ok((history, Some(Arc::new(marker))))
}

/// The file that is configured.
fn file_of(settings: &Settings) -> Result<&Path, StoreError> {
    match &settings.store.url {
        StoreUrl::Sqlite(path) => Ok(path),
        StoreUrl::Postgres(url) => {
            Err(StoreError::Foreign { path: url.to_string(), reason: "it is not a SQLite file".to_owned() })
        }
    }
}

/// Makes the directory of the file, and gives the file's one true path, so that two names of one file meet
/// in one lock.
fn make_directory(given: &Path) -> Result<PathBuf, StoreError> {
    let unavailable = |error| StoreError::Unavailable(format!("{}: {error}", given.display()));
    let parent = given.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    files::make_directories(parent).map_err(unavailable)?;
    if given.exists() {
        return existing(given);
    }
    let name = given
        .file_name()
        .ok_or_else(|| StoreError::Unavailable(format!("{} does not name a file", given.display())))?;
    Ok(parent.canonicalize().map_err(unavailable)?.join(name))
}

/// Makes the file where it is missing, and refuses files beside it that SQLite would write into and
/// that are not its own.
fn make_file(path: &Path) -> Result<(), StoreError> {
    let unavailable =
        |file: &Path, error| StoreError::Unavailable(format!("{} cannot be used: {error}", file.display()));
    for file in connection::kept_beside(path) {
        files::check(&file).map_err(|error| unavailable(&file, error))?;
    }
    files::make_store(path).map_err(|error| unavailable(path, error))
}

/// Takes the rights of others from all files of a store that is ours.
fn tighten(path: &Path) {
    files::tighten(path);
    files::tighten(&mark::lock_path(path));
    connection::kept_beside(path).for_each(|file| files::tighten(&file));
}

/// Whether both are names of one file that is there.
pub(super) fn is_same_file(one: &Path, other: &Path) -> bool {
    let file = |path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    file(one).is_some_and(|one| file(other) == Some(one))
}

/// The one true path of a file that is there.
fn existing(given: &Path) -> Result<PathBuf, StoreError> {
    let path = given
        .canonicalize()
        .map_err(|error| StoreError::Unavailable(format!("{}: {error}", given.display())))?;
    if path.is_dir() {
        let reason = "it is a directory".to_owned();
        return Err(StoreError::Foreign { path: path.display().to_string(), reason });
    }
    Ok(path)
}
