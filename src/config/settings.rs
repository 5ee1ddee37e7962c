//! Validated settings. What each key means and its default stand in config/default.toml.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::error::ConfigErrors;
use super::exposure::Exposure;
use super::password::{Passwords, Refused};
use super::postgres::{PostgresUrl, without_password};
use super::texts;

/// Everything that can be configured, every value within its bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `[server]`
    pub server: Server,
    /// `[limits]`
    pub limits: Limits,
    /// `[router]`
    pub router: Router,
    /// `[cache]`
    pub cache: Cache,
    /// `[store]`
    pub store: Store,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[topics."NAME"]`
    pub topics: BTreeMap<String, TopicSettings>,
    /// `[log]`
    pub log: Log,
    /// `[compat]`
    pub compat: Compat,
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The address to listen on, `HOST:PORT`; port 0 takes a free one.
    pub bind: String,
    /// The address to listen on for health and metrics alone, as `bind`.
    pub ops_bind: Option<String>,
    /// Names that requests may use in `Host` besides addresses and localhost, in lower case.
    pub allowed_hosts: Vec<String>,
    /// Proxies whose word is taken for the address of the client before them.
    pub trusted_proxies: Vec<IpNet>,
    /// HTTP worker threads, at least 1.
    pub workers: usize,
    /// The longest wait for the answer to a publish.
    pub request_timeout: Duration,
    /// The longest time for the head of a request to arrive.
    pub head_timeout: Duration,
    /// The longest time for a body to arrive.
    pub body_timeout: Duration,
    /// The time within which a body must bring the bytes that `body_min_rate` asks for, again and
    /// again.
    pub body_grace: Duration,
    /// Bytes of a body for each second; 0 is no bound.
    pub body_min_rate: usize,
    /// The longest time for the rest of a body to arrive that was answered before its end.
    pub drain_timeout: Duration,
    /// The longest time for which a client may take nothing of an answer.
    pub write_timeout: Duration,
    /// The longest time between two requests of a connection.
    pub keep_alive: Duration,
    /// The least bytes a second at which a client takes an answer; 0 is no bound.
    pub answer_min_rate: usize,
    /// The longest time for a stop to answer what is in flight.
    pub shutdown_timeout: Duration,
    /// A follower without news is sent a sign of life this often.
    pub follow_heartbeat: Duration,
    /// A follower that takes nothing for this long is cut off.
    pub follow_timeout: Duration,
}

/// Bounds of what is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body, as it is sent and after decompression.
    pub body: usize,
    /// How many times the bytes that it was sent as a body may have after decompression, once these
    /// are more than 1 MiB; 0 is no bound.
    pub compression_ratio: usize,
    /// Members that a compressed body may be made of.
    pub compressed_members: usize,
    /// Events of a request.
    pub batch_events: usize,
    /// Bytes of an event as JSON.
    pub event: usize,
    /// Levels of JSON in an event; the event itself is level 1.
    pub depth: usize,
    /// Events between their parsing and their commit, of all requests together.
    pub in_flight_events: usize,
    /// Bytes of bodies between their arrival and their commit, of all requests together.
    pub in_flight_bytes: usize,
    /// Bytes of the disk that must be free for a publish; 0 is no limit.
    pub free_disk: u64,
    /// Bytes of the store, past which nothing is published; `None` is no limit.
    pub store_bytes: Option<u64>,
    /// Topics in the store; `None` is no limit.
    pub topics: Option<u64>,
    /// Open connections; fewer where the process may not open as many files.
    pub connections: usize,
    /// Open connections of one address (IPv6: of one /64 network).
    pub connections_per_address: usize,
    /// Bytes that are read of a body after its answer.
    pub drain_bytes: usize,
    /// New topics that one address may make in a minute; `None` is no limit.
    pub new_topics_per_minute: Option<u32>,
    /// Clients that follow a topic at once.
    pub followers: usize,
    /// Clients at one address (IPv6: in one /64 network) that follow a topic at once, at least 1.
    pub followers_per_address: usize,
    /// Keys of one look-up.
    pub lookup_keys: usize,
    /// Bytes of answers that clients have not taken yet, of all answers together.
    pub answer_bytes: usize,
    /// Sources of a topic that are counted by name.
    pub sources: usize,
}

/// The router and its consumer actors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    /// Threads that run consumer actors, at least 1.
    pub shards: usize,
    /// Consumer actors of a topic that has no number of its own.
    pub lanes: usize,
    /// A consumer without events for this long is retired.
    pub idle: Duration,
    /// Consumer actors alive at once.
    pub consumers: usize,
}

/// The hot caches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Keys in all caches together; 0 switches them off.
    pub keys: usize,
    /// Keys of a topic that has no number of its own, over all its lanes.
    pub keys_per_topic: usize,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Which store.
    pub url: StoreUrl,
    /// The file with the password of a PostgreSQL store whose URL has none.
    pub password_file: Option<PathBuf>,
    /// When an acknowledged event is on disk.
    pub durability: Durability,
    /// Events of one group commit.
    pub commit_events: usize,
    /// Bytes of one group commit.
    pub commit_bytes: usize,
    /// Topics of one group commit; `None` is no limit.
    pub commit_topics: Option<usize>,
    /// Commits at once, each of topics of its own; a SQLite store has one.
    pub writers: usize,
    /// Reads at once.
    pub readers: usize,
    /// How long a commit waits for a store that something else has locked.
    pub lock_timeout: Duration,
    /// The longest wait for a connection to a database.
    pub connect_timeout: Duration,
    /// The longest that a database may take for a read, or for a commit beside waiting for locks.
    pub statement_timeout: Duration,
    /// Keys of the dedup index that are sealed as one run.
    pub seal_keys: usize,
    /// Past this size of the write-ahead log, commits wait for a checkpoint.
    pub wal_bytes: u64,
    /// Events that were repeated most recently and of which it is known how; 0 is none.
    pub repeated_keys: usize,
}

/// What `/metrics` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Topics with labels of their own, beside those of `topic_names`.
    pub topics: usize,
    /// Topics that always have labels of their own, once they exist.
    pub topic_names: Vec<String>,
}

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `sqlite:PATH`: an embedded file.
    Sqlite(PathBuf),
    /// `postgres://USER@HOST/DATABASE`: a database that several nodes share.
    Postgres(Box<PostgresUrl>),
}

