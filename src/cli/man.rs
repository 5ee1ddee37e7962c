//! `sekali man`: the manual pages.

use std::fs;
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
    fs::create_dir_all(dir).with_context(written)?;
    // In a new directory beside their place: no page is written through a link, or over a file, that
    // has its name already.
    let pages = tempfile::Builder::new().prefix(".sekali-man-").tempdir_in(dir).with_context(written)?;
    clap_mangen::generate_to(command(), pages.path()).with_context(written)?;
    for page in fs::read_dir(pages.path()).with_context(written)? {
        let page = page.with_context(written)?;
        // A rename replaces the name, and leaves the file that had it alone.
        fs::rename(page.path(), dir.join(page.file_name())).with_context(written)?;
    }
    Ok(Outcome::Done)
}

/// The program without `sekali help`, whose pages would say nothing.
fn command() -> clap::Command {
    Cli::command().disable_help_subcommand(true)
}
