//! Connections to a database on another machine that the network between can read or take over.
//!
//! | `sslmode` | exposure | log line at the start |
//! | --- | --- | --- |
//! | `disable` | anybody on the way reads and changes what passes, and sees the password where the server asks for it | a warning |
//! | `prefer`, `require` | anybody on the way may answer in place of the server: its certificate is not checked | an information |
//! | the same with `channel_binding=require` | nothing: the password proves that both ends have one TLS connection | |
//! | `verify-full` | nothing | |
//!
//! Loopback addresses, `localhost` and Unix sockets have no network between.

use std::fmt;

use tokio_postgres::config::ChannelBinding;

use super::host::{is_local, is_loopback, name};
use super::postgres::{PostgresUrl, Security};

/// The database's hosts on other machines, and the protection that their connections lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    hosts: String,
    lacks: Lacks,
}

/// The protection that a connection lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lacks {
    Encryption,
    Verification,
}

impl PostgresUrl {
    /// The protection that connections to this database lack; `None` where they are protected.
    #[must_use]
    pub fn exposure(&self) -> Option<Exposure> {
        let binds = self.config().get_channel_binding() == ChannelBinding::Require;
        let lacks = match self.security() {
            Security::Disable => Lacks::Encryption,
            Security::Prefer | Security::Require if !binds => Lacks::Verification,
            Security::Prefer | Security::Require | Security::VerifyFull => return None,
        };
        let hosts = remote(self).join(",");
        (!hosts.is_empty()).then_some(Exposure { hosts, lacks })
    }
}

impl Exposure {
    /// The hosts, with commas between.
    #[must_use]
    pub fn hosts(&self) -> &str {
        &self.hosts
    }

    /// Whether connections are not even encrypted.
    #[must_use]
    pub fn is_clear_text(&self) -> bool {
        self.lacks == Lacks::Encryption
    }
}

/// The exposure and its remedy, without the hosts.
impl fmt::Display for Exposure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.lacks {
            Lacks::Encryption => {
                "connections to the database are not encrypted (sslmode=disable): anybody on the network \
                 between can read and change events, and read the password where the database asks for it \
                 in clear text; write sslmode=verify-full into the URL of the store"
            }
            Lacks::Verification => {
                "the certificate of the database is not checked: anybody on the network between can answer \
                 in its place; write sslmode=verify-full into the URL of the store"
            }
        })
    }
}

/// The hosts that are not this machine. Where the URL has an address beside a name (`hostaddr`),
/// the driver connects to the address.
fn remote(url: &PostgresUrl) -> Vec<String> {
    let config = url.config();
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let place = |index: usize| {
        let (host, address) = (hosts.get(index), addresses.get(index));
        let is_here = address.map_or_else(|| host.is_some_and(is_local), is_loopback);
        let name = host.map(name).or_else(|| address.map(ToString::to_string));
        name.filter(|_| !is_here)
    };
    (0..hosts.len().max(addresses.len())).filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `MODE hosts` of a URL with these hosts and this query.
    fn said(hosts: &str, query: &str) -> String {
        let url = PostgresUrl::parse(&format!("postgres://me:secret@{hosts}/d{query}")).unwrap();
        let Some(exposure) = url.exposure() else { return String::new() };
        let text = exposure.to_string();
        assert!(text.contains("sslmode=verify-full") && !text.contains("secret"), "{text}");
        assert_eq!(exposure.is_clear_text(), text.contains("not encrypted"), "{text}");
        format!("{} {}", if exposure.is_clear_text() { "clear" } else { "unverified" }, exposure.hosts())
    }

    #[test]
    fn connections_to_other_machines_are_exposed_without_encryption() {
        for (hosts, query, expected) in [
            ("db.example", "?sslmode=disable", "clear db.example"),
            ("10.0.0.1:1", "?sslmode=disable", "clear 10.0.0.1"),
            ("[::2]", "?sslmode=disable", "clear ::2"),
            ("localhost.evil.example", "?sslmode=disable", "clear localhost.evil.example"),
            ("localhost,one,127.0.0.1,two", "?sslmode=disable", "clear one,two"),
            ("localhost", "?sslmode=disable&hostaddr=10.0.0.1", "clear localhost"),
            ("db.example", "?sslmode=disable&hostaddr=127.0.0.1", ""),
            ("db.example", "?sslmode=disable&channel_binding=require", "clear db.example"),
        ] {
            assert_eq!(said(hosts, query), expected, "{hosts}{query}");
        }
    }

    #[test]
    fn a_server_that_is_not_checked_is_said_and_a_checked_or_local_one_is_not() {
        for (query, expected) in [
            ("", "unverified db.example"),
            ("?sslmode=prefer", "unverified db.example"),
            ("?sslmode=require", "unverified db.example"),
            ("?sslmode=require&channel_binding=require", ""),
            ("?sslmode=verify-full", ""),
        ] {
            assert_eq!(said("db.example", query), expected, "{query}");
        }
        for here in ["localhost", "LOCALHOST", "127.0.0.2:1", "[::1]", "[::ffff:127.0.0.1]", "%2Frun%2Fpg"] {
            for query in ["", "?sslmode=disable", "?sslmode=require"] {
                assert_eq!(said(here, query), "", "{here}{query}");
            }
        }
    }
}
