//! sekali itself, over HTTP, with its default configuration unless another is given: durability full.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use async_trait::async_trait;
use rustix::process::Signal;

use super::{Peer, Running, find};
use crate::drive::{Driven, drive};
use crate::environment::said;
use crate::http::{Http, Verdicts, publish};
use crate::plan::Load;
use crate::process::{Meter, Server, address_behind};
use crate::reads::Reads;
use crate::wire::Wire;

/// The program to measure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Sekali {
    /// The `sekali` program
    #[arg(id = "sekali", long = "sekali", value_name = "FILE", default_value = "target/release/sekali")]
    program: PathBuf,
    /// The configuration file of sekali; without it, the defaults
    #[arg(long = "sekali-config", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A server that speaks HTTP.
pub(super) struct Serving {
    server: Server,
    address: SocketAddr,
    verdicts: Verdicts,
}

impl Sekali {
    /// Starts it on the store in this directory, which may be there already.
    pub(crate) fn serve(&self, directory: &Path) -> anyhow::Result<(Server, SocketAddr)> {
        self.serve_store(&format!("sqlite:{}", directory.join("log.db").display()))
    }

    /// Starts it on a store, by its URL.
    pub(super) fn serve_store(&self, url: &str) -> anyhow::Result<(Server, SocketAddr)> {
        let mut command = Command::new(find(Some(&self.program), "sekali")?);
        for variable in ["SEKALI_CONFIG", "SEKALI_BIND", "SEKALI_STORE", "SEKALI_LOG"] {
            command.env_remove(variable);
        }
        command.args(["serve", "--bind", "127.0.0.1:0", "--log", "info", "--store", url]);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        Server::start(&mut command, Signal::TERM, address_of)
    }
}

/// The address in the line with which an HTTP server says that it is ready.
pub(crate) fn address_of(line: &str) -> Option<SocketAddr> {
    address_behind("listening on http://", line)
}

#[async_trait(?Send)]
impl Peer for Sekali {
    fn name(&self) -> &'static str {
        "sekali"
    }

    fn promise(&self) -> &'static str {
        "synced, remembered for ever"
    }

    fn version(&self) -> anyhow::Result<String> {
        said(Command::new(find(Some(&self.program), "sekali")?).arg("--version"))
    }

    async fn start(&self, directory: &Path) -> anyhow::Result<Box<dyn Running>> {
        let (server, address) = self.serve(directory)?;
        Ok(Box::new(Serving::node(server, address)))
    }
}

impl Serving {
    /// A server that says the fate of each event.
    pub(super) fn node(server: Server, address: SocketAddr) -> Self {
        Self { server, address, verdicts: Verdicts::InBody }
    }

    /// A server that answers without deciding anything.
    pub(super) fn bare(server: Server, address: SocketAddr) -> Self {
        Self { server, address, verdicts: Verdicts::None }
    }

    /// Sends a load; `meter` says what it costs.
    pub(super) async fn publish_measured(&self, load: &Load, meter: &Meter) -> anyhow::Result<Driven> {
        let mut connections = Vec::new();
        for lane in load.lanes() {
            let requests = load.requests(lane, |plan, steps| Ok(publish(plan, steps)))?;
            let connection = Wire::open(self.address, Http::new(self.verdicts)).await?;
            connections.push((connection, requests));
        }
        let lanes = connections
            .iter_mut()
            .map(|(connection, requests)| (connection, std::mem::take(requests).into_iter().map(Ok)));
        drive(lanes.collect(), load.shape.limit, meter).await
    }
}

#[async_trait(?Send)]
impl Running for Serving {
    fn meter(&self) -> Meter {
        Meter::of(&self.server)
    }

    async fn publish(&mut self, load: &Load) -> anyhow::Result<Driven> {
        self.publish_measured(load, &self.meter()).await
    }

    async fn stored(&mut self) -> anyhow::Result<Option<u64>> {
        if matches!(self.verdicts, Verdicts::None) {
            return Ok(None);
        }
        Ok(Some(Reads { address: self.address, seed: 0 }.stored().await?))
    }

    async fn stop(self: Box<Self>) -> anyhow::Result<()> {
        self.server.stop()
    }
}
