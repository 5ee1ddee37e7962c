//! `sekali publish`: the at-least-once producer. It sends every event until its fate is known, so that running
//! it again with the same input changes nothing and is always safe.

mod document;
mod input;
mod progress;
mod queue;
mod sender;

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, stdin};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::Outcome;
use super::output::{self, thousands};
use super::server::{ServerArgs, duration};
use crate::client::{ClientError, Retry};
use input::{InputError, InputEvent};
use progress::Progress;
use queue::{BatchSize, Queue};
use sender::{Sender, Tally, Unknown};

/// Bytes of a request, about.
const BATCH_BYTES: usize = 4 << 20;
/// Bytes that are read from the input at once.
const READ_BYTES: usize = 256 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Events as NDJSON (one a line), a JSON array, one JSON object, or {"events":[...]}; - is standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Events of one request at most
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = range(10_000))]
    batch: usize,
    /// Requests at once; with more than one the events of a topic may be stored in another order
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = range(64))]
    concurrency: usize,
    /// How long one request is tried again while the server is unreachable or overloaded
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    give_up_after: Duration,
    /// Give the counts as JSON
    #[arg(long)]
    json: bool,
}

/// What is said at the end.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    tally: Tally,
    /// Whether every event of the input is known to be stored.
    complete: bool,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Outcome> {
    let sender = Sender { client: args.server.client()?, retry: Retry { give_up_after: args.give_up_after } };
    let (input, size) = open(&args.file)?;
    let queue = Arc::new(Queue::new(BatchSize { events: args.batch, bytes: BATCH_BYTES }));
    read_in_a_thread(input, Arc::clone(&queue));
    let progress = Progress::new(size);
    let mut tally = Tally::default();
    let sent = tokio::select! {
        sent = send_all(&sender, &queue, args.concurrency, &progress, &mut tally) => sent,
        _ = tokio::signal::ctrl_c() => {
            Err(anyhow::anyhow!("interrupted; events that were on their way may be stored too"))
        }
    };
    queue.abandon();
    progress.finish();
    let complete = sent.is_ok() && tally.rejected == 0;
    report(&Report { tally, complete }, args.json)?;
    sent.map_err(unfinished)?;
    Ok(if complete { Outcome::Done } else { Outcome::Failed })
}

/// Opens the input, and tells its size where it has one.
fn open(file: &PathBuf) -> anyhow::Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    if file.as_os_str() == "-" {
        if stdin().is_terminal() {
            output::talk(
                "reading events from the terminal, one a line; Ctrl-D ends them, a file's name reads that",
            );
        }
        return Ok((Box::new(BufReader::with_capacity(READ_BYTES, stdin())), None));
    }
    let opened = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let size = opened.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    Ok((Box::new(BufReader::with_capacity(READ_BYTES, opened)), size))
}

/// Reading standard input blocks, so it has a thread. Nobody waits for that thread: it may stay blocked until
/// the process ends.
fn read_in_a_thread(input: Box<dyn BufRead + Send>, queue: Arc<Queue>) {
    thread::spawn(move || {
        let how = input::read(input, &mut |event| queue.put(event));
        queue.end(how);
    });
}

async fn send_all(
    sender: &Sender,
    queue: &Queue,
    concurrency: usize,
    progress: &Progress,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let batches = stream::unfold((), |()| async { Some((queue.take().await.transpose()?, ())) });
    let mut sent = std::pin::pin!(
        batches
            .map(async |batch| -> anyhow::Result<_> {
                let events: Vec<InputEvent> = batch?;
                let bytes: usize = events.iter().map(|event| event.json.len() + 1).sum();
                Ok((sender.send(&events, progress).await, bytes))
            })
            .buffer_unordered(concurrency)
    );
    while let Some(done) = sent.next().await {
        match done? {
            (Ok(more), bytes) => {
                tally.merge(more);
                progress.sent(bytes, tally.known());
            }
            (Err(unknown), _) => {
                tally.merge(unknown.tally);
                return Err(stopped(*unknown));
            }
        }
    }
    Ok(())
}

/// What an end before the end means. Only where running it again can help it is worth saying that this is safe.
fn unfinished(error: anyhow::Error) -> anyhow::Error {
    if error.is::<InputError>() {
        return error.context("not every event was sent");
    }
    match error.downcast_ref() {
        Some(refused) if !ClientError::is_transient(refused) => {
            error.context("not every event is known to be stored")
        }
        _ => error.context("not every event is known to be stored (running this again is safe)"),
    }
}

fn stopped(unknown: Unknown) -> anyhow::Error {
    let error = anyhow::Error::new(unknown.error);
    match unknown.from {
        Some(place) => error.context(format!("stopped at {place}")),
        None => error,
    }
}

fn report(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(report);
    }
    let Tally { accepted, duplicates, conflicts, rejected } = report.tally;
    let counts = [
        ("accepted", accepted),
        ("duplicates", duplicates),
        ("conflicts", conflicts),
        ("rejected", rejected),
    ];
    let parts = counts.map(|(name, count)| format!("{name} {}", thousands(count)));
    Ok(output::result(&parts.join(", "))?)
}

/// A whole number from 1 to `most`.
fn range(most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync {
    move |text| {
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| format!("must be from 1 to {most}"))
    }
}
