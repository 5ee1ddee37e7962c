//! Why a publish has no verdicts. The caller may always send the same events again.

use thiserror::Error;

/// Why a publish has no verdicts. Some of its events may be stored all the same.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishError {
    /// More is in flight than the limits allow.
    #[error("more events are in flight than limits.in_flight_bytes and limits.in_flight_events allow")]
    Overloaded,
    /// The address of the request holds its share of a limit, which this key names.
    #[error("the requests in flight of this address hold its share of {0}")]
    OverShare(&'static str),
    /// The address of the request made as many new topics as `limits.new_topics_per_minute` allows.
    /// Events of topics that exist may be stored.
    #[error(
        "this address has made as many new topics as limits.new_topics_per_minute allows; events of the \
         other topics are stored; send all of them again, which is safe"
    )]
    TooManyTopics {
        /// The seconds after which it may make those that are missing, 1 to 60.
        seconds: u32,
    },
    /// The disk has less free than `limits.free_disk`.
    #[error("the disk has less free than limits.free_disk; nothing was stored; send the same events later")]
    DiskLow,
    /// The store has more bytes than `limits.store_bytes`.
    #[error("the store has as many bytes as limits.store_bytes allows; nothing was stored")]
    StoreFull,
    /// The log is stopping.
    #[error("the log is stopping")]
    Stopping,
    /// The store did not write the events, or could not say whether it did.
    #[error("{0}")]
    Unavailable(String),
    /// What is stored under a key of the request does not read back.
    #[error("{0}")]
    Damaged(String),
    /// An actor that held the request failed; it is started again.
    #[error("an actor failed while it held the request")]
    ActorFailed,
}
