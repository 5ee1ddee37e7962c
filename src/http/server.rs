//! The server itself: sockets, threads, timeouts. Bound first, run later.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpServer};

use super::follow;
use super::state::State;
use super::watch::watch;

/// Connections that wait to be accepted, so that a burst of clients is not refused.
const BACKLOG: u32 = 4_096;

/// How long an idle connection stays open.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long the head of a request may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that is bound and not yet running.
pub struct Bound {
    /// The addresses that it listens on; at least one.
    pub addresses: Vec<SocketAddr>,
    /// Runs when it is polled.
    pub server: Server,
}

/// Binds the configured address. Port 0 takes a free one. Must be called in an actix system.
///
/// # Errors
/// When the address cannot be listened on.
pub fn bind(state: Arc<State>) -> io::Result<Bound> {
    let settings = state.server.clone();
    let data = Data::from(state);
    let factory = move || App::new().app_data(data.clone()).wrap(from_fn(watch)).configure(super::routes);
    let server = HttpServer::new(factory)
        .on_connect(follow::remember)
        .workers(settings.workers)
        .backlog(BACKLOG)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIMEOUT)
        .shutdown_timeout(settings.shutdown_timeout.as_secs().max(1))
        .disable_signals()
        .bind(&settings.bind)?;
    Ok(Bound { addresses: server.addrs(), server: server.run() })
}
