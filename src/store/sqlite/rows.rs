//! The rows of events: the log itself, in the order in which it was committed.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use super::topics::TopicId;
use crate::domain::{Event, Parts, StoredEvent, check_name};
use crate::store::StoreError;
use crate::store::index::{Entry, Hasher, MAX_NUMBER, Recent};

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
    Ok(last.map_or(0, |pos| pos.max(0).cast_unsigned()))
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

/// Reads events of one topic by their positions.
pub(super) struct Rows<'c> {
    select: CachedStatement<'c>,
    topic: TopicId,
    name: &'c str,
}

impl<'c> Rows<'c> {
    pub(super) fn of(connection: &'c Connection, topic: TopicId, name: &'c str) -> rusqlite::Result<Self> {
        let sql =
            "SELECT seq, received_at, event_id, timestamp, source, payload, topic FROM events WHERE pos = ?1";
        Ok(Self { select: connection.prepare_cached(sql)?, topic, name })
    }

    /// The event at a position, which must have this topic and seq: the index and the rows agree, or one of them
    /// is damaged.
    pub(super) fn at(&mut self, (seq, pos): (u64, u64)) -> Result<StoredEvent, StoreError> {
        let mut rows = self.select.query([pos.cast_signed()])?;
        if let Some(row) = rows.next()?
            && row.get::<_, i64>(6)? == self.topic.0
            && row.get::<_, i64>(0)?.cast_unsigned() == seq
        {
            return stored_event(self.name, row);
        }
        let name = self.name;
        Err(StoreError::Damaged(format!("topic {name}: the row of seq {seq} is not at position {pos}")))
    }
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

/// What becomes of a row of which no key can be made: its id cannot be read, or its numbers are none.
#[derive(Clone, Copy)]
pub(super) enum Unreadable<'a> {
    /// It is damage, and nothing is read.
    Refuse,
    /// It takes what was known of its key before, by position; without that only its place is kept.
    Keep(&'a HashMap<u64, Entry>),
}

/// The events behind a position, up to a number, as the index sees them.
pub(super) fn recent(
    connection: &Connection,
    hasher: &Hasher,
    after: u64,
    limit: usize,
    unreadable: Unreadable<'_>,
) -> Result<Recent, StoreError> {
    let sql = "SELECT pos, topic, seq, event_id, payload FROM events WHERE pos > ?1 ORDER BY pos LIMIT ?2";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params![after.cast_signed(), i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut recent = Recent::default();
    while let Some(row) = rows.next()? {
        let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let (pos, topic, seq) = (number(0)?, row.get(1)?, number(2)?);
        let (event_id, payload) = (bytes(row, 3)?, bytes(row, 4)?);
        if let Some(entry) = entry(hasher, topic, (pos, seq), event_id, payload) {
            recent.restore(topic, entry);
            continue;
        }
        match unreadable {
            Unreadable::Refuse => {
                return Err(StoreError::Damaged(format!(
                    "the row at position {pos} (topic number {topic}, seq {seq}) cannot be read; `sekali doctor` says more"
                )));
            }
            Unreadable::Keep(known) => match known.get(&pos) {
                Some(entry) => recent.restore(topic, *entry),
                None if is_number(seq) => recent.restore_place(topic, seq, pos),
                None => recent.pass(pos),
            },
        }
    }
    Ok(recent)
}

/// What the index knows of a row; `None` where its id is none that was ever accepted, or its numbers are none that
/// a log can give.
pub(super) fn entry(
    hasher: &Hasher,
    topic: i64,
    (pos, seq): (u64, u64),
    event_id: &[u8],
    payload: &[u8],
) -> Option<Entry> {
    let event_id = str::from_utf8(event_id).ok().filter(|id| check_name(id).is_ok())?;
    let whole = is_number(pos) && is_number(seq);
    whole.then(|| Entry { key: hasher.key(topic, event_id), pos, seq, digest: hasher.digest(payload) })
}

/// The topic of the row at a position, and what the index has to know of it, if it can be read.
pub(super) fn entry_at(
    connection: &Connection,
    hasher: &Hasher,
    pos: u64,
) -> Result<Option<(i64, Option<Entry>)>, StoreError> {
    let sql = "SELECT topic, seq, event_id, payload FROM events WHERE pos = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([pos.cast_signed()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (topic, seq) = (row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned());
    Ok(Some((topic, entry(hasher, topic, (pos, seq), bytes(row, 2)?, bytes(row, 3)?))))
}

/// The topic and the id of the row at a position.
pub(super) fn id_at(connection: &Connection, pos: u64) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    let sql = "SELECT topic, event_id FROM events WHERE pos = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([pos.cast_signed()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some((row.get(0)?, bytes(row, 1)?.to_vec())))
}

/// The topic and the seq of the row at a position.
pub(super) fn place_at(connection: &Connection, pos: u64) -> rusqlite::Result<Option<(i64, u64)>> {
    let sql = "SELECT topic, seq FROM events WHERE pos = ?1";
    let place = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()));
    connection.prepare_cached(sql)?.query_row([pos.cast_signed()], place).optional()
}

/// The bytes of a text.
pub(super) fn bytes<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<&'r [u8]> {
    Ok(row.get_ref(column)?.as_bytes()?)
}

fn is_number(number: u64) -> bool {
    (1..=MAX_NUMBER).contains(&number)
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
