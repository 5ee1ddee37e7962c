//! The connection that writes, with what it knows of the store.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::Node;
use super::connection::{Database, Use, within};
use super::statements::{FENCE, Statements};
use super::transaction::LockedOut;
use crate::store::StoreError;

/// How many topics are known to exist, so that memory does not grow with the topics ever seen. One that was forgotten
/// is made once more, which changes nothing.
const KNOWN_TOPICS: usize = 65_536;

/// How long to wait for a connection that could not be made last time: each request in a queue would wait for
/// `store.connect_timeout` else, one after the other.
const BRIEFLY: Duration = Duration::from_millis(10);

/// A connection that writes.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) statements: Statements,
    /// What this node's counts must carry to be stored.
    pub(super) fence: i64,
    /// The last epoch of this node's counts that was stored before.
    epoch: u64,
    pub(super) locked_out: LockedOut,
    known: HashSet<Box<str>, RandomState>,
}

/// The connection that is to be made next.
#[derive(Default)]
pub(super) struct Next {
    /// It is being made, also while nobody waits for it.
    opening: Option<JoinHandle<Result<Session, StoreError>>>,
    /// Whether the last one could not be made.
    unreachable: bool,
}

impl Session {
    async fn open(database: &Database, node: i64) -> Result<Self, StoreError> {
        let client = database.connect(Use::Write).await?;
        let limit = database.patience();
        let statements = within(limit, Box::pin(Statements::prepare(&client))).await?;
        let fenced = within(limit, client.query_one(FENCE, &[&node])).await?;
        let (fence, epoch) = (fenced.try_get(0)?, fenced.try_get::<_, i64>(1)?.cast_unsigned());
        Ok(Self {
            client,
            statements,
            fence,
            epoch,
            locked_out: LockedOut::default(),
            known: HashSet::default(),
        })
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
    /// Begins to make the first connection.
    pub(super) fn begin_session(&self) {
        self.next().opening = Some(self.begin());
    }

    /// A new connection to write on. Blocks; briefly where the last one could not be made: it is tried on without anybody
    /// waiting.
    pub(super) fn open_session(&self) -> Result<Session, StoreError> {
        let mut next = self.next();
        let patience = self.database.connect_timeout + self.database.patience();
        let patience = if next.unreachable { BRIEFLY } else { patience };
        let mut opening = next.opening.take().unwrap_or_else(|| self.begin());
        let opened = match self.database.block_on(async { timeout(patience, &mut opening).await }) {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => Err(StoreError::Unavailable(error.to_string())),
            Err(_) => {
                next.opening = Some(opening);
                Err(StoreError::Unavailable("there is no connection to the database yet".to_owned()))
            }
        };
        next.unreachable = opened.is_err();
        let session = opened?;
        // Before anything is decided on it: see `Engine::era`.
        self.era.fetch_add(1, Ordering::AcqRel);
        self.tally.resume(session.epoch);
        Ok(session)
    }

    fn begin(&self) -> JoinHandle<Result<Session, StoreError>> {
        let (database, id) = (self.database.clone(), self.id);
        self.database.spawn(async move { Session::open(&database, id).await })
    }

    fn next(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
