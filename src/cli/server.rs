//! Which server a command talks to.

use std::time::Duration;

use jiff::SignedDuration;

use super::output;
use crate::client::{Client, ClientError, Patient, Retry};

/// How long a read is tried again where nobody says how long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The argument that every client command has.
#[derive(Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// The server
    #[arg(long, env = "SEKALI_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
}

impl ServerArgs {
    /// A client of the server; nothing is sent yet.
    pub(super) fn client(&self) -> Result<Client, ClientError> {
        Client::new(&self.url)
    }
}

/// The arguments of commands that read.
#[derive(Debug, clap::Args)]
pub(super) struct ReadArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// How long a request is tried again while the server is overloaded or its answers are cut off; if
    /// given, also while the server cannot be reached at first [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    give_up_after: Option<Duration>,
}

impl ReadArgs {
    /// A client of the server that reads; nothing is sent yet.
    pub(super) fn patient(&self) -> Result<Patient, ClientError> {
        let retry = Retry {
            give_up_after: self.give_up_after.unwrap_or(PATIENCE),
            unreachable_at_first: self.give_up_after.is_some(),
        };
        Ok(Patient { client: self.server.client()?, retry, failed })
    }
}

/// Tells the user that a request is tried again.
pub(super) fn failed(error: &ClientError, delay: Duration) {
    output::talk(&format!("{error}; trying again in {:.1} s", delay.as_secs_f64()));
}

/// Reads a time such as "5m" from an argument.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let rule = "must be a time such as 30s, 5m or 1h";
    let signed: SignedDuration = text.parse().map_err(|_| rule.to_owned())?;
    Duration::try_from(signed).map_err(|_| rule.to_owned())
}

/// Whether the server says that its store does not hold the events that were read.
pub(super) fn is_of_another_history(error: &ClientError) -> bool {
    fork(error).is_some()
}

/// An error with the place to resume at, if the history of the store changed.
pub(super) fn where_to_resume(error: ClientError) -> anyhow::Error {
    let Some((history, common_seq)) = fork(&error) else { return error.into() };
    let words = format!(
        "the store does not hold all events that were read; resume with --after {common_seq} --history \
         {history}"
    );
    anyhow::Error::new(error).context(words)
}

fn fork(error: &ClientError) -> Option<(&str, u64)> {
    let problem = error.refused()?.problem.as_ref()?;
    Some((problem.history.as_deref()?, problem.common_seq?))
}
