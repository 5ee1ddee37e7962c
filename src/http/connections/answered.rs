//! The body of an answer, whose end is the end of its request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;

use super::connection::Connection;

/// A body that notes its end in the progress of its connection. A body that is dropped has ended.
pub(in crate::http) struct Answered<B> {
    body: B,
    /// None where there is no socket, as in some tests.
    connection: Option<Arc<Connection>>,
}

impl<B> Answered<B> {
    /// The body of the answer to a request of this connection.
    pub(in crate::http) fn new(body: B, connection: Option<Arc<Connection>>) -> Self {
        Self { body, connection }
    }
}

impl<B: MessageBody + Unpin> MessageBody for Answered<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

impl<B> Drop for Answered<B> {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.progress.answered(connection.now());
        }
    }
}
