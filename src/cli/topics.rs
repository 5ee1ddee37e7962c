//! `sekali topics`: the topics and their counts.

use super::Outcome;
use super::output::{self, thousands};
use super::server::ServerArgs;
use crate::api::TopicStats;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Give a JSON array
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Outcome> {
    let topics = args.server.client()?.topics().await?;
    if args.json {
        output::json(&topics)?;
    } else {
        const HEADER: [&str; 6] = ["topic", "last received", "events", "duplicates", "conflicts", "lanes"];
        output::result(&output::table(&HEADER, 2, topics.into_iter().map(row)))?;
    }
    Ok(Outcome::Done)
}

fn row(topic: TopicStats) -> Vec<String> {
    let numbers = [topic.accepted, topic.duplicates, topic.conflicts].map(thousands);
    let mut row = vec![topic.topic, topic.last_received_at];
    row.extend(numbers);
    row.push(topic.lanes.to_string());
    row
}
