//! PostgreSQL for tests: a server of their own where its programs are installed, a fresh database for each test.
//!
//! The unit tests of the engine include this file too.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::iter;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A server that is there already, as `postgres://USER@HOST:PORT/DATABASE` of someone who may make databases.
const GIVEN: &str = "TEST_DATABASE_URL";

/// Where Debian puts the programs, by version.
const USUAL_PLACE: &str = "/usr/lib/postgresql";

/// Who runs the server when the tests run as root, which it refuses.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// What a server in a network of its own listens on.
pub(crate) const USUAL_PORT: u16 = 5432;

/// The longest that a start may take.
const START_MAX: Duration = Duration::from_mins(2);

/// Runs the server until the tests' end of the pipe is closed, however they end; then nothing of it is left. For each line
/// that comes through the pipe, the server is given that signal, and runs anew when it has ended.
const UNTIL_THE_TESTS_END: &str = "home=$0; while :; do \"$@\" >>\"$home/log\" 2>&1 </dev/null & server=$!; \
    read -r signal || break; kill -\"$signal\" $server; wait $server; done; \
    kill -QUIT $server; wait $server; rm -rf \"$home\"";

/// Makes a database as good as new: what a test left there, and whoever it left connected. To make a database takes much
/// longer.
const CLEAN: &str = "
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend';
    DROP SCHEMA IF EXISTS sekali CASCADE";

/// A database of one test, which the next one gets when it is dropped.
#[derive(Debug)]
pub(crate) struct Database {
    server: &'static Server,
    name: String,
}

/// The server of this process.
#[derive(Debug)]
pub(crate) struct Server {
    /// The URL of the database from which others are made.
    url: String,
    /// The certificate of the authority that its own is of, where the tests made them.
    authority: Option<PathBuf>,
    /// The names of databases that no test uses.
    free: Mutex<Vec<String>>,
    /// Closed when the process ends; takes signals until then.
    control: Option<ChildStdin>,
}

/// How a server is set up.
struct Setup {
    port: u16,
    /// What it listens on.
    addresses: String,
    /// Whether commits are synced by the disk: what most tests need is that they would be.
    fsync: &'static str,
}

/// The server, if there can be one; says so loudly where there cannot.
pub(crate) fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let given = env::var(GIVEN).ok().map(|url| Server {
            url,
            authority: None,
            free: Mutex::default(),
            control: None,
        });
        let setup = || Setup { port: free_port(), addresses: "127.0.0.1".to_owned(), fsync: "off" };
        given.or_else(|| programs().map(|programs| Server::start(&programs, &setup())))
    });
    if server.is_none() {
        skipped(&format!("no initdb and postgres on PATH or in {USUAL_PLACE}, and {GIVEN} is not set"));
    }
    server.as_ref()
}

/// Says that a test did not run. It stands here because the engine's unit tests know nothing else of these.
#[expect(clippy::print_stderr, reason = "a test that did not run must not look like one that passed")]
pub(crate) fn skipped(why: &str) {
    eprintln!("\n*** SKIPPED: {why} ***\n");
}

impl Database {
    /// A database with nothing in it, where there is a server.
    pub(crate) fn fresh() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = server()?;
        if let Some(name) = server.free().pop() {
            let database = Self { server, name };
            database.run(CLEAN);
            return Some(database);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sekali_test_{}_{number}", process::id());
        // Its own order of texts is not that of bytes, so that a test sees who relies on it.
        let made = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'");
        let languages = format!("{made} LOCALE_PROVIDER icu ICU_LOCALE 'en-US'");
        if run(&server.url, &languages).is_err() {
            run(&server.url, &made).unwrap();
        }
        Some(Self { server, name })
    }

    /// The same for whoever has asked for PostgreSQL.
    pub(crate) fn required() -> Arc<Self> {
        Arc::new(Self::fresh().expect("PostgreSQL, since it was asked for"))
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        let (base, query) = self.server.url.split_once('?').unwrap_or((&self.server.url, ""));
        let (host, _) = base.rsplit_once('/').unwrap();
        format!("{host}/{}?{query}", self.name)
    }

    /// Runs SQL in it, and gives the first column of the last row.
    pub(crate) fn run(&self, sql: &str) -> String {
        run(&self.url(), sql).unwrap()
    }

