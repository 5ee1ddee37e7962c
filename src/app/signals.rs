//! The signals that end a process cleanly, and the one that must not end it.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Keeps this process alive where a file must not grow any more (`ulimit -f`): the system sends
/// SIGXFSZ then, whose default action ends a process. With a handler that does nothing, the write
/// fails with an error instead, on whatever thread it is.
///
/// # Errors
/// When the system does not let the signal be caught.
pub fn outlive_file_limit() -> io::Result<()> {
    signal_hook::flag::register(Number::XFSZ.as_raw(), Arc::<AtomicBool>::default()).map(drop)
}

/// SIGTERM, SIGINT (Ctrl-C), and SIGHUP, which whoever is left by its terminal gets.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// None where it stays as it was found, and once this process ends anyway.
    hangup: Option<Signal>,
}

impl Signals {
    /// Catches them from now on. SIGHUP stays ignored where this process was started so: `nohup` does that for who wants it to
    /// outlive a terminal.
    ///
    /// # Errors
    /// When the system does not let them be caught.
    pub fn catch() -> io::Result<Self> {
        let hangup = SignalKind::hangup();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: if is_ignored(hangup) { None } else { Some(signal(hangup)?) },
        })
    }

    /// Waits for one of them. A hang-up is none after another signal: the end of a terminal sends two, one of its shell and
    /// one of the system, and nobody insists on anything by that.
    pub async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hangup => {}
        }
        // It is caught on, since the handler stays.
        self.hangup = None;
    }
}

/// Whether this process ignores a signal, as Linux says it. Where nothing does, the signal is left alone.
fn is_ignored(kind: SignalKind) -> bool {
    fs::read_to_string("/proc/self/status").ok().and_then(|status| names(&status, kind)).unwrap_or(true)
}

/// Whether the mask of ignored signals has this one: bits in hexadecimal, the lowest of them signal 1.
fn names(status: &str, kind: SignalKind) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    let bit = u32::try_from(kind.as_raw_value()).ok()?.checked_sub(1)?;
    Some(mask >> bit & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_a_bit_of_the_mask() {
        let names = |mask: &str, kind| names(&format!("Name:\tx\nSigIgn:\t{mask}\nSigCgt:\tff\n"), kind);
        assert_eq!(names("0000000000001001", SignalKind::hangup()), Some(true));
        assert_eq!(names("0000000000001000", SignalKind::hangup()), Some(false));
        assert_eq!(names("0000000000004000", SignalKind::terminate()), Some(true));
        assert_eq!(names("soon", SignalKind::hangup()), None);
    }
}
