//! `sekali serve`: runs the log.

use std::path::PathBuf;

use super::Outcome;
use crate::config::{self, Overrides, Settings};
use crate::telemetry;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A configuration file; without one the defaults apply
    #[arg(long, value_name = "FILE", env = "SEKALI_CONFIG")]
    config: Option<PathBuf>,
    /// Where to listen, HOST:PORT; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = "SEKALI_BIND")]
    bind: Option<String>,
    /// Where the events are, such as sqlite:data/sekali.db
    #[arg(long, value_name = "URL", env = "SEKALI_STORE")]
    store: Option<String>,
    /// What to log: error, warn, info, debug, trace, off, or a filter
    #[arg(long, value_name = "LEVEL", env = "SEKALI_LOG")]
    log: Option<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let overrides = Overrides { bind: args.bind.clone(), store: args.store.clone(), log: args.log.clone() };
    let settings = config::load(args.config.as_deref(), &overrides)?;
    telemetry::init(&settings.log)?;
    start(settings)?;
    Ok(Outcome::Done)
}

/// Runs the server until it is told to stop.
fn start(settings: Settings) -> anyhow::Result<()> {
    drop(settings);
    anyhow::bail!("this build has no server")
}
