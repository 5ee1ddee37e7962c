//! The address that a request counts for: the other end of its connection, or the client that a
//! trusted proxy names.
//!
//! Each proxy appends the address that it was called from to `X-Forwarded-For` or `Forwarded`, behind
//! whatever came to it. So the list is read from its end: the first address there that is no trusted
//! proxy is the last one that somebody trusted has seen. Everything before it may be invented.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName};
use actix_web::{HttpMessage, HttpRequest};
use ipnet::IpNet;

use super::fields;
use crate::domain::Address;

/// The header of most proxies: addresses, separated by commas.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// The other end of the connection; `None` where there is no socket, as in some tests.
    pub(super) socket: Option<IpAddr>,
    /// The client that trusted proxies name, where they name one.
    pub(super) forwarded: Option<IpAddr>,
}

impl Peer {
    /// Finds the client of a request that arrived on a connection from `socket`. `trusted` is
    /// `server.trusted_proxies`.
    pub(super) fn find(socket: Option<IpAddr>, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let socket = socket.map(|ip| ip.to_canonical());
        let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(&ip));
        let forwarded = socket.filter(|ip| is_trusted(*ip)).and_then(|_| client(headers, is_trusted));
        Self { socket, forwarded }
    }

    /// The peer that the middleware found for this request.
    pub(super) fn of(request: &HttpRequest) -> Self {
        let found = request.extensions().get::<Self>().copied();
        found.unwrap_or(Self { socket: request.peer_addr().map(|address| address.ip()), forwarded: None })
    }

    /// The address that limits count this request for.
    pub(super) fn address(&self) -> Address {
        self.forwarded.or(self.socket).map_or(Address::UNKNOWN, Address::of)
    }
}

/// The client that the proxies name, if they agree. A proxy passes a header that it does not write on
/// as it came, and then the client wrote it: where both headers are there and differ, none is believed.
fn client(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let names = |name: &HeaderName| headers.contains_key(name);
    let lists = [
        names(&X_FORWARDED_FOR).then(|| fields::members(headers, X_FORWARDED_FOR)),
        names(&FORWARDED).then(|| forwarded_for(headers)),
    ];
    let mut found = lists.into_iter().flatten().map(|hops| last_untrusted(&hops, &is_trusted));
    let first = found.next()?;
    if found.all(|other| other == first) { first } else { None }
}

/// The values of `for` in a `Forwarded` header (RFC 7239); an empty text for an element without one, and
/// nothing at all where a line has a quote that does not end: it might hide the elements after it.
fn forwarded_for(headers: &HeaderMap) -> Vec<String> {
    if headers.get_all(FORWARDED).any(|line| !ends_outside_quotes(line.as_bytes())) {
        return Vec::new();
    }
    let node = |element: &String| {
        let mut pairs = fields::outside_quotes(element, ';').map(fields::pair);
        pairs.find(|(name, _)| name == "for").map_or(String::new(), |(_, node)| node)
    };
    fields::members(headers, FORWARDED).iter().map(node).collect()
}

/// Whether every quoted string of a line is closed.
fn ends_outside_quotes(line: &[u8]) -> bool {
    let (mut within, mut is_escaped) = (false, false);
    for byte in line {
        if *byte == b'"' && !is_escaped {
            within = !within;
        }
        is_escaped = within && !is_escaped && *byte == b'\\';
    }
    !within
}

