//! Which server a command talks to.

use std::time::Duration;

use jiff::SignedDuration;

use crate::client::{Client, ClientError};

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

/// Reads a time such as "5m" from an argument.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let rule = "must be a time such as 30s, 5m or 1h";
    let signed: SignedDuration = text.parse().map_err(|_| rule.to_owned())?;
    Duration::try_from(signed).map_err(|_| rule.to_owned())
}
