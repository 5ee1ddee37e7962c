//! The victim: a normal client that publishes small batches and asks for health while an attack
//! runs, and counts its successes.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::connect;
use crate::support::{Process, array, event};
use crate::surge::memory_of;

/// The time between two small publishes, and between two questions for health.
const PACE: Duration = Duration::from_millis(25);
const HEALTH_PACE: Duration = Duration::from_millis(100);

/// Events of one small publish.
const BATCH: u64 = 5;

/// The time within which an answer counts as a success: the figure of the issue.
const IN_TIME: Duration = Duration::from_secs(1);

/// Of a hundred publishes, the successes that count as served: the figure of the issue.
const SHARE: u64 = 99;

/// A victim at work, on threads of its own.
pub(super) struct Victim {
    stop: Arc<AtomicBool>,
    publishing: JoinHandle<Counts>,
    asking: JoinHandle<Counts>,
    measuring: JoinHandle<u64>,
}

/// What the victim saw.
#[derive(Debug)]
pub(super) struct Seen {
    /// Small publishes, half of them on a connection that stays open, half each on a new one.
    pub(super) published: Share,
    /// Questions to `/health/live`, each on a new connection; on the ops listener where there is
    /// one.
    pub(super) health: Share,
    /// Publishes that were answered 429; they count neither as success nor as failure.
    pub(super) throttled: u64,
    /// The most memory of the process that is not a part of files, in bytes.
    pub(super) memory: u64,
    /// Failures of publishes and of health by what happened.
    pub(super) failures: BTreeMap<String, u64>,
}

/// Successes of all attempts.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// 200 within [`IN_TIME`] of when the request was due.
    pub(super) in_time: u64,
    /// All attempts.
    pub(super) total: u64,
}

#[derive(Debug, Default)]
struct Counts {
    share: Share,
    throttled: u64,
    failures: BTreeMap<String, u64>,
}

impl Victim {
    /// Starts a victim of this program at this address of its own.
    pub(super) fn start(process: &Process, from: IpAddr) -> Self {
        let (to, pid) = (process.address(), process.id());
        let health = process.ops_address().unwrap_or(to);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = || Arc::clone(&stop);
        let (publishing, asking, measuring) = (stopping(), stopping(), stopping());
        Self {
            publishing: thread::spawn(move || publish(from, to, &publishing)),
            asking: thread::spawn(move || ask(from, health, &asking)),
            measuring: thread::spawn(move || measure(pid, &measuring)),
            stop,
        }
    }

    /// Stops it and returns what it saw.
    pub(super) fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let (published, asked) = (self.publishing.join().unwrap(), self.asking.join().unwrap());
        let mut failures = published.failures;
        for (what, count) in asked.failures {
            *failures.entry(format!("health: {what}")).or_default() += count;
        }
        Seen {
            published: published.share,
            health: asked.share,
            throttled: published.throttled + asked.throttled,
            memory: self.measuring.join().unwrap(),
            failures,
        }
    }
}

impl Seen {
    /// Whether 99 % of the publishes and of the questions for health were successes in time.
    pub(super) fn served(&self) -> bool {
        self.published.reaches() && self.health.reaches()
    }

    /// What it saw, for the message of a test that fails.
    pub(super) fn said(&self) -> String {
        let Self { published, health, throttled, memory, failures } = self;
        let memory = memory >> 20;
        format!("{published:?}, health {health:?}, 429: {throttled}, {memory} MiB, {failures:?}")
    }
}

impl Share {
    fn reaches(&self) -> bool {
        self.total > 0 && self.in_time * 100 >= self.total * SHARE
    }
}

impl Counts {
    /// Counts one attempt that was due at a point in time. Lateness includes the wait behind earlier
    /// attempts, so that one long stall counts as the many failures that it is.
    fn count(&mut self, due: Instant, outcome: io::Result<u16>) {
        let failure = match outcome {
            Ok(429) => {
                self.throttled += 1;
                return;
            }
            Ok(200) if due.elapsed() <= IN_TIME => None,
            Ok(200) => Some("200, but too late".to_owned()),
            Ok(status) => Some(status.to_string()),
            Err(error) => Some(error.kind().to_string()),
        };
        self.share.total += 1;
        match failure {
            None => self.share.in_time += 1,
            Some(what) => *self.failures.entry(what).or_default() += 1,
        }
    }
}

