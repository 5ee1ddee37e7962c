//! Wires everything, and owns the order of start and stop.
//!
//! Start: store, pipeline, server. Stop: first no new requests and no followers, then the server when every request is answered,
//! then the pipeline when everything published is committed.

mod signals;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix_web::dev::ServerHandle;
use actix_web::rt;
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinHandle;

pub use self::signals::{Signals, outlive_file_limit};

use crate::config::{Settings, StoreUrl};
use crate::http::{self, State};
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::store::{self, Engine, Tell};
pub use crate::store::{Copied, Cure, Doctor, Progress, Report, Transferred};

/// A running log.
pub struct App {
    addresses: Vec<SocketAddr>,
    state: Arc<State>,
    pipeline: Pipeline,
    handle: ServerHandle,
    server: JoinHandle<io::Result<()>>,
    ops: Option<Ops>,
}

/// The listener for health and metrics.
struct Ops {
    addresses: Vec<SocketAddr>,
    handle: ServerHandle,
}

/// Runs the log until a signal stops it.
///
/// # Errors
/// When it cannot start ([`crate::config::SharedListener`] where both listeners are one), when its
/// server fails, or when a second signal stopped it before it was done.
pub fn run(settings: &Settings) -> Result<()> {
    settings.server.check_listeners()?;
    tell_exposure(&settings.store.url);
    raise_file_limit();
    actix::System::new().block_on(async {
        // Signals are caught before anything is open, so that none is missed.
        let mut signals = Signals::catch()?;
        let app = App::start(settings, open_store(settings)?).await?;
        app.run_until(&mut signals).await
    })
}

/// Logs once which protection the connections to the database lack.
fn tell_exposure(url: &StoreUrl) {
    match url.exposure() {
        Some(exposure) if exposure.is_clear_text() => {
            tracing::warn!(hosts = exposure.hosts(), "{exposure}");
        }
        Some(exposure) => tracing::info!(hosts = exposure.hosts(), "{exposure}"),
        None => {}
    }
}

/// Takes as many file handles as the system allows: what it gives without being asked, 1,024 in most places, is less than
/// a thousand followers need.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, ..limit };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
}

