//! Moving the write-ahead log into the file, off the commit path.
//!
//! A thread with a connection of its own checkpoints whenever the log has grown by half of `store.wal_bytes`.
//! Under steady load it never catches up with the very last commits, so the log grows; past `store.wal_bytes`
//! the writer itself waits once, for the little that is left, and the log begins again from its start.

use std::ffi::c_int;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use super::connection::{Database, PAGE_SIZE};
use crate::store::StoreError;

/// How long a commit waits for readers that hold an old part of the log, before it goes on with a longer log.
const ROOM_TIMEOUT: Duration = Duration::from_millis(50);

/// The thread that checkpoints, and what the writer tells it.
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    /// Pages by which the log grows between two checkpoints.
    interval: usize,
    thread: Option<(SyncSender<()>, JoinHandle<()>)>,
}

#[derive(Default)]
struct Shared {
    /// Pages committed since the last wake-up.
    committed: AtomicUsize,
    /// The log is longer than it may be.
    full: AtomicBool,
    /// Times that the writer could not make the log begin again because of a reader.
    blocked: AtomicU64,
    /// Only one connection at a time can checkpoint; the other one would be told that it is busy.
    turn: Mutex<()>,
}

impl Checkpointer {
    pub(super) fn start(database: &Database, wal_bytes: u64) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::default());
        let connection = database.open_to_write()?;
        let interval = usize::try_from(wal_bytes / 2 / u64::from(PAGE_SIZE)).unwrap_or(usize::MAX);
        let (wake, woken) = mpsc::sync_channel(1);
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || for_thread.run(&connection, &woken, wal_bytes))
            .map_err(|error| StoreError::Unavailable(format!("no thread for checkpoints: {error}")))?;
        Ok(Self { shared, interval, thread: Some((wake, thread)) })
    }

    /// Counts the pages that this connection commits. Events tell little of them: a single one, a repeat or a
    /// count dirties a page in each table and index that it touches.
    pub(super) fn watch(&self, writer: &mut Connection) -> rusqlite::Result<()> {
        let (shared, mut before) = (Arc::clone(&self.shared), 0);
        writer.wal_hook(Some(move |_: &mut Wal, length: c_int| {
            let pages = usize::try_from(length).unwrap_or(0);
            // Shorter than before: the log began again from its start.
            let grown = pages.checked_sub(mem::replace(&mut before, pages)).unwrap_or(pages);
            shared.committed.fetch_add(grown, Ordering::Relaxed);
            Ok(())
        }))
    }

    /// After a commit: wakes the thread where the log has grown enough.
    pub(super) fn committed(&self) {
        if self.shared.committed.load(Ordering::Relaxed) < self.interval {
            return;
        }
        self.shared.committed.store(0, Ordering::Relaxed);
        if let Some((wake, _)) = &self.thread {
            // A full channel means that it is awake already.
            let _ = wake.try_send(());
        }
    }

    /// Before a commit: where the log is too long, checkpoints the rest of it on the writer's connection, whose
    /// patience with locks is another one afterwards.
    pub(super) fn make_room(&self, writer: &Connection) {
        if !self.shared.full.load(Ordering::Relaxed) {
            return;
        }
        let _turn = self.shared.turn();
        let _ = writer.busy_timeout(ROOM_TIMEOUT);
        match checkpoint(writer, "RESTART") {
            Ok(outcome) if outcome.busy => {
                self.shared.blocked.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    wal_bytes = outcome.wal_bytes,
                    "something reads an old state of the store; its write-ahead log grows until that ends"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the write-ahead log cannot be checkpointed"),
        }
        // Also where it did not succeed: the next try comes with the next checkpoint, not with every commit.
        self.shared.full.store(false, Ordering::Relaxed);
    }

    /// How often a reader of an old state of the store kept the log from beginning again.
    pub(super) fn blocked(&self) -> u64 {
        self.shared.blocked.load(Ordering::Relaxed)
    }

    /// Before a clean stop: empties the log.
    pub(super) fn finish(&self, writer: &Connection) -> Result<(), StoreError> {
        let _turn = self.shared.turn();
        if checkpoint(writer, "TRUNCATE")?.busy {
            return Err(StoreError::Unavailable("a reader holds the write-ahead log".to_owned()));
        }
        Ok(())
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        if let Some((wake, thread)) = self.thread.take() {
            drop(wake);
            // A panic of that thread was logged when it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, connection: &Connection, woken: &Receiver<()>, wal_bytes: u64) {
        while woken.recv().is_ok() {
            let _turn = self.turn();
            match checkpoint(connection, "PASSIVE") {
                Ok(outcome) => self.full.store(outcome.wal_bytes > wal_bytes, Ordering::Relaxed),
                Err(error) => tracing::warn!(%error, "the write-ahead log cannot be checkpointed"),
            }
        }
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Outcome {
    /// Something kept it from finishing.
    busy: bool,
    /// The length of the log's used part.
    wal_bytes: u64,
}

fn checkpoint(connection: &Connection, mode: &str) -> Result<Outcome, StoreError> {
    let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let outcome = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        let pages = row.get::<_, i64>(1)?.max(0);
        Ok(Outcome { busy: row.get::<_, i64>(0)? != 0, wal_bytes: (pages * page).cast_unsigned() })
    })?;
    Ok(outcome)
}
