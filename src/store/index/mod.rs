//! The dedup index without SQL, clock or actors: recent keys in memory, sealed runs of sorted entries behind.
//!
//! A key that is new costs no disk: recent keys are a map, and each run has a filter in memory that almost
//! always says no. Keys are hashes, so their order is random; runs turn random writes into sequential ones.
//!
//! | file | what |
//! | --- | --- |
//! | `entry` | what is known of one key, in 32 bytes |
//! | `block` | 125 sorted entries that fit into one page |
//! | `filter` | is a key in a run? no, or probably |
//! | `recent` | the keys and positions that are not sealed yet |
//! | `run` | what memory holds of a sealed run; building one from sorted entries |
//! | `positions` | where the events of a topic are, packed |
//! | `plan` | which runs to merge, and when |

mod block;
mod entry;
mod filter;
mod plan;
mod positions;
mod recent;
mod run;

pub(super) use block::Block;
pub(super) use entry::{Entry, Hasher, MAX_NUMBER};
pub(super) use plan::{Pace, next_merge};
pub(super) use positions::Segment;
pub(super) use recent::{Names, Recent};
pub(super) use run::{Built, Run, RunBuilder, Span};
