//! sekali on a PostgreSQL server of its own, on the same machine.

use std::path::Path;

use async_trait::async_trait;

use super::LOG;
use super::server::{Database, Installed};
use crate::drive::Driven;
use crate::peers::sekali::{Sekali, Serving};
use crate::peers::{Peer, Running};
use crate::plan::Load;
use crate::process::Meter;

/// Both programs.
#[derive(Debug)]
pub(in crate::peers) struct Shared {
    sekali: Sekali,
    database: Installed,
}

/// Both, running. What is dropped first ends first.
struct Both {
    node: Serving,
    database: Database,
}

impl Shared {
    pub(in crate::peers) fn new(sekali: Sekali, database: Installed) -> Self {
        Self { sekali, database }
    }
}

#[async_trait(?Send)]
impl Peer for Shared {
    fn name(&self) -> &'static str {
        "sekali-postgres"
    }

    fn promise(&self) -> &'static str {
        "synced, remembered for ever"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(format!("{} on {}", self.sekali.version()?, self.database.version()?))
    }

    fn log_directory(&self) -> Option<&'static str> {
        Some(LOG)
    }

    async fn start(&self, directory: &Path) -> anyhow::Result<Box<dyn Running>> {
        let database = self.database.start(directory)?;
        let (server, address) = self.sekali.serve_store(&database.url())?;
        Ok(Box::new(Both { node: Serving::node(server, address), database }))
    }
}

#[async_trait(?Send)]
impl Running for Both {
    fn meter(&self) -> Meter {
        self.node.meter().and(&self.database.server)
    }

    async fn publish(&mut self, load: &Load) -> anyhow::Result<Driven> {
        let meter = self.meter();
        self.node.publish_measured(load, &meter).await
    }

    async fn stored(&mut self) -> anyhow::Result<Option<u64>> {
        self.node.stored().await
    }

    async fn stop(self: Box<Self>) -> anyhow::Result<()> {
        let Self { node, database } = *self;
        Box::new(node).stop().await?;
        database.server.stop()
    }
}
