//! A page of a topic: the positions of its seqs from memory and from segments, then the rows.

use rusqlite::Connection;

use super::index::SharedMemory;
use super::rows::Rows;
use super::topics::{TopicId, TopicState};
use super::{runs, topics};
use crate::domain::StoredEvent;
use crate::store::{Order, PAGE_BYTES, PageQuery, StoreError};

/// A seq of the topic, and the position of its row.
type SeqAt = (u64, u64);

/// Reads a page. Memory comes first, then the topic's row with segments and rows of events: what memory no longer
/// has is sealed, and what the row then says is sealed is in a segment. A seq that is nowhere is damage.
pub(super) fn read(
    connection: &Connection,
    memory: &SharedMemory,
    query: &PageQuery,
) -> Result<Vec<StoredEvent>, StoreError> {
    let Some(TopicState { id, .. }) = topics::load(connection, &query.topic)? else { return Ok(Vec::new()) };
    let recent = InMemory::look(memory, id, query);
    // One for all that follows: to begin and end one for each row would take longer than to read it.
    let snapshot = connection.unchecked_transaction()?;
    let sealed = topics::load(&snapshot, &query.topic)?.map_or(0, |topic| topic.last_seq);
    let sealed = Seqs { first: query.first.max(1), last: query.last.min(sealed).min(recent.first - 1) };
    let mut rows = Rows::of(&snapshot, id, query.topic.as_str())?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    for place in places(&snapshot, recent, id, sealed, query)? {
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
    recent: InMemory,
    topic: TopicId,
    sealed: Seqs,
    query: &PageQuery,
) -> Result<Vec<SeqAt>, StoreError> {
    match query.order {
        Order::Ascending => {
            let mut places = ascending(connection, topic, sealed, query.limit)?;
            places.extend(recent.places.into_iter().take(query.limit - places.len()));
            Ok(places)
        }
        Order::Descending => {
            let mut places = recent.places;
            places.extend(descending(connection, topic, sealed, query.limit - places.len())?);
            Ok(places)
        }
    }
}

/// What memory knows of a topic.
struct InMemory {
    /// The wanted places.
    places: Vec<SeqAt>,
    /// The first seq that memory has; `u64::MAX` where it has none.
    first: u64,
}

impl InMemory {
    fn look(memory: &SharedMemory, topic: TopicId, query: &PageQuery) -> Self {
        let memory = memory.read();
        let found = memory.positions(topic.0, query.first, query.last);
        let places = match query.order {
            Order::Ascending => found.take(query.limit).collect(),
            Order::Descending => found.rev().take(query.limit).collect(),
        };
        Self { places, first: memory.recent_seqs(topic.0).map_or(u64::MAX, |seqs| *seqs.start()) }
    }
}

fn ascending(
    connection: &Connection,
    topic: TopicId,
    sealed: Seqs,
    limit: usize,
) -> Result<Vec<SeqAt>, StoreError> {
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
) -> Result<Vec<SeqAt>, StoreError> {
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

    fn places(&self, first: u64, last: u64) -> impl DoubleEndedIterator<Item = SeqAt> {
        let start = self.first;
        let places = self.positions.iter().enumerate().map(move |(at, pos)| (start + at as u64, *pos));
        places.filter(move |(seq, _)| (first..=last).contains(seq))
    }
}
