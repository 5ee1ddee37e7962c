//! One transaction, sent as a whole: no lock waits for this node, and none is held by one that is gone. What is known
//! of it afterwards.

use std::fmt::Write as _;
use std::future::Future;
use std::time::Duration;

use futures_util::future::join3;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::schema::TOPICS_LOCK;
use crate::store::StoreError;

/// How long a transaction waits for a lock that one before it did not get: each in a queue would wait for
/// `store.lock_timeout` else, one after the other.
pub(super) const LOCKED_OUT_TIMEOUT: Duration = Duration::from_millis(10);

/// Why a transaction did not succeed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing of it is stored.
    Failed(StoreError),
    /// Nothing of it is stored, because it did not get a lock in time.
    Locked(StoreError),
    /// It may be stored, and can be tried again on this connection.
    Again(StoreError),
    /// It may be stored, and the connection is of no use any more.
    Lost(StoreError),
}

/// What a transaction locks beside rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// Nothing.
    Rows,
    /// The number of topics.
    Topics,
}

/// A transaction at READ COMMITTED.
pub(super) struct Transaction<'a> {
    pub(super) client: &'a Client,
    pub(super) lock: Lock,
    /// How long it waits for each lock, where that is not `store.lock_timeout`.
    pub(super) wait: Option<Duration>,
    /// How long all of it may take.
    pub(super) patience: Duration,
}

impl Transaction<'_> {
    /// Runs statements and gives what they gave once that is committed. `statements` sends all that it has to send when it
    /// is first polled, and does not wait for an answer before.
    pub(super) async fn commit<T>(
        self,
        statements: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Trouble> {
        self.run(statements, "COMMIT").await
    }

    /// The same, and nothing of it stays.
    pub(super) async fn roll_back<T>(
        self,
        statements: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Trouble> {
        self.run(statements, "ROLLBACK").await
    }

    async fn run<T>(
        self,
        statements: impl Future<Output = Result<T, Error>>,
        end: &str,
    ) -> Result<T, Trouble> {
        let Self { client, patience, .. } = self;
        let beginning = self.beginning();
        // Polled in this order, and so sent in this order.
        let sent = join3(client.batch_execute(&beginning), statements, client.batch_execute(end));
        let Ok((begun, outcome, ended)) = timeout(patience, sent).await else {
            let late = format!("the database did not answer within {patience:?}");
            return Err(Trouble::Lost(StoreError::Unavailable(late)));
        };
        ended?;
        let outcome = match begun {
            // It had begun by then.
            Err(error) if is_locked(&error) => Err(error),
            // Without its beginning, each statement was a transaction of its own.
            Err(error) => return Err(error.into()),
            Ok(()) => outcome,
        };
        // An error of the database before the end made that a rollback.
        outcome.map_err(|error| {
            // What the database itself asks to be tried again: a deadlock, or a restart on others that speak its protocol.
            let is_passing = error.code().is_some_and(|code| code.code().starts_with("40"));
            match error {
                error if is_locked(&error) => Trouble::Locked(error.into()),
                error if is_passing => Trouble::Again(error.into()),
                // The database knows nothing of it, and has committed the rest.
                error if error.as_db_error().is_none() => Trouble::Lost(error.into()),
                error => Trouble::Failed(error.into()),
            }
        })
    }

    fn beginning(&self) -> String {
        let mut sql = "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned();
        // Writing to a String cannot fail.
        if let Some(wait) = self.wait {
            let _ = write!(sql, "; SET LOCAL lock_timeout = {}", wait.as_millis());
        }
        if self.lock == Lock::Topics {
            let _ = write!(sql, "; SELECT pg_advisory_xact_lock({TOPICS_LOCK})");
        }
        sql
    }
}

fn is_locked(error: &Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// What is said here is not known to be stored or not.
impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Lost(error.into())
    }
}
