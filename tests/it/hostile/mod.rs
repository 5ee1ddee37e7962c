//! Clients with hostile intent against the real program, each beside a *victim*: a normal client that
//! must not notice the attack.
//!
//! `SEKALI_HOSTILE_SECONDS=60` makes each attack last that long (default 2).

mod answers;
mod bodies;
mod conflicts;
mod crowds;
mod deadlines;
mod ops;
mod topics;
mod victim;

use std::env;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tempfile::{TempDir, tempdir};

use crate::support::{Process, say};
use victim::{Seen, Victim};

/// Seconds of an attack where the environment names no number.
const SECONDS: u64 = 2;

/// The longest wait for a connection and for each answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest that a machine may be too busy to serve a victim without an attack, in all tests together.
const BUSY_MAX: Duration = Duration::from_mins(2);

/// Attempts before a share of successes counts as missed: a busy machine may stall any single one.
const ATTEMPTS: usize = 3;

/// The address of an attacker that shares nothing with the victim.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// The address of the victim, from which an attack may come as well.
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The real program with a fresh store of its own.
struct Target {
    process: Process,
    _home: TempDir,
}

impl Target {
    /// Starts the program with this configuration file.
    fn start(config: &str) -> Self {
        let home = tempdir().unwrap();
        Self { process: Process::configured(home.path(), config), _home: home }
    }

    /// Starts the program within limits that a shell sets, such as `ulimit -n 256`.
    fn limited(config: &str, limits: &str) -> Self {
        let home = tempdir().unwrap();
        Self { process: Process::limited(home.path(), config, limits), _home: home }
    }

    /// Follows topic t from this address; the first line of the answer up to its status, and the connection.
    fn follow(&self, from: IpAddr) -> (String, TcpStream) {
        let mut stream = connect(from, self.process.address()).unwrap();
        let request = "GET /events?topic=t HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut beginning = [0; 12];
        stream.read_exact(&mut beginning).unwrap();
        (String::from_utf8(beginning.to_vec()).unwrap(), stream)
    }
}

/// The length of one attack.
fn lasting() -> Duration {
    let seconds = env::var("SEKALI_HOSTILE_SECONDS").ok().map(|value| value.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(SECONDS))
}

/// Opens a connection from this address; `None` where the server does not take it within
/// [`PATIENCE`].
fn connect(from: IpAddr, to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect_timeout(&to.into(), PATIENCE).ok()?;
    socket.set_tcp_nodelay(true).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    Some(socket.into())
}

/// Runs an attack on a fresh target beside a victim until the victim was served in one of
/// [`ATTEMPTS`]; fails with the last observation otherwise. The attack gets the target and the time
/// that it lasts, and returns whatever must stay alive until the victim stops.
///
/// Another log, which nobody attacks, has a victim at the same time. Where that one is not served either,
/// the machine is too busy, also with the attacker's own work, and the attempt says nothing.
///
/// Each attack makes load on purpose and tests run in parallel: one attack waits for the other, so that
/// a victim measures its own attack alone.
fn endured<T>(start: impl Fn() -> Target, attack: impl Fn(&Target, Duration) -> T) -> (Target, Seen) {
    /// The time that attempts took for which the machine was too busy, of all tests.
    static ALONE: Mutex<Duration> = Mutex::new(Duration::ZERO);
    // A test that failed under the lock leaves nothing behind that another one could see.
    let mut busy = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut failed, mut last) = (0, String::new());
    while failed < ATTEMPTS {
        let begun = Instant::now();
        let (target, beside) = (start(), Target::start(""));
        let victims = [&target, &beside].map(|target| Victim::start(&target.process, OWN));
        let kept = attack(&target, lasting());
        let [seen, elsewhere] = victims.map(Victim::stop);
        drop(kept);
        if seen.served() {
            return (target, seen);
        }
        last = seen.said();
        if elsewhere.served() {
            failed += 1;
            continue;
        }
        *busy += begun.elapsed();
        if *busy > BUSY_MAX {
            say(&format!(
                "NOT JUDGED: the machine serves no victim of a log without an attack either: {last}"
            ));
            return (target, seen);
        }
    }
    panic!("the victim was not served in {ATTEMPTS} attempts: {last}");
}

#[test]
fn a_victim_without_an_attack_is_served() {
    let (_target, seen) = endured(|| Target::start(""), |_, lasting| thread::sleep(lasting));
    assert!(seen.published.total > 20 && seen.health.total > 5, "{seen:?}");
    assert_eq!(seen.throttled, 0, "{seen:?}");
    assert!(seen.memory > 1 << 20 && seen.failures.len() < 3, "{seen:?}");
}
