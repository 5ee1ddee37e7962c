//! NATS JetStream with `Nats-Msg-Id`, over its text protocol: a file stream for each topic, whose window of
//! duplicates outlasts the run.
//!
//! A request is 1,000 messages in a row, and its answer 1,000 acknowledgements, told apart by the reply subject
//! as its clients do. Atomic batches refuse duplicates instead of dropping them, and fast ingest tells no fate of
//! single messages, so neither can be used here.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use async_trait::async_trait;
use memchr::memmem;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Peer, Running, find};
use crate::drive::{Answered, Connection, Driven, drive};
use crate::environment::said;
use crate::plan::{Load, Plan, Request, Step};
use crate::process::{Meter, Server, address_behind};
use crate::reads;
use crate::wire::{Progress, Protocol, Wire};

/// Longer than any run, in nanoseconds: a day.
const DUPLICATE_WINDOW: u64 = 86_400_000_000_000;

/// When it syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// Every two minutes.
    Default,
    /// After every write.
    Always,
}

/// The server with one way of syncing.
#[derive(Debug)]
pub(super) struct Nats {
    program: Option<PathBuf>,
    sync: Sync,
}

/// A running server.
struct Serving {
    server: Server,
    clients: SocketAddr,
    monitor: SocketAddr,
}

impl Nats {
    /// The program at this path, or on `PATH`.
    pub(super) fn new(program: Option<PathBuf>, sync: Sync) -> Self {
        Self { program, sync }
    }

    fn config(&self, directory: &Path) -> String {
        let sync = if self.sync == Sync::Always { "sync_interval: always" } else { "" };
        let store = directory.join("jetstream");
        format!(
            "listen: \"127.0.0.1:-1\"\nhttp: \"127.0.0.1:-1\"\njetstream {{\n store_dir: \"{}\"\n {sync}\n}}\n",
            store.display()
        )
    }
}

#[async_trait(?Send)]
impl Peer for Nats {
    fn name(&self) -> &'static str {
        if self.sync == Sync::Always { "nats-always" } else { "nats" }
    }

    fn promise(&self) -> &'static str {
        if self.sync == Sync::Always {
            "synced, remembered for a window, in memory"
        } else {
            "not synced (every 2 minutes), remembered for a window, in memory"
        }
    }

    fn version(&self) -> anyhow::Result<String> {
        said(Command::new(find(self.program.as_deref(), "nats-server")?).arg("--version"))
    }

    async fn start(&self, directory: &Path) -> anyhow::Result<Box<dyn Running>> {
        let config = directory.join("nats.conf");
        fs::write(&config, self.config(directory))?;
        let mut command = Command::new(find(self.program.as_deref(), "nats-server")?);
        let mut listens = (None, None);
        let ready = |line: &str| {
            listens.0 = listens.0.or(address_behind("Listening for client connections on ", line));
            listens.1 = listens.1.or(address_behind("Starting http monitor on ", line));
            line.contains("Server is ready").then_some(listens.0.zip(listens.1))
        };
        let (server, addresses) = Server::start(command.arg("-c").arg(config), Signal::TERM, ready)?;
        let (clients, monitor) = addresses.context("it does not say where it listens")?;
        Ok(Box::new(Serving { server, clients, monitor }))
    }
}

#[async_trait(?Send)]
impl Running for Serving {
    fn meter(&self) -> Meter {
        Meter::of(&self.server)
    }

    async fn publish(&mut self, load: &Load) -> anyhow::Result<Driven> {
        for topic in load.plan.topics() {
            self.create_stream(&topic).await?;
        }
        let mut connections = Vec::new();
        for (inbox, lane) in load.lanes().enumerate() {
            let requests = load.requests(lane, |plan, steps| publish(plan, steps, inbox))?;
            connections.push((self.connect(inbox).await?, requests));
        }
        let lanes = connections
            .iter_mut()
            .map(|(connection, requests)| (connection, std::mem::take(requests).into_iter().map(Ok)));
        drive(lanes.collect(), load.shape.limit, &self.meter()).await
    }

    async fn stored(&mut self) -> anyhow::Result<Option<u64>> {
        let totals: Value = serde_json::from_slice(&reads::get(self.monitor, "/jsz").await?)?;
        Ok(Some(totals["messages"].as_u64().context("no count in /jsz")?))
    }

    async fn stop(self: Box<Self>) -> anyhow::Result<()> {
        self.server.stop()
    }
}

impl Serving {
    async fn connect(&self, inbox: usize) -> anyhow::Result<Wire<Acks>> {
        let mut wire = Wire::open(self.clients, Acks::new()).await?;
        let greeting = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}}\r\nSUB _I.{inbox}.* 1\r\nPING\r\n"
        );
        wire.exchange(&Request { content: greeting.into_bytes(), new: Vec::new() }).await?;
        Ok(wire)
    }

    async fn create_stream(&self, topic: &str) -> anyhow::Result<()> {
        let mut wire = self.connect(0).await?;
        let config = json!({
            "name": topic,
            "subjects": [format!("events.{topic}")],
            "storage": "file",
            "retention": "limits",
            "num_replicas": 1,
            "duplicate_window": DUPLICATE_WINDOW,
        });
        let body = config.to_string();
        let create = format!("PUB $JS.API.STREAM.CREATE.{topic} _I.0.0 {}\r\n{body}\r\n", body.len());
        wire.exchange(&Request { content: create.into_bytes(), new: vec![true] }).await?;
        Ok(())
    }
}

