//! `sekali publish`: the at-least-once producer. It sends every event until its fate is known, so that running
//! it again with the same input changes nothing and is always safe.

mod held;
mod inflate;
mod input;
mod progress;
mod queue;
mod scan;
mod sender;
mod source;
#[cfg(test)]
pub(in crate::cli) mod tests;
mod values;

use std::fs::File;
use std::io::{IsTerminal, Seek, stdin};
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
use crate::app::Signals;
use crate::client::{ClientError, Retry};
use inflate::Input;
use input::{InputError, InputEvent, InputPlace};
use progress::Progress;
use queue::{BatchSize, Queue};
use sender::{Sender, Tally, Unknown};

/// Bytes of a request, about.
const BATCH_BYTES: usize = 4 << 20;

/// What the exit code says, and what may be in the input.
const AFTER: &str = "\
The input may be compressed with gzip or zstd, and may hold any number of JSON values one behind the other, on one line \
or over several. Exit 0: every event is stored. Exit 1: an event was rejected, or conflicts (its content is not stored, \
since another payload is stored under its id), or the outcome of some events is unknown, or the input cannot be read. \
An input that holds no JSON is refused with exit 1 before anything is sent.";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Events as JSON: one a line (NDJSON) or any other stream of objects, arrays and {"events":[...]}; - is standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Events of one request at most
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = range(10_000))]
    batch: usize,
    /// Requests at once; with more than one the events of a topic may be stored in another order
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = range(64))]
    concurrency: usize,
    /// How long one request is tried again while the server is unreachable or overloaded, or its answers
    /// are cut off
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    give_up_after: Duration,
    /// Exit 0 also where events conflict: a duplicate with another payload than the stored one
    #[arg(long)]
    allow_conflicts: bool,
    /// Give the counts as JSON
    #[arg(long)]
    json: bool,
}

/// What is said at the end.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    tally: Tally,
    /// Whether every event of the input is known to be stored, with its own content unless conflicts are
    /// allowed.
    complete: bool,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Outcome> {
    let sender = Sender::new(args.server.client()?, Retry::of(args.give_up_after), BATCH_BYTES);
    let mut signals = Signals::catch()?;
    let (input, size) = open(&args.file)?;
    let queue = Arc::new(Queue::new(BatchSize { events: args.batch, bytes: BATCH_BYTES }));
    read_in_a_thread(input, Arc::clone(&queue));
    let progress = Progress::new(size);
    let mut tally = Tally::default();
    let sent = tokio::select! {
        sent = send_all(&sender, &queue, args.concurrency, &progress, &mut tally) => sent,
        () = signals.next() => {
            Err(anyhow::anyhow!("interrupted; events that were on their way may be stored too"))
        }
    };
    queue.abandon();
    progress.finish();
    let is_stored = tally.rejected == 0 && (tally.conflicts == 0 || args.allow_conflicts);
    let complete = sent.is_ok() && is_stored;
    report(&Report { tally, complete }, args.json)?;
    sent.map_err(unfinished)?;
    Ok(if complete { Outcome::Done } else { Outcome::Failed })
}

/// Opens the input, and tells its size where it is that of its events.
fn open(file: &PathBuf) -> anyhow::Result<(Input, Option<u64>)> {
    if file.as_os_str() == "-" {
        if stdin().is_terminal() {
            output::talk(
                "reading events from the terminal, one a line; Ctrl-D ends them, a file's name reads that",
            );
        }
        return Ok((Box::new(stdin()), None));
    }
    let named = || format!("cannot open {}", file.display());
    let mut opened = File::open(file).with_context(named)?;
    let size = opened.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    if size.is_none() {
        return Ok((Box::new(opened), None));
    }
    let head = inflate::first_bytes(&mut opened).and_then(|head| opened.rewind().map(|()| head));
    let is_compressed = inflate::is_compressed(&head.with_context(named)?);
    Ok((Box::new(opened), size.filter(|_| !is_compressed)))
}

/// Reading standard input blocks, so it has a thread. Nobody waits for that thread: it may stay blocked until
/// the process ends.
fn read_in_a_thread(input: Input, queue: Arc<Queue>) {
    thread::spawn(move || {
        let inflated = inflate::inflated(input).map_err(InputError::from);
        let how = inflated.and_then(|inner| values::read(inner, &mut |event| queue.put(event)));
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
                let bytes: usize = events.iter().map(InputEvent::bytes).sum();
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
                let Unknown { tally: known, from, error } = *unknown;
                tally.merge(known);
                return Err(stopped(from, error));
            }
        }
    }
    Ok(())
}

/// What an end before the end means. Only where running it again can help it is worth saying that this is safe.
fn unfinished(error: anyhow::Error) -> anyhow::Error {
    if let Some(input) = error.downcast_ref::<InputError>() {
        let said = if input.is_refusal() { "nothing was sent" } else { "not every event was sent" };
        return error.context(said);
    }
    match error.downcast_ref() {
        Some(refused) if !ClientError::is_transient(refused) => {
            error.context("not every event is known to be stored")
        }
        _ => error.context("not every event is known to be stored (running this again is safe)"),
    }
}

fn stopped(from: Option<InputPlace>, error: ClientError) -> anyhow::Error {
    let is_slow = error.refused().is_some_and(|refused| refused.status == 408);
    let mut told = anyhow::Error::new(error);
    if is_slow {
        told = told.context("one event alone takes longer to arrive than the server waits for it");
    }
    match from {
        Some(place) => told.context(format!("stopped at {place}")),
        None => told,
    }
}

fn report(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(report);
    }
    let Tally { accepted, duplicates, conflicts, rejected, .. } = report.tally;
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
