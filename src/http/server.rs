//! The server itself: sockets, threads, timeouts. Bound first, run later.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive};
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::{AppConfig, Extensions, Server};
use actix_web::middleware::from_fn;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{App, Error};
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

use super::connections::{self, Bounds, Connections, Stream};
use super::state::State;
use super::watch::watch;
use crate::config::Limits;

/// Connections that wait to be accepted, so that a burst of clients is not refused.
const BACKLOG: i32 = 4_096;

/// The most refused connections that stay open at once until their clients have read the answer.
const REFUSED_MAX: usize = 16;

/// How much longer actix drains a refused body than the watcher lets it: the watcher counts the reason.
const LINGER_LONGER: Duration = Duration::from_secs(1);

/// A server that is bound and not yet running.
pub struct Bound {
    /// The addresses that it listens on; at least one.
    pub addresses: Vec<SocketAddr>,
    /// Runs when it is polled.
    pub server: Server,
}

/// What one listener serves.
struct Listener<'a> {
    bind: &'a str,
    workers: usize,
    room: Room,
    /// Its paths.
    routes: fn(&mut ServiceConfig),
    /// Its further paths.
    more_routes: Option<fn(&mut ServiceConfig)>,
}

/// Binds `server.bind`, which has every path. Port 0 takes a free one. Must be called in an actix
/// system.
///
/// # Errors
/// When the address cannot be listened on.
pub fn bind(state: &Arc<State>) -> io::Result<Bound> {
    let workers = state.server.workers;
    let room = Room::of(workers, &state.limits, getrlimit(Resource::Nofile).current);
    state.metrics.connections_limit.set(i64::try_from(room.bounds.all).unwrap_or(i64::MAX));
    let listener = Listener {
        bind: &state.server.bind,
        workers,
        room,
        routes: super::routes,
        more_routes: state.first_version.then_some(super::first_version_routes),
    };
    start(state, listener)
}

/// Binds `server.ops_bind`, where there is one. It has health and metrics, with a worker, places and
/// files of its own: no client of the other listener can fill it. Must be called in an actix system.
///
/// # Errors
/// When the address cannot be listened on.
pub fn bind_ops(state: &Arc<State>) -> io::Result<Option<Bound>> {
    let Some(bind) = &state.server.ops_bind else { return Ok(None) };
    let room = Room::of_ops(getrlimit(Resource::Nofile).current);
    start(state, Listener { bind, workers: 1, room, routes: super::ops_routes, more_routes: None }).map(Some)
}

fn start(state: &Arc<State>, of: Listener<'_>) -> io::Result<Bound> {
    let Listener { bind, workers, room, routes, more_routes } = of;
    let settings = state.server.clone();
    let connections = Connections::new(&settings, &state.limits, room.bounds, state.metrics.clone());
    let listeners = listen(bind)?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
    let data = Data::from(state.clone());
    let factory = move || {
        let app = App::new().app_data(data.clone()).wrap(from_fn(watch)).configure(routes);
        if let Some(more) = more_routes { app.configure(more) } else { app }
    };
    let mut builder = Server::build()
        .workers(workers)
        .max_concurrent_connections(room.each_worker)
        .shutdown_timeout(settings.shutdown_timeout.as_secs().max(1))
        .disable_signals();
    for listener in listeners {
        let (factory, connections) = (factory.clone(), connections.clone());
        let stopping = builder.graceful_shutdown_signal();
        let linger = settings.drain_timeout + LINGER_LONGER;
        builder = builder.listen("http", listener, move || {
            let stopping = stopping.clone();
            let app = factory().into_factory().map_err(|error: Error| error.error_response());
            let http = HttpService::build()
                .graceful_shutdown_signal(move || {
                    let stopping = stopping.clone();
                    async move { stopping.notified().await }
                })
                // The watcher of the connections has these deadlines.
                .keep_alive(KeepAlive::Os)
                .client_request_timeout(Duration::ZERO)
                .client_disconnect_timeout(linger)
                .on_connect_ext(|stream: &Stream, of_connection: &mut Extensions| {
                    of_connection.insert(stream.connection().clone());
                })
                .h1(map_config(app, |()| AppConfig::default()));
            let connections = connections.clone();
            fn_service(move |socket| admit(connections.clone(), socket)).and_then(http)
        })?;
    }
    connections::watch(&connections);
    Ok(Bound { addresses, server: builder.run() })
}

