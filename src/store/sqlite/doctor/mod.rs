//! The doctor of a stopped store: checks everything that the engine relies on, and builds the dedup index again.
//!
//! | file | what it checks |
//! | --- | --- |
//! | `log` | the rows of events, in one pass |
//! | `counts` | topics and totals against the rows |
//! | `runs` | the directory of runs, their blocks, filters and fences; that no key is stored twice |
//! | `differences` | which entries and rows they are, where a run and its rows differ |
//! | `segments` | the places of each topic's events against the rows |
//! | `sources` | what explains duplicates, against topics |
//! | `report` | what was found, and what to do |
//!
//! The index is compared with the rows by sums of hashes, which need no order: each row adds what the index has to
//! know of it to the sum of its run, and each entry of the run is taken from there. Equal sums, and keys that
//! ascend through all runs and recent rows, prove that each row is in the index, under its key, once, and that
//! nothing else is. Only where they differ is a row looked up.
//!
//! Memory: 40 bytes a topic; 1.6 bytes an event for the filters and fences of all runs, and twice that for the run
//! that is compared with what is stored of it; 48 bytes for each event that is not sealed, of which there are at most
//! eight seals' worth and mostly two. So 50 million events of a million topics mostly take less than 400 MB. A rebuild takes what the seals of a server take.

mod counts;
mod differences;
mod log;
mod report;
mod runs;
mod segments;
mod sources;

use std::collections::BTreeSet;
use std::thread;

use rusqlite::{Connection, OptionalExtension};

pub use self::report::{Checked, Cure, Fault, Part, Report};

use self::log::Log;
use self::report::Findings;
use super::connection::{self, Database};
use super::opening;
use super::owner::Ownership;
use super::{Sealing, existing, file_of, history, schema, transfer};
use crate::config::Settings;
use crate::store::StoreError;
use crate::store::index::Hasher;
use crate::store::transfer::State;

/// Pages of the write-ahead log between two checkpoints while the index is built again: 64 MiB.
const CHECKPOINT_PAGES: u32 = 16_384;

/// So many times the keys of a seal may be in no run yet. A server holds up to twice as many and a group commit
/// while it seals as many, which may be left after a kill; more than this would take too much memory.
const SEALS_BEHIND: u64 = 8;

/// The most faults that SQLite's own check lists.
const FILE_FAULTS: u32 = 20;

/// How far a long work on a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being looked at.
    pub stage: &'static str,
    /// How much of it is done.
    pub done: u64,
    /// How much there is.
    pub total: u64,
}

/// Who is told how far it is, some times a second.
pub type Tell<'a> = &'a dyn Fn(Progress);

/// A stopped store, and the lock that keeps it stopped.
pub struct Doctor {
    database: Database,
    sealing: Sealing,
    /// The schema version of the file.
    version: i64,
    /// What the last process left in the write-ahead log.
    wal_bytes: u64,
    ownership: Ownership,
}

impl Doctor {
    /// Takes over a store that no server runs.
    ///
    /// # Errors
    /// [`StoreError::Owned`] while a server runs on it; [`StoreError::Newer`] and [`StoreError::Foreign`] as
    /// a server would refuse it; [`StoreError::Unavailable`] where there is no such file.
    pub fn open(settings: &Settings) -> Result<Self, StoreError> {
        let path = existing(file_of(settings)?)?;
        let ownership = Ownership::take_to_read(&path)?;
        let wal_bytes = connection::left_wal(&path);
        let database = Database { path, lock_timeout: settings.store.lock_timeout };
        let version = schema::check_store(&database, &reading(&database)?)?;
        Ok(Self { database, sealing: Sealing::of(settings), version, wal_bytes, ownership })
    }

