//! What an event is, and what may be said about it: no clock, no disk, no network, no actor.
//!
//! Everything here is a plain value or a pure function. The rules are those of docs/API.md.

mod address;
mod bytes;
mod decimal;
mod digest;
mod event;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod history;
mod lateness;
mod name;
#[cfg(any(test, fuzzing))]
mod oracle;
mod payload;
mod request;
#[cfg(test)]
pub(crate) mod testing;
mod timestamp;
mod verdict;

pub use address::Address;
pub use digest::{PayloadDigest, PayloadHasher};
pub use event::{Event, Field, Parts, StoredEvent};
pub use history::{HISTORY_MAX_BYTES, HistoryId, Kinship};
pub use lateness::{LATE_BUCKETS, LATE_SECONDS, Lateness, Second};
pub use name::{NAME_MAX_BYTES, Topic, check_name};
pub use payload::{check_payload, has_escape};
pub use request::RequestId;
pub use timestamp::{TIMESTAMP_MAX_BYTES, check_stored_timestamp, check_timestamp};
pub use verdict::{Counts, Fault, FaultCode, Refusal, Verdict};
