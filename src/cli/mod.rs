//! The command line: one file a command. Results go to standard output, talk to standard error; `EXIT_CODES` says
//! what the exit code is.

mod backup;
mod bench;
mod check;
mod completions;
mod copy;
mod doctor;
mod events;
mod follow;
mod health;
mod interrupt;
mod lookup;
mod man;
mod output;
mod publish;
mod serve;
mod server;
mod stats;
#[cfg(test)]
mod tests;
mod topics;

use std::ffi::OsStr;
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::app;
use crate::client::ClientError;
use crate::config::{ConfigErrors, SharedListener, StoreUrl, home_rule};

/// What the exit code says, for the help and the manual page.
const EXIT_CODES: &str = "\
Exit codes: 0 is done; 1 is failed, or that the answer is no (an event is not stored, something is damaged, the server is not \
ready); 2 is wrong usage: an argument, or a variable in its place, that cannot be right, and nothing was done. `lookup` alone \
has 3: the server did not say whether the events are stored.";

/// Wrong usage, the same as clap's.
const WRONG_USAGE: u8 = 2;

/// An answer was asked for, and is not known.
const NOT_KNOWN: u8 = 3;

/// An idempotent event log: every event stored exactly once, durable before it is acknowledged.
#[derive(Debug, Parser)]
#[command(name = "sekali", version, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the log; the same as `sekali` alone
    Serve(serve::Args),
    /// Send events, again and again until each is known to be stored
    Publish(publish::Args),
    /// Read a topic: one event a line
    Events(events::Args),
    /// Show what the server counts
    Stats(stats::Args),
    /// List the topics
    Topics(topics::Args),
    /// Ask whether events are stored, and since when; exit 1 if one is not, 3 if nobody says so
    Lookup(lookup::Args),
    /// Put load on a server, with duplicates, then verify that every event is stored exactly once
    Bench(bench::Args),
    /// Say what is wrong with a configuration file
    Check(check::Args),
    /// Copy a store to a new file, also while a server runs on it
    Backup(backup::Args),
    /// Copy a store to another one, such as a SQLite file to PostgreSQL, or go on with a copy
    Copy(copy::Args),
    /// Check a stopped store, and build its index again if asked to; exit 1 if something is damaged
    Doctor(doctor::Args),
    /// Exit 0 when the server is ready (for container health checks)
    Health(health::Args),
    /// Write what a shell needs to complete commands and options
    Completions(completions::Args),
    /// Write the manual page of `sekali`, or those of all commands to a directory
    Man(man::Args),
}

/// How a command that ran to its end ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
}

/// Arguments that clap takes and that cannot be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUsage(String);

/// Refuses a path to be written that begins with `~`, such as one in quotes.
fn written_path(name: &str, path: &Path) -> Result<(), WrongUsage> {
    let fault = |rule| WrongUsage(format!("{name}: {rule}, found {:?}", path.display().to_string()));
    home_rule(path, "").map_or(Ok(()), |rule| Err(fault(rule)))
}

/// Whether an argument, or its value behind `=`, is the URL of a database with its password.
fn holds_password(argument: &OsStr) -> bool {
    let Some(text) = argument.to_str() else { return false };
    let value =
        text.strip_prefix("--").and_then(|flag| flag.split_once('=')).map_or(text, |(_, value)| value);
    matches!(StoreUrl::parse(value), Ok(StoreUrl::Postgres(url)) if url.has_password())
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    // Before anything is written, such as help to a file.
    let caught = app::outlive_file_limit();
    // Wrong usage that clap sees ends the process here.
    let cli = Cli::parse();
    if std::env::args_os().skip(1).any(|argument| holds_password(&argument)) {
        output::talk(
            "warning: an argument holds the password of the database, and every user of this machine can \
             read the arguments of a process; give the password by SEKALI_STORE_PASSWORD_FILE or \
             SEKALI_STORE_PASSWORD, and the URL without it",
        );
    }
    let caught = caught.context("the signal SIGXFSZ cannot be caught");
    match caught.and_then(|()| run(cli.command.unwrap_or(Command::Serve(cli.serve)))) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Err(error) => {
            output::talk(&explain(&error));
            code_of(&error)
        }
    }
}

/// The exit code of an error, as `EXIT_CODES` says.
fn code_of(error: &anyhow::Error) -> ExitCode {
    let is_usage = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<WrongUsage>()
            || cause.is::<SharedListener>()
            || matches!(cause.downcast_ref(), Some(ClientError::Url(_)))
            || cause.downcast_ref().is_some_and(ConfigErrors::are_of_usage)
    };
    if error.chain().any(is_usage) {
        ExitCode::from(WRONG_USAGE)
    } else if error.is::<lookup::NotKnown>() {
        ExitCode::from(NOT_KNOWN)
    } else {
        ExitCode::FAILURE
    }
}

fn run(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Publish(args) => block_on(publish::run(args)),
        Command::Events(args) => block_on(events::run(args)),
        Command::Stats(args) => block_on(stats::run(args)),
        Command::Topics(args) => block_on(topics::run(args)),
        Command::Lookup(args) => block_on(lookup::run(args)),
        Command::Bench(args) => block_on(bench::run(args)),
        Command::Check(args) => check::run(&args),
        Command::Backup(args) => block_on(backup::run(args)),
        Command::Copy(args) => block_on(copy::run(args)),
        Command::Doctor(args) => doctor::run(&args),
        Command::Health(args) => block_on(health::run(args)),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

fn block_on<T>(command: impl Future<Output = T>) -> T {
    actix_web::rt::System::new().block_on(command)
}

/// An error as the user sees it.
fn explain(error: &anyhow::Error) -> String {
    if let Some(errors) = error.downcast_ref::<ConfigErrors>() {
        // Each line begins with its file and line, where editors look for them.
        return errors.to_string();
    }
    let text = format!("error: {error:#}");
    match error.chain().find_map(|cause| cause.downcast_ref::<ClientError>()) {
        Some(ClientError::Unreachable { .. }) => {
            format!(
                "{text}\nStart a server with `sekali serve`, or name another one with --url or SEKALI_URL."
            )
        }
        _ => text,
    }
}
