//! All open connections of a listener: their places, their deadlines, and the count of those that the
//! log refuses or ends.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::connection::Connection;
use super::options;
use super::places::{Bounds, Closed, Closing, Full, Places};
use super::refusal::{self, Lingering, Refused};
use crate::api::Code;
use crate::config::{Limits, Server};
use crate::domain::Address;
use crate::metrics::{Metrics, RefusalLabels};

/// How long a connection may stay in each stage.
#[derive(Debug, Clone)]
pub(super) struct Deadlines {
    /// For a head.
    pub(super) head: Duration,
    /// For the next request.
    pub(super) idle: Duration,
    /// For the rest of a body that was answered before its end, and its bytes.
    pub(super) drain: Duration,
    pub(super) drain_bytes: u64,
    /// For a client to take something of its answer.
    pub(super) write: Duration,
}

/// Why the log ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// A head did not arrive in time.
    Head,
    /// No further request arrived in time.
    Idle,
    /// The rest of a body that was answered before its end was too slow or too long.
    UnreadBody,
    /// The client took nothing of its answer in time.
    UnreadAnswer,
    /// Another connection got its place.
    Room,
    /// The same, while it was new: its address held far more connections than that of the other one.
    Share,
}

/// The open connections.
pub(in crate::http) struct Connections {
    places: Mutex<Places<Connection>>,
    pub(super) deadlines: Deadlines,
    /// Proxies, which hold connections for many clients: the bound of an address does not hold for them.
    trusted: Vec<IpNet>,
    /// How long a client may leave bytes unacknowledged.
    unacknowledged: Duration,
    started: Instant,
    metrics: Arc<Metrics>,
    pub(super) refused: Lingering,
}

/// The place of a connection, until it is dropped.
pub(in crate::http) struct Place {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
    number: u64,
}

impl Connections {
    /// No connections yet, and room for as many as these bounds say.
    pub(in crate::http) fn new(
        server: &Server,
        limits: &Limits,
        bounds: Bounds,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            places: Mutex::new(Places::new(bounds)),
            deadlines: Deadlines {
                head: server.head_timeout,
                idle: server.keep_alive,
                drain: server.drain_timeout,
                drain_bytes: limits.drain_bytes as u64,
                write: server.write_timeout,
            },
            // Later than the log itself ends a connection, which counts the reason.
            unacknowledged: 2 * server.write_timeout.max(server.follow_timeout),
            trusted: server.trusted_proxies.clone(),
            started: Instant::now(),
            metrics,
            refused: Lingering::new(bounds.refused),
        })
    }

    /// Gives a place to a new connection.
    ///
    /// # Errors
    /// The refusal where all places are taken by connections that cannot be closed now.
    pub(in crate::http) fn admit(self: &Arc<Self>, socket: TcpStream) -> Result<Place, Refused> {
        let peer = socket.peer_addr().ok().map(|peer| peer.ip().to_canonical());
        // A connection that is gone already ends at its first read.
        let _ = options::set(&socket, self.unacknowledged);
        let is_trusted = |ip: IpAddr| self.trusted.iter().any(|network| network.contains(&ip));
        let address = match peer {
            Some(ip) if is_trusted(ip) => None,
            Some(ip) => Some(Address::of(ip)),
            None => Some(Address::UNKNOWN),
        };
        let connection = Arc::new(Connection::new(socket, peer, self.started));
        let admitted = self.places().admit(address, connection.clone(), self.started.elapsed());
        match admitted {
            Ok((number, closed)) => {
                if let Some(Closed { connection: closed, why }) = closed {
                    self.end(
                        &closed,
                        match why {
                            Closing::Waited => Reason::Room,
                            Closing::Crowded => Reason::Share,
                        },
                    );
                }
                self.metrics.connections.inc();
                Ok(Place { connections: self.clone(), connection, number })
            }
            Err(full) => Err(self.refuse(connection, full)),
        }
    }

    fn refuse(self: &Arc<Self>, connection: Arc<Connection>, full: Full) -> Refused {
        let (reason, code) = match full {
            Full::Address => ("connections_per_address", Code::TooManyRequests),
            Full::All => ("connections", Code::Overloaded),
        };
        self.metrics.connections_refused.get_or_create(&RefusalLabels { reason }).inc();
        self.metrics.refusals.get_or_create(&RefusalLabels { reason: code.as_str() }).inc();
        let peer = connection.peer.map(tracing::field::display);
        tracing::warn!(peer, limit = reason, "connection refused: all connections are in use or new");
        Refused::new(self.clone(), connection, full, code)
    }

    /// Ends a connection, once.
    pub(super) fn end(&self, connection: &Connection, reason: Reason) {
        let Some(stage) = connection.progress.end() else { return };
        if let Some((code, answer)) = refusal::of_ended(stage, reason) {
            self.metrics.refusals.get_or_create(&RefusalLabels { reason: code.as_str() }).inc();
            // A client that does not even take this learns it by the end of its connection.
            let _ = connection.socket.try_write(&answer);
        }
        if matches!(reason, Reason::UnreadBody | Reason::UnreadAnswer) {
            // The client has had its time. Without a reset, the system would keep the unread answer, and a
            // sender would wait for a minute until it is told.
            let _ = SockRef::from(&connection.socket).set_linger(Some(Duration::ZERO));
        }
        connection.cut();
        let reason_label = reason.as_str();
        self.metrics.connections_ended.get_or_create(&RefusalLabels { reason: reason_label }).inc();
        // Idle connections end every day.
        if reason != Reason::Idle {
            let peer = connection.peer.map(tracing::field::display);
            tracing::info!(peer, reason = reason_label, "connection ended by the log");
        }
    }

    /// Ends every connection that is past its deadline.
    pub(super) fn end_late(&self) {
        let now = self.started.elapsed();
        let is_late = |connection: &Arc<Connection>| {
            let reason = self.deadlines.missed(connection, now)?;
            Some((connection.clone(), reason))
        };
        // The sockets are shut down without the lock, for which new connections wait.
        let late: Vec<_> = self.places().iter().filter_map(is_late).collect();
        for (connection, reason) in late {
            self.end(&connection, reason);
        }
    }

    fn places(&self) -> MutexGuard<'_, Places<Connection>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The connection that has the place.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Ends the connection where it sent more of a body than is drained after a refusal.
    pub(super) fn check_drained(&self) {
        if self.connection.progress.drained() > self.connections.deadlines.drain_bytes {
            self.connections.end(&self.connection, Reason::UnreadBody);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.places().remove(self.number);
        self.connections.metrics.connections.dec();
    }
}

impl Reason {
    /// The name in `/metrics` and in the log.
    fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Idle => "idle",
            Self::UnreadBody => "unread_body",
            Self::UnreadAnswer => "unread_answer",
            Self::Room => "room",
            Self::Share => "share",
        }
    }
}
