//! Clients with hostile intent against the real program, each beside a *victim*: a normal client that
//! must not notice the attack.
//!
//! Each attack runs twice: from an address of its own, and from the victim's. [`judge`] says what the
//! victim must be given. `SEKALI_HOSTILE_SECONDS=60` makes each of them last that long (default 2); with
//! `--nocapture` each prints a row of the table in docs/RELIABILITY.md.

mod answers;
mod bodies;
mod bound;
mod conflicts;
mod crowds;
mod deadlines;
mod judge;
mod ops;
mod topics;
mod victim;
mod wire;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use sekali::config::{self, Overrides, Settings};
use tempfile::{TempDir, tempdir};

use crate::support::{Process, serving};
use crate::surge::memory_of;
use judge::{Endured, endured};
use wire::{FOLLOWING, answer, connect, follow, get, metric, post, posting, reading, sent, status};

/// The address of an attacker that shares nothing with the victim.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// The address of the victim, from which an attack may come as well.
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A third address, of a client that does something else than the victim while others attack.
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// A small log: the memory that its settings allow is near to what it needs, so that an attack which
/// passes a budget is seen.
const SMALL: [(&str, &str); 9] = [
    ("limits.in_flight_bytes", "\"80MiB\""),
    ("limits.answer_bytes", "\"16MiB\""),
    ("limits.connections", "400"),
    ("limits.connections_per_address", "200"),
    ("limits.followers", "200"),
    ("limits.followers_per_address", "100"),
    ("cache.keys", "10000"),
    ("store.readers", "2"),
    ("store.seal_keys", "10000"),
];

/// The real program with a fresh store of its own, and a listener for health and metrics.
struct Target {
    process: Process,
    settings: Settings,
    /// The most memory that its settings and its start imply, in bytes.
    memory: u64,
    /// Whether the attack is on the listener for health, so that at the victim's address health is
    /// answered 429 too.
    is_attacked_at_health: bool,
    started: Instant,
    _home: TempDir,
}

impl Target {
    /// Starts the program with these settings, a `key = value` a line, over those of a [`SMALL`] log.
    fn start(own: &str) -> Self {
        Self::limited(own, ":")
    }

    /// Starts the program within limits that a shell sets, such as `ulimit -n 256`.
    fn limited(own: &str, limits: &str) -> Self {
        let (home, started) = (tempdir().unwrap(), Instant::now());
        let is_own = |key: &str| own.lines().any(|line| line.split(' ').next() == Some(key));
        let small = SMALL.iter().filter(|(key, _)| !is_own(key));
        let small: String = small.flat_map(|(key, value)| [key, " = ", value, "\n"]).collect();
        let arguments = serving(home.path(), &format!("server.ops_bind = \"127.0.0.1:0\"\n{small}{own}"));
        let process = Process::within(limits, arguments);
        let settings = config::load(Some(&home.path().join("sekali.toml")), &Overrides::default()).unwrap();
        let memory = memory_of(process.id()).unwrap() + bound::implied(&settings);
        Self { process, settings, memory, is_attacked_at_health: false, started, _home: home }
    }
}
