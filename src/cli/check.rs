//! `sekali check`: what is wrong with a configuration file.

use std::path::PathBuf;

use anyhow::anyhow;

use super::{Outcome, output};
use crate::config::{self, Overrides};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file
    #[arg(long, value_name = "FILE", env = "SEKALI_CONFIG")]
    config: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let settings = config::load(Some(&args.config), &Overrides::default())?;
    // The file is at fault, and no argument, so that the exit code is 1.
    settings.server.check_listeners().map_err(|shared| anyhow!("{}: {shared}", args.config.display()))?;
    output::result(&format!("{}: no errors", args.config.display()))?;
    Ok(Outcome::Done)
}
