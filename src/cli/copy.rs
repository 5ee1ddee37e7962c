//! `sekali copy`: from store to store.

use std::path::PathBuf;

use serde::Serialize;

use super::output::{self, counted, thousands};
use super::{Outcome, WrongUsage, interrupt};
use crate::app::{self, Transferred};
use crate::config::{self, Exposure, Overrides, StoreUrl};

/// What is copied, what may run meanwhile, and what a second run does.
const AFTER: &str = "\
Everything is copied: events with their seqs and times, counters, what explains duplicates. No server may run on a SQLite file \
that is copied, nor on TO; nodes may run on a PostgreSQL database that is copied, and a second run copies what they took \
meanwhile. It can be stopped and killed at any time: TO is refused by `sekali serve` until the same command has been run \
to its end. What was copied already is not copied again. docs/OPERATIONS.md says how to move a log with a short pause.";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct Args {
    /// The store to copy, such as sqlite:data/sekali.db
    #[arg(env = "SEKALI_COPY_FROM", hide_env_values = true)]
    from: String,
    /// The store to copy to, such as `postgres://USER@HOST/DATABASE`; empty, or as an earlier copy from FROM left it
    #[arg(env = "SEKALI_COPY_TO", hide_env_values = true)]
    to: String,
    /// A configuration file, for what is not the URL of a store; without one the defaults apply
    #[arg(long, value_name = "FILE", env = "SEKALI_CONFIG")]
    config: Option<PathBuf>,
    /// Give the result as JSON
    #[arg(long)]
    json: bool,
}

/// A copy, with the names of both stores.
#[derive(Serialize)]
struct Answer {
    from: String,
    to: String,
    #[serde(flatten)]
    transferred: Transferred,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Outcome> {
    let settings = config::load(args.config.as_deref(), &Overrides::default())?;
    let parse = |name, url: &str| StoreUrl::parse(url).map_err(|rule| WrongUsage(format!("{name}: {rule}")));
    let (mut from, mut to) = (parse("FROM", &args.from)?, parse("TO", &args.to)?);
    for url in [&mut from, &mut to] {
        url.find_password(settings.store.password_file.as_deref())?;
        if let Some(exposure) = url.exposure().filter(Exposure::is_clear_text) {
            output::talk(&format!("warning: {}: {exposure}", exposure.hosts()));
        }
    }
    let names = (from.to_string(), to.to_string());
    let transferred = interrupt::run(move |stop| {
        let bar = output::bar("{human_pos}/{human_len}");
        let copied = app::copy(&settings, from, to, &|progress| output::show(&bar, progress), stop);
        bar.finish_and_clear();
        copied
    })
    .await??;
    let answer = Answer { from: names.0, to: names.1, transferred };
    if args.json {
        output::json(&answer)?;
    } else {
        output::result(&text(&answer))?;
    }
    Ok(Outcome::Done)
}

fn text(answer: &Answer) -> String {
    let Transferred { events, copied, topics, .. } = answer.transferred;
    let (events, topics) = (counted(events, "event"), counted(topics, "topic"));
    format!("{}: {events} of {topics}, {} of them copied now", answer.to, thousands(copied))
}
