//! Following a topic: an answer without an end, as server-sent events. What is stored comes first, then what is new.
//!
//! ```text
//!     News      "topic, up to seq", said by the writer after a commit        store::News
//!       | wakes
//!     Follower  a task for each: reads on, gives, beats, ends                follower
//!       | asks
//!     Tail      one for each topic: reads the newest events once for all     tail, piece
//!       |
//!     Reader    pages of the store, and so nothing that is not durable
//! ```
//!
//! A follower is woken by news and reads the store: what it gives is what any reader would see, in the order of seqs,
//! from where it was. The one thing that news can do wrong is to come late.

mod follower;
mod followers;
mod piece;
mod socket;
mod sse;
mod tail;

use std::sync::Arc;

use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, HeaderName, VARY};
use actix_web::{HttpRequest, HttpResponse, rt};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

pub(super) use followers::Followers;

use self::follower::{Follower, Patience};
use self::piece::Chunk;
use super::failure::Failure;
use super::history::{self, Cursor};
use super::peer::Peer;
use super::state::State;
use super::stream::{HISTORY, without_length};
use crate::api::Code;
use crate::domain::{HistoryId, Topic};
use crate::store::Reader;

/// The media type of server-sent events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// What to follow.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) topic: Topic,
    /// The last event that the client was given before: its `Last-Event-ID`.
    pub(super) had: Option<Cursor>,
    /// Where it was given none: only events with a greater seq.
    pub(super) after: Option<Cursor>,
}

/// Answers with the events of a topic until one of the two sides has enough. The first page is read before anything
/// is sent, so that an error then is a problem document.
pub(super) async fn answer(
    request: &HttpRequest,
    state: &State,
    wanted: Wanted,
) -> Result<HttpResponse, Failure> {
    // Read before any event: see `Reader::history`.
    let address = Peer::of(request).address();
    let deadline = state.reads.deadline();
    let turn = state.reads.turn_by(deadline, address).await?;
    let history = turn.history().await?;
    let Start { given, is_stored } = start(&*turn, &wanted, &history).await?;
    // The first page needs no turn of this request where another follower reads it.
    drop(turn);
    let mut response = HttpResponse::Ok();
    response
        .content_type(EVENT_STREAM)
        .insert_header((HISTORY, history.as_str()))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((VARY, "accept"))
        // nginx, and what does as it does, would keep events back until a buffer is full.
        .insert_header((HeaderName::from_static("x-accel-buffering"), "no"))
        // Whatever ends it, the client comes again on a new connection.
        .force_close();
    if request.method() == Method::HEAD {
        return Ok(without_length(request, response, stream::empty()));
    }
    let place = state.followers.place(address, &state.metrics)?;
    let socket = socket::of(request)?;
    let listener = state.news.listen(wanted.topic.clone());
    let hello = sse::hello(is_stored.then_some((given, &history)));
    let tail = state.followers.tail((wanted.topic, history), (&state.reads, &state.answers));
    let first = state.reads.by(deadline, address, tail.after(given, address)).await??;
    let (pieces, mut body) = mpsc::channel(1);
    let follower = Follower {
        tail,
        address,
        listener,
        given,
        pieces,
        stopping: state.followers.stopping(),
        patience: Patience::of(&state.server),
        socket,
        metrics: Arc::clone(&state.metrics),
        _place: place,
    };
    rt::spawn(follower.run(hello, first));
    let body = stream::poll_fn(move |context| body.poll_recv(context));
    Ok(without_length(request, response, body.map(|chunk: Chunk| Ok(chunk.text))))
}

/// Where a follower begins.
struct Start {
    /// The seq after which it begins.
    given: u64,
    /// Whether the topic has an event of this seq, or the seq is 0: else a later event may get the seq
    /// in another history.
    is_stored: bool,
}

async fn start(reader: &dyn Reader, wanted: &Wanted, current: &HistoryId) -> Result<Start, Failure> {
    let cursor = wanted.had.as_ref().or(wanted.after.as_ref());
    let counts = history::check(reader, &wanted.topic, current, cursor).await?;
    let (before, last) = counts.map_or((0, 0), |topic| (topic.first_seq - 1, topic.last_seq));
    match &wanted.had {
        // The client has events of another store, or some that a power cut took: it would miss those that get their
        // seqs now.
        Some(had) if had.seq > last => {
            let detail =
                format!("header Last-Event-ID is {}, but the last event of the topic is {last}", had.seq);
            Err(Failure::new(Code::InvalidParameter, detail))
        }
        _ => {
            let given = cursor.map_or(0, |cursor| cursor.seq).max(before);
            Ok(Start { given, is_stored: given <= last })
        }
    }
}
