//! Network addresses of clients, as limits and log lines name them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The bits of an IPv6 address that name a network: RFC 4291, section 2.5.4, and RFC 6177 give every
/// site at least one whole /64, so a single client owns 2^64 addresses of it.
const NETWORK_BITS: u32 = 64;

/// The address that limits for each client count by: an IPv4 address, or the /64 network of an IPv6
/// address. An IPv4 address that is mapped to IPv6 (`::ffff:192.0.2.1`) counts as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(IpAddr);

impl Address {
    /// The address of a request whose connection has none, such as one within a test.
    pub const UNKNOWN: Self = Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

    /// The address or network that a client with this IP address counts for.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V6(v6) => {
                let network = u128::from(v6) >> NETWORK_BITS << NETWORK_BITS;
                Self(IpAddr::V6(Ipv6Addr::from(network)))
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

/// `192.0.2.1` or `2001:db8:1:2::/64`.
impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => v4.fmt(formatter),
            IpAddr::V6(v6) => write!(formatter, "{v6}/{NETWORK_BITS}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_site_count_as_one() {
        let of = |text: &str| Address::of(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(of("2001:db8:1:2:ffff::"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:3::1"), of("2001:db8:1:2::1"));
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
    }
}
