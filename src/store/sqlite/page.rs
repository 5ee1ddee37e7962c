//! A page of a topic: the positions of its seqs from memory and from segments, then the rows.

use rusqlite::Connection;

use super::index::SharedMemory;
use super::rows::{self, Rows};
use super::topics::TopicId;
use super::{runs, topics};
use crate::domain::StoredEvent;
use crate::store::{Order, PAGE_BYTES, PageQuery, StoreError};

/// The seq and position of an event.
type Place = (u64, u64);

/// Reads a page. The topic's row comes first, then memory, then segments and rows: every seq that the row knows
/// is in memory, in a segment, or, where its commit is known to the file and not yet to memory, at the very end
/// of the log. A seq that is nowhere is damage.
pub(super) fn read(
    connection: &Connection,
    memory: &SharedMemory,
    query: &PageQuery,
) -> Result<Vec<StoredEvent>, StoreError> {
    let Some(topic) = topics::load(connection, &query.topic)? else { return Ok(Vec::new()) };
    let wanted = Seqs { first: query.first.max(1), last: query.last.min(topic.last_seq) };
    let recent = Recent::look(memory, topic.id, wanted, query);
    // One for all that follows: to begin and end one for each row would take longer than to read it.
    let snapshot = connection.unchecked_transaction()?;
    let mut rows = Rows::of(&snapshot, topic.id, query.topic.as_str())?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    for place in places(&snapshot, recent, topic.id, wanted, query)? {
        let stored = rows.at(place)?;
        bytes += stored.event.bytes();
        if bytes > PAGE_BYTES && !events.is_empty() {
            break;
        }
        events.push(stored);
    }
    Ok(events)
}

/// Both ends included; none where `first` is greater than `last`.
#[derive(Clone, Copy)]
struct Seqs {
    first: u64,
    last: u64,
}

fn places(
    connection: &Connection,
    recent: Recent,
    topic: TopicId,
    wanted: Seqs,
    query: &PageQuery,
) -> Result<Vec<Place>, StoreError> {
    let behind = behind(connection, topic, wanted, &recent)?;
    let first_behind = behind.first().map_or(u64::MAX, |(seq, _)| *seq);
    let sealed = Seqs { last: wanted.last.min(recent.first - 1).min(first_behind - 1), ..wanted };
    let in_range = |(seq, _): &Place| (wanted.first..=wanted.last).contains(seq);
    let behind = behind.into_iter().filter(in_range);
    match query.order {
        Order::Ascending => {
            let mut places = ascending(connection, topic, sealed, query.limit)?;
            places.extend(recent.places.into_iter().chain(behind).take(query.limit - places.len()));
            Ok(places)
        }
        Order::Descending => {
            let mut places: Vec<_> = behind.rev().chain(recent.places).take(query.limit).collect();
            places.extend(descending(connection, topic, sealed, query.limit - places.len())?);
            Ok(places)
        }
    }
}

/// What memory knows of a topic.
struct Recent {
    /// The wanted places.
    places: Vec<Place>,
    /// The first and the last seq that memory has; `u64::MAX` and 0 where it has none.
    first: u64,
    last: u64,
    /// The last position of the log that memory knows.
    last_pos: u64,
}

impl Recent {
    fn look(memory: &SharedMemory, topic: TopicId, wanted: Seqs, query: &PageQuery) -> Self {
        let memory = memory.read();
        let found = memory.positions(topic.0, wanted.first, wanted.last);
        let places = match query.order {
            Order::Ascending => found.take(query.limit).collect(),
            Order::Descending => found.rev().take(query.limit).collect(),
        };
        let seqs = memory.recent_seqs(topic.0);
        let (first, last) = seqs.map_or((u64::MAX, 0), |seqs| (*seqs.start(), *seqs.end()));
        Self { places, first, last, last_pos: memory.last_pos() }
    }
}

/// The places of events whose commit memory does not know yet, where some of them are wanted.
fn behind(
    connection: &Connection,
    topic: TopicId,
    wanted: Seqs,
    recent: &Recent,
) -> Result<Vec<Place>, StoreError> {
    let known = wanted.last <= recent.last || wanted.last < wanted.first;
    if known || (recent.last == 0 && runs::positions_at(connection, topic.0, wanted.last)?.is_some()) {
        return Ok(Vec::new());
    }
    Ok(rows::places_behind(connection, topic, recent.last_pos)?)
}

fn ascending(
    connection: &Connection,
    topic: TopicId,
    sealed: Seqs,
    limit: usize,
) -> Result<Vec<Place>, StoreError> {
    let (mut places, mut next) = (Vec::new(), sealed.first);
    while next <= sealed.last && places.len() < limit {
        let segment = Segment::with(connection, topic, next)?;
        places.extend(segment.places(next, sealed.last).take(limit - places.len()));
        next = segment.first + segment.positions.len() as u64;
    }
    Ok(places)
}

fn descending(
    connection: &Connection,
    topic: TopicId,
    sealed: Seqs,
    limit: usize,
) -> Result<Vec<Place>, StoreError> {
    let (mut places, mut last) = (Vec::new(), sealed.last);
    while last >= sealed.first && places.len() < limit {
        let segment = Segment::with(connection, topic, last)?;
        places.extend(segment.places(sealed.first, last).rev().take(limit - places.len()));
        last = segment.first - 1;
    }
    Ok(places)
}

/// Unpacked positions of consecutive seqs.
struct Segment {
    first: u64,
    positions: Vec<u64>,
}

impl Segment {
    /// The segment that holds a seq that was given and is not in memory.
    fn with(connection: &Connection, topic: TopicId, seq: u64) -> Result<Self, StoreError> {
        let (first, positions) = runs::positions_at(connection, topic.0, seq)?
            .ok_or_else(|| runs::missing_segment(topic.0, seq))?;
        Ok(Self { first, positions })
    }

    fn places(&self, first: u64, last: u64) -> impl DoubleEndedIterator<Item = Place> {
        let start = self.first;
        let places = self.positions.iter().enumerate().map(move |(at, pos)| (start + at as u64, *pos));
        places.filter(move |(seq, _)| (first..=last).contains(seq))
    }
}
