//! PostgreSQL with the events in it: as plain clients of it would store them, and as sekali does.

mod plain;
mod server;
mod shared;

pub(super) use plain::{Plain, Work};
pub(super) use server::Installed;
pub(super) use shared::Shared;

/// The directory of the server's write-ahead log, whose size is fixed.
const LOG: &str = "pg_wal";
