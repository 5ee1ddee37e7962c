//! The socket of a connection that follows: to see that the client is gone, and to cut it off.
//!
//! actix asks for no more of an answer's body until the client has taken what it was given before, and waits for that
//! without end; and while there is nothing to give it does not say that the client has closed the connection. So a
//! body can do neither. Whoever holds a second handle on the socket can.

use std::any::Any;
use std::cell::RefCell;
use std::future::pending;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};

use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::api::Code;
use crate::http::answers::SEND_BUFFER;
use crate::http::failure::Failure;

/// A second handle on the socket of a connection, until someone follows on it.
struct Spare(RefCell<Option<OwnedFd>>);

/// The socket of a follower.
pub(super) struct Socket(TcpStream);

/// Keeps a second handle with the data of a new connection. Later there is no way to get one.
pub(in crate::http) fn remember(connection: &dyn Any, data: &mut Extensions) {
    let stream = connection.downcast_ref::<TcpStream>();
    if let Some(stream) = stream {
        // Where the system refuses, the socket keeps its own bound: net.ipv4.tcp_wmem.
        let _ = SockRef::from(stream).set_send_buffer_size(SEND_BUFFER);
    }
    let handle = stream.and_then(|stream| stream.as_fd().try_clone_to_owned().ok());
    data.insert(Spare(RefCell::new(handle)));
}

/// The socket that a request came from.
///
/// # Errors
/// When the process had no file handle left for it.
pub(super) fn of(request: &HttpRequest) -> Result<Socket, Failure> {
    let handle = request.conn_data::<Spare>().and_then(|Spare(handle)| handle.borrow_mut().take());
    let stream = handle.and_then(|handle| TcpStream::from_std(std::net::TcpStream::from(handle)).ok());
    stream.map(Socket).ok_or_else(|| Failure::new(Code::Overloaded, "the server is out of file handles"))
}

impl Socket {
    /// Waits until the client has closed its side.
    pub(super) async fn closed(&self) {
        match self.0.peek(&mut [0]).await {
            Ok(0) | Err(_) => {}
            // It sends something that nobody asked for. That it is gone shows when it is sent the next sign of life.
            Ok(_) => pending().await,
        }
    }

    /// Ends the connection in both directions. What the system has taken to send is still sent, and nothing else: the
    /// client has everything up to some byte, and of events all that are whole.
    pub(super) fn cut(self) {
        if let Ok(stream) = self.0.into_std() {
            // A connection that is closed already needs no end.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
