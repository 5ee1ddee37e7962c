//! The socket of a connection that follows: to see that the client is gone, and to cut it off.
//!
//! actix asks for no more of an answer's body until the client has taken what it was given before, and waits for that
//! without end; and while there is nothing to give it does not say that the client has closed the connection. So a
//! body can do neither. The connection itself can.

use std::sync::Arc;

use actix_web::HttpRequest;

use crate::http::connections::Connection;
use crate::http::failure::Failure;

/// The socket of a follower.
pub(super) struct Socket(Arc<Connection>);

/// The socket that a request came from.
///
/// # Errors
/// When the request came from none, as in some tests.
pub(super) fn of(request: &HttpRequest) -> Result<Socket, Failure> {
    let connection = request.conn_data::<Arc<Connection>>();
    let connection = connection.ok_or_else(|| Failure::internal(&"a follower has no connection"))?;
    connection.follow();
    Ok(Socket(connection.clone()))
}

impl Socket {
    /// Waits until the client has closed its side.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }

    /// Ends the connection in both directions.
    pub(super) fn cut(self) {
        self.0.cut();
    }
}
