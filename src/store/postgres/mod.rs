//! The shared engine: one PostgreSQL database, written by any number of nodes.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `schema` | tables, their version, migrations (SQL in `migrations/`) |
//! | `connection` | making connections, and what the database's errors mean here |
//! | `tls` | whom an encrypted connection trusts |
//! | `history` | which seqs still name the same events on another server |
//! | `statements` | the SQL of a group commit |
//! | `group` | a group as the columns of a statement, and its verdicts from the rows that come back |
//! | `session` | a connection that writes, with what it knows of the store |
//! | `transaction` | one transaction, sent as a whole, and what is known of it afterwards |
//! | `locked` | topics that something else has locked: which they are, and how they are kept from holding up others |
//! | `writer` | group commits, and how one of unknown outcome is settled |
//! | `counting` | the connection that stores what waits in memory: repeats by source and by event |
//! | `sources` | what is counted by source: a bounded number of names a topic |
//! | `repeats` | the events that were repeated most recently, on all nodes |
//! | `reader` | reads, on connections of a pool |
//! | `past` | what nodes left that are gone, summed up in the background |
//! | `transfer` | both ends of a copy from store to store |
//! | `herald` | what this node tells others of its commits, and hears of theirs |

mod connection;
mod counting;
mod group;
mod herald;
mod history;
mod locked;
mod past;
mod reader;
mod repeats;
mod schema;
mod session;
mod sources;
mod statements;
mod tls;
mod transaction;
mod transfer;
mod writer;

#[cfg(test)]
pub(super) mod tests;

use std::convert::Infallible;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::sleep;

use self::connection::Database;
use self::counting::Counting;
use self::herald::Herald;
use self::reader::PostgresReader;
use self::session::Opening;
pub(super) use self::transfer::{PostgresOrigin, PostgresTarget};
use self::writer::PostgresWriter;
use super::{Engine, News, Reader, StoreError, Tally, Writer};
use crate::config::{Durability, PostgresUrl, Settings};

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    node: Arc<Node>,
    reader: Arc<PostgresReader>,
    /// Dropped last: every connection is driven by it.
    _drivers: Drivers,
}

/// What the parts of the engine share.
struct Node {
    database: Database,
    /// Names this process among those that write.
    id: i64,
    store: schema::Store,
    tally: Arc<Tally>,
    news: Arc<News>,
    herald: Arc<Herald>,
    /// Counts how often a connection that writes was made.
    era: Arc<AtomicU64>,
    topic_limit: Option<u64>,
    /// Sources of a topic that may have a name.
    source_limit: i64,
    durability: Durability,
    /// Writers that may be open at once.
    writers: usize,
    opening: Opening,
    counting: Mutex<Counting>,
}

impl PostgresStore {
    /// Connects to the database, brings its schema up to date, and begins to open the connections that write.
    ///
    /// # Errors
    /// [`StoreError::Newer`], [`StoreError::Foreign`] and [`StoreError::HalfCopied`] are final; [`StoreError::Unavailable`] says what the database or
    /// the way to it said.
    pub fn open(settings: &Settings, url: &PostgresUrl) -> Result<Self, StoreError> {
        let drivers = Drivers::start()?;
        let database = Database::new(settings, url, drivers.handle.clone())?;
        let id = fastrand::i64(1..);
        let store = database.block_on(schema::prepare(&database))?;
        if store.half_copied {
            return Err(StoreError::HalfCopied { store: database.name().to_owned() });
        }
        let news = Arc::<News>::default();
        let node = Arc::new(Node {
            herald: Arc::default(),
            id,
            store,
            tally: Arc::new(Tally::new(settings.store.repeated_keys)),
            news,
            era: Arc::default(),
            topic_limit: settings.limits.topics,
            source_limit: i64::try_from(settings.limits.sources).unwrap_or(i64::MAX),
            durability: settings.store.durability,
            writers: settings.store.writers,
            opening: Opening::default(),
            counting: Mutex::default(),
            database,
        });
        let reader = Arc::new(PostgresReader::new(&node, settings.store.readers)?);
        node.herald.start(&node.database, id, &node.news, &reader);
        past::begin(&node.database, settings.store.repeated_keys);
        // One more stores counts.
        node.begin_sessions(node.writers + 1);
        Ok(Self { node, reader, _drivers: drivers })
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.node.herald.stop();
    }
}

impl Engine for PostgresStore {
    fn reader(&self) -> Arc<dyn Reader> {
        Arc::<PostgresReader>::clone(&self.reader)
    }

    fn writers(&self) -> usize {
        self.node.writers
    }

    fn open_writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        Ok(Box::new(PostgresWriter::open(&self.node)?))
    }

    fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.node.tally)
    }

    fn news(&self) -> Arc<News> {
        Arc::clone(&self.node.news)
    }

    fn era(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.node.era)
    }

    fn durability(&self) -> &'static str {
        self.node.durability.as_str()
    }
}

/// The thread that drives every connection, until this is dropped: they are made and used on threads that come and go.
struct Drivers {
    handle: Handle,
    _stop: oneshot::Sender<Infallible>,
}

/// How long connections that were dropped have to say so to the server, which calls it an error where they do not.
const FAREWELL: Duration = Duration::from_millis(20);

impl Drivers {
    fn start() -> Result<Self, StoreError> {
        let failed = |error| StoreError::Unavailable(format!("no thread for connections: {error}"));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("sekali-postgres".to_owned());
        let until_it_ends = async {
            // Nothing is ever sent: it ends when the other end is dropped.
            let _ = stopped.await;
            // What was dropped before that takes its leave of the server.
            sleep(FAREWELL).await;
        };
        thread.spawn(move || runtime.block_on(until_it_ends)).map_err(failed)?;
        Ok(Self { handle, _stop: stop })
    }
}
