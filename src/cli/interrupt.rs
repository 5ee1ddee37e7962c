//! Long work on a thread of its own, which a signal ends cleanly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::rt::task::spawn_blocking;
use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Runs work that blocks to its end. SIGTERM and SIGINT (Ctrl-C) set what it is given, and it stops.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce(&Arc<AtomicBool>) -> T + Send + 'static,
) -> anyhow::Result<T> {
    let stop = Arc::new(AtomicBool::new(false));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopped = Arc::clone(&stop);
    let mut working = spawn_blocking(move || work(&stopped));
    let done = tokio::select! {
        done = &mut working => done,
        _ = terminate.recv() => { stop.store(true, Ordering::Relaxed); working.await }
        _ = interrupt.recv() => { stop.store(true, Ordering::Relaxed); working.await }
    };
    done.context("the work broke off")
}
