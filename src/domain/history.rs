//! The history of a store: the life of its seqs between two restores.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// The longest id of a history that a client may send, in bytes.
pub const HISTORY_MAX_BYTES: usize = 32;

/// Characters that name the store; all histories of a store begin with the same ones.
const STORE_DIGITS: usize = 6;

/// Characters that name the history among those of the store.
const INCARNATION_DIGITS: usize = 6;

/// The id of a history, opaque to clients: 1 to [`HISTORY_MAX_BYTES`] lower-case letters and digits. A
/// seq names an event only together with the history that it belongs to. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HistoryId(Arc<str>);

/// How the seqs of a topic in another history relate to those of the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    /// It is the current history.
    Same,
    /// The events up to this seq are the same in both.
    SharedUpTo(u64),
    /// The store knows no such history: it belongs to another store, or began before those that are
    /// remembered, or after the state that was restored.
    Unknown,
}

impl HistoryId {
    /// The first history of a new store, with a random id.
    #[must_use]
    pub fn first() -> Self {
        Self(random_digits(STORE_DIGITS + INCARNATION_DIGITS).into())
    }

    /// A new history of the same store. Its id is random, not counted: two copies of one backup that
    /// are both served begin two histories.
    #[must_use]
    pub fn successor(&self) -> Self {
        let store = self.0.get(..STORE_DIGITS).unwrap_or(&self.0);
        Self(format!("{store}{}", random_digits(INCARNATION_DIGITS)).into())
    }

    /// Parses an id; `None` where it cannot be the id of any history.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (1..=HISTORY_MAX_BYTES).contains(&text.len()) && text.bytes().all(is_digit);
        fits.then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HistoryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Random hexadecimal digits, at most 12.
fn random_digits(count: usize) -> String {
    // The last 12 digits of a random UUID are all random: version and variant stand before them.
    let uuid = Uuid::new_v4().simple().to_string();
    uuid.chars().rev().take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_belongs_to_the_same_store_and_is_another_history() {
        let first = HistoryId::first();
        let (one, other) = (first.successor(), first.successor());
        assert_eq!(first.as_str().len(), STORE_DIGITS + INCARNATION_DIGITS);
        for next in [&one, &other] {
            assert_eq!(next.as_str()[..STORE_DIGITS], first.as_str()[..STORE_DIGITS]);
            assert_ne!(*next, first);
            assert_eq!(HistoryId::parse(next.as_str()), Some(next.clone()));
        }
        assert_ne!(one, other, "two copies of one backup are two histories");
    }

    #[test]
    fn an_id_is_short_and_needs_no_escaping_anywhere() {
        assert_eq!(HistoryId::parse("k3f9").unwrap().to_string(), "k3f9");
        assert!(HistoryId::parse(&"a".repeat(32)).is_some());
        for wrong in ["", "K3F9", "a b", "a@b", "é", "a\n", &"a".repeat(33)] {
            assert_eq!(HistoryId::parse(wrong), None, "{wrong:?}");
        }
    }
}
