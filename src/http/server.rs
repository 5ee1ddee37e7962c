//! The server itself: sockets, threads, timeouts. Bound first, run later.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use rustix::process::{Resource, getrlimit};

use super::follow;
use super::state::State;
use super::watch::watch;

/// Connections that wait to be accepted, so that a burst of clients is not refused.
const BACKLOG: u32 = 4_096;

/// How long an idle connection stays open.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long the head of a request may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The most connections of one worker where files are no matter: what actix takes.
const CONNECTIONS_MAX: usize = 25_600;

/// The file handles of a connection: its own, and the one that `follow` keeps to see the end of a follower.
const FILES_EACH: usize = 2;

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
    let first_version = state.first_version;
    let data = Data::from(state);
    let factory = move || {
        let app = App::new().app_data(data.clone()).wrap(from_fn(watch)).configure(super::routes);
        if first_version { app.configure(super::first_version_routes) } else { app }
    };
    let server = HttpServer::new(factory)
        .on_connect(follow::remember)
        .workers(settings.workers)
        .backlog(BACKLOG)
        .max_connections(connections_each(settings.workers, getrlimit(Resource::Nofile).current))
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIMEOUT)
        .shutdown_timeout(settings.shutdown_timeout.as_secs().max(1))
        .disable_signals()
        .bind(&settings.bind)?;
    Ok(Bound { addresses: server.addrs(), server: server.run() })
}

/// The connections of each worker, further ones wait to be accepted: a quarter of the files is kept for the store, which
/// could neither read nor write while clients hold all of them. `None` is no limit.
fn connections_each(workers: usize, files: Option<u64>) -> usize {
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    ((files - files / 4) / FILES_EACH / workers.max(1)).clamp(1, CONNECTIONS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_a_quarter_of_the_files() {
        assert_eq!(connections_each(2, Some(1_024)), 192);
        assert_eq!(connections_each(2, None), CONNECTIONS_MAX);
        assert_eq!(connections_each(8, Some(4)), 1);
    }
}
