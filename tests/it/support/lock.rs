//! Another program that holds SQLite's write lock on a store.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

/// Holds the lock until it is dropped.
pub(crate) struct Locked(Connection);

impl Locked {
    /// Takes the lock of this store.
    pub(crate) fn take(store: &Path) -> Self {
        let connection = Connection::open(store).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self(connection)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // A test that failed already says more than this would.
        let _ = self.0.execute_batch("ROLLBACK");
    }
}
