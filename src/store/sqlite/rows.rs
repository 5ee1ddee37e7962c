//! The rows of events: the log itself, in the order in which it was committed.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::topics::TopicId;
use crate::domain::{Event, Parts, StoredEvent, Topic, check_name};
use crate::store::StoreError;
use crate::store::index::{Entry, Hasher, MAX_NUMBER, Recent};
use crate::store::sources::OTHER;

/// Stores events of one transaction.
pub(super) struct Appender<'c> {
    insert: CachedStatement<'c>,
    received_at: i64,
}

impl<'c> Appender<'c> {
    /// For events that are received now.
    pub(super) fn new(connection: &'c Connection, now: Timestamp) -> rusqlite::Result<Self> {
        let insert = connection.prepare_cached(
            "INSERT INTO events (pos, topic, seq, received_at, event_id, timestamp, source, payload, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        Ok(Self { insert, received_at: now.as_microsecond() })
    }

    /// From here on for events that were received then.
    pub(super) fn at(&mut self, moment: Timestamp) {
        self.received_at = moment.as_microsecond();
    }

    /// Stores an event at a position behind all others.
    pub(super) fn append(
        &mut self,
        topic: TopicId,
        place: (u64, u64),
        event: &Event,
    ) -> rusqlite::Result<()> {
        let Parts { event_id, timestamp, source, payload, .. } = event.parts();
        let (pos, seq) = (place.0.cast_signed(), place.1.cast_signed());
        let numbers = [pos, topic.0, seq, self.received_at];
        let checksum = checksum(numbers, [event_id, timestamp, source, payload].map(str::as_bytes));
        self.insert.execute(params![
            pos,
            topic.0,
            seq,
            self.received_at,
            event_id,
            timestamp,
            source,
            payload,
            checksum
        ])?;
        Ok(())
    }
}

/// The last position of the log; 0 where it is empty.
pub(super) fn last_pos(connection: &Connection) -> rusqlite::Result<u64> {
    let last: Option<i64> = connection.query_row("SELECT max(pos) FROM events", [], |row| row.get(0))?;
    Ok(last.map_or(0, |pos| pos.max(0).cast_unsigned()))
}

/// What every reader of whole rows selects, so that the checksum can be compared.
pub(super) const COLUMNS: &str =
    "pos, topic, seq, received_at, event_id, timestamp, source, payload, checksum";

/// The checksum of a row: 32 bits, so that one change of four thousand million goes unnoticed.
fn checksum(numbers: [i64; 4], texts: [&[u8]; 4]) -> i64 {
    let mut bytes = [0; 32];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    // Each text begins with the sum of what is before it, so that nothing can move from one to the next.
    let sum = texts.iter().fold(xxh3_64(&bytes), |sum, text| xxh3_64_with_seed(text, sum));
    i64::from(u32::try_from(sum >> 32).unwrap_or(u32::MAX))
}

/// Whether a row, selected as [`COLUMNS`], is as it was stored. One of an older version has no checksum, and
/// nothing speaks against it.
pub(super) fn is_whole(row: &Row<'_>) -> bool {
    let compare = || -> rusqlite::Result<bool> {
        let Some(stored) = row.get::<_, Option<i64>>(8)? else { return Ok(true) };
        let numbers = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
        let texts = [bytes(row, 4)?, bytes(row, 5)?, bytes(row, 6)?, bytes(row, 7)?];
        Ok(stored == checksum(numbers, texts))
    };
    // What cannot be read was not stored like this.
    compare().unwrap_or(false)
}

/// Reads something of the row at a position, which must be whole.
fn whole<T>(
    connection: &Connection,
    pos: u64,
    then: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM events WHERE pos = ?1"))?;
    let mut rows = statement.query([pos.cast_signed()])?;
    match rows.next()? {
        Some(row) if is_whole(row) => then(row),
        Some(_) => Err(changed(pos)),
        None => Err(StoreError::Damaged(format!("the row at position {pos} is missing"))),
    }
}

/// A row that is not as it was stored.
fn changed(pos: u64) -> StoreError {
    StoreError::Damaged(format!(
        "the row at position {pos} does not match its checksum; `sekali doctor` says more"
    ))
}

/// When the event at a position was stored.
pub(super) fn received_at(connection: &Connection, pos: u64) -> Result<Timestamp, StoreError> {
    whole(connection, pos, |row| time(row.get(3)?))
}

/// What the row at a position says of itself to the index.
pub(super) fn said_at(
    connection: &Connection,
    hasher: &Hasher,
    pos: u64,
) -> Result<Option<Entry>, StoreError> {
    whole(connection, pos, |row| Ok(said(hasher, row)))
}

/// Reads events of one topic by their positions.
pub(super) struct Rows<'c> {
    select: CachedStatement<'c>,
    topic: TopicId,
    name: &'c str,
}

impl<'c> Rows<'c> {
    pub(super) fn of(connection: &'c Connection, topic: TopicId, name: &'c str) -> rusqlite::Result<Self> {
        let sql = format!("SELECT {COLUMNS} FROM events WHERE pos = ?1");
        Ok(Self { select: connection.prepare_cached(&sql)?, topic, name })
    }

