//! Where a PostgreSQL store is: a URL as libpq takes it. Its password is never shown.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// What a connection is called in `pg_stat_activity`, unless the URL says otherwise.
const APPLICATION: &str = "sekali";

/// After this long without a word a connection is asked whether it still stands, again and again; tokio-postgres' own
/// value is the two hours of the operating system, for which a node would believe in a server that is gone.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// A database, who connects to it, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    config: Config,
    security: Security,
    root_certificates: Option<PathBuf>,
}

/// Whether connections are encrypted, and whom they trust (`sslmode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Not encrypted.
    Disable,
    /// Encrypted where the server can; it may be anybody.
    Prefer,
    /// Encrypted; the server may be anybody.
    Require,
    /// Encrypted, and the server has a certificate for its name from an authority that is trusted.
    VerifyFull,
}

impl PostgresUrl {
    /// Parses `postgres://USER:PASSWORD@HOST:PORT/DATABASE?KEY=VALUE`, with libpq's keys. `None` where it is none, names
    /// no host, or names authorities (`sslrootcert`) that nothing is checked against.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return None;
        }
        // A password may have a question mark.
        let credentials = text.find('@').unwrap_or(0);
        let (base, query) = match text[credentials..].find('?') {
            Some(at) => (&text[..credentials + at], &text[credentials + at + 1..]),
            None => (text, ""),
        };
        let (mut security, mut root_certificates, mut rest) = (Security::Prefer, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=')?;
            let value = percent_decode_str(value).decode_utf8().ok()?;
            match key {
                "sslmode" => security = Security::parse(&value)?,
                "sslrootcert" => root_certificates = Some(PathBuf::from(&*value)),
                _ => rest.push(pair),
            }
        }
        let mut config: Config = format!("{base}?{}", rest.join("&")).parse().ok()?;
        let has_host = !config.get_hosts().is_empty() || !config.get_hostaddrs().is_empty();
        let checks = security == Security::VerifyFull || root_certificates.is_none();
        config.ssl_mode(security.mode());
        complete(&mut config);
        (has_host && checks).then_some(Self { config, security, root_certificates })
    }

    /// What the driver connects to.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether connections are encrypted, and whom they trust.
    #[must_use]
    pub fn security(&self) -> Security {
        self.security
    }

    /// A file with the certificates of the authorities that are trusted; `None` is those of the system.
    #[must_use]
    pub fn root_certificates(&self) -> Option<&Path> {
        self.root_certificates.as_deref()
    }
}

/// Adds what the URL does not say.
fn complete(config: &mut Config) {
    // Of several hosts only one that can write is of use, for reads as well: they see what was acknowledged.
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    if config.get_application_name().is_none() {
        config.application_name(APPLICATION);
    }
    if config.get_keepalives_idle() > KEEPALIVE {
        config.keepalives_idle(KEEPALIVE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVE / 5);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(5);
    }
}

impl Security {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "disable" => Some(Self::Disable),
            "prefer" => Some(Self::Prefer),
            "require" => Some(Self::Require),
            "verify-full" => Some(Self::VerifyFull),
            _ => None,
        }
    }

    fn mode(self) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Prefer => SslMode::Prefer,
            Self::Require | Self::VerifyFull => SslMode::Require,
        }
    }
}

/// Without the password.
impl fmt::Display for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("postgres://")?;
        if let Some(user) = self.config.get_user() {
            write!(formatter, "{user}@")?;
        }
        let mut names: Vec<_> = self.config.get_hosts().iter().map(name).collect();
        if names.is_empty() {
            names.extend(self.config.get_hostaddrs().iter().map(ToString::to_string));
        }
        let ports = self.config.get_ports();
        for (index, host) in names.iter().enumerate() {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            write!(formatter, "{}{host}:{port}", if index > 0 { "," } else { "" })?;
        }
        write!(formatter, "/{}", self.config.get_dbname().or(self.config.get_user()).unwrap_or_default())
    }
}

fn name(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PostgresUrl({self})")
    }
}

/// A text that was to be the URL of a store, without what may be a password: all between its scheme and the last `@`, and
/// the value of `password`.
pub(super) fn without_password(text: &str) -> String {
    let start = text.find("//").map_or(0, |at| at + 2);
    let mut shown = match text.rfind('@') {
        Some(end) if end >= start => format!("{}***{}", &text[..start], &text[end..]),
        _ => text.to_owned(),
    };
    if let Some(at) = shown.find("password=") {
        let value = at + "password=".len();
        let end = shown[value..].find(['&', '"', '\'']).map_or(shown.len(), |length| value + length);
        shown.replace_range(value..end, "***");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_as_libpq_reads_it() {
        let url = PostgresUrl::parse(
            "postgresql://me:p%40ss@one:5433,two/log?sslmode=verify-full&sslrootcert=/a%20b.pem&application_name=x",
        )
        .unwrap();
        assert_eq!(url.config().get_password(), Some(&b"p@ss"[..]));
        assert_eq!(url.config().get_hosts().len(), 2);
        assert_eq!(url.config().get_application_name(), Some("x"));
        assert_eq!(url.security(), Security::VerifyFull);
        assert_eq!(url.root_certificates(), Some(Path::new("/a b.pem")));
        let plain = PostgresUrl::parse("postgres://h/d").unwrap();
        assert_eq!(
            (plain.security(), plain.config().get_application_name()),
            (Security::Prefer, Some(APPLICATION))
        );
        let socket = PostgresUrl::parse("postgres://me@%2Frun%2Fpg/d").unwrap();
        assert_eq!(socket.to_string(), "postgres://me@/run/pg:5432/d");
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "postgres:h/d",
            "postgres:///d",
            "mysql://h/d",
            "postgres://h/d?sslmode=maybe",
            "postgres://h/d?nope=1",
            "postgres://h/d?sslmode",
            "postgres://h/d?sslrootcert=a.pem",
            "postgres://h:port/d",
        ] {
            assert_eq!(PostgresUrl::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = PostgresUrl::parse("postgres://me:secret@h:1/d?application_name=x").unwrap();
        assert_eq!(url.to_string(), "postgres://me@h:1/d");
        assert!(!format!("{url:?} {:?}", url.config()).contains("secret"));
        let asked = PostgresUrl::parse("postgres://h/d?user=me&password=secret").unwrap();
        assert!(!format!("{asked} {asked:?}").contains("secret"));
        for (text, shown) in [
            ("\"postgres://me:secret@h/d?x=1\"", "\"postgres://***@h/d?x=1\""),
            ("\"postgres:me:se@cret@h\"", "***@h\""),
            ("postgres://h?password=secret&x=1", "postgres://h?password=***&x=1"),
            ("\"mysql://h\"", "\"mysql://h\""),
        ] {
            assert_eq!(without_password(text), shown);
        }
    }
}
