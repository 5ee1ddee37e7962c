//! A PostgreSQL server with its default configuration, which syncs each commit.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use rustix::process::{Signal, geteuid};
use tokio_postgres::{Client, NoTls};

use crate::environment::said;
use crate::process::{Server, free_address};

/// Where Debian puts the programs, by version.
const USUAL_PLACE: &str = "/usr/lib/postgresql";

/// Who runs it when the benchmark runs as root, which it refuses.
const USER: &str = "postgres";

/// Its programs.
#[derive(Debug, Clone)]
pub(in crate::peers) struct Installed {
    programs: Option<PathBuf>,
}

/// A running server.
pub(super) struct Database {
    pub(super) server: Server,
    address: SocketAddr,
}

impl Installed {
    /// The programs in this directory, or on `PATH`, or in the usual place.
    pub(in crate::peers) fn new(programs: Option<PathBuf>) -> Self {
        Self { programs }
    }

    pub(super) fn version(&self) -> anyhow::Result<String> {
        said(Command::new(self.program("postgres")?).arg("--version"))
    }

    /// Starts a server with an empty database in this directory.
    pub(super) fn start(&self, directory: &Path) -> anyhow::Result<Database> {
        let home = directory.join("postgres");
        let data = self.init(&home)?;
        let address = free_address()?;
        let mut command = self.command("postgres", &home)?;
        command.args(["-p", &address.port().to_string(), "-c", "listen_addresses=127.0.0.1"]);
        command.args(["-c", "unix_socket_directories=", "-c", "synchronous_commit=on", "-D"]).arg(data);
        let ready = |line: &str| line.contains("ready to accept connections").then_some(());
        // SIGINT is its fast shutdown: SIGTERM waits for clients.
        let (server, ()) = Server::start(&mut command, Signal::INT, ready)?;
        Ok(Database { server, address })
    }

    fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let mut places = self.places();
        let complete = |place: &PathBuf| place.join("initdb").exists() && place.join("postgres").exists();
        let place = places.find(complete).context("no directory with initdb and postgres")?;
        Ok(place.join(name))
    }

    fn places(&self) -> Box<dyn Iterator<Item = PathBuf>> {
        if let Some(programs) = &self.programs {
            return Box::new(std::iter::once(programs.clone()));
        }
        let on_path = which::which("initdb").ok().and_then(|path| path.parent().map(Path::to_owned));
        let usual = std::fs::read_dir(USUAL_PLACE).into_iter().flatten().filter_map(Result::ok);
        Box::new(on_path.into_iter().chain(usual.map(|version| version.path().join("bin"))))
    }

    /// A command in this directory as somebody whom it does not refuse.
    fn command(&self, name: &str, directory: &Path) -> anyhow::Result<Command> {
        let program = self.program(name)?;
        let mut command = Command::new("setpriv");
        if geteuid().is_root() {
            command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"]).arg(program);
        } else {
            command = Command::new(program);
        }
        command.current_dir(directory);
        Ok(command)
    }

    fn init(&self, directory: &Path) -> anyhow::Result<PathBuf> {
        std::fs::create_dir(directory)?;
        if geteuid().is_root() {
            said(Command::new("chown").arg(format!("{USER}:")).arg(directory))?;
        }
        let data = directory.join("data");
        let mut command = self.command("initdb", directory)?;
        // Ids are compared as bytes, which is faster than by the rules of a language.
        command.args(["--auth", "trust", "--encoding", "UTF8", "--locale", "C", "-U", USER, "-D"]);
        said(command.arg(&data))?;
        Ok(data)
    }
}

impl Database {
    /// Where it is, as sekali and libpq take it.
    pub(super) fn url(&self) -> String {
        format!("postgres://{USER}@{}/postgres", self.address)
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await?;
        // It ends with the client; an error of it is one of the client's next statement too.
        tokio::spawn(connection);
        Ok(client)
    }
}
