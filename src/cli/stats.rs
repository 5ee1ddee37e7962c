//! `sekali stats`: what the server counts.

use super::Outcome;
use super::output::{self, Form, thousands};
use super::server::ReadArgs;
use crate::api::{Stats, Totals};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ReadArgs,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Outcome> {
    let stats = args.server.patient()?.stats().await?;
    args.form.one(&stats, text)?;
    Ok(Outcome::Done)
}

fn text(stats: &Stats) -> String {
    let row = |name: &str, of: fn(&Totals) -> u64| {
        vec![name.to_owned(), thousands(of(&stats.runtime)), thousands(of(&stats.persistent))]
    };
    let rows = [
        row("received", |totals| totals.total_events_received),
        row("accepted", |totals| totals.total_unique_events_processed),
        row("duplicates", |totals| totals.total_duplicate_events_dropped),
        row("conflicts", |totals| totals.total_conflicts),
        row("rejected", |totals| totals.total_events_rejected),
    ];
    format!(
        "{}\n\ntopics {}, shards {}, durability {}, up {:.0} s",
        output::table(&["events", "since start", "ever"], 1, rows),
        thousands(stats.topics_total),
        stats.shards,
        stats.durability,
        stats.uptime_seconds
    )
}
