//! Where a PostgreSQL store is: a URL as libpq takes it. Its password is never shown.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};

use super::host::{is_local, is_loopback, name};

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
    passfile: Option<PathBuf>,
}

/// Whether connections are encrypted, and whom they trust (`sslmode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Not encrypted.
    Disable,
    /// Encrypted; to a server on this machine only where that server can. The server may be anybody.
    Prefer,
    /// Encrypted; the server may be anybody.
    Require,
    /// Encrypted, and the server has a certificate for its name from an authority that is trusted.
    VerifyFull,
}

/// PostgreSQL's port, where the URL names none.
const PORT: u16 = 5432;

/// What a URL begins with.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// What it must be, as far as the driver knows.
const FORM: &str = "must be postgres://USER:PASSWORD@HOST:PORT/DATABASE with libpq's keys";

impl PostgresUrl {
    /// Whether the text is to be such a URL, right or wrong.
    pub(super) fn is_meant(text: &str) -> bool {
        SCHEMES.iter().any(|scheme| text.starts_with(scheme))
    }

    /// Parses `postgres://USER:PASSWORD@HOST:PORT/DATABASE?KEY=VALUE`, with libpq's keys.
    ///
    /// # Errors
    /// The rule that it breaks, also where it names authorities (`sslrootcert`) that nothing is checked against.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        // A password may have a question mark.
        let credentials = text.find('@').unwrap_or(0);
        let (base, query) = match text[credentials..].find('?') {
            Some(at) => (&text[..credentials + at], &text[credentials + at + 1..]),
            None => (text, ""),
        };
        let (mut security, mut root_certificates, mut passfile) = (Security::Prefer, None, None);
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or("each key of its query must have a value: KEY=VALUE")?;
            let value = percent_decode_str(value).decode_utf8().map_err(|_| "its query must be UTF-8")?;
            match key {
                "sslmode" => security = Security::parse(&value).ok_or(SSLMODE)?,
                "passfile" => passfile = Some(PathBuf::from(&*value)),
                "sslrootcert" => root_certificates = Some(PathBuf::from(&*value)),
                _ => rest.push(pair),
            }
        }
        let mut config: Config =
            format!("{base}?{}", rest.join("&")).parse().map_err(|error| reason(text, &error))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("must name a host: postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned());
        }
        if security != Security::VerifyFull && root_certificates.is_some() {
            return Err(
                "sslrootcert needs sslmode=verify-full: else nothing is checked against it".to_owned()
            );
        }
        config.ssl_mode(security.mode(is_here(&config)));
        complete(&mut config);
        Ok(Self { config, security, root_certificates, passfile })
    }

    /// Whether the URL has a password, or was given one.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    pub(super) fn set_password(&mut self, password: &str) {
        self.config.password(password);
    }

    /// The file with passwords that the URL names.
    pub(super) fn passfile(&self) -> Option<&Path> {
        self.passfile.as_deref()
    }

    /// What a line of libpq's password file must say to fit: host, port, database and user, for each
    /// host. A socket's directory stands in place of its host.
    pub(super) fn places(&self) -> Vec<[String; 4]> {
        let user = self.config.get_user().unwrap_or_default();
        let database = self.config.get_dbname().unwrap_or(user);
        let place =
            |(host, port): (String, u16)| [host, port.to_string(), database.to_owned(), user.to_owned()];
        self.hosts().into_iter().map(place).collect()
    }

    /// The hosts with their ports.
    fn hosts(&self) -> Vec<(String, u16)> {
        let mut names: Vec<_> = self.config.get_hosts().iter().map(name).collect();
        if names.is_empty() {
            names.extend(self.config.get_hostaddrs().iter().map(ToString::to_string));
        }
        let ports = self.config.get_ports();
        let port = |index| ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
        names.into_iter().enumerate().map(|(index, host)| (host, port(index))).collect()
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

/// Why the driver does not take a URL. It may quote a key, and that may be a piece of a password which is not written as a
/// URL wants it: one that is not shown anyway is not named.
fn reason(text: &str, error: &tokio_postgres::Error) -> String {
    let Some(cause) = error.source().map(ToString::to_string) else { return FORM.to_owned() };
    let shown = without_password(text);
    let names = |name: &str| name == "port" || name == "host" || shown.contains(&format!("{name}="));
    if cause.split('`').nth(1).is_none_or(names) { format!("{FORM} ({cause})") } else { FORM.to_owned() }
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

/// What [`Security::parse`] takes.
const SSLMODE: &str = "sslmode must be disable, prefer, require or verify-full";

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

    /// What the driver does. With its own `prefer` it would send the password in clear text to a server
    /// that refuses TLS, and so to anybody on the way who says so in place of the server.
    fn mode(self, is_local: bool) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Prefer if is_local => SslMode::Prefer,
            Self::Prefer | Self::Require | Self::VerifyFull => SslMode::Require,
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
        for (index, (host, port)) in self.hosts().iter().enumerate() {
            write!(formatter, "{}{host}:{port}", if index > 0 { "," } else { "" })?;
        }
        write!(formatter, "/{}", self.config.get_dbname().or(self.config.get_user()).unwrap_or_default())
    }
}

