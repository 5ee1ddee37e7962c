//! The victim: a normal client that publishes small batches and asks for health while an attack
//! runs, and counts its successes; and the time until it is served as before the attack.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::OWN;
use super::wire::{connect, posting, reading};
use crate::support::{Process, array, event};
use crate::surge::memory_of;

/// The time between two small publishes, between two questions for health, and between two looks at
/// the memory.
const PACE: Duration = Duration::from_millis(25);
const HEALTH_PACE: Duration = Duration::from_millis(100);
const MEMORY_PACE: Duration = Duration::from_millis(20);

/// Events of one small publish.
const BATCH: u64 = 5;

/// The time within which an answer counts as a success: the figure of the issue.
const IN_TIME: Duration = Duration::from_secs(1);

/// Of a hundred attempts, the successes that count as served: the figure of the issue.
const SHARE: u64 = 99;

/// Fewer attempts say nothing about a share. In the shortest attack, of 2 s, 80 publishes and 20
/// questions for health are due.
const LEAST: u64 = 10;

/// Successes without a failure between them after which service counts as normal again: a second of
/// publishes, and of questions for health.
const STREAK: u64 = 40;
const HEALTH_STREAK: u64 = 10;

/// The longest wait for service to be normal; far longer than it may take.
const RECOVERY_WAIT: Duration = Duration::from_secs(15);

/// The topic of every victim.
pub(super) const TOPIC: &str = "victim";

/// A victim at work, on threads of its own.
pub(super) struct Victim {
    publishing: Worker,
    asking: Worker,
    measuring: JoinHandle<u64>,
    stop: Stop,
}

/// Tells the threads of a victim to stop when it is dropped, also where an attack has failed.
struct Stop(Arc<AtomicBool>);

/// What the victim saw.
#[derive(Debug)]
pub(super) struct Seen {
    /// Small publishes, half of them on a connection that stays open, half each on a new one.
    pub(super) published: Share,
    /// Questions to `/health/live`, each on a new connection, to the ops listener.
    pub(super) health: Share,
    /// The most memory of the process that is not a part of files, in bytes.
    pub(super) memory: u64,
    /// Failures of publishes and of health by what happened.
    pub(super) failures: BTreeMap<String, u64>,
}

/// How attempts ended.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// 200 within [`IN_TIME`] of when the request was due.
    pub(super) served: u64,
    /// 429 within the same time, with the time to wait in `Retry-After`.
    pub(super) told: u64,
    /// All attempts.
    pub(super) total: u64,
}

/// A thread of a victim, and what it tells while it runs.
struct Worker {
    thread: JoinHandle<Counts>,
    streak: Arc<Mutex<Streak>>,
}

/// The successes since the last attempt that was none.
#[derive(Debug, Default, Clone, Copy)]
struct Streak {
    length: u64,
    /// When the first of them was there.
    began: Option<Instant>,
}

#[derive(Debug, Default)]
struct Counts {
    share: Share,
    failures: BTreeMap<String, u64>,
    streak: Arc<Mutex<Streak>>,
}

/// An answer, as far as a victim reads it.
#[derive(Debug, Clone, Copy)]
struct Answered {
    status: u16,
    /// Whether it says when to try again.
    says_when: bool,
    /// Whether the connection stays open.
    stays: bool,
}

impl Victim {
    /// Starts a victim of this program, which has a listener for health of its own.
    pub(super) fn start(process: &Process) -> Self {
        let (to, pid) = (process.address(), process.id());
        let health = process.ops_address().expect("a target has server.ops_bind");
        let stop = Stop(Arc::default());
        let stopping = || Arc::clone(&stop.0);
        let measured = stopping();
        Self {
            publishing: Worker::start(stopping(), move |stop, counts| publish(to, stop, counts)),
            asking: Worker::start(stopping(), move |stop, counts| ask(health, stop, counts)),
            measuring: thread::spawn(move || measure(pid, &measured)),
            stop,
        }
    }

    /// Stops it and returns what it saw.
    pub(super) fn stop(self) -> Seen {
        drop(self.stop);
        let (published, asked) = (self.publishing.thread.join().unwrap(), self.asking.thread.join().unwrap());
        let mut failures = published.failures;
        for (what, count) in asked.failures {
            *failures.entry(format!("health: {what}")).or_default() += count;
        }
        let memory = self.measuring.join().unwrap();
        Seen { published: published.share, health: asked.share, memory, failures }
    }

    /// The time at which both of its streaks, if they are long enough, began.
    fn normal_since(&self) -> Option<Instant> {
        let [published, asked] =
            [&self.publishing, &self.asking].map(|worker| *worker.streak.lock().unwrap());
        let is_normal = published.length >= STREAK && asked.length >= HEALTH_STREAK;
        if is_normal { published.began.max(asked.began) } else { None }
    }
}

