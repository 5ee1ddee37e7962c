//! A socket as actix reads and writes it, which notes each byte that comes or goes.

use std::io;
use std::mem;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::connection::Connection;
use super::registry::Place;

/// The most bytes that actix gets before it must look at them, up to the rest of its buffer: half as
/// many as it keeps of a body (32 KiB). Left alone it would read up to 128 KiB into a buffer that
/// doubles, and keep that buffer while the connection is open: memory that no budget counts.
const AT_ONCE_BYTES: usize = 8 << 10;

/// The socket of a connection, and its place. Dropped, it gives the place to another connection.
pub(in crate::http) struct Stream {
    place: Place,
    /// The bytes that actix got since it last had to wait.
    given: usize,
}

impl Stream {
    pub(in crate::http) fn new(place: Place) -> Self {
        Self { place, given: 0 }
    }

    /// The connection that it belongs to.
    pub(in crate::http) fn connection(&self) -> &Arc<Connection> {
        self.place.connection()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let given = mem::take(&mut self.given);
        if given >= AT_ONCE_BYTES {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let connection = self.connection();
        let Connection { socket, progress, .. } = &**connection;
        if progress.is_read() {
            // To actix the client has closed its side. The system would give it what a fast sender still sends.
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(socket.poll_read_ready(context))?;
            let (filled, room) = (buffer.filled().len(), buffer.remaining());
            match socket.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(bytes) => {
                    if bytes > 0 {
                        progress.received(&buffer.filled()[filled..], connection.now());
                        self.place.check_drained();
                    }
                    if (1..room).contains(&bytes) {
                        // There is nothing more now: the next read waits without a system call.
                        let _ = socket
                            .try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
                    }
                    self.given = given + bytes;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let connection = self.connection();
        let Connection { socket, progress, .. } = &**connection;
        loop {
            let Poll::Ready(is_ready) = socket.poll_write_ready(context) else {
                progress.stalled(connection.now());
                return Poll::Pending;
            };
            is_ready?;
            match socket.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    progress.sent();
                    return Poll::Ready(written);
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // actix calls this whenever its buffer is empty. A socket holds nothing back.
        self.connection().progress.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&self.connection().socket).shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            other => Poll::Ready(other),
        }
    }
}
