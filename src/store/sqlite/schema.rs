//! The tables, their version, and the way from each version to the next.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::connection::Database;
use crate::store::StoreError;

/// Marks a SQLite file as ours (`PRAGMA application_id`): "seka" in ASCII.
const APPLICATION_ID: i32 = 0x7365_6b61;

/// One migration a version, from an empty file on. What stands here was released: never change it, append.
const MIGRATIONS: [&str; 6] = [
    "CREATE TABLE totals (
         one         INTEGER PRIMARY KEY CHECK (one = 1),
         topics      INTEGER NOT NULL,
         accepted    INTEGER NOT NULL,
         duplicates  INTEGER NOT NULL,
         conflicts   INTEGER NOT NULL,
         rejected    INTEGER NOT NULL,
         tally_epoch INTEGER NOT NULL
     ) STRICT;
     INSERT INTO totals VALUES (1, 0, 0, 0, 0, 0, 0);

     CREATE TABLE topics (
         id               INTEGER PRIMARY KEY,
         name             TEXT NOT NULL UNIQUE,
         last_seq         INTEGER NOT NULL,
         duplicates       INTEGER NOT NULL,
         conflicts        INTEGER NOT NULL,
         last_received_at INTEGER NOT NULL -- microseconds since 1970, UTC
     ) STRICT;

     CREATE TABLE events (
         pos         INTEGER PRIMARY KEY, -- the place in the log of all topics
         topic       INTEGER NOT NULL REFERENCES topics (id),
         seq         INTEGER NOT NULL,    -- 1, 2, 3, ... within the topic
         event_id    TEXT NOT NULL,
         timestamp   TEXT NOT NULL,
         source      TEXT NOT NULL,
         payload     TEXT NOT NULL,
         received_at INTEGER NOT NULL     -- microseconds since 1970, UTC
     ) STRICT;
     CREATE UNIQUE INDEX events_by_key ON events (topic, event_id);
     CREATE UNIQUE INDEX events_by_seq ON events (topic, seq);

     -- For people with a SQLite shell.
     CREATE VIEW log AS
     SELECT e.pos, t.name AS topic, e.seq, e.event_id, e.timestamp, e.source, e.payload,
            strftime('%Y-%m-%dT%H:%M:%fZ', e.received_at / 1000000.0, 'unixepoch') AS received_at
     FROM events AS e JOIN topics AS t ON t.id = e.topic;",
    // The indexes on the rows give way to sealed runs, which are built from the rows when the store is opened.
    "DROP INDEX events_by_key;
     DROP INDEX events_by_seq;

     CREATE TABLE secrets (
         one       INTEGER PRIMARY KEY CHECK (one = 1),
         index_key BLOB NOT NULL -- keys the hashes of the dedup index
     ) STRICT;
     INSERT INTO secrets VALUES (1, randomblob(16));

     -- The directory of the dedup index: together the runs cover the log from its first position on.
     CREATE TABLE runs (
         first_block INTEGER PRIMARY KEY,
         level       INTEGER NOT NULL,
         first_pos   INTEGER NOT NULL,
         last_pos    INTEGER NOT NULL,
         entries     INTEGER NOT NULL,
         checksum    INTEGER NOT NULL -- of the parts together
     ) STRICT;

     -- The filter and the fences of each run, which memory holds, in parts.
     CREATE TABLE parts (
         run    INTEGER NOT NULL,
         number INTEGER NOT NULL,
         data   BLOB NOT NULL,
         UNIQUE (run, number)
     ) STRICT;

     -- The entries of the runs, a page each.
     CREATE TABLE blocks (
         id   INTEGER PRIMARY KEY,
         data BLOB NOT NULL
     ) STRICT;

     -- Where the events of each topic are.
     CREATE TABLE segments (
         topic     INTEGER NOT NULL,
         first_seq INTEGER NOT NULL,
         positions BLOB NOT NULL,
         PRIMARY KEY (topic, first_seq)
     ) STRICT, WITHOUT ROWID;",
    // The checksum of all other columns; the rows of older versions have none. From here on, `last_seq` and
    // `last_received_at` of a topic are those of its last sealed event.
    "ALTER TABLE events ADD COLUMN checksum INTEGER",
    // What was counted before has no source, and its duplicates no lateness; when it was stored is known from a thousand
    // of its rows.
    "CREATE TABLE sources (
         topic        INTEGER NOT NULL,
         source       TEXT NOT NULL,    -- '': all that are not named
         accepted     INTEGER NOT NULL, -- of the events up to the topic's last_seq
         duplicates   INTEGER NOT NULL,
         conflicts    INTEGER NOT NULL,
         late_seconds INTEGER NOT NULL, -- between the events and their duplicates, all of them together
         late_1s      INTEGER NOT NULL, -- duplicates that came up to so long after the event, each counted once
         late_10s     INTEGER NOT NULL,
         late_1min    INTEGER NOT NULL,
         late_5min    INTEGER NOT NULL,
         late_1h      INTEGER NOT NULL,
         late_6h      INTEGER NOT NULL,
         late_1d      INTEGER NOT NULL,
         late_7d      INTEGER NOT NULL,
         late_30d     INTEGER NOT NULL,
         late_more    INTEGER NOT NULL,
         PRIMARY KEY (topic, source)
     ) STRICT, WITHOUT ROWID;
     INSERT INTO sources
     SELECT id, '', last_seq, duplicates, conflicts, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM topics;

     -- In which second the events from a position on were stored.
     CREATE TABLE times (
         pos    INTEGER PRIMARY KEY,
         second INTEGER NOT NULL -- since 1970, UTC
     ) STRICT;
     WITH RECURSIVE
         steps (step) AS (SELECT 0 UNION ALL SELECT step + 1 FROM steps WHERE step < 1023),
         log (last_pos) AS (SELECT max(pos) FROM events)
     INSERT OR IGNORE INTO times
     SELECT e.pos, max(0, min(e.received_at / 1000000, 4294967295))
     FROM steps JOIN log JOIN events AS e ON e.pos = 1 + step * (last_pos - 1) / 1023;

     -- The events that were repeated most recently.
     CREATE TABLE repeats (
         topic         INTEGER NOT NULL,
         seq           INTEGER NOT NULL,
         duplicates    INTEGER NOT NULL,
         conflicts     INTEGER NOT NULL,
         last_at       INTEGER NOT NULL, -- microseconds since 1970, UTC
         last_source   TEXT NOT NULL,
         last_conflict INTEGER NOT NULL, -- 0 or 1
         PRIMARY KEY (topic, seq)
     ) STRICT, WITHOUT ROWID;",
    // The last copy from another store to this one; no row where there was none.
    "CREATE TABLE copies (
         one        INTEGER PRIMARY KEY CHECK (one = 1),
         half       INTEGER NOT NULL, -- 1 until it is whole
         accepted   INTEGER NOT NULL, -- what it left, once it is whole
         duplicates INTEGER NOT NULL,
         conflicts  INTEGER NOT NULL,
         rejected   INTEGER NOT NULL
     ) STRICT;",
    // What a seq means between two restores: `history.rs` keeps these tables.
    "CREATE TABLE histories (
         number   INTEGER PRIMARY KEY,         -- 1, 2, 3, ...; the greatest is the current one
         id       TEXT NOT NULL UNIQUE,
         began_at INTEGER NOT NULL,            -- microseconds since 1970, UTC
         ended    INTEGER NOT NULL DEFAULT 0   -- 1: the next start begins another history
     ) STRICT;
     INSERT INTO histories (id, began_at)
     VALUES (lower(hex(randomblob(6))), CAST(unixepoch('subsec') * 1000000 AS INTEGER));

     -- The last seq of each topic when a history ended: the next history has the same events up to it.
     CREATE TABLE forks (
         history  INTEGER NOT NULL,
         topic    INTEGER NOT NULL,
         last_seq INTEGER NOT NULL,
         PRIMARY KEY (history, topic)
     ) STRICT, WITHOUT ROWID;",
];

