//! The rows of topics, and what the writer remembers of them between commits.
//!
//! A row says where its topic was when a segment of it was sealed last; the rows of events behind it say the rest.
//! So a commit changes no row of a topic, however many topics its events have.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows;
use crate::domain::{Counts, Topic};
use crate::store::{StoreError, TopicCounts};

/// How many topics the writer remembers, so that memory does not grow with the topics ever seen: about 100
/// bytes each. One that it forgot costs one read.
const REMEMBERED: usize = 65_536;

/// The row of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TopicId(pub(super) i64);

/// The last event of a topic, as far as it is known: its seq and its position in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastEvent {
    pub(super) seq: u64,
    pub(super) pos: u64,
}

/// What the writer has to know of a topic to append to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct TopicState {
    pub(super) id: TopicId,
    pub(super) last_seq: u64,
}

/// Topics as they are in the store, as far as the writer remembers them.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    topics: HashMap<Topic, TopicState, RandomState>,
}

impl Remembered {
    /// The topic, if it is remembered.
    pub(super) fn get(&self, topic: &Topic) -> Option<TopicState> {
        self.topics.get(topic).copied()
    }

    /// Takes over what a commit made of these topics.
    pub(super) fn learn(&mut self, committed: impl ExactSizeIterator<Item = (Topic, TopicState)>) {
        if self.topics.len() + committed.len() > REMEMBERED {
            self.topics.clear();
        }
        self.topics.extend(committed.take(REMEMBERED));
    }
}

/// The row of a topic: its last seq is the last one that is sealed.
pub(super) fn load(connection: &Connection, topic: &Topic) -> rusqlite::Result<Option<TopicState>> {
    connection
        .prepare_cached("SELECT id, last_seq FROM topics WHERE name = ?1")?
        .query_row([topic.as_str()], |row| {
            Ok(TopicState { id: TopicId(row.get(0)?), last_seq: row.get::<_, i64>(1)?.cast_unsigned() })
        })
        .optional()
}

/// Makes a topic without events.
pub(super) fn create(connection: &Connection, topic: &Topic) -> rusqlite::Result<TopicState> {
    connection
        .prepare_cached(
            "INSERT INTO topics (name, last_seq, duplicates, conflicts, last_received_at)
             VALUES (?1, 0, 0, 0, 0)",
        )?
        .execute([topic.as_str()])?;
    Ok(TopicState { id: TopicId(connection.last_insert_rowid()), last_seq: 0 })
}

/// Adds repeats to what is counted of a topic.
pub(super) fn count(connection: &Connection, topic: TopicId, repeats: Counts) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE topics SET duplicates = duplicates + ?2, conflicts = conflicts + ?3 WHERE id = ?1",
        )?
        .execute([topic.0, repeats.duplicates.cast_signed(), repeats.conflicts.cast_signed()])
        .map(drop)
}

/// The last seq of a topic that is sealed; every seq where there is no such topic.
pub(super) fn sealed_seq(connection: &Connection, topic: TopicId) -> rusqlite::Result<u64> {
    let sql = "SELECT last_seq FROM topics WHERE id = ?1";
    let sealed =
        connection.prepare_cached(sql)?.query_row([topic.0], |row| row.get::<_, i64>(0)).optional()?;
    Ok(sealed.map_or(u64::MAX - 1, i64::cast_unsigned))
}

/// Writes that the events of a topic are sealed up to this seq, which is at this position.
pub(super) fn sealed(connection: &Connection, topic: TopicId, last: LastEvent) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE topics SET last_seq = ?2, last_received_at =
             ifnull((SELECT received_at FROM events WHERE pos = ?3), last_received_at)
             WHERE id = ?1 AND last_seq < ?2",
        )?
        .execute([topic.0, last.seq.cast_signed(), last.pos.cast_signed()])
        .map(drop)
}

/// The topics after a name, in the order of their names' bytes.
pub(super) fn after(
    connection: &Connection,
    name: Option<&str>,
    limit: usize,
) -> rusqlite::Result<Vec<(TopicId, String)>> {
    let sql = "SELECT id, name FROM topics WHERE name > ?1 ORDER BY name LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    // No topic has an empty name, so that every name is greater than it.
    let values = params![name.unwrap_or(""), i64::try_from(limit).unwrap_or(i64::MAX)];
    let topics = statement.query_map(values, |row| Ok((TopicId(row.get(0)?), row.get(1)?)))?;
    topics.collect()
}

/// What is stored of a topic whose last event that is not sealed is this one; `None` where no event is known of
/// it yet.
pub(super) fn one(
    connection: &Connection,
    topic: TopicId,
    recent: Option<LastEvent>,
) -> Result<Option<TopicCounts>, StoreError> {
    let sql = "SELECT name, last_seq, duplicates, conflicts, last_received_at FROM topics WHERE id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([topic.0])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let sealed = row.get::<_, i64>(1)?.cast_unsigned();
    match recent.filter(|recent| recent.seq > sealed) {
        Some(LastEvent { seq, pos }) => counts(row, seq, rows::received_at(connection, pos)?).map(Some),
        None if sealed > 0 => counts(row, sealed, rows::time(row.get(4)?)?).map(Some),
        None => Ok(None),
    }
}

fn counts(row: &Row<'_>, last_seq: u64, last_received_at: Timestamp) -> Result<TopicCounts, StoreError> {
    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let name: String = row.get(0)?;
    let topic = Topic::parse(&name)
        .map_err(|rule| StoreError::Damaged(format!("the name of topic {name:?}: {}", rule.as_str())))?;
    Ok(TopicCounts {
        topic,
        counts: Counts { accepted: last_seq, duplicates: number(2)?, conflicts: number(3)?, rejected: 0 },
        first_seq: 1,
        last_seq,
        last_received_at,
    })
}