/// A store by a name that does not depend on where the process was started: elsewhere a relative path is another, empty log.
fn found(url: &StoreUrl) -> StoreUrl {
    match url {
        StoreUrl::Sqlite(path) => {
            StoreUrl::Sqlite(std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        }
        StoreUrl::Postgres(_) => url.clone(),
    }
}

/// Opens the configured store.
fn open_store(settings: &Settings) -> Result<Arc<dyn Engine>> {
    store::open(settings).with_context(|| format!("{} cannot be opened", settings.store.url))
}

/// Takes over the configured store, to be checked while no server runs on it.
///
/// # Errors
/// When a server runs on it, when it is not there, or when it is no store that this program knows.
pub fn doctor(settings: &Settings) -> Result<Doctor> {
    let url = &settings.store.url;
    if let StoreUrl::Postgres(_) = url {
        bail!(
            "{url} cannot be examined: the doctor is for SQLite files; PostgreSQL has tools of its own, such as pg_amcheck"
        );
    }
    Doctor::open(settings).with_context(|| format!("{url} cannot be examined"))
}

/// Copies the configured store to a file that is not there yet, also while a server runs on it, and checks the copy.
/// Blocks; `stop` ends it.
///
/// # Errors
/// When the store cannot be read, the file cannot be written, or the copy is not whole; nothing is left of it then.
pub fn backup(settings: &Settings, to: &Path, tell: Tell<'_>, stop: &Arc<AtomicBool>) -> Result<Copied> {
    let url = &settings.store.url;
    if let StoreUrl::Postgres(_) = url {
        bail!(
            "{url} is not copied: backups are of SQLite files; PostgreSQL has tools of its own, such as pg_dump"
        );
    }
    store::copy(settings, to, tell, stop).with_context(|| format!("{url} is not copied"))
}

/// Copies what one store holds to another one, which holds nothing or a part of it; `settings` say all that is not where
/// they are. Blocks; `stop` ends it.
///
/// # Errors
/// When a store cannot be read or written, when servers run there, or when the other one holds something else.
pub fn copy(
    settings: &Settings,
    from: StoreUrl,
    to: StoreUrl,
    tell: Tell<'_>,
    stop: &AtomicBool,
) -> Result<Transferred> {
    let failed = format!("{from} is not copied to {to}");
    let at = |url| {
        let mut settings = settings.clone();
        settings.store.url = url;
        settings
    };
    store::transfer(&at(from), &at(to), tell, stop).context(failed)
}

impl App {
    /// Starts a log on this engine: when this returns, it listens. Must be called in an actix system.
    ///
    /// # Errors
    /// When the store cannot be written or the address not listened on.
    pub async fn start(settings: &Settings, engine: Arc<dyn Engine>) -> Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let (reader, news) = (engine.reader(), engine.news());
        let pipeline =
            Pipeline::start(settings, engine, metrics.clone()).context("the store cannot be opened")?;
        let state = Arc::new(State::new(settings, reader, news, pipeline.clone(), metrics));
        let bound = match Self::bind(settings, &state) {
            Ok(bound) => bound,
            Err(error) => {
                pipeline.stop().await;
                return Err(error);
            }
        };
        let (bound, ops) = bound;
        let ops = ops.map(|ops| {
            let handle = ops.server.handle();
            // Its end is that of the whole process, or of its own thread, which the health check sees.
            rt::spawn(ops.server);
            Ops { addresses: ops.addresses, handle }
        });
        if let Some(ops) = &ops {
            tracing::info!("health and metrics on {}", urls(&ops.addresses));
        }
        let app = Self {
            addresses: bound.addresses,
            state,
            pipeline,
            handle: bound.server.handle(),
            server: rt::spawn(bound.server),
            ops,
        };
        tracing::info!(
            store = %found(&settings.store.url),
            durability = app.pipeline.durability(),
            shards = app.pipeline.shards(),
            "listening on {}",
            urls(&app.addresses)
        );
        Ok(app)
    }

    /// The addresses that it listens on; at least one, and with the real port where port 0 was asked for.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The addresses that it listens on for health and metrics alone; none without `server.ops_bind`.
    #[must_use]
    pub fn ops_addresses(&self) -> &[SocketAddr] {
        self.ops.as_ref().map_or(&[], |ops| &ops.addresses)
    }

    fn bind(settings: &Settings, state: &Arc<State>) -> Result<(http::Bound, Option<http::Bound>)> {
        let bound = http::bind(state).with_context(|| {
            let bind = &settings.server.bind;
            format!("cannot listen on {bind} (--bind or server.bind can give another one)")
        })?;
        let ops = http::bind_ops(state).with_context(|| {
            let bind = settings.server.ops_bind.as_deref().unwrap_or_default();
            format!("cannot listen on {bind} (--ops-bind or server.ops_bind can give another one)")
        })?;
        Ok((bound, ops))
    }

    /// Stops: no new requests, answers to those in flight within `server.shutdown_timeout`, idle connections
    /// closed, everything published committed, the store left with nothing to recover.
    pub async fn stop(self) {
        tracing::info!("stopping");
        self.state.stop();
        self.handle.stop(true).await;
        self.pipeline.stop().await;
        // To the end it says that the process is alive.
        if let Some(ops) = self.ops {
            ops.handle.stop(false).await;
        }
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

/// Addresses as a person opens them.
fn urls(addresses: &[SocketAddr]) -> String {
    let urls: Vec<_> = addresses.iter().map(|address| format!("http://{address}")).collect();
    urls.join(", ")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::http::tests::{Fake, settings};

    /// Far longer than anything takes on a busy machine.
    const PATIENCE: Duration = Duration::from_mins(2);

    async fn started() -> App {
        let mut settings = settings();
        // A stop that waits for it is found out.
        settings.server.shutdown_timeout = PATIENCE * 5;
        App::start(&settings, Arc::new(Fake::default())).await.unwrap()
    }

    fn connected(app: &App) -> TcpStream {
        let stream = TcpStream::connect(app.addresses()[0]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What can be read until the other end closes.
    async fn rest(mut stream: TcpStream) -> String {
        let reading = rt::task::spawn_blocking(move || {
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        });
        reading.await.unwrap().unwrap()
    }

    #[actix_web::test]
    async fn a_stop_answers_what_is_in_flight_and_closes_what_is_idle() {
        let app = started().await;
        let (mut idle, mut busy) = (connected(&app), connected(&app));
        idle.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        busy.write_all(b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n[").unwrap();
        while app.pipeline.budget().bytes_in_flight() == 0 {
            rt::time::sleep(Duration::from_millis(1)).await;
        }
        let address = app.addresses()[0];
        let stop = rt::spawn(app.stop());
        // Its end comes while the other one is still in flight.
        let idle = rest(idle).await;
        assert!(idle.starts_with("HTTP/1.1 200"), "{idle}");
        busy.write_all(b"]").unwrap();
        let busy = rest(busy).await;
        assert!(busy.starts_with("HTTP/1.1 200") && busy.contains("\"received\":0"), "{busy}");
        timeout(PATIENCE, stop).await.expect("it waits for nobody").unwrap();
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }

    #[actix_web::test]
    async fn an_address_that_is_taken_is_an_error() {
        let app = started().await;
        let mut same = settings();
        same.server.bind = app.addresses()[0].to_string();
        let error = App::start(&same, Arc::new(Fake::default())).await.err().unwrap();
        assert!(error.to_string().contains(&same.server.bind), "{error}");
        app.stop().await;
    }
}
