//! The rows of events: the log itself, in the order in which it was committed.

use jiff::Timestamp;
use rusqlite::{CachedStatement, Connection, Row, params};

use super::topics::TopicId;
use crate::domain::{Event, Parts, StoredEvent};
use crate::store::StoreError;
use crate::store::index::{Entry, Hasher, Recent};

/// Stores events of one transaction.
pub(super) struct Appender<'c> {
    insert: CachedStatement<'c>,
    received_at: i64,
}

impl<'c> Appender<'c> {
    /// For events that are received now.
    pub(super) fn new(connection: &'c Connection, now: Timestamp) -> rusqlite::Result<Self> {
        let insert = connection.prepare_cached(
            "INSERT INTO events (pos, topic, seq, event_id, timestamp, source, payload, received_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        Ok(Self { insert, received_at: now.as_microsecond() })
    }

    /// Stores an event at a position behind all others.
    pub(super) fn append(
        &mut self,
        topic: TopicId,
        (pos, seq): (u64, u64),
        event: &Event,
    ) -> rusqlite::Result<()> {
        let Parts { event_id, timestamp, source, payload, .. } = event.parts();
        self.insert.execute(params![
            pos.cast_signed(),
            topic.0,
            seq.cast_signed(),
            event_id,
            timestamp,
            source,
            payload,
            self.received_at
        ])?;
        Ok(())
    }
}

/// The last position of the log; 0 where it is empty.
pub(super) fn last_pos(connection: &Connection) -> rusqlite::Result<u64> {
    let last: Option<i64> = connection.query_row("SELECT max(pos) FROM events", [], |row| row.get(0))?;
    Ok(last.map_or(0, i64::cast_unsigned))
}

/// The payload at a position.
pub(super) fn payload(connection: &Connection, pos: u64) -> rusqlite::Result<String> {
    let sql = "SELECT payload FROM events WHERE pos = ?1";
    connection.prepare_cached(sql)?.query_row([pos.cast_signed()], |row| row.get(0))
}

/// When the event at a position was stored.
pub(super) fn received_at(connection: &Connection, pos: u64) -> Result<Timestamp, StoreError> {
    let sql = "SELECT received_at FROM events WHERE pos = ?1";
    time(connection.prepare_cached(sql)?.query_row([pos.cast_signed()], |row| row.get(0))?)
}

/// The event at a position, which must have this topic and seq: the index and the rows agree, or one of them
/// is damaged.
pub(super) fn at(
    connection: &Connection,
    (topic, name): (TopicId, &str),
    (seq, pos): (u64, u64),
) -> Result<StoredEvent, StoreError> {
    let sql =
        "SELECT seq, received_at, event_id, timestamp, source, payload, topic FROM events WHERE pos = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([pos.cast_signed()])?;
    if let Some(row) = rows.next()?
        && row.get::<_, i64>(6)? == topic.0
        && row.get::<_, i64>(0)?.cast_unsigned() == seq
    {
        return stored_event(name, row);
    }
    Err(StoreError::Damaged(format!("topic {name}: the row of seq {seq} is not at position {pos}")))
}

/// The seq and position of each event of a topic behind a position.
pub(super) fn places_behind(
    connection: &Connection,
    topic: TopicId,
    pos: u64,
) -> rusqlite::Result<Vec<(u64, u64)>> {
    let sql = "SELECT seq, pos FROM events WHERE pos > ?1 AND topic = ?2 ORDER BY pos";
    let mut statement = connection.prepare_cached(sql)?;
    let number = |row: &Row<'_>, column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let mut rows = statement.query([pos.cast_signed(), topic.0])?;
    let mut places = Vec::new();
    while let Some(row) = rows.next()? {
        places.push((number(row, 0)?, number(row, 1)?));
    }
    Ok(places)
}

/// The events behind a position, up to a number, as the index sees them.
pub(super) fn recent(
    connection: &Connection,
    hasher: &Hasher,
    after: u64,
    limit: usize,
) -> Result<Recent, StoreError> {
    let sql = "SELECT pos, topic, seq, event_id, payload FROM events WHERE pos > ?1 ORDER BY pos LIMIT ?2";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params![after.cast_signed(), i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut recent = Recent::default();
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
        let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let topic = row.get(1)?;
        let (key, digest) = (hasher.key(topic, text(3)?), hasher.digest(text(4)?));
        recent.push(topic, Entry { key, pos: number(0)?, seq: number(2)?, digest });
    }
    Ok(recent)
}

fn stored_event(topic: &str, row: &Row<'_>) -> Result<StoredEvent, StoreError> {
    let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    let event = Event::pack(Parts {
        topic,
        event_id: text(2)?,
        timestamp: text(3)?,
        source: text(4)?,
        payload: text(5)?,
    });
    Ok(StoredEvent { seq: row.get::<_, i64>(0)?.cast_unsigned(), received_at: time(row.get(1)?)?, event })
}

/// A stored time.
pub(super) fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros)
        .map_err(|error| StoreError::Damaged(format!("a stored time of {micros} microseconds: {error}")))
}
