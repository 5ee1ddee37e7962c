//! A connection that writes, with what it knows of the store.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use futures_util::future::join3;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::Node;
use super::connection::{Database, Use, within};
use super::history;
use super::schema;
use super::statements::Statements;
use super::transaction::LOCKED_OUT_TIMEOUT;
use crate::store::StoreError;

/// How many topics are known to exist, so that memory does not grow with the topics ever seen. One that was forgotten
/// is made once more, which changes nothing.
const KNOWN_TOPICS: usize = 65_536;

/// How long to wait for a connection that could not be made last time: each request in a queue would wait for
/// `store.connect_timeout` else, one after the other.
const BRIEFLY: Duration = Duration::from_millis(10);

/// How long the plans of a new connection are used at least, and how long any are. Each is used twice as long as the one before
/// it: a plan that was made while the tables were nearly empty may choose the wrong one of two indexes that begin with the
/// topic, and look at each event of a topic once the tables have grown.
const PLANNED_FOR: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];

/// A connection that writes.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) statements: Statements,
    known: HashSet<Box<str>, RandomState>,
    pub(super) planned_at: Instant,
    pub(super) planned_for: Duration,
}

/// The connections that are to be used next.
#[derive(Default)]
pub(super) struct Opening {
    /// They are being made, also while nobody waits for them.
    begun: Mutex<Vec<JoinHandle<Result<Session, StoreError>>>>,
    /// Whether the last one could not be made.
    unreachable: AtomicBool,
}

impl Session {
    async fn open(database: &Database) -> Result<Self, StoreError> {
        let client = database.connect(Use::Write).await?;
        schema::join(&client, database).await?;
        history::resume(&client, database).await?;
        let statements = within(database.patience(), Box::pin(Statements::prepare(&client))).await?;
        Ok(Self {
            client,
            statements,
            known: HashSet::default(),
            planned_at: Instant::now(),
            planned_for: PLANNED_FOR[0],
        })
    }

    /// Prepares all statements again where their plans are old. They stay as they are where the database does not take them
    /// now, because a table is locked for instance: to prepare one waits for that as a commit does.
    ///
    /// # Errors
    /// Where the connection is of no use any more.
    pub(super) async fn plan_again(&mut self, database: &Database) -> Result<(), StoreError> {
        if self.planned_at.elapsed() < self.planned_for {
            return Ok(());
        }
        let client = &self.client;
        let [briefly, usually] = [LOCKED_OUT_TIMEOUT, database.lock_timeout()]
            .map(|wait| format!("SET lock_timeout = {}", wait.as_millis()));
        let prepared = async {
            // Sent in this order. What has failed does not keep those behind it from waiting too.
            let preparing = Box::pin(Statements::prepare(client));
            let (briefly, usually) = (client.batch_execute(&briefly), client.batch_execute(&usually));
            let (begun, prepared, ended) = join3(briefly, preparing, usually).await;
            begun.and(ended)?;
            match prepared {
                Ok(statements) => Ok(Some(statements)),
                Err(error) if error.as_db_error().is_some() => Ok(None),
                Err(error) => Err(error),
            }
        };
        if let Some(statements) = within(database.patience(), prepared).await? {
            self.statements = statements;
        }
        self.planned_at = Instant::now();
        self.planned_for = (self.planned_for * 2).min(PLANNED_FOR[1]);
        Ok(())
    }

    /// Whether a topic is known to exist.
    pub(super) fn knows(&self, topic: &str) -> bool {
        self.known.contains(topic)
    }

    /// A topic exists.
    pub(super) fn learn(&mut self, topic: &str) {
        if self.known.contains(topic) {
            return;
        }
        if self.known.len() >= KNOWN_TOPICS {
            self.known.clear();
        }
        self.known.insert(topic.into());
    }

    /// A topic that was known is gone: nothing of what is known is certain.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}

impl Node {
    /// Begins to make the first connections.
    pub(super) fn begin_sessions(&self, connections: usize) {
        for _ in 0..connections {
            self.opening.put(self.begin());
        }
    }

    /// A new connection to write on. Blocks; briefly where the last one could not be made: it is tried on without anybody
    /// waiting.
    pub(super) fn open_session(&self) -> Result<Session, StoreError> {
        let patience = self.database.connect_timeout + self.database.patience();
        let patience = if self.opening.unreachable.load(Ordering::Relaxed) { BRIEFLY } else { patience };
        let opened = loop {
            let mut opening = self.opening.take().unwrap_or_else(|| self.begin());
            match self.database.block_on(async { timeout(patience, &mut opening).await }) {
                // It was made a while ago, and has been lost since.
                Ok(Ok(Ok(session))) if session.client.is_closed() => {}
                Ok(Ok(opened)) => break opened,
                Ok(Err(error)) => break Err(StoreError::Unavailable(error.to_string())),
                Err(_) => {
                    self.opening.put(opening);
                    let none = "there is no connection to the database yet".to_owned();
                    break Err(StoreError::Unavailable(none));
                }
            }
        };
        self.opening.unreachable.store(opened.is_err(), Ordering::Relaxed);
        let session = opened?;
        // Before anything is decided on it: see `Engine::era`.
        self.era.fetch_add(1, Ordering::AcqRel);
        // Followers learn from a read whether the history is still theirs.
        self.news.look_again();
        Ok(session)
    }

    fn begin(&self) -> JoinHandle<Result<Session, StoreError>> {
        let database = self.database.clone();
        self.database.spawn(async move { Session::open(&database).await })
    }
}

impl Opening {
    fn put(&self, opening: JoinHandle<Result<Session, StoreError>>) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).push(opening);
    }

    fn take(&self) -> Option<JoinHandle<Result<Session, StoreError>>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}
