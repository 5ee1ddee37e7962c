//! A log on a thread of its own, behind a real socket, with a fresh store.

use std::env;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use sekali::app::App;
use sekali::config::{self, Overrides, Settings};
use sekali::store::{self, Engine, StoreError};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::postgres::Database;
use super::{Client, Locked, until};

/// A running log and a client of it. It is stopped cleanly when it is dropped.
pub(crate) struct Log {
    client: Client,
    running: Option<Running>,
    home: Home,
}

/// Says on which engine the logs of tests run that do not ask for one: `postgres`, or else SQLite.
pub(crate) const ENGINE: &str = "SEKALI_TEST_STORE";

/// Where a log lives.
struct Home {
    /// Removed together with the log, where it was made for it.
    made: Option<TempDir>,
    store: Place,
    config: PathBuf,
}

/// Where its events are.
enum Place {
    File(PathBuf),
    Shared(Arc<Database>),
}

struct Running {
    /// Taken when the stop begins.
    stop: Option<oneshot::Sender<()>>,
    thread: JoinHandle<()>,
}

impl Log {
    /// A log with the default configuration.
    pub(crate) fn start() -> Self {
        Self::configured("")
    }

    /// A log with this configuration file.
    pub(crate) fn configured(config: &str) -> Self {
        let is_shared = env::var(ENGINE).is_ok_and(|engine| engine == "postgres");
        if is_shared { Self::on(&Database::required(), config) } else { Self::on_file(config) }
    }

    /// A log with its events in a file.
    pub(crate) fn on_file(config: &str) -> Self {
        let made = tempfile::tempdir().unwrap();
        let at = made.path().to_owned();
        let store = Place::File(at.join("log.db"));
        Self::at(Home::new(&at, store, Some(made)), config)
    }

    /// A log with its store in this directory.
    pub(crate) fn inside(directory: &Path, config: &str) -> Self {
        let store = Place::File(directory.join("log.db"));
        Self::at(Home::new(directory, store, None), config)
    }

    /// One node of those on this database.
    pub(crate) fn on(database: &Arc<Database>, config: &str) -> Self {
        let made = tempfile::tempdir().unwrap();
        let at = made.path().to_owned();
        let store = Place::Shared(Arc::clone(database));
        Self::at(Home::new(&at, store, Some(made)), config)
    }

    /// The same store in a new process, as far as the log can tell.
    pub(crate) fn restarted(self) -> Self {
        self.restarted_with("")
    }

    /// The same store with another configuration file.
    pub(crate) fn restarted_with(mut self, config: &str) -> Self {
        self.stop();
        let Home { made, store, config: file } = &mut self.home;
        let store = match store {
            Place::File(path) => Place::File(path.clone()),
            Place::Shared(database) => Place::Shared(Arc::clone(database)),
        };
        let home = Home::new(file.parent().unwrap(), store, made.take());
        Self::at(home, config)
    }

    /// The file of the store.
    pub(crate) fn store(&self) -> &Path {
        let Place::File(path) = &self.home.store else { panic!("a test of files runs on a file") };
        path
    }

    /// Keeps the log from writing, as another program would that holds locks, until what is given is dropped.
    pub(crate) fn locked(&self) -> Locked {
        match &self.home.store {
            Place::File(path) => Locked::take(path),
            Place::Shared(database) => Locked::take_shared(database),
        }
    }

    /// A client with connections of its own.
    pub(crate) fn another_client(&self) -> Client {
        Client::of(self.address())
    }

    /// Begins a clean stop, as a signal would.
    pub(crate) fn begin_to_stop(&mut self) {
        if let Some(stop) = self.running.as_mut().and_then(|running| running.stop.take()) {
            // A log that panicked does not listen any more; that shows when its thread is joined.
            let _ = stop.send(());
        }
    }

    /// Stops it cleanly, and waits until it has stopped.
    pub(crate) fn stop(&mut self) {
        self.begin_to_stop();
        let Some(running) = self.running.take() else { return };
        let ended = running.thread.join();
        assert!(ended.is_ok() || thread::panicking(), "the log panicked");
    }

    fn at(home: Home, config: &str) -> Self {
        let (told, address) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let settings = home.settings(config);
        let thread = thread::spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let app = App::start(&settings, open(&settings).await).await.unwrap();
                told.send(app.addresses()[0]).unwrap();
                let _ = stopped.await;
                app.stop().await;
            });
        });
        let client = Client::of(address.recv().expect("a log that starts"));
        Self { client, running: Some(Running { stop: Some(stop), thread }), home }
    }
}

/// Opens the store. The lock of a log that was stopped a moment ago may still be held: by a process that
/// another test is starting (until it executes its program it shares every handle of this one), and by a
/// worker thread of the stopped server that has not dropped its last handle yet.
async fn open(settings: &Settings) -> Arc<dyn Engine> {
    let mut opened = None;
    until("nobody owns the store", async || {
        opened = Some(store::open(settings));
        !matches!(opened, Some(Err(StoreError::Owned { .. })))
    })
    .await;
    opened.unwrap().unwrap()
}

impl Home {
    fn new(directory: &Path, store: Place, made: Option<TempDir>) -> Self {
        Self { store, config: directory.join("sekali.toml"), made }
    }

    /// Settings read from a real file, except for what would let tests meet each other.
    fn settings(&self, config: &str) -> Settings {
        fs::write(&self.config, config).unwrap();
        let overrides = Overrides {
            bind: Some("127.0.0.1:0".to_owned()),
            store: Some(match &self.store {
                Place::File(path) => format!("sqlite:{}", path.display()),
                Place::Shared(database) => database.url(),
            }),
            log: None,
            ..Overrides::default()
        };
        config::load(Some(&self.config), &overrides).unwrap()
    }
}

impl Deref for Log {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stop();
    }
}
