//! The rows of events, and how a key is found among them.
//!
//! A plain unique index on `(topic, event_id)` decides what is new. Everything that knows of that index
//! stands in this file.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::topics::TopicId;
use crate::domain::{Event, Parts, StoredEvent};
use crate::store::{Found, Order, PAGE_BYTES, PageQuery, StoreError};

/// What decides about a repeated key: the event that was stored first.
pub(super) struct First {
    pub(super) seq: u64,
    pub(super) payload: String,
}

/// Stores the event with this seq if its key is new; gives the event that is stored already if it is not.
///
/// invariant 3: the unique index decides, whoever else writes and whatever memory says.
pub(super) fn insert_if_new(
    connection: &Connection,
    topic: TopicId,
    seq: u64,
    event: &Event,
    now: Timestamp,
) -> Result<Option<First>, StoreError> {
    let Parts { event_id, timestamp, source, payload, .. } = event.parts();
    let inserted = connection
        .prepare_cached(
            "INSERT INTO events (topic, seq, event_id, timestamp, source, payload, received_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (topic, event_id) DO NOTHING",
        )?
        .execute(params![
            topic.0,
            seq.cast_signed(),
            event_id,
            timestamp,
            source,
            payload,
            now.as_microsecond()
        ])?;
    if inserted == 1 {
        return Ok(None);
    }
    let first = connection
        .prepare_cached("SELECT seq, payload FROM events WHERE topic = ?1 AND event_id = ?2")?
        .query_row(params![topic.0, event_id], |row| {
            Ok(First { seq: row.get::<_, i64>(0)?.cast_unsigned(), payload: row.get(1)? })
        })?;
    Ok(Some(first))
}

/// The event with this key.
pub(super) fn event(
    connection: &Connection,
    topic: &str,
    event_id: &str,
) -> Result<Option<StoredEvent>, StoreError> {
    let sql = "SELECT e.seq, e.received_at, e.event_id, e.timestamp, e.source, e.payload
               FROM events AS e JOIN topics AS t ON t.id = e.topic WHERE t.name = ?1 AND e.event_id = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([topic, event_id])?;
    rows.next()?.map(|row| stored_event(topic, row)).transpose()
}

/// Where and when this key was stored.
pub(super) fn find(
    connection: &Connection,
    topic: &str,
    event_id: &str,
) -> Result<Option<Found>, StoreError> {
    let found: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT e.seq, e.received_at FROM events AS e JOIN topics AS t ON t.id = e.topic
             WHERE t.name = ?1 AND e.event_id = ?2",
        )?
        .query_row([topic, event_id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    found.map(|(seq, micros)| Ok(Found { seq: seq.cast_unsigned(), received_at: time(micros)? })).transpose()
}

/// A page of one topic. A gap in its seqs is damage: they are given without gaps.
pub(super) fn page(connection: &Connection, query: &PageQuery) -> Result<Vec<StoredEvent>, StoreError> {
    const COLUMNS: &str = "SELECT e.seq, e.received_at, e.event_id, e.timestamp, e.source, e.payload
        FROM events AS e WHERE e.topic = (SELECT id FROM topics WHERE name = ?1) AND e.seq BETWEEN ?2 AND ?3";
    let order = match query.order {
        Order::Ascending => "ASC",
        Order::Descending => "DESC",
    };
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} ORDER BY e.seq {order}"))?;
    // No seq is so great that SQLite's signed numbers do not hold it.
    let [first, last] = [query.first, query.last].map(|seq| i64::try_from(seq).unwrap_or(i64::MAX));
    let mut rows = statement.query(params![query.topic.as_str(), first, last])?;
    let (mut events, mut bytes) = (Vec::<StoredEvent>::new(), 0);
    while events.len() < query.limit
        && let Some(row) = rows.next()?
    {
        let stored = stored_event(query.topic.as_str(), row)?;
        bytes += stored.event.bytes();
        if bytes > PAGE_BYTES && !events.is_empty() {
            break;
        }
        if let Some(before) = events.last()
            && before.seq.abs_diff(stored.seq) != 1
        {
            return Err(StoreError::Damaged(format!(
                "topic {}: seq {} is followed by seq {}",
                query.topic, before.seq, stored.seq
            )));
        }
        events.push(stored);
    }
    Ok(events)
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
