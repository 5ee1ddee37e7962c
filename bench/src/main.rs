//! `sekali-bench`: one workload against sekali and against what people would use instead, side by side. How it
//! measures, and what came out, stands in docs/BENCHMARKS.md.

mod chart;
mod compare;
mod disk;
mod drive;
mod environment;
mod follow;
mod growth;
mod http;
mod output;
mod peers;
mod process;
mod reads;
mod report;
mod results;
mod table;
mod topics;
mod wire;

use std::future::Future;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, Subcommand};
use sekali_bench::plan;
use tokio::signal::unix::{SignalKind, signal};

/// Measure sekali and its peers.
#[derive(Debug, Parser)]
#[command(name = "sekali-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the workload against every peer, in turn, and print a table
    Compare(Box<compare::Args>),
    /// Fill a store of sekali, kill it, restart it and read
    Growth(Box<growth::Args>),
    /// Compare very many topics with four
    Topics(topics::Args),
    /// Measure how long after its answer an event reaches followers
    Follow(follow::Args),
    /// Write tables and charts into the document
    Report(report::Args),
    /// Serve the ceiling of HTTP
    #[command(name = peers::bare::COMMAND, hide = true)]
    BareHttp,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::talk(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Compare(args) => block_on(compare::run(*args, command_line())),
        Command::Growth(args) => block_on(growth::run(*args, command_line())),
        Command::Topics(args) => block_on(topics::run(args, command_line())),
        Command::Follow(args) => block_on(follow::run(args)),
        Command::Report(args) => report::run(&args),
        Command::BareHttp => peers::bare::serve(),
    }
}

/// Runs until it is done or told to end; either way what it started is ended with it.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // One thread: the client has to leave the cores to the server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        tokio::select! {
            done = work => done,
            _ = terminated.recv() => bail!("told to end"),
            _ = interrupted.recv() => bail!("told to end"),
        }
    })
}

/// How the program was called, without where its files are: for the results.
fn command_line() -> String {
    let shown = std::env::args().skip(1).map(|word| match word.rsplit_once('/') {
        Some((_, name)) => name.to_owned(),
        None => word,
    });
    std::iter::once("sekali-bench".to_owned()).chain(shown).collect::<Vec<_>>().join(" ")
}
