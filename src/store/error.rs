//! What can go wrong with a store, and what is known afterwards.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::domain::Topic;

/// Why a store did not do what it was asked to.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file belongs to another running process.
    #[error("{path} is in use by another sekali process (it holds the lock on {path}.lock)")]
    Owned {
        /// The store's file.
        path: String,
    },
    /// The file was written by a newer version of sekali.
    #[error(
        "the store has schema version {found}, and this sekali knows versions up to {known}: use a newer sekali"
    )]
    Newer {
        /// The version of the file.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The store was written by an older version of sekali, and is not to be changed.
    #[error(
        "the store has schema version {found}: start and stop `sekali serve` on it once, which brings it to version {known}"
    )]
    Older {
        /// The version of the store.
        found: i64,
        /// The version that is needed.
        known: i64,
    },
    /// A copy to the store was begun, and not run to its end.
    #[error("{store} is half a copy: run `sekali copy` to its end first")]
    HalfCopied {
        /// The store.
        store: String,
    },
    /// Nodes run on the database, or a copy.
    #[error("{store} is in use: nodes run on it, or another copy from it or to it")]
    InUse {
        /// The database, without its password.
        store: String,
    },
    /// The file is no store of sekali's.
    #[error("{path} is not a sekali store: {reason}")]
    Foreign {
        /// The store's file.
        path: String,
        /// What it is instead.
        reason: String,
    },
    /// What is stored does not read back.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// The disk is full, the file is locked or read-only, or input and output failed; trying again may help.
    #[error("the store is not available: {0}")]
    Unavailable(String),
}

/// Why a group was not appended.
#[derive(Debug, Error)]
pub enum AppendError {
    /// Nothing of the group is stored, and nothing of it ever will be.
    #[error("nothing was stored: {0}")]
    Failed(#[source] StoreError),
    /// Nothing of the group is stored, and nothing of it ever will be, because something else has locked these topics of it.
    /// The others can be stored without them.
    #[error("nothing was stored: something else has locked {}", name(topics))]
    Locked {
        /// Never none.
        topics: BTreeSet<Topic>,
    },
    /// All of the group is stored or nothing of it; only opening the store again can tell.
    #[error("it is not known whether the events were stored: {0}")]
    Unknown(#[source] StoreError),
}

/// Some topics in a few words.
fn name(topics: &BTreeSet<Topic>) -> String {
    match topics.first() {
        Some(only) if topics.len() == 1 => format!("topic {only}"),
        Some(first) => format!("topic {first} and {} more", topics.len() - 1),
        None => "no topic".to_owned(),
    }
}