    /// Checks everything, and changes nothing. Of a store of an older schema only the file.
    ///
    /// # Errors
    /// Where the file cannot be read at all; what is damaged is in the report.
    pub fn inspect(&self, tell: Tell<'_>) -> Result<Report, StoreError> {
        let (mut findings, _) = self.examine(tell)?;
        if self.wal_bytes > 0 {
            findings.note(format!(
                "the last server was not stopped cleanly: {} bytes of its write-ahead log were read too",
                self.wal_bytes
            ));
        }
        if self.version == schema::VERSION
            && let Ok(State::Half) = transfer::state(&reading(&self.database)?)
        {
            findings.note(
                "it is half a copy: `sekali serve` refuses it until `sekali copy` has been run to its end"
                    .to_owned(),
            );
        }
        if self.version == schema::VERSION
            && let Ok(current) = history::current(&reading(&self.database)?)
            && current.ended
        {
            findings.note(format!("the next start begins a new history after {}", current.id));
        }
        if self.version < schema::VERSION {
            findings.note(format!(
                "its schema has version {}, and only the file was checked: `sekali serve` brings it to version {}",
                self.version,
                schema::VERSION
            ));
        }
        Ok(findings.report(self.version))
    }

    /// Drops the dedup index and builds it again from the rows, then checks everything. A row is believed in what
    /// it says of itself. What cannot be read of it is not made up: the key of such a row is taken from the index
    /// that is dropped, and named as lost where that does not know it.
    ///
    /// # Errors
    /// As [`Doctor::inspect`], where the rows cannot all be read, and for a store of an older schema.
    pub fn rebuild_index(&self, tell: Tell<'_>) -> Result<Report, StoreError> {
        self.check_may_change("builds its index")?;
        let (_, log) = self.examine(tell)?;
        let unreadable = log.filter(|log| log.complete).map(|log| log.unreadable).ok_or_else(|| {
            StoreError::Damaged(
                "the rows cannot all be read (`sekali doctor` names them), and only the old index knows their keys: \
                 it stays as it is"
                    .to_owned(),
            )
        })?;
        self.rebuild(&unreadable, tell)?;
        let (mut findings, _) = self.examine(tell)?;
        findings.note("the dedup index was built again from the events".to_owned());
        Ok(findings.report(self.version))
    }

    /// Whether the store may be changed. An older schema has nothing to change yet: `serve` says what a
    /// server does with it.
    fn check_may_change(&self, serve: &str) -> Result<(), StoreError> {
        if !self.ownership.may_change() {
            let what =
                "its directory cannot be written to, so that nobody could see that it is changed".to_owned();
            return Err(StoreError::Unavailable(what));
        }
        if self.version < schema::VERSION {
            return Err(StoreError::Unavailable(format!(
                "its schema has version {}: `sekali serve` brings it to version {} and {serve}",
                self.version,
                schema::VERSION
            )));
        }
        Ok(())
    }

    /// Lets the next start begin a new history, then checks everything. For a store that another tool
    /// than `sekali backup` put back to an earlier state.
    ///
    /// # Errors
    /// As [`Doctor::inspect`], and for a store of an older schema, or one that cannot be written.
    pub fn new_history(&self, tell: Tell<'_>) -> Result<Report, StoreError> {
        self.check_may_change("begins a history")?;
        history::end(&self.database.open_to_write()?)?;
        self.inspect(tell)
    }

    /// Builds the index again, with what it knew of the rows at these positions, and mends what explains duplicates.
    fn rebuild(&self, unreadable: &BTreeSet<u64>, tell: Tell<'_>) -> Result<(), StoreError> {
        let mut connection = self.database.open_to_write()?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        let hasher = Hasher::new(&schema::index_key(&connection)?);
        let kept = runs::entries_at(&connection, unreadable)?;
        let total = super::rows::last_pos(&connection)?;
        let done = |done| tell(Progress { stage: "building the index", done, total });
        opening::rebuild(&mut connection, &hasher, self.sealing, &kept, &done)?;
        match sources::begin_anew(&connection) {
            // Nothing else depends on it, and the check that follows names it.
            Err(StoreError::Damaged(_)) => Ok(()),
            begun => begun,
        }
    }

