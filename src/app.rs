//! Wires everything, and owns the order of start and stop.
//!
//! Start: store, pipeline, server. Stop: first no new requests, then the server when every request is answered,
//! then the pipeline when everything published is committed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::rt;
use anyhow::{Context, Result, anyhow};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::config::{Settings, StoreUrl};
use crate::http::{self, State};
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::store::{Engine, SqliteStore};

/// A running log.
pub struct App {
    addresses: Vec<SocketAddr>,
    state: Arc<State>,
    pipeline: Pipeline,
    handle: ServerHandle,
    server: JoinHandle<io::Result<()>>,
}

/// Runs the log until a signal stops it.
///
/// # Errors
/// When it cannot start, when its server fails, or when a second signal stopped it before it was done.
pub fn run(settings: &Settings) -> Result<()> {
    actix::System::new().block_on(async {
        // Signals are caught before anything is open, so that none is missed.
        let mut signals = Signals::catch()?;
        let app = App::start(settings, open_store(settings)?).await?;
        app.run_until(&mut signals).await
    })
}

/// Opens the configured store.
fn open_store(settings: &Settings) -> Result<Arc<dyn Engine>> {
    let store =
        SqliteStore::open(settings).with_context(|| format!("{} cannot be opened", store_name(settings)))?;
    Ok(Arc::new(store))
}

fn store_name(settings: &Settings) -> String {
    match &settings.store.url {
        StoreUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
    }
}

impl App {
    /// Starts a log on this engine: when this returns, it listens. Must be called in an actix system.
    ///
    /// # Errors
    /// When the store cannot be written or the address not listened on.
    pub async fn start(settings: &Settings, engine: Arc<dyn Engine>) -> Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let reader = engine.reader();
        let pipeline =
            Pipeline::start(settings, engine, metrics.clone()).context("the store cannot be opened")?;
        let state = Arc::new(State::new(settings, reader, pipeline.clone(), metrics));
        let bound = match http::bind(state.clone()) {
            Ok(bound) => bound,
            Err(error) => {
                pipeline.stop().await;
                return Err(error).with_context(|| format!("cannot listen on {}", settings.server.bind));
            }
        };
        let app = Self {
            addresses: bound.addresses,
            state,
            pipeline,
            handle: bound.server.handle(),
            server: rt::spawn(bound.server),
        };
        tracing::info!(
            store = store_name(settings),
            durability = app.pipeline.durability(),
            shards = app.pipeline.shards(),
            "listening on {}",
            app.urls()
        );
        Ok(app)
    }

    /// The addresses that it listens on; at least one, and with the real port where port 0 was asked for.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    fn urls(&self) -> String {
        let urls: Vec<_> = self.addresses.iter().map(|address| format!("http://{address}")).collect();
        urls.join(", ")
    }

    /// Stops: no new requests, answers to those in flight within `server.shutdown_timeout`, idle connections
    /// closed, everything published committed, the store left with nothing to recover.
    pub async fn stop(self) {
        tracing::info!("stopping");
        self.state.stop();
        self.handle.stop(true).await;
        self.pipeline.stop().await;
        tracing::info!("stopped");
    }

    async fn run_until(mut self, signals: &mut Signals) -> Result<()> {
        tokio::select! {
            () = signals.next() => {}
            ended = &mut self.server => {
                self.pipeline.stop().await;
                return match ended {
                    Ok(Ok(())) => Err(anyhow!("the server ended by itself")),
                    Ok(Err(error)) => Err(error).context("the server failed"),
                    Err(error) => Err(error).context("the server failed"),
                };
            }
        }
        tokio::select! {
            () = self.stop() => Ok(()),
            () = signals.next() => Err(anyhow!("stopped at once by a second signal")),
        }
    }
}

/// The signals that stop the log.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
