//! One follower: reads on from where it is, gives what it has read, and waits for news.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::followers::Place;
use super::piece::{Chunk, Piece};
use super::socket::Socket;
use super::sse;
use super::tail::Tail;
use crate::api::Code;
use crate::config::Server;
use crate::domain::Address;
use crate::http::failure::Failure;
use crate::http::history;
use crate::http::stream::ReadError;
use crate::metrics::Metrics;
use crate::store::Listener;

/// A follower, and all that it holds: a place, a chunk that is on its way, a piece that it shares where it is in front.
pub(super) struct Follower {
    pub(super) tail: Arc<Tail>,
    /// The address that what it holds counts for.
    pub(super) address: Address,
    /// Listens since before the first read.
    pub(super) listener: Listener,
    /// The seq of the last event that was given.
    pub(super) given: u64,
    /// To the body of the answer, which takes the next chunk when the client has taken most of the one before.
    pub(super) pieces: mpsc::Sender<Chunk>,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) patience: Patience,
    pub(super) socket: Socket,
    pub(super) metrics: Arc<Metrics>,
    pub(super) _place: Place,
}

/// The longest that a stop waits for a client to take the last words, and to close the connection. Who does not take
/// them knows the last event all the same: it is the last one that is whole.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The time after which a follower asks for room again that found none.
const ROOM_PAUSE: Duration = Duration::from_millis(250);

/// How long a follower waits, and for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For news, before it sends a sign of life.
    heartbeat: Duration,
    /// For a client that takes nothing.
    slow: Duration,
    /// For the client to take the last words.
    end: Duration,
}

impl Patience {
    pub(super) fn of(settings: &Server) -> Self {
        let slow = settings.follow_timeout;
        let end = LAST_WORDS.min(slow).min(settings.shutdown_timeout / 2);
        Self { heartbeat: settings.follow_heartbeat, slow, end }
    }
}

/// Why a follower ends.
enum End {
    /// The client is gone.
    Gone,
    /// The client takes nothing.
    Slow,
    /// The server stops.
    Stopping,
    /// The store cannot be read.
    Failed(Failure),
}

impl Follower {
    /// Runs until it ends, beginning with what was read already.
    pub(super) async fn run(mut self, hello: Bytes, first: Option<Piece>) {
        let end = match self.follow(hello, first).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        match end {
            End::Gone => self.socket.cut(),
            End::Slow => {
                let (topic, given) = (self.tail.topic(), self.given);
                tracing::info!(%topic, given, "a follower that takes nothing is cut off");
                self.metrics.followers_cut.inc();
                self.socket.cut();
            }
            End::Stopping => self.end(Code::ShuttingDown, "the log is stopping").await,
            End::Failed(failure) => {
                tracing::debug!(topic = %self.tail.topic(), given = self.given, %failure, "a follower is told the end");
                self.end(failure.code(), failure.detail()).await;
            }
        }
    }

    async fn follow(&mut self, hello: Bytes, first: Option<Piece>) -> Result<Infallible, End> {
        self.send(hello.into()).await?;
        let mut next = first;
        loop {
            match next {
                Some(piece) => self.give(piece).await?,
                None => self.wait().await?,
            }
            next = self.read().await?;
        }
    }

    /// Reads the next piece. While its address holds its share of the room for answers it waits, and
    /// holds nothing. While it waits for its turn it sends no sign of life: a wait for a client that
    /// takes nothing would hold up the turn.
    async fn read(&mut self) -> Result<Option<Piece>, End> {
        let mut silent_since = Instant::now();
        loop {
            let read = tokio::select! {
                biased;
                () = stopped(&mut self.stopping) => return Err(End::Stopping),
                read = self.tail.after(self.given, self.address) => read,
                () = self.pieces.closed() => return Err(End::Gone),
                () = self.socket.closed() => return Err(End::Gone),
            };
            match read {
                Ok(piece) => return Ok(piece),
                Err(ReadError::NoRoom(_)) => self.without_room().await?,
                Err(error) => {
                    tracing::debug!(topic = %self.tail.topic(), %error, "a follower's events cannot be read");
                    return Err(End::Failed(match error {
                        ReadError::HistoryChanged => history::ended(),
                        other => other.into(),
                    }));
                }
            }
            if silent_since.elapsed() >= self.patience.heartbeat {
                self.send(sse::BEAT.into()).await?;
                silent_since = Instant::now();
            }
        }
    }

    /// Waits before it asks for room again.
    async fn without_room(&mut self) -> Result<(), End> {
        tokio::select! {
            biased;
            () = stopped(&mut self.stopping) => Err(End::Stopping),
            () = self.pieces.closed() => Err(End::Gone),
            () = self.socket.closed() => Err(End::Gone),
            () = sleep(ROOM_PAUSE.min(self.patience.heartbeat)) => Ok(()),
        }
    }

    async fn give(&mut self, piece: Piece) -> Result<(), End> {
        for (last, chunk) in piece.chunks(self.given) {
            self.send(chunk).await?;
            debug_assert!(last > self.given, "each event is given once");
            self.given = last;
        }
        Ok(())
    }

    /// Waits for news, and shows that it lives while there is none.
    async fn wait(&mut self) -> Result<(), End> {
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut self.stopping) => return Err(End::Stopping),
                () = self.pieces.closed() => return Err(End::Gone),
                () = self.socket.closed() => return Err(End::Gone),
                () = self.listener.beyond(self.given) => return Ok(()),
                () = sleep(self.patience.heartbeat) => self.send(sse::BEAT.into()).await?,
            }
        }
    }

    /// Gives a chunk to the body. One that is not given is dropped whole, so that the last event is always clear.
    async fn send(&mut self, chunk: Chunk) -> Result<(), End> {
        tokio::select! {
            biased;
            () = stopped(&mut self.stopping) => Err(End::Stopping),
            sent = timeout(self.patience.slow, self.pieces.send(chunk)) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(End::Gone),
                Err(_) => Err(End::Slow),
            }
        }
    }

    /// Says the last words and lets the connection end. A client that does not take them has had its time.
    async fn end(self, code: Code, detail: &str) {
        let words = sse::end(code, detail, self.given);
        let Self { pieces, socket, patience, .. } = self;
        if timeout(patience.end, pieces.send(words.into())).await.is_ok() {
            drop(pieces);
            let _ = timeout(patience.end, socket.closed()).await;
        }
        socket.cut();
    }
}

/// Waits until all followers have to end.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that whoever could say it is gone, which is as good.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}