    /// The event at a position, which must have this topic and seq: the index and the rows agree, or one of them
    /// is damaged.
    pub(super) fn at(&mut self, (seq, pos): (u64, u64)) -> Result<StoredEvent, StoreError> {
        let mut rows = self.select.query([pos.cast_signed()])?;
        let name = self.name;
        match rows.next()? {
            Some(row) if !is_whole(row) => Err(StoreError::Damaged(format!(
                "topic {name}, seq {seq}: the row at position {pos} does not match its checksum"
            ))),
            Some(row)
                if row.get::<_, i64>(1)? == self.topic.0 && row.get::<_, i64>(2)?.cast_unsigned() == seq =>
            {
                stored_event(name, row)
            }
            _ => Err(StoreError::Damaged(format!(
                "topic {name}: the row of seq {seq} is not at position {pos}"
            ))),
        }
    }
}

/// A stretch of the log: events of all topics, in its order.
pub(super) struct Stretch {
    pub(super) events: Vec<StoredEvent>,
    /// The position behind which the next one begins.
    pub(super) end: u64,
}

/// Reads the events behind a position that are `wanted` by their topics and seqs, up to a number of them and of bytes. All
/// must be whole.
pub(super) fn behind(
    connection: &Connection,
    after: u64,
    (limit, most_bytes): (usize, usize),
    topics: &HashMap<i64, Topic>,
    wanted: &dyn Fn(&Topic, u64) -> bool,
) -> Result<Stretch, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM events WHERE pos > ?1 ORDER BY pos");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([after.cast_signed()])?;
    let (mut stretch, mut bytes) = (Stretch { events: Vec::new(), end: after }, 0);
    while stretch.events.len() < limit
        && bytes < most_bytes
        && let Some(row) = rows.next()?
    {
        let (pos, topic) = (row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?);
        let unknown = || StoreError::Damaged(format!("the row at position {pos} is of no topic"));
        let topic = topics.get(&topic).ok_or_else(unknown)?;
        stretch.end = pos;
        if !wanted(topic, row.get::<_, i64>(2)?.cast_unsigned()) {
            continue;
        }
        if !is_whole(row) {
            return Err(changed(pos));
        }
        let stored = stored_event(topic.as_str(), row)?;
        bytes += stored.event.bytes();
        stretch.events.push(stored);
    }
    Ok(stretch)
}

/// What becomes of a row that is not as it was stored, or of which no key can be made: its id cannot be read, or its
/// numbers are none.
#[derive(Clone, Copy)]
pub(super) enum Unreadable<'a> {
    /// It is damage, and nothing is read.
    Refuse,
    /// It takes what was known of its key before, by position; without that it is believed as far as it can be read,
    /// and else only its place is kept.
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
    let sql = format!("SELECT {COLUMNS} FROM events WHERE pos > ?1 ORDER BY pos LIMIT ?2");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(params![after.cast_signed(), i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut recent = Recent::default();
    while let Some(row) = rows.next()? {
        let pos = row.get::<_, i64>(0)?.cast_unsigned();
        let said = said(hasher, row);
        let known = match unreadable {
            _ if said.is_some() && is_whole(row) => said,
            Unreadable::Refuse => return Err(changed(pos)),
            Unreadable::Keep(known) => known.get(&pos).copied().or(said),
        };
        // What is no source was none that anybody sent, and is counted with the others.
        let source = bytes(row, 6).ok().and_then(|source| str::from_utf8(source).ok());
        let source = source.filter(|source| check_name(source).is_ok()).unwrap_or(OTHER);
        match (row.get(1), row.get::<_, i64>(2).map(i64::cast_unsigned), known) {
            (Ok(topic), _, Some(entry)) => recent.restore(topic, entry, source),
            (Ok(topic), Ok(seq), None) if is_number(seq) => recent.restore_place(topic, seq, pos, source),
            _ => recent.pass(pos),
        }
    }
    Ok(recent)
}

/// What a row, selected as [`COLUMNS`], says of itself to the index; `None` where its id is none that was ever
/// accepted, or its numbers are none that a log can give.
pub(super) fn said(hasher: &Hasher, row: &Row<'_>) -> Option<Entry> {
    let number = |column| row.get::<_, i64>(column).ok().map(i64::cast_unsigned).filter(|it| is_number(*it));
    let (pos, topic, seq) = (number(0)?, row.get(1).ok()?, number(2)?);
    let event_id = str::from_utf8(bytes(row, 4).ok()?).ok().filter(|id| check_name(id).is_ok())?;
    let digest = hasher.digest(bytes(row, 7).ok()?);
    Some(Entry { key: hasher.key(topic, event_id), pos, seq, digest })
}

/// The topic of the row at a position, and what the index has to know of it, if it can be read.
pub(super) fn entry_at(
    connection: &Connection,
    hasher: &Hasher,
    pos: u64,
) -> Result<Option<(i64, Option<Entry>)>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM events WHERE pos = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([pos.cast_signed()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some((row.get(1)?, said(hasher, row))))
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
        event_id: text(4)?,
        timestamp: text(5)?,
        source: text(6)?,
        payload: text(7)?,
    });
    Ok(StoredEvent { seq: row.get::<_, i64>(2)?.cast_unsigned(), received_at: time(row.get(3)?)?, event })
}

/// A stored time.
pub(super) fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros)
        .map_err(|error| StoreError::Damaged(format!("a stored time of {micros} microseconds: {error}")))
}
