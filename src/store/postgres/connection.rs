//! Making connections, and what the database's errors mean here.

use std::error::Error as _;
use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_executor::block_on;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls;
use crate::config::{Durability, PostgresUrl, Settings};
use crate::store::StoreError;

/// A connection as the driver gives it.
pub(super) type Driven = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// A connection with the task that drives it.
pub(super) type Made = (Client, JoinHandle<()>);

/// Joins what the rows of a statement are looked up by to tables by their indexes alone: a plan that was made while a
/// table was empty, and reads all of it, must not be used when it has grown; and what is asked for once need not be
/// remembered. Of the settings those that the database has: others that speak PostgreSQL's protocol plan in their own
/// way. Citus plans by the values of a statement, which say where to send it, and has no plan without them.
///
/// Statements that write are large and keep a plan for a while (`Session::plan_again`); reads are small, and each is planned
/// for the tables as they are.
fn by_index(purpose: Use) -> String {
    let plans = if purpose == Use::Write { "force_generic_plan" } else { "force_custom_plan" };
    format!(
        "SELECT set_config(wanted.name, wanted.value, false) FROM (VALUES
        ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'),
        ('enable_material', 'off'), ('enable_memoize', 'off'), ('plan_cache_mode', '{plans}'),
        ('jit', 'off'), ('work_mem', '64MB')
    ) AS wanted (name, value)
    WHERE wanted.name IN (SELECT name FROM pg_catalog.pg_settings) AND NOT (wanted.name = 'plan_cache_mode'
        AND EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus'));"
    )
}

/// Where the database is and how long to wait for it.
#[derive(Clone)]
pub(super) struct Database {
    config: Config,
    tls: MakeRustlsConnect,
    handle: Handle,
    name: String,
    lock_timeout: Duration,
    pub(super) statement_timeout: Duration,
    pub(super) connect_timeout: Duration,
    durability: Durability,
    /// Whether the log says already that the server does not tell its identity.
    told: Arc<AtomicBool>,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Group commits.
    Write,
    /// Everything else.
    Read,
    /// A copy from store to store.
    Copy,
}

impl Database {
    pub(super) fn new(settings: &Settings, url: &PostgresUrl, handle: Handle) -> Result<Self, StoreError> {
        let store = &settings.store;
        let mut config = url.config().clone();
        if config.get_connect_timeout().is_none() {
            // A host that does not answer leaves time for those behind it.
            let hosts = config.get_hosts().len().max(config.get_hostaddrs().len()).max(1);
            let share = store.connect_timeout / u32::try_from(hosts).unwrap_or(u32::MAX);
            config.connect_timeout(share);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(store.statement_timeout);
        }
        Ok(Self {
            config,
            tls: tls::connector(url)?,
            handle,
            name: url.to_string(),
            // PostgreSQL takes 0 for no limit.
            lock_timeout: store.lock_timeout.max(Duration::from_millis(1)),
            statement_timeout: store.statement_timeout,
            connect_timeout: store.connect_timeout,
            durability: store.durability,
            told: Arc::default(),
        })
    }

    /// The database as it may be shown.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether this caller is the first to say that the server does not tell its identity: each connection
    /// would say it again.
    pub(super) fn is_first_to_tell(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }

    /// When a commit is acknowledged.
    pub(super) fn durability(&self) -> Durability {
        self.durability
    }

    /// How long a commit waits for a lock.
    pub(super) fn lock_timeout(&self) -> Duration {
        self.lock_timeout
    }

    /// The longest that a whole transaction may take before its connection is given up.
    pub(super) fn patience(&self) -> Duration {
        self.lock_timeout + self.statement_timeout
    }