/// Messages for these events; the acknowledgement of each comes to a subject with its place.
fn publish(plan: &Plan, steps: &[Step], inbox: usize) -> anyhow::Result<Vec<u8>> {
    let (mut request, mut buffer) = (Vec::new(), Vec::new());
    for (place, step) in steps.iter().enumerate() {
        let event = plan.event(step.number, &mut buffer)?;
        let head = format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n\r\n", event.id());
        write!(
            request,
            "HPUB events.{} _I.{inbox}.{place} {} {}\r\n{head}{}\r\n",
            event.topic(),
            head.len(),
            head.len() + event.json().len(),
            event.json()
        )?;
    }
    Ok(request)
}

/// Acknowledgements of one connection's requests.
struct Acks {
    duplicate: memmem::Finder<'static>,
    error: memmem::Finder<'static>,
    /// Those of the request so far.
    taken: usize,
}

/// What the server says.
enum Said<'a> {
    /// `MSG`: the place in its subject, and its payload.
    Message { place: usize, payload: &'a [u8] },
    /// `PING`
    Ping,
    /// `PONG`
    Pong,
    /// `INFO`
    Other,
}

impl Acks {
    fn new() -> Self {
        Self {
            duplicate: memmem::Finder::new(b"\"duplicate\": true"),
            error: memmem::Finder::new(b"\"error\":"),
            taken: 0,
        }
    }

    fn count(
        &mut self,
        place: usize,
        payload: &[u8],
        new: &[bool],
        answered: &mut Answered,
    ) -> anyhow::Result<()> {
        if self.error.find(payload).is_some() {
            bail!("refused: {}", String::from_utf8_lossy(payload));
        }
        let planned = new.get(place).context("an acknowledgement of what was not sent")?;
        answered.count(self.duplicate.find(payload).is_none(), *planned);
        self.taken += 1;
        Ok(())
    }
}

impl Protocol for Acks {
    fn take(
        &mut self,
        input: &[u8],
        new: &[bool],
        answered: &mut Answered,
        back: &mut Vec<u8>,
    ) -> anyhow::Result<Progress> {
        let (mut used, mut greeted) = (0, false);
        while let Some((said, bytes)) = next(&input[used..])? {
            used += bytes;
            match said {
                Said::Message { place, payload } => self.count(place, payload, new, answered)?,
                Said::Ping => back.extend_from_slice(b"PONG\r\n"),
                Said::Pong => greeted = true,
                Said::Other => {}
            }
        }
        let done = if new.is_empty() { greeted } else { self.taken == new.len() };
        self.taken = if done { 0 } else { self.taken };
        Ok(Progress { used, done })
    }
}

/// The next thing said and its bytes, once all of it is there.
fn next(input: &[u8]) -> anyhow::Result<Option<(Said<'_>, usize)>> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return Ok(None);
    };
    let (line, head) = (input[..end].trim_ascii_end(), end + 1);
    if let Some(message) = line.strip_prefix(b"MSG ") {
        return message_in(message, &input[head..])
            .map(|found| found.map(|(said, body)| (said, head + body)));
    }
    let said = match line.split(|byte| *byte == b' ').next() {
        Some(b"PING") => Said::Ping,
        Some(b"PONG") => Said::Pong,
        Some(b"INFO") => Said::Other,
        _ => bail!("it says {}", String::from_utf8_lossy(line)),
    };
    Ok(Some((said, head)))
}

/// `_I.<inbox>.<place> <subscription> <bytes>`, then so many bytes and a line end.
fn message_in<'a>(line: &[u8], rest: &'a [u8]) -> anyhow::Result<Option<(Said<'a>, usize)>> {
    let mut words = std::str::from_utf8(line)?.split(' ');
    let place = words.next().and_then(|subject| subject.rsplit('.').next()).context("no subject")?.parse()?;
    let length: usize = words.next_back().context("no length")?.parse()?;
    let whole = length + 2;
    Ok((rest.len() >= whole).then(|| (Said::Message { place, payload: &rest[..length] }, whole)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks() -> Vec<u8> {
        let ack = |place: usize, text: &str| format!("MSG _I.3.{place} 1 {}\r\n{text}\r\n", text.len());
        let (new, old) = (r#"{"stream":"t","seq":7}"#, r#"{"stream":"t","seq":7,"duplicate": true}"#);
        [ack(1, old), "PING\r\n".to_owned(), ack(0, new)].concat().into_bytes()
    }

    fn take(input: &[u8], new: &[bool]) -> anyhow::Result<(Progress, Answered, Vec<u8>)> {
        let (mut answered, mut back) = (Answered::default(), Vec::new());
        let progress = Acks::new().take(input, new, &mut answered, &mut back)?;
        Ok((progress, answered, back))
    }

    #[test]
    fn acknowledgements_belong_to_the_place_in_their_subject() {
        let (progress, answered, back) = take(&acks(), &[true, false]).unwrap();
        assert_eq!(progress, Progress { used: acks().len(), done: true });
        assert_eq!((answered.accepted, answered.duplicates, answered.wrong), (1, 1, 0));
        assert_eq!(back, b"PONG\r\n");
        assert_eq!(take(&acks(), &[false, true]).unwrap().1.wrong, 2);
    }

    #[test]
    fn half_an_acknowledgement_is_left_for_the_next_look() {
        let all = acks();
        let (progress, ..) = take(&all[..all.len() - 1], &[true, false]).unwrap();
        assert!(!progress.done && progress.used < all.len(), "{progress:?}");
    }

    #[test]
    fn refusals_end_the_run() {
        let refusal = "MSG _I.3.0 1 22\r\n{\"error\":{\"code\":503}}\r\n";
        assert!(take(refusal.as_bytes(), &[true]).is_err());
        assert!(take(b"-ERR 'Maximum Payload'\r\n", &[true]).is_err());
    }
}
