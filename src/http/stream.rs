//! A list of events as an answer: one short read after the other, one ahead of what the client has taken, so that
//! memory stays constant and no transaction waits for a slow client.

use std::io::{self, Write};

use actix_web::http::header::{HeaderName, VARY};
use actix_web::http::{ConnectionType, Method, Version};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, rt};
use futures_util::{Stream, stream};
use tokio::task::JoinHandle;

use super::answers::{self, Room, SLICE_BYTES, Taken};
use super::failure::Failure;
use super::headers::NDJSON;
use super::history::changed_meanwhile;
use super::peer::Peer;
use super::reads::{Reads, Turn};
use super::render::{self, Lines};
use super::state::State;
use crate::api::HISTORY_HEADER;
use crate::domain::{Address, HistoryId, StoredEvent, Topic};
use crate::intake::Format;
use crate::store::{Order, Page, PageQuery, Reader, StoreError};

/// The most events of one read. Reads of large events end earlier, by `store::PAGE_BYTES`.
const PAGE_EVENTS: usize = 1_000;

/// Names the history of the events in an answer.
pub(super) const HISTORY: HeaderName = HeaderName::from_static(HISTORY_HEADER);

/// Which seqs to give; fixed before the first is read.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) topic: Topic,
    /// The history that all its pages must have.
    pub(super) history: HistoryId,
    pub(super) first: u64,
    pub(super) last: u64,
    /// How many seqs there are from `first` to `last`.
    pub(super) count: u64,
    pub(super) order: Order,
    /// Where the next request goes on.
    pub(super) next: Option<u64>,
}

/// The answer to a plan. The first page is read before anything is sent, in the turn that the plan was made
/// in: an error then is a problem document, and what fits into one page has a Content-Length.
pub(super) async fn answer(
    request: &HttpRequest,
    state: &State,
    (plan, format): (Plan, Format),
    turn: Turn,
) -> Result<HttpResponse, Failure> {
    let mut response = HttpResponse::Ok();
    response.insert_header((VARY, "accept")).content_type(match format {
        Format::Json => "application/json",
        Format::NdJson => NDJSON,
    });
    response.insert_header((HISTORY, plan.history.as_str()));
    let address = Peer::of(request).address();
    let mut listing = Listing { reads: state.reads.clone(), address, plan, format, given: 0 };
    if listing.done() {
        return Ok(response.body(listing.next(&*turn).await?));
    }
    let room = state.room_of_page(address)?;
    let first = listing.next(&*turn).await?;
    drop(turn);
    if listing.done() {
        let mut whole = response.body(first);
        answers::attach(&mut whole, room);
        return Ok(whole);
    }
    if *request.method() == Method::HEAD {
        return Ok(without_length(request, response, stream::empty()));
    }
    let giving = Giving {
        piece: Bytes::new(),
        rest: Rest::Ready(first, listing),
        taken: state.answers.taken(),
        _room: room,
        // Only where there is room for two pages is the next one read while the client takes the first.
        ahead: state.answers.page(address).ok(),
    };
    Ok(without_length(request, response, stream::try_unfold(giving, slice)))
}

/// An answer whose length nobody knows when it begins.
pub(super) fn without_length(
    request: &HttpRequest,
    mut response: HttpResponseBuilder,
    body: impl Stream<Item = io::Result<Bytes>> + 'static,
) -> HttpResponse {
    let mut whole = response.streaming(body);
    if request.version() < Version::HTTP_11 {
        // HTTP/1.0 knows no chunks: there the end of the connection is the end of the list.
        whole.head_mut().no_chunking(true);
        whole.head_mut().set_connection_type(ConnectionType::Close);
    }
    whole
}

/// A streamed answer, and the room that it holds to its end.
struct Giving {
    /// The piece that is being sent.
    piece: Bytes,
    rest: Rest,
    taken: Taken,
    _room: Room,
    /// The room of a second page.
    ahead: Option<Room>,
}

/// The pieces of an answer that are still to be given.
enum Rest {
    Ready(Vec<u8>, Listing),
    /// The next piece is read while the client takes the one before: one, so that memory stays constant.
    Ahead(Reading),
    /// The next piece is read once the client has taken the one before.
    Later(Listing),
    Nothing,
}

