//! Where the password of a PostgreSQL store comes from when its URL has none: a file or a variable, so
//! that it stands in no argument, which every user of a machine can read, and in no configuration file.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::postgres::PostgresUrl;

/// The longest file that is read, in bytes: a password file of libpq with some hundred lines.
const FILE_MAX: u64 = 64 * 1024;

/// The rights of others on a file: libpq ignores a password file that has any of them.
const OTHERS: u32 = 0o077;

/// The places outside of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Passwords {
    /// `SEKALI_STORE_PASSWORD_FILE`
    file: Option<PathBuf>,
    /// `SEKALI_STORE_PASSWORD`
    text: Option<String>,
    /// `PGPASSFILE`
    passfile: Option<PathBuf>,
}

impl Passwords {
    /// The places that the environment of this process names; an empty variable names none.
    pub(super) fn of_the_environment() -> Self {
        let path = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let text = env::var("SEKALI_STORE_PASSWORD").ok().filter(|value| !value.is_empty());
        Self { file: path("SEKALI_STORE_PASSWORD_FILE"), text, passfile: path("PGPASSFILE") }
    }

    /// Gives the URL a password where it has none, from the first of these places that is named:
    /// `passfile` in the URL, `SEKALI_STORE_PASSWORD_FILE`, `SEKALI_STORE_PASSWORD`, `setting` (the file
    /// of `store.password_file`), `PGPASSFILE`. Without any the URL stays as it is.
    ///
    /// # Errors
    /// The file that cannot be used, and why; never what is in it.
    pub(super) fn complete(&self, url: &mut PostgresUrl, setting: Option<&Path>) -> Result<(), Refused> {
        if url.has_password() {
            return Ok(());
        }
        let password = if let Some(path) = url.passfile() {
            let line = line_for(url, path)?;
            Some(line.ok_or_else(|| Refused::of(path, "has no line for this database and user".to_owned()))?)
        } else if let Some(path) = &self.file {
            Some(whole(path)?)
        } else if let Some(text) = &self.text {
            Some(text.clone())
        } else if let Some(path) = setting {
            Some(whole(path)?)
        } else {
            self.passfile.as_deref().map(|path| line_for(url, path)).transpose()?.flatten()
        };
        if let Some(password) = password {
            url.set_password(&password);
        }
        Ok(())
    }
}

/// A file that gives no password.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The file.
    pub(super) file: String,
    /// What is wrong with it.
    pub(super) rule: String,
}

impl Refused {
    fn of(path: &Path, rule: String) -> Self {
        Self { file: path.display().to_string(), rule }
    }
}

/// The only line of a file, without its end.
fn whole(path: &Path) -> Result<String, Refused> {
    let text = read(path)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains(char::is_control) {
        let rule = "must hold the password of the store and nothing else, on one line";
        return Err(Refused::of(path, rule.to_owned()));
    }
    Ok(line.to_owned())
}

/// The password of the first line of libpq's password file that fits the URL: `host:port:database:user:password`, where
/// `*` fits all and a backslash takes its meaning from the next character
/// (<https://www.postgresql.org/docs/current/libpq-pgpass.html>).
fn line_for(url: &PostgresUrl, path: &Path) -> Result<Option<String>, Refused> {
    let rights = fs::metadata(path).map_err(|error| unread(path, &error))?.permissions().mode() & OTHERS;
    if rights != 0 {
        let rule = "can be read by other users: run `chmod 600` on it";
        return Err(Refused::of(path, rule.to_owned()));
    }
    let text = read(path)?;
    let wanted = url.places();
    let of_line = |line: &str| {
        let fields = fields(line)?;
        let fits =
            |place: &[String; 4]| place.iter().zip(&fields).all(|(own, field)| field == "*" || field == own);
        wanted.iter().any(fits).then(|| fields[4].clone())
    };
    Ok(text.lines().filter(|line| !line.starts_with('#')).find_map(of_line))
}

/// The five fields of a line; `None` where it has fewer.
fn fields(line: &str) -> Option<[String; 5]> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' if fields.len() < 5 => fields.push(String::new()),
            '\\' => fields.last_mut()?.extend(characters.next()),
            other => fields.last_mut()?.push(other),
        }
    }
    fields.try_into().ok()
}

