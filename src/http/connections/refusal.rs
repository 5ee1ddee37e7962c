//! What a client is told whose connection is refused or ended: a problem document, written past actix,
//! which has no request to answer.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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

/// Refused connections that stay open at once so that their clients can read the answer. A socket that
/// is closed while bytes of the client are unread is reset, and a reset may overtake the answer.
const LINGERING_MAX: usize = 16;

/// How long such a connection stays open.
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

    /// Tells the client, and closes the connection.
    pub(in crate::http) async fn answer(self) {
        let detail = match self.full {
            Full::Address => {
                "this address has as many connections as it may have \
                 (limits.connections_per_address), and all of them are in use; close some or wait"
            }
            Full::All => {
                "the log has as many connections as it may have (limits.connections), and all of \
                 them are in use; connect again later"
            }
        };
        let refused = &self.connections.refused;
        let is_over = refused.fetch_add(1, Ordering::Relaxed) >= LINGERING_MAX;
        if !is_over {
            // Whether the client has closed or the time is over: the connection ends.
            let _ = timeout(LINGER, say(&self.connection, &answer(self.code, detail))).await;
        }
        refused.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Writes an answer and reads until the client closes.
async fn say(connection: &Connection, answer: &[u8]) -> io::Result<()> {
    let socket = &connection.socket;
    // A new socket takes the whole answer at once.
    socket.writable().await?;
    socket.try_write(answer)?;
    SockRef::from(socket).shutdown(Shutdown::Write)?;
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

/// The answer to a client whose connection is ended in this stage: only a head that has begun is a
/// request.
pub(super) fn of_late(stage: Stage, reason: Reason) -> Option<Vec<u8>> {
    let is_request = stage == Stage::Head && reason == Reason::Head;
    let detail = "the head of the request did not arrive in time (server.head_timeout)";
    is_request.then(|| answer(Code::HeadTimeout, detail))
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
