//! invariant 11: the histories of a store. A history begins with the events of the history before it, up to
//! one seq of each topic, which is stored.
//!
//! 1. A start compares the file with the high-water mark that the last server left beside it (`mark`).
//! 2. Where the file may lack events that clients have read, it begins a new history before anything is
//!    served, in a transaction of its own.
//! 3. A client that names an older history may resume at or below the seqs that both share.

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::mark::Left;
use super::rows;
use super::topics::{self, TopicId, TopicState};
use crate::config::Durability;
use crate::domain::{HistoryId, Kinship, Topic};
use crate::store::transfer::{Fork, History};
use crate::store::{HISTORIES_MAX, StoreError};

/// The current history of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Current {
    pub(super) number: i64,
    pub(super) id: HistoryId,
    /// The next start begins another history.
    pub(super) ended: bool,
}

/// Why a start begins a new history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The file is a copy made by `sekali backup`, or `sekali doctor --new-history` asked for it.
    Ended,
    /// The last server beside this file served another history: this is another file.
    OtherFile,
    /// The file ends before a position that was synced.
    EndsEarlier,
    /// The machine stopped under a server with relaxed durability.
    MachineStopped,
    /// The mark of the last server cannot be read.
    NoMark,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "the file is a backup, or a new history was asked for",
            Self::OtherFile => "another file replaced the store",
            Self::EndsEarlier => "the file ends before events that were synced: it was restored",
            Self::MachineStopped => {
                "the machine stopped under a server with relaxed durability, which may lose the last \
                 events"
            }
            Self::NoMark => "the high-water mark in the lock file cannot be read",
        }
    }
}

/// Gives the current history of a store that is about to be served, and begins a new one before that
/// where clients may have read events that the file does not hold.
///
/// # Errors
/// Where the new history cannot be stored: the store must not be served then.
pub(super) fn resume(
    connection: &mut Connection,
    left: &Left,
    booted: &str,
) -> Result<HistoryId, StoreError> {
    let (found, last_pos) = (current(connection)?, rows::last_pos(connection)?);
    let Some(reason) = left_behind(&found, last_pos, left, booted) else { return Ok(found.id) };
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let began = begin(&transaction, &found)?;
    transaction.commit()?;
    let because = reason.as_str();
    tracing::warn!(history = %began, parent = %found.id, last_pos, because, "began a new history");
    Ok(began)
}

/// Why the events of the current history may be others than those that clients have read, if they may.
fn left_behind(found: &Current, last_pos: u64, left: &Left, booted: &str) -> Option<Reason> {
    if found.ended {
        return Some(Reason::Ended);
    }
    let left = match left {
        Left::Nothing => return None,
        Left::Mark(mark) => mark,
        // A new history too many costs its readers nothing.
        Left::Unreadable => return Some(Reason::NoMark),
    };
    // A kill alone loses nothing: the system's memory has the commits. Where the system names no boot,
    // each start may be the first of one.
    let machine_stopped = booted.is_empty() || left.booted != booted;
    if left.history != found.id {
        // A store that was removed, and made again, has no events that another history could share.
        Some(Reason::OtherFile).filter(|_| last_pos > 0)
    } else if left.last_pos > last_pos {
        Some(Reason::EndsEarlier)
    } else if left.running && left.durability == Durability::Relaxed && machine_stopped {
        Some(Reason::MachineStopped)
    } else {
        None
    }
}

/// The current history.
pub(super) fn current(connection: &Connection) -> Result<Current, StoreError> {
    let sql = "SELECT number, id, ended FROM histories ORDER BY number DESC LIMIT 1";
    let (number, id, ended) =
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?)))?;
    Ok(Current { number, id: parse(&id)?, ended })
}

fn parse(id: &str) -> Result<HistoryId, StoreError> {
    HistoryId::parse(id).ok_or_else(|| StoreError::Damaged(format!("the history {id:?} has no valid id")))
}

/// Ends a history with the last seq of each topic, and begins the next one.
pub(super) fn begin(connection: &Connection, ended: &Current) -> Result<HistoryId, StoreError> {
    // A topic's row has the last seq that is sealed; the rows behind the last run have the rest.
    connection.execute(
        "INSERT INTO forks (history, topic, last_seq)
         SELECT ?1, id, max(last_seq, ifnull(recent.seq, 0)) FROM topics LEFT JOIN (
             SELECT topic, max(seq) AS seq FROM events
             WHERE pos > (SELECT ifnull(max(last_pos), 0) FROM runs) GROUP BY topic
         ) AS recent ON recent.topic = id
         WHERE max(last_seq, ifnull(recent.seq, 0)) > 0",
        [ended.number],
    )?;
    let next = ended.id.successor();
    insert(connection, ended.number + 1, &next, None)?;
    for sql in ["DELETE FROM forks WHERE history <= ?1", "DELETE FROM histories WHERE number <= ?1"] {
        connection.execute(sql, [ended.number + 1 - HISTORIES_MAX])?;
    }
    Ok(next)
}

/// Stores a history. One that began at no given time, in microseconds since 1970, begins now.
fn insert(
    connection: &Connection,
    number: i64,
    id: &HistoryId,
    began_at: Option<i64>,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO histories (number, id, began_at)
        VALUES (?1, ?2, ifnull(?3, CAST(unixepoch('subsec') * 1000000 AS INTEGER)))";
    connection.execute(sql, params![number, id.as_str(), began_at]).map(drop)
}

