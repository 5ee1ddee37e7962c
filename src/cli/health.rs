//! `sekali health`: whether the server is ready to store events.

use std::time::Duration;

use super::server::{ServerArgs, duration};
use super::{Outcome, output};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// How long to wait for the answer
    #[arg(long, default_value = "5s", value_parser = duration)]
    timeout: Duration,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Outcome> {
    let client = args.server.client()?;
    client.ready(args.timeout).await?;
    output::result(&format!("{} is ready", client.url()))?;
    Ok(Outcome::Done)
}
