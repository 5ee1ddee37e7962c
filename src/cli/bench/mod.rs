//! `sekali bench`: puts load on a server, with a chosen share of duplicates, then reads everything back and
//! verifies that each event is stored exactly once.

mod load;
mod plan;
mod verify;

use indicatif::{ProgressBar, ProgressStyle};

use super::Outcome;
use super::output::{self, thousands};
use super::server::ServerArgs;
use crate::api::{Key, Stats};
use crate::client::{Client, Range};
use load::{Measured, Shape};
use plan::{Plan, Schedule};
use verify::{Faults, Verifier};

/// Events that are looked up one by one.
const SAMPLE: usize = 1000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Events to send, duplicates included
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    events: u64,
    /// How many in a hundred repeat an event that was sent before
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=100))]
    duplicates: u64,
    /// Requests at once
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    concurrency: u32,
    /// Events of one request
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Topics; their names are new in every run, and they stay in the store
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    topics: u32,
    /// The same seed makes the same ids, payloads and order
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Outcome> {
    let client = args.server.client()?;
    let plan = Plan::new(args.seed, args.topics as usize);
    let schedule = Schedule::new(args.seed, args.events, args.duplicates);
    let shape = Shape { concurrency: args.concurrency as usize, batch: args.batch as usize };
    let unique = schedule.unique();
    let before = client.stats().await?;
    let bar = progress_bar(args.events);
    let sent = load::run(&client, &plan, schedule, shape, &bar).await;
    bar.finish_and_clear();
    let mut measured = match sent {
        Ok(measured) => measured,
        Err(error) => return failed(&error.context("not every event was sent")),
    };
    output::result(&speed(&measured))?;
    let mut verifier = Verifier::new(&plan, unique, measured.sent.clone());
    match verify(&client, &plan, &mut verifier, measured.lost).await {
        Ok(after) => check_stats(&mut measured, &before, &after),
        Err(error) => return failed(&error.context("cannot read back what was sent")),
    }
    measured.check_answers();
    judge(&measured, &verifier.finish(), plan.topics().len())
}

/// The last line of a run that broke off.
fn failed(error: &anyhow::Error) -> anyhow::Result<Outcome> {
    output::result(&format!("FAILED: {error:#}"))?;
    Ok(Outcome::Failed)
}

/// Reads everything back; gives the server's totals after it.
async fn verify(
    client: &Client,
    plan: &Plan,
    verifier: &mut Verifier<'_>,
    lost: u64,
) -> anyhow::Result<Stats> {
    read_back(client, plan, verifier, lost).await?;
    look_up(client, plan, verifier).await?;
    Ok(client.stats().await?)
}

fn progress_bar(events: u64) -> ProgressBar {
    let bar = ProgressBar::new(events);
    if let Ok(style) =
        ProgressStyle::with_template("[{elapsed}] {wide_bar} {human_pos}/{human_len} {per_sec}")
    {
        bar.set_style(style);
    }
    bar
}

fn speed(measured: &Measured) -> String {
    let millis = |percent| measured.percentile(percent).as_secs_f64() * 1000.0;
    format!(
        "sent {} events in {:.2} s: {:.0} events/s; latency p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; {} sent again",
        thousands(measured.all()),
        measured.took.as_secs_f64(),
        measured.rate(),
        millis(50),
        millis(99),
        millis(100),
        thousands(measured.lost),
    )
}

/// Reads every topic and its counters.
async fn read_back(
    client: &Client,
    plan: &Plan,
    verifier: &mut Verifier<'_>,
    lost: u64,
) -> anyhow::Result<()> {
    for (topic, name) in plan.topics().iter().enumerate() {
        let mut lines = client.events(name, Range::default()).await?;
        while let Some(line) = lines.next().await? {
            verifier.stored(topic, &serde_json::from_slice(&line)?);
        }
        // A topic to which chance sent nothing does not exist.
        if verifier.expects(topic) {
            verifier.counted(topic, &client.topic(name).await?, lost);
        }
    }
    Ok(())
}

/// Looks up a sample of what was sent.
async fn look_up(client: &Client, plan: &Plan, verifier: &mut Verifier<'_>) -> anyhow::Result<()> {
    let sample = verifier.sample(SAMPLE);
    let key = |(index, _): &(u64, u64)| {
        let event = plan.event(*index);
        Key { topic: plan.topics()[event.topic].clone(), event_id: event.id.to_string() }
    };
    let keys: Vec<_> = sample.iter().map(key).collect();
    for (expected, found) in sample.into_iter().zip(client.lookup(&keys).await?) {
        verifier.found(expected, found.map(|place| place.seq));
    }
    Ok(())
}

/// Checks that the server's totals grew by at least this run; others may have published too.
fn check_stats(measured: &mut Measured, before: &Stats, after: &Stats) {
    let (old, new) = (&before.persistent, &after.persistent);
    let grown = [
        ("received", measured.all(), old.total_events_received, new.total_events_received),
        ("unique", measured.unique(), old.total_unique_events_processed, new.total_unique_events_processed),
    ];
    for (name, sent, from, to) in grown {
        if to < from + sent {
            measured.faults.add(|| format!("/stats: {name} went from {from} to {to}, and {sent} were sent"));
        }
    }
}

/// Says how it ended; the last line is for machines too.
fn judge(measured: &Measured, stored: &Faults, topics: usize) -> anyhow::Result<Outcome> {
    for fault in measured.faults.shown.iter().chain(&stored.shown) {
        output::talk(fault);
    }
    let (unique, repeats) = (measured.unique(), measured.all() - measured.unique());
    let (unique_text, repeats_text) = (thousands(unique), thousands(repeats));
    let faults = measured.faults.count + stored.count;
    if faults == 0 {
        output::result(&format!(
            "VERIFIED: {unique_text} events stored exactly once in {topics} topics, {repeats_text} duplicates dropped"
        ))?;
        return Ok(Outcome::Done);
    }
    output::result(&format!(
        "FAILED: {} faults in {unique_text} events and {repeats_text} duplicates, {topics} topics",
        thousands(faults)
    ))?;
    Ok(Outcome::Failed)
}
