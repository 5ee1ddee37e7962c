//! One transaction, sent as a whole: no lock waits for this node, and none is held by one that is gone. What is known
//! of it afterwards.

use std::cell::Cell;
use std::fmt::Write as _;
use std::future::Future;
use std::time::Duration;

use futures_util::future::join3;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::schema::TOPICS_LOCK;
use crate::store::StoreError;

/// How long a commit waits for a lock that the one before it did not get: each in a queue would wait for
/// `store.lock_timeout` else, one after the other.
const LOCKED_OUT_TIMEOUT: Duration = Duration::from_millis(10);

/// Why a transaction did not succeed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing of it is stored.
    Failed(StoreError),
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
    /// Nothing, and it waits no longer than this for the rows.
    Briefly(Duration),
    /// The number of topics.
    Topics,
}

/// Whether something else held a lock for `store.lock_timeout`, and was not seen to let it go since.
#[derive(Debug, Default)]
pub(super) struct LockedOut(Cell<bool>);

impl LockedOut {
    /// Runs statements in a transaction at READ COMMITTED, and gives what they gave once that is committed. `statements`
    /// sends all that it has to send when it is first polled, and does not wait for an answer before.
    pub(super) async fn transact<T>(
        &self,
        client: &Client,
        (lock, patience): (Lock, Duration),
        statements: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Trouble> {
        let beginning = self.beginning(lock);
        // Polled in this order, and so sent in this order.
        let sent = join3(client.batch_execute(&beginning), statements, client.batch_execute("COMMIT"));
        let Ok((begun, outcome, committed)) = timeout(patience, sent).await else {
            let late = format!("the database did not answer within {patience:?}");
            return Err(Trouble::Lost(StoreError::Unavailable(late)));
        };
        // Without its beginning, each statement was a transaction of its own.
        committed.and(begun)?;
        let is_locked = |error: &Error| error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE);
        self.0.set(outcome.as_ref().err().is_some_and(is_locked));
        // What failed before the commit made that a rollback.
        outcome.map_err(|error| {
            // What the database itself asks to be tried again: a deadlock, or a restart on others that speak its protocol.
            let is_passing = error.code().is_some_and(|code| code.code().starts_with("40"));
            if is_passing { Trouble::Again(error.into()) } else { Trouble::Failed(error.into()) }
        })
    }

    /// Whether it did not get a lock when it last tried.
    pub(super) fn is_locked_out(&self) -> bool {
        self.0.get()
    }

    fn beginning(&self, lock: Lock) -> String {
        let mut sql = "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned();
        // Writing to a String cannot fail.
        let wait = match lock {
            _ if self.0.get() => Some(LOCKED_OUT_TIMEOUT),
            Lock::Briefly(wait) => Some(wait.max(LOCKED_OUT_TIMEOUT)),
            Lock::Rows | Lock::Topics => None,
        };
        if let Some(wait) = wait {
            let _ = write!(sql, "; SET LOCAL lock_timeout = {}", wait.as_millis());
        }
        if lock == Lock::Topics {
            let _ = write!(sql, "; SELECT pg_advisory_xact_lock({TOPICS_LOCK})");
        }
        sql
    }
}

/// What is said here is not known to be stored or not.
impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Lost(error.into())
    }
}
