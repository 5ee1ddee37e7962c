//! `sekali completions`: what a shell needs to complete the commands and options of this program.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Outcome, output};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sekali", &mut script);
    output::result(String::from_utf8(script)?.trim_end())?;
    Ok(Outcome::Done)
}
