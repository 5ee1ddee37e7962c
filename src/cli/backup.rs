//! `sekali backup`: a copy of a store, also while a server runs on it.

use std::path::PathBuf;

use indicatif::HumanBytes;
use serde::Serialize;

use super::output::{self, counted};
use super::{Outcome, interrupt, written_path};
use crate::app::{self, Copied};
use crate::config::{self, Overrides};

/// What the copy is, and how it is put back.
const AFTER: &str = "\
The copy is the store of one moment after this command began: every event that was acknowledged before is in it. The \
server goes on meanwhile; its write-ahead log grows until the copy is made. To go back to a copy: stop the server, move \
the store's file away and its -wal and -shm files with it, put the copy in its place, start the server. The restored \
store begins a new history: a reader that has read events which the copy lacks is told so.";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct Args {
    /// The file to write; it must not be there yet
    dest: PathBuf,
    /// The configuration file of the server; without one the defaults apply
    #[arg(long, value_name = "FILE", env = "SEKALI_CONFIG")]
    config: Option<PathBuf>,
    /// Where the events are, such as sqlite:data/sekali.db
    #[arg(long, value_name = "URL", env = "SEKALI_STORE", hide_env_values = true)]
    store: Option<String>,
    /// Give the result as JSON
    #[arg(long)]
    json: bool,
}

/// A copy and its name.
#[derive(Serialize)]
struct Answer {
    path: String,
    #[serde(flatten)]
    copied: Copied,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Outcome> {
    written_path("DEST", &args.dest)?;
    let overrides = Overrides { store: args.store, ..Overrides::default() };
    let settings = config::load(args.config.as_deref(), &overrides)?;
    let path = args.dest.display().to_string();
    let copied = interrupt::run(move |stop| {
        let bar = output::bar("{bytes}/{total_bytes}");
        let copied = app::backup(&settings, &args.dest, &|progress| output::show(&bar, progress), stop);
        bar.finish_and_clear();
        copied
    })
    .await??;
    if args.json {
        output::json(&Answer { path, copied })?;
    } else {
        let (events, topics) = (counted(copied.events, "event"), counted(copied.topics, "topic"));
        output::result(&format!("{path}: {events} of {topics}, {}", HumanBytes(copied.bytes)))?;
    }
    Ok(Outcome::Done)
}
