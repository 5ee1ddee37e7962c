//! `sekali check`: what is wrong with a configuration file.

use std::path::PathBuf;

use super::{Outcome, output};
use crate::config::{self, Overrides};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file
    #[arg(long, value_name = "FILE", env = "SEKALI_CONFIG")]
    config: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    config::load(Some(&args.config), &Overrides::default())?;
    output::result(&format!("{}: no errors", args.config.display()))?;
    Ok(Outcome::Done)
}
