//! More than the log can take, of everything, on the real program: what is over is refused at once, what was accepted is
//! kept, and memory stays where the configuration puts it.
//!
//! Each test runs [alone](crate::support::alone): beside another one, or beside an attack of a hostile
//! client, its rates and times would say nothing.
//!
//! `SEKALI_SURGE_SECONDS=60` makes each part last so long (default 2), with as many connections and topics as that allows.

mod hostile;
mod idle;
mod locked;
mod producers;
mod slow;
mod tenfold;
mod topics;

use std::time::Duration;
use std::{env, fs};

use crate::support::Process;

/// Seconds of each part where nothing else is said.
const SECONDS: u64 = 2;

/// Seconds from which on a run is a long one: its figures are kept to what is promised, not only to what a busy
/// machine can always give.
const LONG: Duration = Duration::from_secs(30);

/// How long each part lasts.
fn lasting() -> Duration {
    let seconds = env::var("SEKALI_SURGE_SECONDS").ok().map(|value| value.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(SECONDS))
}

/// One number in an ordinary run, another one in a long run.
fn or_long<T>(ordinary: T, long: T) -> T {
    if lasting() < LONG { ordinary } else { long }
}

/// Memory of a process that is not a part of files, in bytes.
fn memory(process: &Process) -> u64 {
    memory_of(process.id()).unwrap()
}

/// The same of the process with this id; `None` where it has ended.
pub(crate) fn memory_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10)
}
