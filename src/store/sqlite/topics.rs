//! The rows of topics, and what the writer remembers of them between commits.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::time;
use crate::domain::{Counts, Topic};
use crate::store::{StoreError, TopicCounts};

/// How many topics the writer remembers, so that memory does not grow with the topics ever seen: about 100
/// bytes each. One that it forgot costs one read.
const REMEMBERED: usize = 65_536;

/// The row of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TopicId(pub(super) i64);

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

/// The row of a topic.
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

/// Writes what a group made of a topic: its new last seq and its repeats.
pub(super) fn update(
    connection: &Connection,
    topic: TopicState,
    counts: Counts,
    now: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE topics SET last_seq = ?2, duplicates = duplicates + ?3, conflicts = conflicts + ?4,
             last_received_at = iif(?2 > last_seq, ?5, last_received_at) WHERE id = ?1",
        )?
        .execute(params![
            topic.id.0,
            topic.last_seq.cast_signed(),
            counts.duplicates.cast_signed(),
            counts.conflicts.cast_signed(),
            now.as_microsecond()
        ])?;
    Ok(())
}

const COLUMNS: &str = "SELECT name, last_seq, duplicates, conflicts, last_received_at FROM topics";

/// What is stored of one topic.
pub(super) fn one(connection: &Connection, topic: &Topic) -> Result<Option<TopicCounts>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} WHERE name = ?1"))?;
    let mut rows = statement.query([topic.as_str()])?;
    rows.next()?.map(counts).transpose()
}

/// What is stored of the topics after a name, in the order of their names' bytes.
pub(super) fn list(
    connection: &Connection,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<TopicCounts>, StoreError> {
    let sql = format!("{COLUMNS} WHERE name > ?1 ORDER BY name LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    // No topic has an empty name, so that every name is greater than it.
    let mut rows = statement.query(params![after.unwrap_or(""), i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut topics = Vec::new();
    while let Some(row) = rows.next()? {
        topics.push(counts(row)?);
    }
    Ok(topics)
}

fn counts(row: &Row<'_>) -> Result<TopicCounts, StoreError> {
    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let name: String = row.get(0)?;
    let topic = Topic::parse(&name)
        .map_err(|rule| StoreError::Damaged(format!("the name of topic {name:?}: {}", rule.as_str())))?;
    let last_seq = number(1)?;
    Ok(TopicCounts {
        topic,
        counts: Counts { accepted: last_seq, duplicates: number(2)?, conflicts: number(3)?, rejected: 0 },
        first_seq: 1,
        last_seq,
        last_received_at: time(row.get(4)?)?,
    })
}
