//! Redis: a function that sets the key of an event if it is not there, and then adds it to the stream of its
//! topic, with a number that counts 1, 2, 3. One call for a request, which is cheaper than a call for each event.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Peer, Running, find};
use crate::drive::{Answered, Driven, drive};
use crate::environment::said;
use crate::plan::{Load, Plan, Step};
use crate::process::{Meter, Server, free_address};
use crate::wire::{Progress, Protocol, Wire};

/// Takes topic, id and event as JSON, again and again; gives the number of each, 0 for a duplicate.
const FUNCTION: &str = "#!lua name=bench
redis.register_function('publish', function(keys, args)
  local lasts, results = {}, {}
  for i = 1, #args, 3 do
    local topic = args[i]
    local last = lasts[topic] or redis.call('XLEN', topic)
    if redis.call('SET', topic .. '/' .. args[i + 1], last + 1, 'NX') then
      last = last + 1
      redis.call('XADD', topic, last .. '-0', 'event', args[i + 2])
      results[#results + 1] = last
    else
      results[#results + 1] = 0
    end
    lasts[topic] = last
  end
  return results
end)";

/// When it syncs its append-only file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// Once a second.
    EverySecond,
    /// Before each answer.
    Always,
}

/// The server with one way of syncing.
#[derive(Debug)]
pub(super) struct Redis {
    program: Option<PathBuf>,
    sync: Sync,
}

/// A running server.
struct Serving {
    server: Server,
    address: SocketAddr,
    topics: Vec<String>,
}

impl Redis {
    /// The program at this path, or on `PATH`.
    pub(super) fn new(program: Option<PathBuf>, sync: Sync) -> Self {
        Self { program, sync }
    }
}

#[async_trait(?Send)]
impl Peer for Redis {
    fn name(&self) -> &'static str {
        if self.sync == Sync::Always { "redis-always" } else { "redis-everysec" }
    }

    fn promise(&self) -> &'static str {
        if self.sync == Sync::Always {
            "synced, remembered as long as memory lasts"
        } else {
            "not synced (every second), remembered as long as memory lasts"
        }
    }

    fn version(&self) -> anyhow::Result<String> {
        let version = said(Command::new(find(self.program.as_deref(), "redis-server")?).arg("--version"))?;
        // Behind it stand details of the build.
        Ok(version.split(" sha=").next().unwrap_or_default().to_owned())
    }

    async fn start(&self, directory: &Path) -> anyhow::Result<Box<dyn Running>> {
        let address = free_address()?;
        let port = address.port().to_string();
        let sync = if self.sync == Sync::Always { "always" } else { "everysec" };
        let mut command = Command::new(find(self.program.as_deref(), "redis-server")?);
        // Without snapshots: the append-only file alone keeps the events.
        command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", sync, "--dir"]).arg(directory);
        let ready = |line: &str| line.contains("Ready to accept connections").then_some(());
        let (server, ()) = Server::start(&mut command, Signal::TERM, ready)?;
        call(address, &["FUNCTION", "LOAD", FUNCTION]).await?;
        Ok(Box::new(Serving { server, address, topics: Vec::new() }))
    }
}

#[async_trait(?Send)]
impl Running for Serving {
    fn meter(&self) -> Meter {
        Meter::of(&self.server)
    }

    async fn publish(&mut self, load: &Load) -> anyhow::Result<Driven> {
        self.topics = load.plan.topics().collect();
        let mut connections = Vec::new();
        for lane in load.lanes() {
            let requests = load.requests(lane, publish)?;
            connections.push((Wire::open(self.address, Replies).await?, requests));
        }
        let lanes = connections
            .iter_mut()
            .map(|(connection, requests)| (connection, std::mem::take(requests).into_iter().map(Ok)));
        drive(lanes.collect(), load.shape.limit, &self.meter()).await
    }

    async fn stored(&mut self) -> anyhow::Result<Option<u64>> {
        let mut stored = 0;
        for topic in &self.topics {
            stored += call(self.address, &["XLEN", topic]).await?.first().context("no length")?;
        }
        Ok(Some(stored))
    }

    async fn stop(self: Box<Self>) -> anyhow::Result<()> {
        self.server.stop()
    }
}