fn read(path: &Path) -> Result<String, Refused> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| unread(path, &error))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Refused::of(path, format!("must not have over {FILE_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| Refused::of(path, "must be UTF-8".to_owned()))
}

fn unread(path: &Path, error: &std::io::Error) -> Refused {
    Refused::of(path, format!("the password of the store cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use tempfile::{TempDir, tempdir};

    use super::*;

    fn write(home: &TempDir, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn completed(url: &str, places: &Passwords, setting: Option<&Path>) -> Result<Option<String>, Refused> {
        let mut url = PostgresUrl::parse(url).unwrap();
        places.complete(&mut url, setting)?;
        assert!(!format!("{url} {url:?}").contains("secret"));
        Ok(url.config().get_password().map(|password| String::from_utf8(password.to_vec()).unwrap()))
    }

    #[test]
    fn the_first_place_that_is_named_gives_the_password() {
        let home = tempdir().unwrap();
        let setting = write(&home, "setting", "secret-setting\n", 0o644);
        let mut places = Passwords::default();
        let url = "postgres://me@h/d";
        let given = |url: &str, places: &Passwords, setting: Option<&Path>| {
            completed(url, places, setting).unwrap().unwrap_or_default()
        };
        assert_eq!(given(url, &places, None), "");
        places.passfile = Some(write(&home, "pgpass", "h:5432:d:me:secret-pgpass\n", 0o600));
        assert_eq!(given(url, &places, None), "secret-pgpass");
        assert_eq!(given("postgres://other@h/d", &places, None), "", "no line fits");
        assert_eq!(given(url, &places, Some(&setting)), "secret-setting");
        places.text = Some("secret-text".to_owned());
        assert_eq!(given(url, &places, Some(&setting)), "secret-text");
        places.file = Some(write(&home, "file", "secret file\r\n", 0o444));
        assert_eq!(given(url, &places, Some(&setting)), "secret file");
        let named = write(&home, "named", "*:*:*:*:secret-named", 0o600);
        let with = format!("{url}?passfile={}", named.display());
        assert_eq!(given(&with, &places, Some(&setting)), "secret-named");
        assert_eq!(given("postgres://me:secret-own@h/d", &places, Some(&setting)), "secret-own");
    }

    #[test]
    fn a_password_file_is_read_as_libpq_reads_it() {
        let home = tempdir().unwrap();
        let lines = "# h:5432:d:me:comment\nshort:line\none:*:d:me:first\n\
                     two:5433:d:me:a\\:b\\\\c:d\n*:*:*:other:any\n/run/pg:*:*:me:socket\n";
        let path = write(&home, "pgpass", lines, 0o600);
        let found = |url: &str| {
            let url = PostgresUrl::parse(url).unwrap();
            line_for(&url, &path).unwrap().unwrap_or_default()
        };
        assert_eq!(found("postgres://me@one:7/d"), "first");
        assert_eq!(found("postgres://me@two:5433/d"), "a:b\\c:d");
        assert_eq!(found("postgres://me@two/d"), "");
        assert_eq!(found("postgres://me@zero,one/d"), "first", "any of the hosts");
        assert_eq!(found("postgres://other@x/y"), "any");
        assert_eq!(found("postgres://me@%2Frun%2Fpg/d"), "socket");
    }

    #[test]
    fn a_file_that_gives_no_password_is_named_and_never_quoted() {
        let home = tempdir().unwrap();
        let refused = |path: &Path, is_line: bool| {
            let mut places = Passwords::default();
            let place = if is_line { &mut places.passfile } else { &mut places.file };
            *place = Some(path.to_owned());
            let refused = completed("postgres://me@h/d", &places, None).unwrap_err();
            assert_eq!(refused.file, path.display().to_string());
            assert!(!refused.rule.contains("secret"), "{}", refused.rule);
            refused.rule
        };
        assert!(refused(&home.path().join("none"), false).contains("No such file"));
        for (name, text) in
            [("empty", ""), ("line", "\n"), ("lines", "secret\nsecret\n"), ("nul", "secret\0")]
        {
            assert!(refused(&write(&home, name, text, 0o600), false).contains("on one line"), "{name}");
        }
        let large = "s".repeat(usize::try_from(FILE_MAX).unwrap() + 1);
        assert!(refused(&write(&home, "large", &large, 0o600), false).contains("over 65536 bytes"));
        let open = write(&home, "open", "*:*:*:*:secret", 0o640);
        assert!(refused(&open, true).contains("chmod 600"));
        let named =
            format!("postgres://me@h/d?passfile={}", write(&home, "x", "y:*:*:*:secret", 0o600).display());
        let missing = completed(&named, &Passwords::default(), None).unwrap_err();
        assert!(missing.rule.contains("no line for this database"), "{}", missing.rule);
    }
}