/// Gives an accepted connection a place, or tells its client that there is none.
async fn admit(
    connections: Arc<Connections>,
    socket: TcpStream,
) -> Result<(Stream, Option<SocketAddr>), DispatchError> {
    let peer = socket.peer_addr().ok();
    match connections.admit(socket) {
        Ok(place) => Ok((Stream::new(place), peer)),
        Err(refused) => {
            refused.answer().await;
            Err(DispatchError::Io(io::ErrorKind::ConnectionRefused.into()))
        }
    }
}

/// Listens on each address that this one stands for, at least on one of them.
fn listen(bind: &str) -> io::Result<Vec<TcpListener>> {
    let mut failed = io::ErrorKind::AddrNotAvailable.into();
    let mut listeners = Vec::new();
    for address in bind.to_socket_addrs()? {
        match listen_on(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) => failed = error,
        }
    }
    if listeners.is_empty() { Err(failed) } else { Ok(listeners) }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A server that is started again must not wait until the system forgets the connections of the last one.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// How many connections the process has room for.
#[derive(Debug, PartialEq, Eq)]
struct Room {
    bounds: Bounds,
    /// Connections of one worker, those included that are about to be refused. Further ones wait to be
    /// accepted.
    each_worker: usize,
}

impl Room {
    /// The room that the limits and the file limit leave; `None` is no file limit. A quarter of the files
    /// is kept for the store, which could neither read nor write while clients hold all of them.
    fn of(workers: usize, limits: &Limits, files: Option<u64>) -> Self {
        let workers = workers.max(1);
        let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
        let slack = (files / 64).clamp(1, 64);
        let most = (files - files / 4).saturating_sub(slack * workers);
        let all = limits.connections.min(most).max(1);
        if all < limits.connections {
            tracing::warn!(
                connections = all,
                limit = limits.connections,
                files,
                "limits.connections is lowered: the process may not open more files (ulimit -n)"
            );
        }
        let address = limits.connections_per_address.min(all.div_ceil(2));
        // While all places are taken, half of the slack is left to accept the next one that is refused.
        let refused = (slack * workers / 2).min(REFUSED_MAX);
        Self { bounds: Bounds { all, address, refused }, each_worker: all.div_ceil(workers) + slack }
    }

    /// The room of the listener for health and metrics, a small part of the files that clients cannot take.
    fn of_ops(files: Option<u64>) -> Self {
        let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
        let all = (files / 32).clamp(4, 64);
        let slack = 4;
        let bounds = Bounds { all, address: all / 2, refused: slack / 2 };
        Self { bounds, each_worker: all + slack }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_a_quarter_of_the_files() {
        let limits = Limits {
            connections: 10_000,
            connections_per_address: 1_000,
            ..crate::http::tests::settings().limits
        };
        let room = |workers, files| {
            let Room { bounds, each_worker } = Room::of(workers, &limits, files);
            (bounds.all, bounds.address, each_worker)
        };
        assert_eq!(room(2, None), (10_000, 1_000, 5_064));
        assert_eq!(room(2, Some(1_024)), (736, 368, 384));
        assert_eq!(room(8, Some(4)), (1, 1, 2));
        for files in [64, 256, 1_024, 1 << 20] {
            let room = Room::of(4, &limits, Some(files));
            assert!(room.bounds.all + room.bounds.refused < 4 * room.each_worker, "{room:?} of {files}");
            assert!(4 * room.each_worker as u64 <= files - files / 4 + 4, "{room:?} of {files}");
        }
    }
}