    /// Takes locks by SQL in a transaction, which ends when what is given is dropped.
    pub(crate) fn hold(&self, locks: &str) -> Held {
        let (url, begin) = (self.url(), format!("BEGIN; {locks}"));
        let (release, released) = mpsc::channel();
        let (taken, is_taken) = mpsc::channel();
        let holder = thread::spawn(move || {
            blocking(async move {
                let client = connect(&url).await.unwrap();
                client.batch_execute(&begin).await.unwrap();
                taken.send(()).unwrap();
                // Told, or its test has failed.
                let _ = released.recv();
                client.batch_execute("ROLLBACK").await.unwrap();
            });
        });
        is_taken.recv().unwrap();
        Held(Some((release, holder)))
    }

    /// Makes whoever is connected lose the connection.
    pub(crate) fn disconnect(&self) {
        self.disconnect_those("true");
    }

    /// The same of those of whom this is so, in terms of `pg_stat_activity`.
    pub(crate) fn disconnect_those(&self, condition: &str) {
        let those = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND datname";
        run(&self.server.url, &format!("{those} = '{}' AND {condition}", self.name)).unwrap();
    }

    /// Says whether anybody may connect to it.
    pub(crate) fn admit(&self, anybody: bool) {
        let sql = format!("ALTER DATABASE {} ALLOW_CONNECTIONS {anybody}", self.name);
        run(&self.server.url, &sql).unwrap();
    }
}

/// Locks that a thread holds until this is dropped.
pub(crate) struct Held(Option<(mpsc::Sender<()>, JoinHandle<()>)>);

impl Drop for Held {
    fn drop(&mut self) {
        let Some((release, holder)) = self.0.take() else { return };
        drop(release);
        // A test that failed already says more than this would.
        let _ = holder.join();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.server.free().push(std::mem::take(&mut self.name));
    }
}

impl Server {
    /// A server of the caller's own, in a network of the caller's own, where it listens on one more address; `None` where
    /// its programs are not installed.
    pub(crate) fn own(address: &str) -> Option<Self> {
        let setup = Setup { port: USUAL_PORT, addresses: format!("127.0.0.1,{address}"), fsync: "on" };
        programs().map(|programs| Self::start(&programs, &setup))
    }

    /// The same on this machine, for a test that changes the server itself.
    pub(crate) fn alone() -> Option<Self> {
        let setup = Setup { port: free_port(), addresses: "127.0.0.1".to_owned(), fsync: "off" };
        programs().map(|programs| Self::start(&programs, &setup))
    }

