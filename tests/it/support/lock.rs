//! Another program that keeps a log from writing, while reads go on.

use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;

use super::postgres::{self, Database};

/// Holds the lock until it is dropped.
pub(crate) enum Locked {
    /// SQLite's write lock.
    File(Connection),
    /// PostgreSQL's locks of the tables that a commit changes, held by a thread until it is told.
    Shared(Option<(mpsc::Sender<()>, JoinHandle<()>)>),
}

impl Locked {
    /// Takes the lock of this store.
    pub(crate) fn take(store: &Path) -> Self {
        let connection = Connection::open(store).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self::File(connection)
    }

    /// Takes the locks in this database.
    pub(crate) fn take_shared(database: &Database) -> Self {
        let url = database.url();
        let (release, released) = mpsc::channel();
        let (taken, is_taken) = mpsc::channel();
        let holder = thread::spawn(move || {
            postgres::blocking(async move {
                let client = postgres::connect(&url).await.unwrap();
                let lock = "BEGIN; LOCK TABLE sekali.topics, sekali.nodes IN EXCLUSIVE MODE";
                client.batch_execute(lock).await.unwrap();
                taken.send(()).unwrap();
                // Told, or its test has failed.
                let _ = released.recv();
                client.batch_execute("ROLLBACK").await.unwrap();
            });
        });
        is_taken.recv().unwrap();
        Self::Shared(Some((release, holder)))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // A test that failed already says more than this would.
        match self {
            Self::File(connection) => drop(connection.execute_batch("ROLLBACK")),
            Self::Shared(held) => {
                let Some((release, holder)) = held.take() else { return };
                drop(release);
                let _ = holder.join();
            }
        }
    }
}