/// From the end, the first address that is no trusted proxy; where all of them are, the first one. An
/// element that is no address ends the list there: whoever is before it is not known.
fn last_untrusted(hops: &[String], is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut last = None;
    for hop in hops.iter().rev() {
        let Some(ip) = ip_of(hop) else { break };
        last = Some(ip);
        if !is_trusted(ip) {
            break;
        }
    }
    last
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets.
fn ip_of(text: &str) -> Option<IpAddr> {
    let ip = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    ip.ok().or_else(in_brackets).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    const PROXIES: [&str; 3] = ["127.0.0.1/32", "10.0.0.0/8", "fd00::/8"];

    /// The address that a request from `socket` with these headers counts for.
    fn counted(socket: &str, headers: &[(HeaderName, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        let trusted = PROXIES.map(|network| network.parse().unwrap());
        Peer::find(Some(socket.parse().unwrap()), &map, &trusted).address().to_string()
    }

    fn x_forwarded_for(socket: &str, list: &str) -> String {
        counted(socket, &[(X_FORWARDED_FOR, list)])
    }

    fn forwarded(list: &str) -> String {
        counted("127.0.0.1", &[(FORWARDED, list)])
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(x_forwarded_for("192.0.2.1", "198.51.100.1"), "192.0.2.1");
        assert_eq!(x_forwarded_for("127.0.0.2", "198.51.100.1"), "127.0.0.2");
        assert_eq!(x_forwarded_for("127.0.0.1", "198.51.100.1"), "198.51.100.1");
        assert_eq!(x_forwarded_for("::ffff:127.0.0.1", "198.51.100.1"), "198.51.100.1");
        assert_eq!(x_forwarded_for("fd00::7", "2001:db8::5"), "2001:db8::/64");
        assert_eq!(counted("127.0.0.1", &[]), "127.0.0.1");
        let nobody = Peer::find(None, &HeaderMap::new(), &[]);
        assert_eq!(nobody.address(), Address::UNKNOWN);
    }

    #[test]
    fn the_last_address_that_is_no_proxy_counts_whatever_is_before_it() {
        for (list, expected) in [
            ("1.1.1.1, 198.51.100.1", "198.51.100.1"),
            ("1.1.1.1, 198.51.100.1, 10.0.0.5", "198.51.100.1"),
            ("1.1.1.1, 198.51.100.1,10.0.0.5 , 10.1.1.1", "198.51.100.1"),
            ("nonsense, 198.51.100.1", "198.51.100.1"),
            ("198.51.100.1, nonsense", "127.0.0.1"),
            ("198.51.100.1, unknown, 10.0.0.5", "10.0.0.5"),
            ("10.0.0.9, 10.0.0.5", "10.0.0.9"),
            ("", "127.0.0.1"),
            (" , ,", "127.0.0.1"),
            ("198.51.100.1:4711", "198.51.100.1"),
            ("[2001:db8::1]:4711", "2001:db8::/64"),
            ("[2001:db8::1]", "2001:db8::/64"),
            ("::ffff:198.51.100.1", "198.51.100.1"),
            ("\"198.51.100.1", "127.0.0.1"),
        ] {
            assert_eq!(x_forwarded_for("127.0.0.1", list), expected, "{list}");
        }
        let lines = [(X_FORWARDED_FOR, "1.1.1.1"), (X_FORWARDED_FOR, "198.51.100.1")];
        assert_eq!(counted("10.0.0.1", &lines), "198.51.100.1", "the lines are one list");
    }

    #[test]
    fn forwarded_is_read_with_its_quotes_and_parameters() {
        for (list, expected) in [
            ("for=198.51.100.1", "198.51.100.1"),
            ("For=1.1.1.1, FOR=198.51.100.1;proto=https;by=10.0.0.5", "198.51.100.1"),
            ("proto=http;for=\"198.51.100.1:80\"", "198.51.100.1"),
            ("for=\"[2001:db8::1]:4711\"", "2001:db8::/64"),
            ("for=198.51.100.1, for=10.0.0.5", "198.51.100.1"),
            ("for=198.51.100.1, for=_hidden", "127.0.0.1"),
            ("for=198.51.100.1, proto=http", "127.0.0.1"),
            // A host that the client chose, quoted by its proxy.
            ("for=198.51.100.1;host=\"a,for=1.1.1.1\"", "198.51.100.1"),
            // A quote of the client's that swallows what its proxy appended.
            ("for=1.1.1.1;host=\"x, for=198.51.100.1", "127.0.0.1"),
        ] {
            assert_eq!(forwarded(list), expected, "{list}");
        }
    }

    #[test]
    fn two_headers_that_differ_are_not_believed() {
        let both = |one, other| counted("127.0.0.1", &[(X_FORWARDED_FOR, one), (FORWARDED, other)]);
        assert_eq!(both("198.51.100.1", "for=198.51.100.1"), "198.51.100.1");
        assert_eq!(both("198.51.100.1", "for=1.1.1.1"), "127.0.0.1");
        assert_eq!(both("1.1.1.1", "for=198.51.100.1"), "127.0.0.1");
        assert_eq!(both("198.51.100.1", ""), "127.0.0.1");
        assert_eq!(both("198.51.100.1", "for=\"198.51.100.1"), "127.0.0.1");
    }
}
