//! What a client is told whose connection is refused or ended: a problem document, written past actix,
//! which has no request to answer.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use actix_web::http::StatusCode;
use socket2::SockRef;
use tokio::time::timeout;

use super::connection::Connection;
use super::places::Full;
use super::progress::Stage;
use super::registry::{Connections, Reason};
use crate::api::{Code, PROBLEM_JSON, Problem};

/// The seconds after which a refused client may come again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// How long a refused connection waits for the first byte of its request, and then for its client to
/// read the answer and close. An answer before the request is an error to some clients (hyper). A socket
/// that is closed while bytes of the client are unread is reset, and a reset may overtake the answer.
const LINGER: Duration = Duration::from_millis(500);

/// A connection that got no place.
pub(in crate::http) struct Refused {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
    full: Full,
    code: Code,
}

impl Refused {
    pub(super) fn new(
        connections: Arc<Connections>,
        connection: Arc<Connection>,
        full: Full,
        code: Code,
    ) -> Self {
        Self { connections, connection, full, code }
    }

    /// Tells the client why, waits until it has read that, and closes the connection.
    pub(in crate::http) async fn answer(self) {
        let detail = match self.full {
            Full::Address => {
                "this address has as many connections as it may have \
                 (limits.connections_per_address), and all of them are in use or new; close some or wait"
            }
            Full::All => {
                "the log has as many connections as it may have (limits.connections), and all of \
                 them are in use or new; connect again later"
            }
        };
        let Self { connections, connection, .. } = &self;
        connections.refused.add(connection);
        // Whether the request has begun or the time is over: the client is told.
        let _ = timeout(LINGER, connection.socket.readable()).await;
        // A client that is gone already needs no answer.
        if say(connection, &answer(self.code, detail)).is_ok() {
            // Whether the client has closed or the time is over: the connection ends.
            let _ = timeout(LINGER, closed(connection)).await;
        }
        connections.refused.remove(connection);
    }
}

/// The refused connections that are still open. Their number is bounded, since they take files and room
/// of a worker. One too many ends the wait of the oldest, which has had the most time; it is told even
/// so. Thus a client in a burst of others gets its answer too.
pub(super) struct Lingering {
    most: usize,
    open: Mutex<VecDeque<Weak<Connection>>>,
}

impl Lingering {
    /// Room for at most this many connections.
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: Mutex::default() }
    }

    fn add(&self, connection: &Arc<Connection>) {
        let mut open = self.open();
        open.push_back(Arc::downgrade(connection));
        let is_over = open.len() > self.most;
        let oldest = if is_over { open.pop_front() } else { None };
        drop(open);
        if let Some(oldest) = oldest.and_then(|oldest| oldest.upgrade()) {
            // Its next read says that the client has closed. One that is gone already waits no more.
            let _ = SockRef::from(&oldest.socket).shutdown(Shutdown::Read);
        }
    }

    fn remove(&self, connection: &Arc<Connection>) {
        self.open().retain(|open| !std::ptr::eq(open.as_ptr(), Arc::as_ptr(connection)));
    }

    fn open(&self) -> MutexGuard<'_, VecDeque<Weak<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes an answer, and nothing after it.
fn say(connection: &Connection, answer: &[u8]) -> io::Result<()> {
    let socket = SockRef::from(&connection.socket);
    // A new socket takes the whole answer at once: tokio need not have seen yet that it can be written.
    socket.send(answer)?;
    socket.shutdown(Shutdown::Write)
}

/// Reads until the client closes, or another connection ends the wait.
async fn closed(connection: &Connection) -> io::Result<()> {
    let socket = &connection.socket;
    let mut unread = [0; 1_024];
    loop {
        socket.readable().await?;
        match socket.try_read(&mut unread) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

/// The answer to a client whose connection the log ends in this stage, and its code: only a head that
/// has begun is a request.
pub(super) fn of_ended(stage: Stage, reason: Reason) -> Option<(Code, Vec<u8>)> {
    let (code, detail) = match reason {
        Reason::Head => {
            (Code::HeadTimeout, "the head of the request did not arrive in time (server.head_timeout)")
        }
        Reason::Share => (
            Code::TooManyRequests,
            "the log has as many connections as it may have (limits.connections), and of those this \
             address holds by far the most; close some or wait",
        ),
        Reason::Idle | Reason::UnreadBody | Reason::UnreadAnswer | Reason::Room => return None,
    };
    (stage == Stage::Head).then(|| (code, answer(code, detail)))
}

/// An answer that closes its connection.
fn answer(code: Code, detail: &str) -> Vec<u8> {
    let body = serde_json::to_string(&Problem::new(code, detail, Vec::new())).unwrap_or_default();
    let status = code.status();
    let words = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let words = words.unwrap_or_default();
    let retry = match status {
        429 | 503 => format!("Retry-After: {RETRY_AFTER_SECONDS}\r\n"),
        _ => String::new(),
    };
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {words}\r\nContent-Type: {PROBLEM_JSON}\r\nContent-Length: {length}\r\n\
         Connection: close\r\nX-Content-Type-Options: nosniff\r\n{retry}\r\n{body}"
    )
    .into_bytes()
}