/// When an acknowledged event is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Synced before the answer.
    Full,
    /// Synced at least once a second; a power cut may take the last second.
    Relaxed,
}

/// What is different for one topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicSettings {
    /// Consumer actors, in place of `router.lanes`.
    pub lanes: Option<usize>,
    /// Cached keys, in place of `cache.keys_per_topic`.
    pub keys_per_topic: Option<usize>,
}

/// Which older clients the log serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compat {
    /// Clients of the first version.
    pub first_version: bool,
}

/// The program's own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A `tracing` filter, such as `info` or `sekali=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON else.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Settings {
    /// The lanes of this topic.
    #[must_use]
    pub fn lanes(&self, topic: &str) -> usize {
        self.topics.get(topic).and_then(|own| own.lanes).unwrap_or(self.router.lanes)
    }

    /// The cached keys of this topic, over all its lanes.
    #[must_use]
    pub fn keys_per_topic(&self, topic: &str) -> usize {
        self.topics.get(topic).and_then(|own| own.keys_per_topic).unwrap_or(self.cache.keys_per_topic)
    }
}

impl StoreUrl {
    /// Reads the URL of a store.
    ///
    /// # Errors
    /// The rule that it breaks and what was found, without its password.
    pub fn parse(text: &str) -> Result<Self, String> {
        texts::store_url(text).map_err(|rule| format!("{rule}, found {:?}", without_password(text)))
    }

    /// The protection that connections to a database on another machine lack; `None` where they
    /// lack none, and for a file.
    #[must_use]
    pub fn exposure(&self) -> Option<Exposure> {
        if let Self::Postgres(url) = self { url.exposure() } else { None }
    }

    /// Gives the URL of a database that has no password the password of the environment or of `file`,
    /// which is that of `store.password_file`.
    ///
    /// # Errors
    /// The file that cannot be used, and why.
    pub fn find_password(&mut self, file: Option<&Path>) -> Result<(), ConfigErrors> {
        let Self::Postgres(url) = self else { return Ok(()) };
        let refused = |refused: Refused| ConfigErrors::of_file(refused.file, refused.rule);
        Passwords::of_the_environment().complete(url, file).map_err(refused)
    }
}

/// Without the password.
impl fmt::Display for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(formatter, "sqlite:{}", path.display()),
            Self::Postgres(url) => url.fmt(formatter),
        }
    }
}

impl Durability {
    /// The word in the configuration, in `/stats` and in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Relaxed => "relaxed",
        }
    }
}