/// The version of the schema that this program writes.
pub(super) const VERSION: i64 = MIGRATIONS.len().cast_signed() as i64;

/// The secret that keys the hashes of the dedup index.
pub(super) fn index_key(connection: &Connection) -> Result<[u8; 16], StoreError> {
    Ok(connection.query_row("SELECT index_key FROM secrets", [], |row| row.get(0))?)
}

/// Brings the file to [`VERSION`], or refuses it. Writes nothing where there is nothing to do, so that a store on
/// a full disk can still be read.
pub(super) fn prepare(database: &Database) -> Result<(), StoreError> {
    // On a connection that only reads: one that writes would switch another program's file to a write-ahead log.
    if database.path.exists() {
        check_ours(database, &database.open_to_read()?)?;
    }
    let mut connection = database.open_to_write()?;
    if application_id(&connection)? == APPLICATION_ID && version(&connection)? == VERSION {
        return Ok(());
    }
    // A transaction that writes, so that nobody migrates at the same time.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    for (migration, to) in MIGRATIONS.iter().zip(1..).skip(done) {
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", to)?;
        if found > 0 {
            tracing::info!(to, "migrated the schema of the store");
        }
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    Ok(transaction.commit()?)
}

fn application_id(connection: &Connection) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, "application_id", |row| row.get(0))
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Refuses a file that is certainly no store, or a newer one, and leaves nothing beside it. All else is seen under the lock:
/// what a server has just written may be read half here.
pub(super) fn refuse_foreign(path: &Path) -> Result<(), StoreError> {
    if !path.exists() {
        return Ok(());
    }
    let database = Database { path: path.to_owned(), lock_timeout: Duration::ZERO };
    let opened = database.open_unchanging().map_err(|error| not_opened(&database, error));
    match opened.and_then(|connection| check_ours(&database, &connection)) {
        Err(refused @ (StoreError::Foreign { .. } | StoreError::Newer { .. })) => Err(refused),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What it means that a file cannot be opened, or not read from its beginning.
fn not_opened(database: &Database, error: rusqlite::Error) -> StoreError {
    if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) {
        return StoreError::Foreign {
            path: database.path.display().to_string(),
            reason: "it is no SQLite database, or its first page is damaged".to_owned(),
        };
    }
    error.into()
}

/// Refuses the file of another program or of a newer sekali; gives its version, 0 where it is empty.
pub(super) fn check_ours(database: &Database, connection: &Connection) -> Result<i64, StoreError> {
    let found = version(connection).map_err(|error| not_opened(database, error))?;
    let id = application_id(connection)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if id != APPLICATION_ID && (tables > 0 || found > 0) {
        return Err(StoreError::Foreign {
            path: database.path.display().to_string(),
            reason: "it is the SQLite database of another program".to_owned(),
        });
    }
    if found > VERSION {
        return Err(StoreError::Newer { found, known: VERSION });
    }
    Ok(found)
}

/// As [`check_ours`], and refuses a file in which no store was made yet.
pub(super) fn check_store(database: &Database, connection: &Connection) -> Result<i64, StoreError> {
    match check_ours(database, connection)? {
        0 => Err(StoreError::Foreign {
            path: database.path.display().to_string(),
            reason: "it is empty".to_owned(),
        }),
        found => Ok(found),
    }
}
