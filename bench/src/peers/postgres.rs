//! PostgreSQL with a unique `(topic, event_id)`: a request is one statement that inserts arrays and gives back
//! the ids that were new.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use rustix::process::{Signal, geteuid};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};

use super::{Peer, Running};
use crate::drive::{Answered, Connection, Driven, drive};
use crate::environment::said;
use crate::plan::{Event, Load, Request};
use crate::process::{Meter, Server, free_address};

/// Where Debian puts the programs, by version.
const USUAL_PLACE: &str = "/usr/lib/postgresql";

/// Who runs it when the benchmark runs as root, which it refuses.
const USER: &str = "postgres";

/// No index but that of the promise: reading in order would need another one.
const TABLE: &str = "CREATE TABLE events (
    pos bigint GENERATED ALWAYS AS IDENTITY,
    topic text NOT NULL,
    event_id text NOT NULL,
    timestamp text NOT NULL,
    source text NOT NULL,
    payload json NOT NULL,
    PRIMARY KEY (topic, event_id)
)";

const INSERT: &str = "INSERT INTO events (topic, event_id, timestamp, source, payload)
    SELECT topic, event_id, timestamp, source, payload::json
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
        AS sent (topic, event_id, timestamp, source, payload)
    ON CONFLICT DO NOTHING RETURNING event_id";

/// The server with its default configuration, which syncs each commit.
#[derive(Debug)]
pub(super) struct Postgres {
    programs: Option<PathBuf>,
}

/// A running server.
struct Serving {
    server: Server,
    address: SocketAddr,
}

impl Postgres {
    /// The programs in this directory, or on `PATH`, or in the usual place.
    pub(super) fn new(programs: Option<PathBuf>) -> Self {
        Self { programs }
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

#[async_trait(?Send)]
impl Peer for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn promise(&self) -> &'static str {
        "synced, remembered for ever"
    }

    fn version(&self) -> anyhow::Result<String> {
        said(Command::new(self.program("postgres")?).arg("--version"))
    }

    fn log_directory(&self) -> Option<&'static str> {
        Some("pg_wal")
    }

    async fn start(&self, directory: &Path) -> anyhow::Result<Box<dyn Running>> {
        let home = directory.join("postgres");
        let data = self.init(&home)?;
        let address = free_address()?;
        let mut command = self.command("postgres", &home)?;
        command.args(["-p", &address.port().to_string(), "-c", "listen_addresses=127.0.0.1"]);
        command.args(["-c", "unix_socket_directories=", "-c", "synchronous_commit=on", "-D"]).arg(data);
        let ready = |line: &str| line.contains("ready to accept connections").then_some(());
        // SIGINT is its fast shutdown: SIGTERM waits for clients.
        let (server, ()) = Server::start(&mut command, Signal::INT, ready)?;
        let serving = Serving { server, address };
        serving.connect().await?.batch_execute(TABLE).await?;
        Ok(Box::new(serving))
    }
}

#[async_trait(?Send)]
impl Running for Serving {
    fn meter(&self) -> Meter {
        Meter::of(&self.server)
    }

    async fn publish(&mut self, load: &Load) -> anyhow::Result<Driven> {
        let mut connections = Vec::new();
        for lane in load.lanes() {
            let requests = load.requests(lane, |plan, steps| plan.text(steps))?;
            let client = self.connect().await?;
            let insert = client.prepare(INSERT).await?;
            connections.push((Prepared { client, insert }, requests));
        }
        let lanes = connections
            .iter_mut()
            .map(|(connection, requests)| (connection, std::mem::take(requests).into_iter().map(Ok)));
        drive(lanes.collect(), load.shape.limit, &self.meter()).await
    }

    async fn stored(&mut self) -> anyhow::Result<Option<u64>> {
        let row = self.connect().await?.query_one("SELECT count(*) FROM events", &[]).await?;
        Ok(Some(u64::try_from(row.try_get::<_, i64>(0)?)?))
    }

    async fn stop(self: Box<Self>) -> anyhow::Result<()> {
        self.server.stop()
    }
}

impl Serving {
    async fn connect(&self) -> anyhow::Result<Client> {
        let (host, port) = (self.address.ip(), self.address.port());
        let parameters = format!("host={host} port={port} user={USER} dbname=postgres");
        let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await?;
        // It ends with the client; an error of it is one of the client's next statement too.
        tokio::spawn(connection);
        Ok(client)
    }
}

/// A connection with its statement.
struct Prepared {
    client: Client,
    insert: Statement,
}

impl Connection for Prepared {
    type Content = String;

    async fn exchange(&mut self, request: &Request<String>) -> anyhow::Result<Answered> {
        let column = |field| column(&request.content, field);
        let (topics, ids) = (column(Event::topic), column(Event::id));
        let (timestamps, sources) = (column(Event::timestamp), column(Event::source));
        let payloads = column(Event::payload);
        let values: [&(dyn ToSql + Sync); 5] = [&topics, &ids, &timestamps, &sources, &payloads];
        let inserted = self.client.query(&self.insert, &values).await?.len();
        ensure!(inserted <= request.new.len(), "more rows than events");
        Ok(by_count(inserted, &request.new))
    }
}

/// One field of all events.
fn column<'a>(events: &'a str, field: fn(Event<'a>) -> &'a str) -> Vec<&'a str> {
    Event::all(events).map(field).collect()
}

/// Verdicts of a request of which only the number of new events is compared: which of two equal events in it was
/// the first is not told.
fn by_count(inserted: usize, new: &[bool]) -> Answered {
    let planned = new.iter().filter(|new| **new).count();
    Answered {
        accepted: inserted as u64,
        duplicates: (new.len() - inserted) as u64,
        wrong: inserted.abs_diff(planned) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_number_of_new_events_than_planned_is_wrong() {
        let right = by_count(2, &[true, false, true]);
        assert_eq!((right.accepted, right.duplicates, right.wrong), (2, 1, 0));
        assert_eq!(by_count(3, &[true, false, true]).wrong, 1);
        assert_eq!(by_count(0, &[true, false, true]).wrong, 2);
    }
}
