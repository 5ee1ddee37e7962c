//! Servers of peers: processes that end with the measurement, and what processes cost.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use procfs::process::{Process, all_processes};
use rustix::process::{Pid, Signal, kill_process};

/// The longest that a start may take.
const START_MAX: Duration = Duration::from_mins(1);

/// The longest that a server may take to end by itself; then it is killed.
const STOP_MAX: Duration = Duration::from_mins(1);

/// Between two looks at a server that is about to end.
const LOOK: Duration = Duration::from_millis(5);

/// A server that does not outlive this value.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    lines: Receiver<String>,
    stop: Signal,
}

impl Server {
    /// Starts it, and waits until `ready` finds something in a line that it says.
    ///
    /// # Errors
    /// When it cannot be started, or ends or is silent before it is ready; with what it said.
    pub(crate) fn start<T>(
        command: &mut Command,
        stop: Signal,
        mut ready: impl FnMut(&str) -> Option<T>,
    ) -> anyhow::Result<(Self, T)> {
        // Both streams into one pipe: servers differ in where they talk.
        let (reader, writer) = std::io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let child =
            command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        // The command holds the writing ends, and the lines would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { child, lines: lines_of(reader), stop };
        let (started, mut said) = (Instant::now(), String::new());
        loop {
            match server.lines.recv_timeout(START_MAX.saturating_sub(started.elapsed())) {
                Ok(line) => {
                    said.push_str(&line);
                    if let Some(found) = ready(&line) {
                        return Ok((server, found));
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("it is not ready after {START_MAX:?}: {said}"),
                Err(RecvTimeoutError::Disconnected) => bail!("it ended before it was ready: {said}"),
            }
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in its own way and waits.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.signal(self.stop)?;
        let asked = Instant::now();
        while asked.elapsed() < STOP_MAX {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        bail!("it does not end within {STOP_MAX:?}")
    }

    /// Ends it at once, as a crash would, and waits until it is gone.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        Ok(kill_process(id, signal)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Lines as they come, so that a full pipe never holds the server back.
fn lines_of(reader: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = String::new();
        let mut wanted = true;
        while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            // Read on without a receiver: a closed pipe would be an error to the server.
            wanted = wanted && sender.send(std::mem::take(&mut line)).is_ok();
            line.clear();
        }
    });
    lines
}

/// An address of this machine that nobody listens on. Another process may take it before the server does,
/// which then does not start.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The address in a line, behind a text.
pub(crate) fn address_behind(text: &str, line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once(text)?;
    let end = after.find(|mark: char| !mark.is_ascii_digit() && mark != '.' && mark != ':');
    after[..end.unwrap_or(after.len())].parse().ok()
}

/// Reads what a measurement costs.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    /// The processes of the server; none where it is this one.
    servers: Vec<u32>,
}

/// Processor time, in seconds.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Used {
    /// Of the server and all its processes.
    pub(crate) server: f64,
    /// Of this process.
    pub(crate) client: f64,
}

impl Meter {
    /// Of a server, with this process as its client.
    pub(crate) fn of(server: &Server) -> Self {
        Self { servers: vec![server.id()] }
    }

    /// Of this server and another one that it uses.
    pub(crate) fn and(mut self, other: &Server) -> Self {
        self.servers.push(other.id());
        self
    }

    /// Of a peer within this process, which counts as server.
    pub(crate) fn of_this_process() -> Self {
        Self { servers: Vec::new() }
    }

    /// Processor time until now.
    pub(crate) fn read(&self) -> anyhow::Result<Used> {
        let own = seconds(&Process::myself()?)?;
        if self.servers.is_empty() {
            return Ok(Used { server: own, client: 0.0 });
        }
        let server = self.processes()?.iter().map(|process| seconds(process).unwrap_or_default()).sum();
        Ok(Used { server, client: own })
    }

