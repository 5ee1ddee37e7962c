//! Whether `server.bind` and `server.ops_bind` lead to one socket. Two listeners cannot share it:
//! the system refuses the second one, or gives it only those addresses of a name that are left.
//!
//! 1. Port 0 takes a free port, so it never meets another listener.
//! 2. Two addresses meet where their ports are equal and the addresses are equal, or one of them is
//!    a wildcard that has the other. An IPv4 address that is mapped to IPv6 is IPv4. `[::]` has
//!    IPv4 as well, as systems do by default.
//! 3. A name stands for addresses that only a look-up tells. The configuration is checked without
//!    one: equal names meet, `localhost` is the two loopback addresses, and any name meets a
//!    wildcard. [`Server::check_listeners`] looks names up, once, at the start of the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use super::settings::Server;

/// `server.bind` and `server.ops_bind` lead to one socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "server.ops_bind ({ops_bind}) and server.bind ({bind}) are the same listener at {shared}; choose \
     another port for one of them (--ops-bind, SEKALI_OPS_BIND; --bind, SEKALI_BIND)"
)]
pub struct SharedListener {
    bind: String,
    ops_bind: String,
    shared: SocketAddr,
}

impl Server {
    /// Looks up the names of both listeners, where their ports are equal, and compares the
    /// addresses. A name that is not found is left to the listener, which says so.
    ///
    /// # Errors
    /// An address that both listeners would listen on.
    pub fn check_listeners(&self) -> Result<(), SharedListener> {
        self.ops_bind.as_ref().map_or(Ok(()), |ops_bind| look_up(&self.bind, ops_bind))
    }
}

fn look_up(bind: &str, ops_bind: &str) -> Result<(), SharedListener> {
    if !is_same_port(bind, ops_bind) {
        return Ok(());
    }
    let addresses = |text: &str| text.to_socket_addrs().map(Vec::from_iter).unwrap_or_default();
    let (of_bind, of_ops) = (addresses(bind), addresses(ops_bind));
    let shared = of_ops.iter().find(|ops| of_bind.iter().any(|own| meet(own.ip(), ops.ip())));
    shared.map_or(Ok(()), |shared| {
        Err(SharedListener { bind: bind.to_owned(), ops_bind: ops_bind.to_owned(), shared: *shared })
    })
}

/// Whether the two texts, each `HOST:PORT`, lead to one socket, as far as that is known without a
/// look-up.
pub(super) fn overlap(bind: &str, ops_bind: &str) -> bool {
    is_same_port(bind, ops_bind) && Host::of(bind).meets(&Host::of(ops_bind))
}

/// Whether both have one port that is not 0.
fn is_same_port(bind: &str, ops_bind: &str) -> bool {
    let port = |text: &str| text.rsplit_once(':')?.1.parse::<u16>().ok().filter(|port| *port > 0);
    port(bind).is_some() && port(bind) == port(ops_bind)
}

/// A host, as far as it is known without a look-up.
enum Host {
    Addresses(Vec<IpAddr>),
    /// In lower case, without the dot at its end.
    Name(String),
}

impl Host {
    /// The host of `HOST:PORT`.
    fn of(text: &str) -> Self {
        let text = text.rsplit_once(':').map_or(text, |(host, _)| host);
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Self::Addresses(vec![address]);
        }
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        if name == "localhost" {
            return Self::Addresses(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        Self::Name(name)
    }

    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(one), Self::Name(other)) => one == other,
            (Self::Name(_), Self::Addresses(addresses)) | (Self::Addresses(addresses), Self::Name(_)) => {
                addresses.iter().any(|address| address.to_canonical().is_unspecified())
            }
            (Self::Addresses(some), Self::Addresses(others)) => {
                some.iter().any(|one| others.iter().any(|another| meet(*one, *another)))
            }
        }
    }
}

/// Whether two sockets of one port on these addresses meet.
fn meet(one: IpAddr, other: IpAddr) -> bool {
    let (one, other) = (one.to_canonical(), other.to_canonical());
    let has = |wildcard: IpAddr, address: IpAddr| {
        wildcard.is_unspecified() && (wildcard.is_ipv6() || address.is_ipv4())
    };
    one == other || has(one, other) || has(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs that are one socket, and pairs that are two; each in both orders.
    const ONE: [(&str, &str); 14] = [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("127.0.0.1:80", "127.0.0.1:080"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "10.0.0.1:80"),
        ("[::]:80", "127.0.0.1:80"),
        ("[::]:80", "0.0.0.0:80"),
        ("[::]:80", "[::1]:80"),
        ("[::1]:80", "[0:0:0:0:0:0:0:1]:80"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
        ("[::ffff:0.0.0.0]:80", "10.0.0.1:80"),
        ("localhost:80", "127.0.0.1:80"),
        ("LocalHost.:80", "[::1]:80"),
        ("localhost:80", "0.0.0.0:80"),
        ("localhost:80", "localhost:80"),
    ];
    const TWO: [(&str, &str); 8] = [
        ("127.0.0.1:80", "127.0.0.1:81"),
        ("127.0.0.1:80", "127.0.0.2:80"),
        ("127.0.0.1:80", "[::1]:80"),
        ("0.0.0.0:80", "[::1]:80"),
        ("0.0.0.0:0", "0.0.0.0:0"),
        ("localhost:0", "localhost:0"),
        ("localhost:80", "10.0.0.1:80"),
        ("[::]:80", "0.0.0.0:8080"),
    ];

    #[test]
    fn addresses_that_are_one_socket_are_found() {
        // The file of hosts may know it by other addresses.
        let is_name = |text: &str| text.to_ascii_lowercase().starts_with("localhost");
        for (one, other) in ONE {
            assert!(overlap(one, other) && overlap(other, one), "{one} and {other}");
            assert!(is_name(one) || look_up(one, other).is_err(), "{one} and {other}");
            assert!(is_name(one) || look_up(other, one).is_err(), "{other} and {one}");
        }
        for (one, other) in TWO {
            assert!(!overlap(one, other) && !overlap(other, one), "{one} and {other}");
            assert!(is_name(one) || look_up(one, other).is_ok(), "{one} and {other}");
            assert!(is_name(one) || look_up(other, one).is_ok(), "{other} and {one}");
        }
    }

    #[test]
    fn names_meet_themselves_and_wildcards() {
        for (one, other) in [
            ("log.example:80", "LOG.example.:80"),
            ("log.example:80", "0.0.0.0:80"),
            ("log.example:80", "[::]:80"),
        ] {
            assert!(overlap(one, other) && overlap(other, one), "{one} and {other}");
        }
        for (one, other) in [("log.example:80", "ops.example:80"), ("log.example:80", "10.0.0.1:80")] {
            assert!(!overlap(one, other) && !overlap(other, one), "{one} and {other}");
        }
    }

    #[test]
    fn names_of_an_address_are_looked_up_at_the_start() {
        // The system's look-up knows these spellings, without asking any other machine.
        for name in ["127.1", "2130706433"] {
            let (named, ops) = (format!("{name}:80"), "127.0.0.1:80");
            assert!(!overlap(&named, ops), "{name} is known only by a look-up");
            let said = look_up(&named, ops).unwrap_err().to_string();
            assert!(said.contains(&named) && said.contains("server.ops_bind (127.0.0.1:80)"), "{said}");
            assert!(said.contains("--ops-bind") && said.contains("choose another port"), "{said}");
        }
    }
}