/// One call of the function for these events.
fn publish(plan: &Plan, steps: &[Step]) -> anyhow::Result<Vec<u8>> {
    let (mut request, mut buffer) = (Vec::new(), Vec::new());
    write!(request, "*{}\r\n", 3 + 3 * steps.len())?;
    for word in ["FCALL", "publish", "0"] {
        bulk(word, &mut request)?;
    }
    for step in steps {
        let event = plan.event(step.number, &mut buffer)?;
        for word in [event.topic(), event.id(), event.json()] {
            bulk(word, &mut request)?;
        }
    }
    Ok(request)
}

fn bulk(word: &str, out: &mut Vec<u8>) -> anyhow::Result<()> {
    Ok(write!(out, "${}\r\n{word}\r\n", word.len())?)
}

/// Numbers of events, one for each.
struct Replies;

impl Protocol for Replies {
    fn take(
        &mut self,
        input: &[u8],
        new: &[bool],
        answered: &mut Answered,
        _back: &mut Vec<u8>,
    ) -> anyhow::Result<Progress> {
        let Some((numbers, used)) = reply(input)? else {
            return Ok(Progress { used: 0, done: false });
        };
        ensure!(numbers.len() == new.len(), "{} verdicts on {} events", numbers.len(), new.len());
        for (number, planned) in numbers.iter().zip(new) {
            answered.count(*number > 0, *planned);
        }
        Ok(Progress { used, done: true })
    }
}

/// The numbers in a reply of RESP2 and its bytes, once all of it is there; a text has none.
fn reply(input: &[u8]) -> anyhow::Result<Option<(Vec<u64>, usize)>> {
    let Some(head) = line(input) else {
        return Ok(None);
    };
    let used = head.len() + 2;
    let (kind, rest) = head.split_first().context("an empty reply")?;
    let count = || anyhow::Ok(std::str::from_utf8(rest)?.parse::<usize>()?);
    match kind {
        b':' => Ok(Some((vec![u64::try_from(count()?)?], used))),
        b'$' => {
            let whole = used + count()? + 2;
            Ok((input.len() >= whole).then(|| (Vec::new(), whole)))
        }
        b'*' => elements(input, used, count()?),
        _ => bail!("refused: {}", String::from_utf8_lossy(head)),
    }
}

fn elements(input: &[u8], mut used: usize, count: usize) -> anyhow::Result<Option<(Vec<u64>, usize)>> {
    let mut numbers = Vec::with_capacity(count);
    for _ in 0..count {
        let Some((element, bytes)) = reply(&input[used..])? else {
            return Ok(None);
        };
        numbers.extend(element);
        used += bytes;
    }
    Ok(Some((numbers, used)))
}

/// The first line, without its end.
fn line(input: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b'\n', input)?;
    input[..end].strip_suffix(b"\r")
}

/// One command on a connection of its own; gives the numbers in its reply.
async fn call(address: SocketAddr, words: &[&str]) -> anyhow::Result<Vec<u64>> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bulk(word, &mut request)?;
    }
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&request).await?;
    let mut input = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut input).await? > 0, "it closed the connection");
        if let Some((numbers, _)) = reply(&input)? {
            return Ok(numbers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_has_one_number_for_each_event() {
        let input = b"*3\r\n:17\r\n:0\r\n:18\r\n";
        let mut answered = Answered::default();
        let new = [true, false, true];
        let progress = Replies.take(input, &new, &mut answered, &mut Vec::new()).unwrap();
        assert_eq!(progress, Progress { used: input.len(), done: true });
        assert_eq!((answered.accepted, answered.duplicates, answered.wrong), (2, 1, 0));
        assert!(Replies.take(input, &[true], &mut answered, &mut Vec::new()).is_err());
    }

    #[test]
    fn half_a_reply_is_waited_for_and_errors_end_the_run() {
        for half in [&b""[..], b"*2\r\n:1\r\n", b"*2\r\n:1\r\n:2\r", b"$5\r\nben"] {
            assert_eq!(reply(half).unwrap(), None, "{half:?}");
        }
        assert_eq!(reply(b"$5\r\nbench\r\n").unwrap(), Some((vec![], 11)));
        assert!(reply(b"-ERR unknown\r\n").is_err());
    }
}
