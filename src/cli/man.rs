//! `sekali man`: the manual pages.

use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use super::{Cli, Outcome, output, written_path};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A directory for the pages of all commands, such as ~/.local/share/man/man1
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        Man::new(command()).render(&mut page)?;
        output::result(String::from_utf8(page)?.trim_end())?;
        return Ok(Outcome::Done);
    };
    written_path("DIR", dir)?;
    let written = || format!("the pages cannot be written to {}", dir.display());
    std::fs::create_dir_all(dir).with_context(written)?;
    clap_mangen::generate_to(command(), dir).with_context(written)?;
    Ok(Outcome::Done)
}

/// The program without `sekali help`, whose pages would say nothing.
fn command() -> clap::Command {
    Cli::command().disable_help_subcommand(true)
}