/// Whether every host is this machine.
fn is_here(config: &Config) -> bool {
    config.get_hosts().iter().all(is_local) && config.get_hostaddrs().iter().all(is_loopback)
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PostgresUrl({self})")
    }
}

/// A text that was to be the URL of a store, without what may be a password: all between its scheme and the last `@`, or
/// without one what stands behind a colon and is no port; and the value of `password`.
pub(super) fn without_password(text: &str) -> String {
    let start = text.find("//").map_or(0, |at| at + 2);
    let mut shown = match text.rfind('@') {
        Some(end) if end >= start => format!("{}***{}", &text[..start], &text[end..]),
        _ if start > 0 => format!("{}{}", &text[..start], ports_only(&text[start..])),
        _ => text.to_owned(),
    };
    if let Some(at) = shown.find("password=") {
        let value = at + "password=".len();
        let end = shown[value..].find(['&', '"', '\'']).map_or(shown.len(), |length| value + length);
        shown.replace_range(value..end, "***");
    }
    shown
}

/// A text up to the first colon behind which stands no port.
fn ports_only(text: &str) -> String {
    let is_port = |after: &str| {
        let end = after.find([',', '/', '?', '"']).unwrap_or(after.len());
        after[..end].parse::<u16>().is_ok()
    };
    let secret = text.match_indices(':').find(|(at, _)| !is_port(&text[at + 1..]));
    secret.map_or_else(|| text.to_owned(), |(at, _)| format!("{}***", &text[..=at]))
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
    fn without_a_word_connections_to_other_machines_are_encrypted() {
        let mode = |url: &str| PostgresUrl::parse(url).unwrap().config().get_ssl_mode();
        for (here, query) in [
            ("localhost", ""),
            ("127.0.0.2:1", ""),
            ("[::1]", ""),
            ("%2Frun", ""),
            ("LOCALHOST", "?sslmode=prefer"),
        ] {
            assert_eq!(mode(&format!("postgres://me:x@{here}/d{query}")), SslMode::Prefer, "{here}");
        }
        for (elsewhere, query) in [
            ("db.example", ""),
            ("db.example", "?sslmode=prefer"),
            ("10.0.0.1", ""),
            ("[::2]", ""),
            ("localhost,db.example", ""),
            ("localhost.evil.example", ""),
            ("localhost", "?hostaddr=10.0.0.1"),
            ("db.example", "?hostaddr=127.0.0.1"),
        ] {
            assert_eq!(
                mode(&format!("postgres://me:x@{elsewhere}/d{query}")),
                SslMode::Require,
                "{elsewhere}"
            );
        }
        assert_eq!(mode("postgres://me:x@db.example/d?sslmode=disable"), SslMode::Disable);
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in ["postgres:h/d", "mysql://h/d"] {
            assert!(!PostgresUrl::is_meant(bad), "{bad}");
        }
        for (bad, rule) in [
            ("postgres:///d", "must name a host: postgres://USER:PASSWORD@HOST:PORT/DATABASE"),
            ("postgres://me@/d", "must name a host: postgres://USER:PASSWORD@HOST:PORT/DATABASE"),
            ("postgres://h/d?sslmode=verify-ca", SSLMODE),
            ("postgres://h/d?sslmode", "each key of its query must have a value: KEY=VALUE"),
            (
                "postgres://h/d?sslrootcert=a.pem",
                "sslrootcert needs sslmode=verify-full: else nothing is checked against it",
            ),
            ("postgres://h/d?foo=1", &format!("{FORM} (unknown option `foo`)")),
            ("postgres://h:port/d", &format!("{FORM} (invalid value for option `port`)")),
            ("postgres://me:se@cr?et=1@h/d", FORM),
            ("postgres://me:top?secret=1", &format!("{FORM} (invalid value for option `port`)")),
        ] {
            assert_eq!(PostgresUrl::parse(bad).unwrap_err(), rule, "{bad}");
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
            ("postgres://me:topsecret", "postgres://me:***"),
            ("\"postgres://me:top/se:cret\"", "\"postgres://me:***"),
            ("postgres://one:5433,two:70000/d", "postgres://one:5433,two:***"),
            ("\"postgres://h:5433/d?foo=1\"", "\"postgres://h:5433/d?foo=1\""),
            ("sqlite::memory:", "sqlite::memory:"),
        ] {
            assert_eq!(without_password(text), shown);
        }
    }
}