/// All histories, the current one last.
pub(super) fn all(connection: &Connection) -> Result<Vec<History>, StoreError> {
    let mut statement = connection.prepare("SELECT number, id, began_at FROM histories ORDER BY number")?;
    let mut rows = statement.query([])?;
    let mut histories = Vec::new();
    while let Some(row) = rows.next()? {
        let id = parse(&row.get::<_, String>(1)?)?;
        histories.push(History { number: row.get(0)?, id, began_at: row.get(2)? });
    }
    Ok(histories)
}

/// Where a topic was when histories ended.
pub(super) fn forks(connection: &Connection, topic: &Topic) -> Result<Vec<Fork>, StoreError> {
    let Some(TopicState { id, .. }) = topics::load(connection, topic)? else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(
        "SELECT history, last_seq FROM histories JOIN forks ON history = number AND topic = ?1",
    )?;
    let fork = |row: &Row<'_>| {
        let last_seq = row.get::<_, i64>(1)?.cast_unsigned();
        Ok(Fork { history: row.get(0)?, topic: topic.clone(), last_seq })
    };
    Ok(statement.query_map([id.0], fork)?.collect::<Result<_, _>>()?)
}

/// Puts these histories in place of those that are there.
pub(super) fn replace(connection: &Connection, histories: &[History]) -> rusqlite::Result<()> {
    connection.execute_batch("DELETE FROM forks; DELETE FROM histories")?;
    histories
        .iter()
        .try_for_each(|History { number, id, began_at }| insert(connection, *number, id, Some(*began_at)))
}

/// Says where a topic was when a history ended.
pub(super) fn add_fork(connection: &Connection, topic: TopicId, fork: &Fork) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO forks (history, topic, last_seq) VALUES (?1, ?2, ?3)")?
        .execute([fork.history, topic.0, fork.last_seq.cast_signed()])
        .map(drop)
}

/// Lets the next start begin a new history.
pub(super) fn end(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "UPDATE histories SET ended = 1 WHERE number = (SELECT max(number) FROM histories)";
    connection.execute(sql, []).map(drop)
}

/// Which seqs of a topic are the same in this history and in the current one.
pub(super) fn kinship(
    connection: &Connection,
    topic: &Topic,
    history: &HistoryId,
) -> Result<Kinship, StoreError> {
    let asked: Option<i64> = connection
        .prepare_cached("SELECT number FROM histories WHERE id = ?1")?
        .query_row([history.as_str()], |row| row.get(0))
        .optional()?;
    let Some(asked) = asked else { return Ok(Kinship::Unknown) };
    let current = current(connection)?.number;
    if asked == current {
        return Ok(Kinship::Same);
    }
    let Some(topic) = topics::load(connection, topic)? else { return Ok(Kinship::SharedUpTo(0)) };
    // A topic that had no event when a history ended has no row of it.
    let shared: i64 = connection
        .prepare_cached(
            "SELECT ifnull(min(ifnull(last_seq, 0)), 0) FROM histories
             LEFT JOIN forks ON history = number AND topic = ?1
             WHERE number >= ?2 AND number < ?3",
        )?
        .query_row([topic.id.0, asked, current], |row| row.get(0))?;
    Ok(Kinship::SharedUpTo(shared.max(0).cast_unsigned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::mark::Mark;

    fn found(ended: bool) -> Current {
        Current { number: 1, id: HistoryId::parse("a1").unwrap(), ended }
    }

    fn mark(history: &str, last_pos: u64, durability: Durability, running: bool) -> Mark {
        let history = HistoryId::parse(history).unwrap();
        Mark { history, last_pos, durability, running, booted: "boot-1".to_owned() }
    }

    #[test]
    fn only_lost_events_begin_a_new_history() {
        use Durability::{Full, Relaxed};
        let marked =
            |history, last_pos, durability, running| Left::Mark(mark(history, last_pos, durability, running));
        for (ended, left, booted, expected) in [
            (false, Left::Nothing, "boot-1", None),
            (false, Left::Unreadable, "boot-1", Some(Reason::NoMark)),
            (true, Left::Nothing, "boot-1", Some(Reason::Ended)),
            (false, marked("a1", 9, Relaxed, true), "", Some(Reason::MachineStopped)),
            (false, marked("a1", 9, Full, false), "boot-1", None),
            (false, marked("a1", 9, Full, true), "boot-2", None),
            (false, marked("a1", 8, Full, true), "boot-1", None),
            (false, marked("a1", 10, Full, false), "boot-1", Some(Reason::EndsEarlier)),
            (false, marked("b2", 9, Full, false), "boot-1", Some(Reason::OtherFile)),
            (false, marked("a1", 9, Relaxed, true), "boot-1", None),
            (false, marked("a1", 9, Relaxed, false), "boot-2", None),
            (false, marked("a1", 9, Relaxed, true), "boot-2", Some(Reason::MachineStopped)),
        ] {
            let reason = left_behind(&found(ended), 9, &left, booted);
            assert_eq!(reason, expected, "{ended} {left:?} {booted}");
        }
        let of_another = marked("b2", 9, Full, false);
        assert_eq!(left_behind(&found(false), 0, &of_another, "boot-1"), None, "the store is new");
    }
}