    /// Checks everything that a store of its version has; gives what the rows say, too.
    fn examine(&self, tell: Tell<'_>) -> Result<(Findings, Option<Log>), StoreError> {
        thread::scope(|scope| {
            // SQLite's own check reads all there is and computes much: it has a thread and a connection of its own.
            let file = scope.spawn(|| check_file(&reading(&self.database)?));
            let mut findings = Findings::default();
            let log = match self.version {
                schema::VERSION => self.check_content(&mut findings, tell)?,
                _ => None,
            };
            let checked = file.join().map_err(|_| StoreError::Unavailable("a check failed".to_owned()))?;
            let (pages, faults) = checked?;
            findings.checked(Part::File, pages);
            for what in faults {
                findings.add(Part::File, Cure::Restore, what);
            }
            Ok((findings, log))
        })
    }

    /// Checks all that is in the file, part by part; one that cannot be read is a fault of its own.
    fn check_content(&self, findings: &mut Findings, tell: Tell<'_>) -> Result<Option<Log>, StoreError> {
        let connection = reading(&self.database)?;
        let hasher = Hasher::new(&schema::index_key(&connection)?);
        let directory = runs::directory(&connection, findings);
        let directory = findings.read(Part::Runs, Cure::RebuildIndex, directory)?;
        let spans = directory.as_deref().unwrap_or_default();
        let recent_max = SEALS_BEHIND * self.sealing.keys as u64;
        let log = log::inspect(&connection, &hasher, spans, recent_max, tell, findings);
        let Some(mut log) = findings.read(Part::Rows, Cure::Restore, log)? else { return Ok(None) };
        findings.read(Part::Topics, Cure::Restore, history::current(&connection))?;
        let counts = counts::inspect(&connection, &log, findings);
        findings.read(Part::Topics, Cure::Restore, counts)?;
        if findings.are_right(&[Part::Rows, Part::Topics, Part::Totals]) {
            let sources = sources::inspect(&connection, findings);
            findings.read(Part::Sources, Cure::BeginAnew, sources)?;
        }
        if directory.is_some() {
            let runs = runs::inspect(&connection, &hasher, spans, &mut log, tell, findings);
            findings.read(Part::Runs, Cure::RebuildIndex, runs)?;
            let segments = segments::inspect(&connection, spans, &log, tell, findings);
            findings.read(Part::Segments, Cure::RebuildIndex, segments)?;
        }
        Ok(Some(log))
    }
}

/// A connection to a store that is stopped. Where nothing is left in a write-ahead log, none is made beside it, which also needs
/// a directory that may be written.
fn reading(database: &Database) -> rusqlite::Result<Connection> {
    match connection::left_wal(&database.path) {
        0 => database.open_unchanging(),
        _ => database.open_to_read(),
    }
}

/// SQLite's own check of the file: its pages, and what it finds wrong.
pub(super) fn check_file(connection: &Connection) -> Result<(u64, Vec<String>), StoreError> {
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let mut statement = connection.prepare(&format!("PRAGMA quick_check({FILE_FAULTS})"))?;
    let mut rows = statement.query([])?;
    let mut faults = Vec::new();
    loop {
        match rows.next() {
            Ok(Some(row)) => faults.push(row.get::<_, String>(0)?),
            Ok(None) => break,
            Err(error) => match StoreError::from(error) {
                StoreError::Damaged(what) => {
                    faults.push(format!("SQLite's check broke off: {what}"));
                    break;
                }
                other => return Err(other),
            },
        }
    }
    faults.retain(|fault| fault != "ok");
    Ok((pages.cast_unsigned(), faults))
}

/// A topic as a report names it.
fn name_of(connection: &Connection, topic: i64) -> String {
    let name = connection
        .query_row("SELECT name FROM topics WHERE id = ?1", [topic], |row| row.get::<_, String>(0))
        .optional();
    match name {
        Ok(Some(name)) => format!("topic {name:?}"),
        _ => format!("topic number {topic}"),
    }
}
