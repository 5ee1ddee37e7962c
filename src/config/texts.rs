//! Values that are texts: what each of them may be.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::postgres::PostgresUrl;
use super::settings::{Durability, LogFormat, StoreUrl};

/// `HOST:PORT`, an IPv6 address in brackets.
pub(super) fn bind(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let valid = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', '[', ']', ' ']),
    };
    valid.then(|| text.to_owned())
}

/// The same, or nothing.
#[expect(clippy::option_option, reason = "nothing is a value here, and an error is none")]
pub(super) fn optional_bind(text: &str) -> Option<Option<String>> {
    if text.is_empty() { Some(None) } else { bind(text).map(Some) }
}

/// A name of a server, without a port, in lower case.
pub(super) fn host(text: &str) -> Option<String> {
    let name = text.trim_end_matches('.');
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (!name.is_empty() && name.bytes().all(valid)).then(|| name.to_ascii_lowercase())
}

/// The bits before the IPv4 address in an IPv6 address that it is mapped to (RFC 4291, section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// An address, or a network in CIDR notation. IPv4 that is mapped to IPv6 becomes IPv4, as the
/// addresses do that are compared with it.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?.trunc();
    let mapped = match network {
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(MAPPED_BITS)),
        IpNet::V4(_) => None,
    };
    mapped.map_or(Some(network), |(v4, bits)| Ipv4Net::new(v4, bits).ok().map(IpNet::V4))
}

/// What [`store_url`] takes: the rule of a text that is neither.
pub(super) const STORE_URL: &str = "must be sqlite:PATH, such as \"sqlite:data/sekali.db\", \
    or postgres://USER:PASSWORD@HOST:PORT/DATABASE with libpq's keys";

/// `sqlite:PATH`, where two slashes more, as other programs write it, are taken for the same; or a database's URL.
///
/// # Errors
/// The rule that it breaks.
pub(super) fn store_url(text: &str) -> Result<StoreUrl, String> {
    if text.contains(char::is_control) {
        // A line end at the end of a variable would be part of a file's or a database's name.
        return Err("must not hold control characters such as a line end".to_owned());
    }
    if PostgresUrl::is_meant(text) {
        return PostgresUrl::parse(text).map(|url| StoreUrl::Postgres(Box::new(url)));
    }
    let neither = || STORE_URL.to_owned();
    let rest = text.strip_prefix("sqlite:").ok_or_else(neither)?;
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let is_file =
        !path.is_empty() && !path.ends_with('/') && !path.contains(['?', '\0']) && path != ":memory:";
    if let Some(rule) = home_rule(Path::new(path), "sqlite:") {
        return Err(rule);
    }
    is_file.then(|| StoreUrl::Sqlite(PathBuf::from(path))).ok_or_else(neither)
}

/// A path; an empty text is none.
///
/// # Errors
/// The rule that it breaks.
pub(super) fn optional_path(text: &str) -> Result<Option<PathBuf>, String> {
    if text.contains(char::is_control) {
        return Err("must not hold control characters such as a line end".to_owned());
    }
    if let Some(rule) = home_rule(Path::new(text), "") {
        return Err(rule);
    }
    Ok(Some(text).filter(|text| !text.is_empty()).map(PathBuf::from))
}

/// The rule that a path breaks whose first part is a home directory as shells write it: nothing here
/// replaces it, so that the path would lead into a directory named `~`. `before` stands before the path.
#[must_use]
pub fn home_rule(path: &Path, before: &str) -> Option<String> {
    let mut parts = path.components();
    let first = parts.next()?.as_os_str().to_str()?;
    let rest = parts.as_path();
    if first != "~" && (!first.starts_with('~') || rest.as_os_str().is_empty()) {
        return None;
    }
    let home = std::env::home_dir().filter(|home| first == "~" && home.is_absolute());
    let instead = match home {
        Some(home) => format!("write {before}{}", home.join(rest).display()),
        None => "write the absolute path".to_owned(),
    };
    Some(format!("must not begin with {first}, which only a shell replaces; {instead}"))
}

/// When an acknowledged event is on disk.
pub(super) fn durability(text: &str) -> Option<Durability> {
    [Durability::Full, Durability::Relaxed].into_iter().find(|known| known.as_str() == text)
}

/// How log lines look.
pub(super) fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "auto" => Some(LogFormat::Auto),
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

/// A filter that says something: a lone word would be taken for the name of a module, so that a level with a
/// typing error would switch everything else off.
pub(super) fn log_level(text: &str) -> Option<String> {
    let lone_is_level =
        |part: &str| part.contains(['=', '[']) || (!part.is_empty() && part.parse::<LevelFilter>().is_ok());
    let valid = text.split(',').all(lone_is_level) && EnvFilter::try_new(text).is_ok();
    valid.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["127.0.0.1:0", "0.0.0.0:65535", "localhost:8080", "[::1]:80", "[::]:8080"] {
            assert!(bind(good).is_some(), "{good}");
        }
        for bad in
            ["", "8080", ":8080", "host", "host:", "host:65536", "::1:80", "[::1]", "[x]:1", "http://h:1"]
        {
            assert!(bind(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn stores_are_sqlite_files_or_databases() {
        let path = |text| match store_url(text).ok()? {
            StoreUrl::Sqlite(path) => Some(path.display().to_string()),
            StoreUrl::Postgres(url) => Some(url.to_string()),
        };
        assert_eq!(path("postgres://me@h/d").as_deref(), Some("postgres://me@h:5432/d"));
        assert_eq!(path("sqlite:data/a.db").as_deref(), Some("data/a.db"));
        assert_eq!(path("sqlite:/var/a.db").as_deref(), Some("/var/a.db"));
        assert_eq!(path("sqlite:///var/a.db").as_deref(), Some("/var/a.db"));
        for bad in [
            "sqlite:",
            "sqlite://",
            "sqlite::memory:",
            "sqlite:a.db?mode=ro",
            "a.db",
            "postgres:d",
            "sqlite:dir/",
            "sqlite:~",
            "sqlite:~/a.db",
            "sqlite://~/a.db",
            "sqlite:~me/a.db",
            "sqlite:a.db\n",
            "sqlite:a\u{1b}.db",
            "postgres://me@h/log\n",
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_lone_word_in_a_filter_is_a_level() {
        for good in
            ["info", "WARN", "off", "info,sekali=debug", "warn,sekali::store=trace", "[request]=debug"]
        {
            assert!(log_level(good).is_some(), "{good}");
        }
        for bad in ["", "inof", "sekali", "info,", "sekali=loud"] {
            assert!(log_level(bad).is_none(), "{bad}");
        }
    }
}