/// The time after `released`, the end of an attack, from which on a victim is served without a
/// failure, a refusal or a late answer, and the most memory until then. Where the victim is not served
/// so within [`RECOVERY_WAIT`], the whole wait is returned.
pub(super) fn recovery(process: &Process, released: Instant) -> (Duration, u64) {
    let victim = Victim::start(process);
    let recovered = loop {
        match victim.normal_since() {
            Some(since) => break since - released,
            None if released.elapsed() > RECOVERY_WAIT => break released.elapsed(),
            None => thread::sleep(PACE),
        }
    };
    (recovered, victim.stop().memory)
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Worker {
    fn start(stop: Arc<AtomicBool>, work: impl FnOnce(&AtomicBool, &mut Counts) + Send + 'static) -> Self {
        let streak = Arc::<Mutex<Streak>>::default();
        let mut counts = Counts { streak: Arc::clone(&streak), ..Counts::default() };
        let thread = thread::spawn(move || {
            work(&stop, &mut counts);
            counts
        });
        Self { thread, streak }
    }
}

impl Seen {
    /// What it saw, for the message of a test that fails.
    pub(super) fn said(&self) -> String {
        let Self { published, health, memory, failures } = self;
        format!("{published:?}, health {health:?}, {} MiB, {failures:?}", memory >> 20)
    }
}

impl Share {
    /// Whether 99 % were served.
    pub(super) fn is_served(&self) -> bool {
        self.reaches(self.served)
    }

    /// Whether 99 % were served, or told when to try again.
    pub(super) fn is_served_or_told(&self) -> bool {
        self.reaches(self.served + self.told)
    }

    fn reaches(&self, successes: u64) -> bool {
        self.total >= LEAST && successes * 100 >= self.total * SHARE
    }
}

impl Counts {
    /// Counts one attempt that was due at a point in time. Lateness includes the wait behind
    /// earlier attempts, so that one long stall counts as the many failures that it is.
    fn count(&mut self, due: Instant, outcome: io::Result<Answered>) {
        let is_late = due.elapsed() > IN_TIME;
        self.share.total += 1;
        let failure = match outcome {
            Ok(Answered { status, .. }) if is_late => Some(format!("{status}, but too late")),
            Ok(Answered { status: 200, .. }) => {
                self.share.served += 1;
                let mut streak = self.streak.lock().unwrap();
                streak.began.get_or_insert_with(Instant::now);
                streak.length += 1;
                return;
            }
            Ok(Answered { status: 429, says_when: true, .. }) => {
                self.share.told += 1;
                None
            }
            Ok(Answered { status: 429, .. }) => Some("429 without Retry-After".to_owned()),
            Ok(Answered { status, .. }) => Some(status.to_string()),
            Err(error) => Some(error.kind().to_string()),
        };
        *self.streak.lock().unwrap() = Streak::default();
        if let Some(what) = failure {
            *self.failures.entry(what).or_default() += 1;
        }
    }
}

fn publish(to: SocketAddr, stop: &AtomicBool, counts: &mut Counts) {
    /// Event ids are new in each request of each victim.
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    let (mut kept, mut is_new) = (None, false);
    at_a_pace(PACE, stop, |due| {
        let request = small(REQUESTS.fetch_add(1, Ordering::Relaxed));
        let open = if is_new { None } else { kept.take() };
        let outcome = opened(open, to, &request).and_then(|mut connection| {
            let answer = read_answer(&mut connection)?;
            if answer.stays && !is_new {
                kept = Some(connection);
            }
            Ok(answer)
        });
        counts.count(due, outcome);
        is_new = !is_new;
    });
}

fn ask(to: SocketAddr, stop: &AtomicBool, counts: &mut Counts) {
    let request = reading("/health/live", "");
    at_a_pace(HEALTH_PACE, stop, |due| {
        let outcome = opened(None, to, &request).and_then(|mut connection| read_answer(&mut connection));
        counts.count(due, outcome);
    });
}

/// The most memory that the process took.
fn measure(pid: u32, stop: &AtomicBool) -> u64 {
    let mut most = 0;
    at_a_pace(MEMORY_PACE, stop, |_| most = most.max(memory_of(pid).unwrap_or_default()));
    most
}

/// Attempts at fixed points in time, whatever the earlier ones took, at least one and until
/// stopped.
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

fn reached(to: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    connect(OWN, to).map(BufReader::new).ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
}

/// Sends a request and waits for the first byte of its answer, on the connection that was kept
/// where there is one, else on a new one.
///
/// A server may close an idle connection at any time, also for room, and the client learns it only
/// when it uses the connection. So, as every HTTP client does (RFC 9112, section 9.3.1), this one
/// sends the request once more on a new connection where a *reused* one ended before any byte of an
/// answer; the time until then counts. A new connection that ends without an answer is a failure.
fn opened(
    kept: Option<BufReader<TcpStream>>,
    to: SocketAddr,
    request: &str,
) -> io::Result<BufReader<TcpStream>> {
    match kept.map(|connection| begun(connection, request)) {
        Some(Err(error)) if is_closed(&error) => begun(reached(to)?, request),
        Some(outcome) => outcome,
        None => begun(reached(to)?, request),
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

/// Reads an answer with a Content-Length.
fn read_answer(connection: &mut BufReader<TcpStream>) -> io::Result<Answered> {
    let (mut status, mut length, mut stays, mut says_when) = (None, 0, true, false);
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
            Some(("retry-after", _)) => says_when = true,
            Some(_) => {}
        }
    }
    io::copy(&mut connection.by_ref().take(length), &mut io::sink())?;
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answered { status, says_when, stays })
}

fn small(request: u64) -> String {
    let first = request * BATCH;
    let body = array((first..first + BATCH).map(|number| event(TOPIC, &number.to_string())));
    posting("/publish", body.len(), "") + &body
}
