//! Events as they are sent to followers, rendered once for all of them.

use std::io;
use std::sync::Arc;

use actix_web::web::Bytes;

use super::sse;
use crate::domain::{HistoryId, StoredEvent};
use crate::http::answers::Room;

/// The bytes after which a chunk ends, at the end of an event.
const CHUNK_BYTES: usize = 64 << 10;

/// Consecutive events as they are sent; never none. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) first: u64,
    pub(super) text: Bytes,
    /// Where the text of each event ends.
    ends: Arc<[usize]>,
    /// Held until nobody holds the text.
    room: Arc<Room>,
}

/// Text on its way to one follower. It keeps the whole piece that it is a part of in memory.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) text: Bytes,
    _room: Option<Arc<Room>>,
}

impl From<Bytes> for Chunk {
    /// A text that is no part of a piece.
    fn from(text: Bytes) -> Self {
        Self { text, _room: None }
    }
}

impl Piece {
    /// The events of a page, which has at least one, as they are sent. Of `room` they keep what they need.
    ///
    /// # Errors
    /// Never in practice: writing to memory does not fail.
    pub(super) fn of(page: &[StoredEvent], history: &HistoryId, mut room: Room) -> io::Result<Self> {
        debug_assert!(!page.is_empty(), "a piece is never without events");
        let first = page.first().map_or(0, |stored| stored.seq);
        let (text, ends) = rendered(page, history)?;
        room.keep(text.len());
        Ok(Self { first, text, ends, room: Arc::new(room) })
    }

    /// The seq of its last event.
    pub(super) fn last(&self) -> u64 {
        self.first + self.ends.len() as u64 - 1
    }

    /// The chunks for a follower that has the events up to this seq: whole events, each chunk with the
    /// seq of its last one.
    pub(super) fn chunks(self, seq: u64) -> impl Iterator<Item = (u64, Chunk)> {
        let mut next =
            usize::try_from(seq.saturating_add(1).saturating_sub(self.first)).unwrap_or(usize::MAX);
        std::iter::from_fn(move || {
            let rest = self.ends.get(next..).filter(|rest| !rest.is_empty())?;
            let start = next.checked_sub(1).map_or(0, |before| self.ends[before]);
            let events = rest.iter().take_while(|end| **end - start <= CHUNK_BYTES).count().max(1);
            next += events;
            let (text, room) = (self.text.slice(start..rest[events - 1]), Some(Arc::clone(&self.room)));
            Some((self.first + next as u64 - 1, Chunk { text, _room: room }))
        })
    }
}

/// Consecutive events as they are sent, and where the text of each one ends.
fn rendered(page: &[StoredEvent], history: &HistoryId) -> io::Result<(Bytes, Arc<[usize]>)> {
    let mut text = Vec::with_capacity(page.iter().map(|stored| stored.event.bytes() + 200).sum());
    let mut ends = Vec::with_capacity(page.len());
    for stored in page {
        sse::event(&mut text, stored, history)?;
        ends.push(text.len());
    }
    // Without the room that was not needed: pieces are held for as long as someone is slow.
    Ok((Bytes::from(text.into_boxed_slice()), ends.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Address;
    use crate::http::answers::Answers;
    use crate::http::tests::settings;
    use crate::metrics::Metrics;

    #[test]
    fn chunks_are_small_and_a_large_event_is_one_of_its_own() {
        let (small, large) = (CHUNK_BYTES / 4, CHUNK_BYTES * 3);
        let mut ends = Vec::new();
        for length in [small, small, small, small, small, large, small, large] {
            ends.push(ends.last().copied().unwrap_or(0) + length);
        }
        let answers = Answers::new(&settings(), Arc::new(Metrics::new()));
        let room = Arc::new(answers.page(Address::UNKNOWN).unwrap());
        let piece = Piece { first: 11, text: vec![0; *ends.last().unwrap()].into(), ends: ends.into(), room };
        let chunks =
            |seq| piece.clone().chunks(seq).map(|(last, text)| (last, text.text.len())).collect::<Vec<_>>();
        let all = [(14, 4 * small), (15, small), (16, large), (17, small), (18, large)];
        assert_eq!((piece.last(), chunks(10)), (18, all.to_vec()));
        assert_eq!(chunks(13), [(15, 2 * small), (16, large), (17, small), (18, large)]);
        assert_eq!((chunks(17), chunks(18)), (vec![(18, large)], vec![]));
    }
}
