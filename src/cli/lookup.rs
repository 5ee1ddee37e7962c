//! `sekali lookup`: whether events are stored, and since when.

use anyhow::Context;
use serde::Serialize;
use thiserror::Error;

use super::Outcome;
use super::output::{self, Form};
use super::server::ReadArgs;
use crate::api::{Found, Key};
use crate::client::{ClientError, Patient};

/// Keys of one request, well under every limit of a server.
const KEYS: usize = 1000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ReadArgs,
    /// The topic
    topic: String,
    /// The ids of events
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    form: Form,
}

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    key: Key,
    /// Null where the event is not stored.
    found: Option<Found>,
}

/// Nobody said whether the events are stored, which is not the same as that they are not.
#[derive(Debug, Error)]
#[error("it is not known whether the events are stored")]
pub(super) struct NotKnown;

pub(super) async fn run(args: Args) -> anyhow::Result<Outcome> {
    let patient = args.server.patient()?;
    let keys = args.ids.into_iter().map(|event_id| Key { topic: args.topic.clone(), event_id });
    let keys: Vec<Key> = keys.collect();
    let found = ask(&patient, &keys).await.context(NotKnown)?;
    let outcome = if found.contains(&None) { Outcome::Failed } else { Outcome::Done };
    let answers = keys.into_iter().zip(found).map(|(key, found)| Answer { key, found }).collect();
    args.form.list(answers, |answers| {
        output::table(&["event_id", "received at", "seq"], 2, answers.into_iter().map(row))
    })?;
    Ok(outcome)
}

async fn ask(patient: &Patient, keys: &[Key]) -> Result<Vec<Option<Found>>, ClientError> {
    let mut found = Vec::with_capacity(keys.len());
    for some in keys.chunks(KEYS) {
        found.append(&mut patient.lookup(some).await?);
    }
    Ok(found)
}

fn row(answer: Answer) -> Vec<String> {
    let (received_at, seq) = match answer.found {
        Some(found) => (found.received_at, found.seq.to_string()),
        None => ("not stored".to_owned(), "-".to_owned()),
    };
    vec![answer.key.event_id, received_at, seq]
}
