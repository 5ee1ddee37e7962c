//! Pipelines on a real file, that stop or just end, and start again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::settings;
use crate::config::{Settings, StoreUrl};
use crate::pipeline::Pipeline;
use crate::store::{Engine, SqliteStore, StoreError};

/// Far longer than anything takes on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// Settings for a store in this directory.
pub(super) fn settings_for(home: &TempDir) -> Settings {
    let mut settings = settings();
    settings.store.url = StoreUrl::Sqlite(home.path().join("log.db"));
    settings
}

pub(super) async fn open(settings: &Settings) -> Arc<dyn Engine> {
    Arc::new(once_free(|| SqliteStore::open(settings)).await)
}

/// Opens a store as soon as whoever had it has let it go: a thread that reads may be about to.
pub(super) async fn once_free<T>(open: impl Fn() -> Result<T, StoreError>) -> T {
    let begun = Instant::now();
    loop {
        match open() {
            Err(StoreError::Owned { .. }) if begun.elapsed() < PATIENCE => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

/// Ends all threads of a pipeline at once, whatever they hold.
pub(super) async fn end(pipeline: &Pipeline) {
    let threads = std::mem::take(&mut *pipeline.0.threads.lock().unwrap());
    for thread in &threads {
        assert!(thread.stop());
    }
    let joined = tokio::task::spawn_blocking(|| threads.into_iter().all(|thread| thread.join().is_ok()));
    assert!(joined.await.unwrap());
}
