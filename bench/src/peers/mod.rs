//! Who is measured: one file a peer, behind one face.

pub(crate) mod bare;
mod nats;
mod postgres;
mod redis;
mod sekali;
mod sqlite;

use std::path::{Path, PathBuf};

use anyhow::Context;
use async_trait::async_trait;

use crate::drive::Driven;
use crate::plan::Load;
use crate::process::Meter;

pub(crate) use sekali::Sekali;

/// Something that stores events, or, for a ceiling, only answers.
#[async_trait(?Send)]
pub(crate) trait Peer {
    /// Its name in tables, which is also how it is chosen.
    fn name(&self) -> &'static str;

    /// What an acknowledgement of it means, for tables.
    fn promise(&self) -> &'static str;

    /// Finds it, and says its version.
    ///
    /// # Errors
    /// When it is not there: then it is left out.
    fn version(&self) -> anyhow::Result<String>;

    /// Starts it with an empty store in this directory.
    async fn start(&self, directory: &Path) -> anyhow::Result<Box<dyn Running>>;

    /// The directory with its write-ahead log, where that is of a fixed size and not a part of what is kept.
    fn log_directory(&self) -> Option<&'static str> {
        None
    }
}

/// A peer that is ready. Dropped, it ends.
#[async_trait(?Send)]
pub(crate) trait Running {
    /// Reads what it costs.
    fn meter(&self) -> Meter;

    /// Makes the requests, then sends them and measures.
    async fn publish(&mut self, load: &Load) -> anyhow::Result<Driven>;

    /// How many events it says that it has stored; none where it stores nothing.
    async fn stored(&mut self) -> anyhow::Result<Option<u64>>;

    /// Ends it in its own way.
    async fn stop(self: Box<Self>) -> anyhow::Result<()>;
}

/// Where programs of peers are; those not named are looked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Programs {
    #[command(flatten)]
    sekali: Sekali,
    /// The `nats-server` program; without it, the one on PATH
    #[arg(long, value_name = "FILE")]
    nats: Option<PathBuf>,
    /// The `redis-server` program; without it, the one on PATH
    #[arg(long, value_name = "FILE")]
    redis: Option<PathBuf>,
    /// The directory with PostgreSQL's programs; without it, that on PATH or in Debian's place
    #[arg(long, value_name = "DIRECTORY")]
    postgres: Option<PathBuf>,
}

/// All peers, in the order of tables.
pub(crate) fn all(programs: &Programs) -> Vec<Box<dyn Peer>> {
    let database = postgres::Installed::new(programs.postgres.clone());
    vec![
        Box::new(programs.sekali.clone()),
        Box::new(nats::Nats::new(programs.nats.clone(), nats::Sync::Default)),
        Box::new(nats::Nats::new(programs.nats.clone(), nats::Sync::Always)),
        Box::new(redis::Redis::new(programs.redis.clone(), redis::Sync::EverySecond)),
        Box::new(redis::Redis::new(programs.redis.clone(), redis::Sync::Always)),
        Box::new(postgres::Plain::new(database.clone(), postgres::Work::Keys)),
        Box::new(postgres::Plain::new(database.clone(), postgres::Work::Seqs)),
        Box::new(postgres::Shared::new(programs.sekali.clone(), database)),
        Box::new(sqlite::Sqlite),
        Box::new(bare::Bare),
    ]
}

/// A program by the path given, or on `PATH`.
fn find(given: Option<&Path>, name: &str) -> anyhow::Result<PathBuf> {
    match given {
        Some(path) => which::which(path).with_context(|| format!("{} is no program", path.display())),
        None => which::which(name).with_context(|| format!("{name} is not on PATH")),
    }
}
