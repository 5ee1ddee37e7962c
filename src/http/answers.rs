//! The bytes of answers that are held until clients take them: one budget, shared by addresses.
//!
//! 1. A read takes a **turn** (`reads`): at most a few pages are read and rendered at the same time. A
//!    request that waits for its turn holds nothing.
//! 2. It takes **room** for a whole page, or is refused with 429 or 503 before it reads. Once the
//!    page is rendered, room that the page does not need is given back.
//! 3. The body of the answer holds the room until the server has taken its last piece. actix copies
//!    what it is given and asks for more once 32 KiB are left of it, so pieces are small: beside
//!    its room a connection holds [`SLICE_BYTES`] + 32 KiB, and the system
//!    `SEND_BUFFER` of `connections`.
//! 4. A piece that the client does not take at `server.answer_min_rate` ends the connection. A
//!    client that takes nothing at all is ended by `server.write_timeout`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::ResponseError;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::web::Bytes;

use super::failure::Failure;
use super::peer::Peer;
use crate::api::Code;
use crate::config::Settings;
use crate::domain::Address;
use crate::metrics::Metrics;
use crate::pipeline::{Budget, Permit, PublishError};
use crate::store::PAGE_BYTES;

/// The bytes that are handed to actix at once, which copies them.
pub(super) const SLICE_BYTES: usize = 32 << 10;

/// The room of a page beside its events: 1,000 events of 256 bytes of names, punctuation and times.
const AROUND: usize = 256 << 10;

/// All answers.
#[derive(Debug)]
pub(super) struct Answers {
    budget: Budget,
    /// The room of a page.
    page: usize,
    /// The longest time for a client to take a piece of [`SLICE_BYTES`]; `None` is no bound.
    slice_time: Option<Duration>,
    metrics: Arc<Metrics>,
}

/// Room that an answer holds. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    permit: Permit,
    bytes: usize,
}

/// How fast a client takes the pieces of an answer.
#[derive(Debug)]
pub(super) struct Taken {
    since: Option<Instant>,
    slice_time: Option<Duration>,
    metrics: Arc<Metrics>,
}

impl Answers {
    /// No answers yet.
    pub(super) fn new(settings: &Settings, metrics: Arc<Metrics>) -> Self {
        let rate = settings.server.answer_min_rate;
        Self {
            budget: Budget::of_answers(settings.limits.answer_bytes),
            page: PAGE_BYTES.max(settings.limits.event) + AROUND,
            slice_time: (rate > 0).then(|| Duration::from_secs(SLICE_BYTES.div_ceil(rate) as u64)),
            metrics,
        }
    }

    /// The bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.budget.bytes_in_flight()
    }

    /// Takes room for a page.
    ///
    /// # Errors
    /// 429 where the address holds its share of `limits.answer_bytes`, 503 where others hold all.
    pub(super) fn page(&self, address: Address) -> Result<Room, Failure> {
        self.room(address, self.page)
    }

    /// Takes room for this many bytes.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub(super) fn room(&self, address: Address, bytes: usize) -> Result<Room, Failure> {
        let mut permit = self.budget.permit(address);
        permit.charge_bytes(bytes).map_err(|cause| refused(&cause))?;
        Ok(Room { permit, bytes })
    }

    /// Watches how fast the client takes an answer.
    pub(super) fn taken(&self) -> Taken {
        Taken { since: None, slice_time: self.slice_time, metrics: Arc::clone(&self.metrics) }
    }
}

fn refused(cause: &PublishError) -> Failure {
    match cause {
        PublishError::OverShare(_) => Failure::too_many_requests(
            "the answers that this address has not taken hold its share of limits.answer_bytes",
        ),
        _ => Failure::new(
            Code::Overloaded,
            "answers that clients have not taken fill limits.answer_bytes; send the request again later",
        ),
    }
}

impl Room {
    /// Keeps room for this many bytes, and gives back the rest.
    pub(super) fn keep(&mut self, bytes: usize) {
        if let Some(unused) = self.bytes.checked_sub(bytes) {
            self.permit.release_bytes(unused);
            self.bytes = bytes;
        }
    }
}

impl Taken {
    /// Notes that the server asks for the next piece, and so has taken the one before.
    ///
    /// # Errors
    /// The client took too long for it: the connection has to end.
    pub(super) fn note(&mut self) -> io::Result<()> {
        let took = self.since.map(|since| since.elapsed());
        if took.zip(self.slice_time).is_some_and(|(took, longest)| took > longest) {
            self.metrics.answers_cut.inc();
            tracing::debug!(?took, "an answer is cut off: the client takes it below server.answer_min_rate");
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.since = None;
        Ok(())
    }

    /// Notes that the server is given a piece.
    pub(super) fn given(&mut self) {
        self.since = Some(Instant::now());
    }
}

/// A body that is whole in memory, given in pieces.
struct Sliced {
    rest: Bytes,
    taken: Taken,
    _room: Option<Room>,
}

impl MessageBody for Sliced {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        if let Err(late) = self.taken.note() {
            return Poll::Ready(Some(Err(late)));
        }
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(SLICE_BYTES);
        let piece = self.rest.split_to(length);
        self.taken.given();
        Poll::Ready(Some(Ok(piece)))
    }
}

/// Leaves room for the answer with its response, for [`bounded`].
pub(super) fn attach(response: &mut actix_web::HttpResponse, room: Room) {
    response.extensions_mut().insert(Attached(room));
}

/// The room that a handler took for its answer.
struct Attached(Room);

/// Gives each large body that is whole in memory in pieces, and only as far as there is room for it.
pub(super) fn bounded<B: MessageBody + 'static>(
    answers: &Answers,
    mut response: ServiceResponse<B>,
) -> ServiceResponse<BoxBody> {
    let attached = response.response_mut().extensions_mut().remove::<Attached>();
    let address = Peer::of(response.request()).address();
    let (request, response) = response.into_parts();
    let (response, body) = response.into_parts();
    let bytes = match body.try_into_bytes() {
        Ok(bytes) if bytes.len() > SLICE_BYTES => bytes,
        Ok(small) => return ServiceResponse::new(request, response.set_body(BoxBody::new(small))),
        Err(other) => return ServiceResponse::new(request, response.set_body(BoxBody::new(other))),
    };
    let room = match attached {
        Some(Attached(mut room)) => {
            room.keep(bytes.len());
            Ok(room)
        }
        None => answers.room(address, bytes.len()),
    };
    let taken = answers.taken();
    match room {
        Ok(room) => {
            let sliced = Sliced { rest: bytes, taken, _room: Some(room) };
            ServiceResponse::new(request, response.set_body(BoxBody::new(sliced)))
        }
        Err(refusal) => ServiceResponse::new(request, refusal.error_response()),
    }
}