/// A read on a task of its own, which ends with who waits for it.
struct Reading(JoinHandle<io::Result<(Vec<u8>, Listing)>>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Gives a slice of the piece that is being sent, or of the next one.
async fn slice(mut giving: Giving) -> io::Result<Option<(Bytes, Giving)>> {
    giving.taken.note()?;
    while giving.piece.is_empty() {
        let Some(next) = step(giving.rest, giving.ahead.is_some()).await? else { return Ok(None) };
        (giving.piece, giving.rest) = next;
    }
    let given = giving.piece.split_to(giving.piece.len().min(SLICE_BYTES));
    giving.taken.given();
    Ok(Some((given, giving)))
}

/// Gives a piece, and begins to read the next one where that may be done ahead. After an error the
/// connection is cut, so that the client cannot take a part for the whole.
async fn step(rest: Rest, may_read_ahead: bool) -> io::Result<Option<(Bytes, Rest)>> {
    let (piece, listing) = match rest {
        Rest::Ready(piece, listing) => (piece, listing),
        Rest::Ahead(mut reading) => (&mut reading.0).await.map_err(io::Error::other)??,
        Rest::Later(listing) => listing.read_on().await?,
        Rest::Nothing => return Ok(None),
    };
    let next = match (listing.done(), may_read_ahead) {
        (true, _) => Rest::Nothing,
        (false, true) => Rest::Ahead(Reading(rt::spawn(listing.read_on()))),
        (false, false) => Rest::Later(listing),
    };
    Ok(Some((piece.into(), next)))
}

/// A plan that is being carried out.
struct Listing {
    reads: Reads,
    /// The address whose turns it takes.
    address: Address,
    plan: Plan,
    format: Format,
    /// The events given so far.
    given: u64,
}

/// Why there is no next page.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store was restored, and its history changed")]
    HistoryChanged,
    #[error(transparent)]
    Render(#[from] io::Error),
    #[error("{0}")]
    NoRoom(Failure),
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(cause) => Self::from(cause),
            ReadError::HistoryChanged => changed_meanwhile(),
            ReadError::Render(cause) => Self::internal(&cause),
            ReadError::NoRoom(refusal) => refusal,
        }
    }
}

/// Checks that events have these seqs, one after the other.
pub(super) fn check_gapless(
    topic: &Topic,
    page: &[StoredEvent],
    expected: impl Iterator<Item = u64>,
) -> Result<(), StoreError> {
    let wrong = page.iter().zip(expected).find(|(stored, seq)| stored.seq != *seq);
    wrong.map_or(Ok(()), |(_, seq)| Err(StoreError::Damaged(format!("topic {topic} misses event {seq}"))))
}

impl Listing {
    fn done(&self) -> bool {
        self.given == self.plan.count
    }

    async fn read_on(mut self) -> io::Result<(Vec<u8>, Self)> {
        let turn = self.reads.turn_of_stream(self.address).await;
        let next = self.next(&*turn).await;
        drop(turn);
        let piece = next.map_err(|error| {
            tracing::error!(%error, topic = %self.plan.topic, given = self.given, "a read was cut off");
            io::Error::other(error.to_string())
        })?;
        Ok((piece, self))
    }

    /// The next piece of the answer: a page of events and, around them, where the list begins and ends.
    async fn next(&mut self, reader: &dyn Reader) -> Result<Vec<u8>, ReadError> {
        let page = if self.done() { Vec::new() } else { self.page(reader).await? };
        let mut out = Vec::with_capacity(page.iter().map(|stored| stored.event.bytes() + 160).sum());
        if self.given == 0 {
            self.begin(&mut out)?;
        }
        for stored in &page {
            self.event(&mut out, stored)?;
        }
        if self.done() {
            self.end(&mut out)?;
        }
        Ok(out)
    }

    /// Reads the next page and checks that it goes on exactly where the last one ended.
    async fn page(&self, reader: &dyn Reader) -> Result<Vec<StoredEvent>, ReadError> {
        let Plan { topic, first, last, order, .. } = self.plan.clone();
        let (first, last) = match order {
            Order::Ascending => (first + self.given, last),
            Order::Descending => (first, last - self.given),
        };
        let query = PageQuery { topic, first, last, limit: PAGE_EVENTS, order };
        let Page { history, events: page } = reader.page(query).await?;
        if history != self.plan.history {
            return Err(ReadError::HistoryChanged);
        }
        let expected = (0..).map(|step| match order {
            Order::Ascending => first + step,
            Order::Descending => last.wrapping_sub(step),
        });
        check_gapless(&self.plan.topic, &page, expected)?;
        if page.is_empty() || page.len() as u64 > last + 1 - first {
            let gap = format!("topic {} misses events from {first} to {last}", self.plan.topic);
            return Err(StoreError::Damaged(gap).into());
        }
        Ok(page)
    }

    fn begin(&self, out: &mut Vec<u8>) -> io::Result<()> {
        if self.format == Format::NdJson {
            return Ok(());
        }
        out.extend_from_slice(b"{\"topic\":");
        render::string(out, self.plan.topic.as_str())?;
        let Plan { history, count, .. } = &self.plan;
        write!(out, ",\"history\":\"{history}\",\"count\":{count},\"events\":[")
    }

    fn event(&mut self, out: &mut Vec<u8>, stored: &StoredEvent) -> io::Result<()> {
        match self.format {
            Format::Json => {
                if self.given > 0 {
                    out.push(b',');
                }
                render::event(out, stored, Lines::Kept)?;
            }
            Format::NdJson => {
                render::event(out, stored, Lines::Joined)?;
                out.push(b'\n');
            }
        }
        self.given += 1;
        Ok(())
    }

    fn end(&self, out: &mut Vec<u8>) -> io::Result<()> {
        if self.format == Format::NdJson {
            return Ok(());
        }
        out.push(b']');
        let name = match self.plan.order {
            Order::Ascending => "next_after",
            Order::Descending => "next_before",
        };
        if let Some(next) = self.plan.next {
            write!(out, ",\"{name}\":{next}")?;
        }
        out.push(b'}');
        Ok(())
    }
}
