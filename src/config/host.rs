//! Hosts of a database, as its URL names them.

use std::net::IpAddr;

use tokio_postgres::config::Host;

/// Whether a host is this machine: by a loopback address, by `localhost`, or by a socket.
pub(super) fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => match name.parse() {
            Ok(address) => is_loopback(&address),
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        },
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

pub(super) fn is_loopback(address: &IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// A host as the URL names it.
pub(super) fn name(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    }
}