    /// Ends it, and starts it as one that was restored: on a timeline of its own.
    pub(crate) fn restore(&mut self) {
        let data = PathBuf::from(self.run("SHOW data_directory"));
        let mut settings = OpenOptions::new().append(true).open(data.join("postgresql.auto.conf")).unwrap();
        writeln!(settings, "restore_command = 'false'").unwrap();
        fs::write(data.join("recovery.signal"), "").unwrap();
        self.restart("INT");
        // Reads are answered before the new timeline begins.
        let (url, started) = (self.url.clone(), Instant::now());
        while run(&url, "SELECT pg_is_in_recovery()").map_or(true, |said| said != "f") {
            assert!(started.elapsed() < START_MAX, "PostgreSQL does not end its recovery");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The URL of its first database.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Runs SQL in its first database, and gives the first column of the last row.
    pub(crate) fn run(&self, sql: &str) -> String {
        run(&self.url, sql).unwrap()
    }

    /// Makes its first database as good as new.
    pub(crate) fn clean(&self) {
        self.run(CLEAN);
    }

    /// The process that writes what was committed, where no commit waits for that. As long as it is stopped, such commits stay
    /// in memory; else each full page of them is written at once, and survives all but a power cut.
    pub(crate) fn log_writer(&self) -> String {
        self.run("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
    }

    /// Ends it by a signal, `INT` or `QUIT`, and waits until it runs anew.
    pub(crate) fn restart(&mut self, signal: &str) {
        let begun = "SELECT pg_postmaster_start_time()";
        let before = self.run(begun);
        writeln!(self.control.as_mut().unwrap(), "{signal}").unwrap();
        let started = Instant::now();
        while run(&self.url, begun).map_or(true, |now| now == before) {
            assert!(started.elapsed() < START_MAX, "PostgreSQL does not start anew");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The file with the certificate of the authority that vouches for it as 127.0.0.1.
    pub(crate) fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    fn free(&self) -> MutexGuard<'_, Vec<String>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(programs: &Path, setup: &Setup) -> Self {
        let home = tempfile::Builder::new().prefix("sekali-postgres").tempdir().unwrap().keep();
        let user = user();
        make_certificates(&home);
        if let Some(user) = user {
            done(Command::new("chown").arg("-R").arg(user).arg(&home));
        }
        let (data, port) = (home.join("data"), setup.port);
        let mut init = command(user, &programs.join("initdb"));
        init.args([
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--username=postgres",
            "-D",
        ]);
        done(init.arg(&data).current_dir(&home));
        let mut trusted = OpenOptions::new().append(true).open(data.join("pg_hba.conf")).unwrap();
        writeln!(trusted, "host all all samenet trust").unwrap();
        let server = command(user, &programs.join("postgres"));
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(UNTIL_THE_TESTS_END).arg(&home).arg(server.get_program()).args(server.get_args());
        shell.arg("-D").arg(&data).arg("-p").arg(port.to_string()).arg("-k").arg(&home);
        shell.arg("-c").arg(format!("listen_addresses={}", setup.addresses));
        shell.arg("-c").arg(format!("fsync={}", setup.fsync));
        shell.args(["-c", "max_connections=300", "-c", "shared_buffers=64MB"]);
        for (setting, file) in [("ssl_cert_file", "server.pem"), ("ssl_key_file", "server.key")] {
            shell.arg("-c").arg(format!("{setting}={}", home.join(file).display()));
        }
        shell.args(["-c", "ssl=on"]);
        let mut child = shell.stdin(Stdio::piped()).current_dir(&home).spawn().unwrap();
        let control = child.stdin.take();
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
        wait_for(&url, &mut child, &home);
        Self { url, authority: Some(home.join("authority.pem")), free: Mutex::default(), control }
    }
}

/// An authority, and a certificate of it for a server at 127.0.0.1.
fn make_certificates(home: &Path) {
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap();
    fs::write(home.join("authority.pem"), certificate.pem()).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    fs::write(home.join("server.pem"), server.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(home.join("server.key")).unwrap();
    file.write_all(key.serialize_pem().as_bytes()).unwrap();
}

/// Waits until a server answers that writes its log into `home`; panics with that log where it never does.
pub(crate) fn wait_for(url: &str, child: &mut Child, home: &Path) {
    let started = Instant::now();
    while let Err(error) = run(url, "SELECT 1") {
        let log = || fs::read_to_string(home.join("log")).unwrap_or_default();
        let is_running = child.try_wait().unwrap().is_none();
        assert!(is_running && started.elapsed() < START_MAX, "PostgreSQL does not start: {error}\n{}", log());
        thread::sleep(Duration::from_millis(20));
    }
}

/// The directory of its programs: on PATH, or the newest that Debian has.
pub(crate) fn programs() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = fs::read_dir(USUAL_PLACE).into_iter().flatten().filter_map(Result::ok);
    let mut usual: Vec<_> = usual.map(|version| version.path().join("bin")).collect();
    usual.sort();
    let mut places = env::split_paths(&path).chain(usual.into_iter().rev());
    places.find(|place| place.join("initdb").exists() && place.join("postgres").exists())
}

/// Who runs the server, if not who runs the tests.
pub(crate) fn user() -> Option<&'static str> {
    let id = |arguments: &[&str]| Command::new("id").args(arguments).output().ok();
    let is_root = id(&["-u"]).is_some_and(|said| said.stdout == b"0\n");
    let exists = |user: &&str| id(&["-u", user]).is_some_and(|said| said.status.success());
    if is_root { USERS.into_iter().find(exists) } else { None }
}

/// A program that is run by this user.
pub(crate) fn command(user: Option<&str>, program: &Path) -> Command {
    let Some(user) = user else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--clear-groups", "--"]).arg(program);
    command
}

/// Runs a program, which must succeed.
pub(crate) fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A port that nobody listens on, and that the system gives to no outgoing connection (those begin at 32768).
pub(crate) fn free_port() -> u16 {
    // Tests of one run take different ports; other runs on the machine begin elsewhere.
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(process::id() % 10_000).unwrap();
    let next = || 20_000 + (start + GIVEN.fetch_add(1, Ordering::Relaxed)) % 12_000;
    iter::repeat_with(next).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// A connection, to be used within [`blocking`].
pub(crate) async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// Runs SQL on a connection of its own.
pub(crate) fn run(url: &str, sql: &str) -> Result<String, tokio_postgres::Error> {
    let (url, sql) = (url.to_owned(), sql.to_owned());
    blocking(async move {
        let said = connect(&url).await?.simple_query(&sql).await?;
        let rows = said.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(rows.last().unwrap_or_default())
    })
}

/// Runs something to its end on a thread of its own, wherever the caller is.
pub(crate) fn blocking<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    thread::spawn(move || runtime.block_on(future)).join().unwrap()
}
