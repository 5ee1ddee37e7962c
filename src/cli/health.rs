//! `sekali health`: whether the server is ready to store events.

use std::time::Duration;

use super::server::{ServerArgs, duration};
use super::{Outcome, output};
use crate::client::{ClientError, Retry};

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
    // An answer that was cut off says nothing; every other failure is an answer to the question.
    let mut attempts = Retry::of(args.timeout).attempts();
    while let Err(error) = client.ready(args.timeout).await {
        if !matches!(error, ClientError::Broken { .. }) {
            return Err(error.into());
        }
        attempts.wait(error, &mut |_, _| {}).await?;
    }
    output::result(&format!("{} is ready", client.url()))?;
    Ok(Outcome::Done)
}