    /// Starts a task on the thread that drives connections.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.handle.spawn(task)
    }

    /// Waits for something that needs clocks or sockets, on a thread that may block.
    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let _clocks = self.handle.enter();
        block_on(future)
    }

    /// A connection for one use.
    pub(super) async fn connect(&self, purpose: Use) -> Result<Client, StoreError> {
        match timeout(self.connect_timeout, self.begin_to_connect(purpose).join_next()).await {
            Ok(Some(Ok(made))) => Ok(made?.0),
            Ok(Some(Err(error))) => Err(StoreError::Unavailable(error.to_string())),
            Ok(None) | Err(_) => {
                let limit = self.connect_timeout;
                Err(StoreError::Unavailable(format!(
                    "there was no connection to the database within {limit:?}"
                )))
            }
        }
    }

    /// Begins to make a connection: one task, which is given up with what is given here, as is its socket. What it has made
    /// is driven where it can outlive whoever asks for it.
    pub(super) fn begin_to_connect(&self, purpose: Use) -> JoinSet<Result<Made, Error>> {
        let (database, mut making) = (self.clone(), JoinSet::new());
        let connecting = async move {
            let mut config = database.config.clone();
            if purpose == Use::Copy {
                // Whoever is slow to take what is copied is not gone. 0 is the system's own.
                config.tcp_user_timeout(Duration::ZERO);
            }
            let (client, connection) = config.connect(database.tls.clone()).await?;
            // It ends with the client; an error of it is one of the client's next statement too.
            let driven = tokio::spawn(async move { drop(connection.await) });
            client.batch_execute(&database.session(purpose)).await?;
            Ok((client, driven))
        };
        making.spawn_on(connecting, &self.handle);
        making
    }

    /// A connection whose messages the caller takes. Must be called on the thread that drives connections.
    pub(super) async fn connect_raw(&self) -> Result<(Client, Driven), StoreError> {
        within(self.connect_timeout, self.config.connect(self.tls.clone())).await
    }

    /// Lets the server ask a node that is silent whether it is still there, and give its connection up after as long as a
    /// statement may take; where the server has settings for that.
    ///
    /// A node may be cut off in the middle of a commit. The server waits for the rest then, with the topics locked, and by
    /// itself it would do so for hours: its limit for idle transactions does not hold within a statement.
    pub(super) fn given_up_in_time(&self) -> String {
        let silence = self.statement_timeout.as_millis();
        let asked_after = (self.statement_timeout.as_millis() / 2_000).max(1);
        set(&format!(
            "('tcp_user_timeout', '{silence}'), ('tcp_keepalives_idle', '{asked_after}'),
             ('tcp_keepalives_interval', '1'), ('tcp_keepalives_count', '5')"
        ))
    }

    /// What every session of a use begins with. What the database or the role sets for other programs must not change
    /// what is promised here.
    fn session(&self, purpose: Use) -> String {
        let synchronous = match self.durability {
            Durability::Full => "on",
            Durability::Relaxed => "off",
        };
        // PostgreSQL takes 0 for no limit.
        let mut sql = by_index(purpose) + &self.given_up_in_time();
        let (statement, idle) = match purpose {
            Use::Write => (self.patience(), self.statement_timeout),
            Use::Read => (self.statement_timeout, self.statement_timeout),
            // Its last transaction waits for another store between two statements.
            Use::Copy => (Duration::ZERO, Duration::ZERO),
        };
        // Writing to a String cannot fail.
        let _ = write!(
            sql,
            "SET synchronous_commit = {synchronous}; SET default_transaction_isolation = 'read committed'; \
             SET default_transaction_read_only = off; \
             SET lock_timeout = {}; SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {};",
            self.lock_timeout.as_millis(),
            statement.as_millis(),
            idle.as_millis()
        );
        sql
    }
}

/// Sets those of these settings that the database has.
fn set(settings: &str) -> String {
    format!(
        "SELECT set_config(wanted.name, wanted.value, false) FROM (VALUES {settings}) AS wanted (name, value)
        WHERE wanted.name IN (SELECT name FROM pg_catalog.pg_settings);"
    )
}

/// Waits for the database, but not for ever.
pub(super) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, StoreError> {
    match timeout(limit, answer).await {
        Ok(result) => result.map_err(StoreError::from),
        Err(_) => Err(StoreError::Unavailable(format!("the database did not answer within {limit:?}"))),
    }
}

/// Drives a connection and gives each notification to `hear`, until it ends.
pub(super) async fn drive(mut connection: Driven, mut hear: impl FnMut(&str)) {
    while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notification(said) = message {
            hear(said.payload());
        }
    }
}

/// What the database itself says is damaged, or will never take, is no matter of trying again; all else may pass.
impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let Some(code) = error.code() else { return Self::Unavailable(explain(&error)) };
        let class = code.code().get(..2).unwrap_or_default();
        let is_final = matches!(class, "22" | "54")
            || [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED].contains(code);
        if is_final { Self::Damaged(explain(&error)) } else { Self::Unavailable(explain(&error)) }
    }
}

/// The driver's words where a server refuses an encrypted connection.
const NO_TLS: &str = "server does not support TLS";

/// An error with its causes: the driver's own words are few. Never its detail, which may hold what producers sent.
fn explain(error: &Error) -> String {
    if let Some(told) = error.as_db_error() {
        return format!("PostgreSQL says {}: {}", told.code().code(), told.message());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let _ = write!(text, ": {next}");
        cause = next.source();
    }
    if text.contains(NO_TLS) {
        text.push_str(
            "; let the server use TLS, or write sslmode=disable into the URL to connect without (the password may pass in clear text then)",
        );
    }
    text
}
