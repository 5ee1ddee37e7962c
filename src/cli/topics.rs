//! `sekali topics`: the topics and their counts.

use super::Outcome;
use super::output::{self, Form, thousands};
use super::server::ReadArgs;
use crate::api::TopicStats;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ReadArgs,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Outcome> {
    const HEADER: [&str; 6] = ["topic", "last received", "events", "duplicates", "conflicts", "lanes"];
    let topics = args.server.patient()?.topics().await?;
    args.form.list(topics, |topics| output::table(&HEADER, 2, topics.into_iter().map(row)))?;
    Ok(Outcome::Done)
}

fn row(topic: TopicStats) -> Vec<String> {
    let numbers = [topic.accepted, topic.duplicates, topic.conflicts].map(thousands);
    let mut row = vec![topic.topic, topic.last_received_at];
    row.extend(numbers);
    row.push(topic.lanes.to_string());
    row
}
