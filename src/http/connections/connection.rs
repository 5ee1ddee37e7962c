//! One open connection: its socket, whom it belongs to, and its progress.

use std::future::pending;
use std::net::{IpAddr, Shutdown};
use std::time::{Duration, Instant};

use actix_web::http::header::{HeaderMap, TRANSFER_ENCODING};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::progress::{Body, Progress, Stage};
use super::wait::{Wait, Waits};
use crate::http::headers;

/// An open connection. Its worker reads and writes it, the watcher may end it, and a follower waits
/// for its end.
pub(in crate::http) struct Connection {
    pub(super) socket: TcpStream,
    /// The other end; `None` where it was gone before anybody asked.
    pub(super) peer: Option<IpAddr>,
    pub(super) progress: Progress,
    /// When the server started: times of the progress count from here.
    started: Instant,
}

impl Connection {
    pub(super) fn new(socket: TcpStream, peer: Option<IpAddr>, started: Instant) -> Self {
        Self { socket, peer, progress: Progress::new(started.elapsed()), started }
    }

    /// The time since the server started.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Notes that a request with these headers is served from now on.
    pub(in crate::http) fn begin(&self, request: &HeaderMap) {
        let body = if request.contains_key(TRANSFER_ENCODING) {
            Body::Chunked
        } else {
            Body::Length(headers::content_length(request).unwrap_or(0) as u64)
        };
        self.progress.begin(body, self.now());
    }

    /// Notes that the client follows a topic: `server.follow_timeout` holds in place of
    /// `server.write_timeout`.
    pub(in crate::http) fn follow(&self) {
        self.progress.follow();
    }

    /// Waits until the client has closed its side.
    pub(in crate::http) async fn closed(&self) {
        match self.socket.peek(&mut [0]).await {
            Ok(0) | Err(_) => {}
            // The client sends something that nobody asked for. Its end shows when it is sent the next
            // sign of life.
            Ok(_) => pending().await,
        }
    }

    /// Ends the connection in both directions. What the system has taken to send is still sent, and
    /// nothing else: the client has everything up to some byte, and of events all that are whole.
    pub(in crate::http) fn cut(&self) {
        // A connection that is closed already needs no end.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }
}

impl Waits for Connection {
    fn wait(&self) -> Option<Wait> {
        match self.progress.stage() {
            (Stage::Serving | Stage::Ended, _) => None,
            // The stage is looked at first: it is stored after the mark.
            _ if self.progress.is_unsent() => None,
            (stage, since) => Some(Wait { was_served: stage == Stage::Idle, since }),
        }
    }
}