fn publish(from: IpAddr, to: SocketAddr, stop: &AtomicBool) -> Counts {
    static VICTIMS: AtomicU64 = AtomicU64::new(0);
    let topic = format!("victim-{}", VICTIMS.fetch_add(1, Ordering::Relaxed));
    let (mut counts, mut kept, mut number) = (Counts::default(), None, 0);
    at_a_pace(PACE, stop, |due| {
        let request = small(&topic, number);
        let is_new = number % 2 == 1;
        number += 1;
        let open = if is_new { None } else { kept.take() };
        let outcome = opened(open, from, to, &request).and_then(|mut connection| {
            let (status, stays) = read_answer(&mut connection)?;
            if stays && !is_new {
                kept = Some(connection);
            }
            Ok(status)
        });
        counts.count(due, outcome);
    });
    counts
}

fn ask(from: IpAddr, to: SocketAddr, stop: &AtomicBool) -> Counts {
    let mut counts = Counts::default();
    let request = "GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    at_a_pace(HEALTH_PACE, stop, |due| {
        let outcome = opened(None, from, to, request)
            .and_then(|mut connection| read_answer(&mut connection))
            .map(|(status, _)| status);
        counts.count(due, outcome);
    });
    counts
}

/// The most memory that the process took, looked at as often as health is.
fn measure(pid: u32, stop: &AtomicBool) -> u64 {
    let mut most = 0;
    at_a_pace(HEALTH_PACE, stop, |_| most = most.max(memory_of(pid)));
    most
}

/// Attempts at fixed points in time, whatever the earlier ones took, at least one and until stopped.
fn at_a_pace(pace: Duration, stop: &AtomicBool, mut attempt: impl FnMut(Instant)) {
    let mut due = Instant::now();
    loop {
        attempt(due);
        if stop.load(Ordering::Relaxed) {
            return;
        }
        due += pace;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn reached(from: IpAddr, to: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    connect(from, to).map(BufReader::new).ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
}

/// Sends a request and waits for the first byte of its answer, on the connection that was kept where
/// there is one, else on a new one.
///
/// A server may close an idle connection at any time, also for room, and the client learns it only when
/// it uses the connection. So, as every HTTP client does (RFC 9112, section 9.3.1), this one sends the
/// request once more on a new connection where a *reused* one ended before any byte of an answer; the
/// time until then counts. A new connection that ends without an answer is a failure.
fn opened(
    kept: Option<BufReader<TcpStream>>,
    from: IpAddr,
    to: SocketAddr,
    request: &str,
) -> io::Result<BufReader<TcpStream>> {
    match kept.map(|connection| begun(connection, request)) {
        Some(Err(error)) if is_closed(&error) => begun(reached(from, to)?, request),
        Some(outcome) => outcome,
        None => begun(reached(from, to)?, request),
    }
}

/// Sends a request and waits for the first byte of its answer.
fn begun(mut connection: BufReader<TcpStream>, request: &str) -> io::Result<BufReader<TcpStream>> {
    connection.get_mut().write_all(request.as_bytes())?;
    let is_closed = connection.fill_buf()?.is_empty();
    if is_closed { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(connection) }
}

/// Whether the other end has closed the connection.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Reads an answer with a Content-Length: its status, and whether the connection stays open.
fn read_answer(connection: &mut BufReader<TcpStream>) -> io::Result<(u16, bool)> {
    let (mut status, mut length, mut stays) = (None, 0, true);
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        match line.split_once(": ") {
            None if line.is_empty() => break,
            None => status = line.split(' ').nth(1).and_then(|status| status.parse().ok()),
            Some(("content-length", value)) => length = value.parse().unwrap_or(0),
            Some(("connection", "close")) => stays = false,
            Some(_) => {}
        }
    }
    io::copy(&mut connection.by_ref().take(length), &mut io::sink())?;
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, stays))
}

fn small(topic: &str, number: u64) -> String {
    let first = number * BATCH;
    let body = array((first..first + BATCH).map(|number| event(topic, &number.to_string())));
    let length = body.len();
    format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}
