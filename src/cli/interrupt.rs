//! Long work on a thread of its own, which a signal ends cleanly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::rt::task::spawn_blocking;
use anyhow::{Context, bail};

use crate::app::Signals;

/// Runs work that blocks to its end. [`Signals`] set what it is given, and it stops.
///
/// # Errors
/// When it panics, or a second signal comes while it waits for something else and does not stop: it is left to its fate then,
/// which the end of this process is.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce(&Arc<AtomicBool>) -> T + Send + 'static,
) -> anyhow::Result<T> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::catch()?;
    let stopped = Arc::clone(&stop);
    let mut working = spawn_blocking(move || work(&stopped));
    loop {
        tokio::select! {
            done = &mut working => return done.context("the work broke off"),
            () = signals.next() => {}
        }
        if stop.swap(true, Ordering::Relaxed) {
            bail!("stopped at once, by a second signal");
        }
    }
}
