//! Another program that keeps a log from writing, while reads go on.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::postgres::{Database, Held};

/// Holds the lock until it is dropped.
pub(crate) enum Locked {
    /// SQLite's write lock.
    File(Connection),
    /// PostgreSQL's locks of the tables that a commit changes.
    Shared { _held: Held },
}

impl Locked {
    /// Takes the lock of this store.
    pub(crate) fn take(store: &Path) -> Self {
        let connection = Connection::open(store).unwrap();
        connection.busy_timeout(Duration::from_mins(2)).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self::File(connection)
    }

    /// Takes the locks in this database.
    pub(crate) fn take_shared(database: &Database) -> Self {
        Self::Shared { _held: database.hold("LOCK TABLE sekali.topics, sekali.nodes IN EXCLUSIVE MODE") }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Self::File(connection) = self {
            // A test that failed already says more than this would.
            let _ = connection.execute_batch("ROLLBACK");
        }
    }
}