    /// Memory in use, in bytes: shared pages count once, by shares (PSS), since some servers are many processes.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for process in self.processes()? {
            // A process may be gone by now.
            if let Ok(maps) = process.smaps_rollup() {
                let totals = maps.memory_map_rollup.0.first().map(|all| all.extension.map.clone());
                bytes += totals.and_then(|map| map.get("Pss").copied()).unwrap_or_default();
            }
        }
        Ok(bytes)
    }

    /// Memory that is not a part of files, in bytes (`RssAnon`).
    pub(crate) fn anonymous_memory(&self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for id in self.roots() {
            bytes += Process::new(i32::try_from(id)?)?.status()?.rssanon.context("no RssAnon")? * 1024;
        }
        Ok(bytes)
    }

    fn roots(&self) -> Vec<u32> {
        if self.servers.is_empty() { vec![std::process::id()] } else { self.servers.clone() }
    }

    fn processes(&self) -> anyhow::Result<Vec<Process>> {
        let families: Vec<_> = self.roots().into_iter().map(family).collect::<anyhow::Result<_>>()?;
        Ok(families.into_iter().flatten().collect())
    }
}

impl Used {
    /// What was used after `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { server: self.server - before.server, client: self.client - before.client }
    }

    /// Both together.
    pub(crate) fn plus(self, more: Self) -> Self {
        Self { server: self.server + more.server, client: self.client + more.client }
    }
}

/// A process and all that it started.
fn family(id: u32) -> anyhow::Result<Vec<Process>> {
    let id = i32::try_from(id)?;
    let all: Vec<_> = all_processes()?.filter_map(Result::ok).collect();
    let mut ids = vec![id];
    // Children are younger than their parents, but ids may wrap around: look until none is found any more.
    loop {
        let known = ids.len();
        for process in &all {
            let parent = process.stat().map(|stat| stat.ppid);
            if !ids.contains(&process.pid) && parent.is_ok_and(|parent| ids.contains(&parent)) {
                ids.push(process.pid);
            }
        }
        if ids.len() == known {
            break;
        }
    }
    Ok(all.into_iter().filter(|process| ids.contains(&process.pid)).collect())
}

/// Processor time of a process and of those children of it that have ended.
fn seconds(process: &Process) -> anyhow::Result<f64> {
    let stat = process.stat()?;
    let ended = u64::try_from(stat.cutime + stat.cstime).unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 ticks of 10 ms")]
    let ticks = (stat.utime + stat.stime + ended) as f64;
    #[expect(clippy::cast_precision_loss, reason = "100")]
    let a_second = procfs::ticks_per_second() as f64;
    Ok(ticks / a_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_server_ends_with_its_value() {
        let ready = |line: &str| line.contains("ready").then_some(());
        let start = || Server::start(&mut shell("echo ready; exec sleep 1000"), Signal::TERM, ready);
        let (dropped, ()) = start().unwrap();
        let id = i32::try_from(dropped.id()).unwrap();
        drop(dropped);
        assert!(Process::new(id).is_err(), "process {id} is still there");
        start().unwrap().0.stop().unwrap();
    }

    #[test]
    fn a_server_that_ends_at_once_is_an_error_with_its_words() {
        let error = Server::start(&mut shell("echo no such disk >&2"), Signal::TERM, |_| None::<()>);
        assert!(error.unwrap_err().to_string().contains("no such disk"));
    }

    #[test]
    fn the_children_of_a_server_count_as_well() {
        let ready = |line: &str| line.contains("ready").then_some(());
        let script = "sleep 1000 & echo ready; wait";
        let (server, ()) = Server::start(&mut shell(script), Signal::TERM, ready).unwrap();
        let ids: Vec<_> = family(server.id()).unwrap().iter().map(|process| process.pid).collect();
        assert_eq!(ids.len(), 2);
        for id in ids.into_iter().rev() {
            kill_process(Pid::from_raw(id).unwrap(), Signal::KILL).unwrap();
        }
    }

    #[test]
    fn an_address_is_found_in_a_line() {
        let line = "INFO app: listening on http://127.0.0.1:8080 store=x";
        assert_eq!(
            address_behind("listening on http://", line),
            Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))
        );
        assert_eq!(address_behind("listening on http://", "something else"), None);
    }
}
