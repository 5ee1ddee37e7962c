//! `sekali bench`: puts load on a server, with a chosen share of duplicates, then reads everything back and
//! verifies that each event is stored exactly once.

mod load;
mod plan;
mod verify;

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Outcome;
use super::output::{self, thousands};
use super::server::{ServerArgs, failed as tell};
use crate::api::{Key, Stats, TopicStats};
use crate::client::{ClientError, Patient, Range, Retry};
use load::{Measured, PATIENCE, Shape};
use plan::{Plan, Schedule};
use verify::{Faults, Verifier};

/// Events that are looked up one by one.
const SAMPLE: usize = 1000;

/// How long counters that lack duplicates are waited for in all: twice the second within which a node knows of those that
/// another one answered.
const LAG: Duration = Duration::from_secs(2);

/// Between two looks at counters that lack some.
const PAUSE: Duration = Duration::from_millis(100);

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
    let retry = Retry { give_up_after: PATIENCE, unreachable_at_first: false };
    let mut patient = Patient { client, retry, failed: tell };
    let before = patient.stats().await?;
    patient.retry = Retry::of(PATIENCE);
    let bar = progress_bar(args.events);
    let sent = load::run(&patient.client, &plan, schedule, shape, &bar).await;
    bar.finish_and_clear();
    let mut measured = match sent {
        Ok(measured) => measured,
        Err(error) => return failed(&error.context("not every event was sent")),
    };
    output::result(&speed(&measured))?;
    let mut verifier = Verifier::new(&plan, unique, measured.sent.clone());
    match verify(&patient, &plan, &mut verifier, (&measured, &before)).await {
        Ok(lacking) => lacking.into_iter().for_each(|fault| measured.faults.add(|| fault)),
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

/// Reads everything back; gives what the server's totals lack after it.
async fn verify(
    patient: &Patient,
    plan: &Plan,
    verifier: &mut Verifier<'_>,
    (measured, before): (&Measured, &Stats),
) -> anyhow::Result<Vec<String>> {
    let mut patience = LAG;
    read_back(patient, plan, verifier, (measured.lost, &mut patience)).await?;
    look_up(patient, plan, verifier).await?;
    let lacking = |after: &Stats| lacking(measured, before, after);
    let after =
        settled(&mut patience, async || patient.stats().await, |after| !lacking(after).is_empty()).await?;
    Ok(lacking(&after))
}

/// Asks for counters, and again while they lack something that may still come to them, as long as there is patience. Too much
/// is never mended by waiting.
async fn settled<T>(
    patience: &mut Duration,
    ask: impl AsyncFn() -> Result<T, ClientError>,
    lacks: impl Fn(&T) -> bool,
) -> Result<T, ClientError> {
    loop {
        let counted = ask().await?;
        if patience.is_zero() || !lacks(&counted) {
            return Ok(counted);
        }
        *patience = patience.saturating_sub(PAUSE);
        actix_web::rt::time::sleep(PAUSE).await;
    }
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
    patient: &Patient,
    plan: &Plan,
    verifier: &mut Verifier<'_>,
    (lost, patience): (u64, &mut Duration),
) -> anyhow::Result<()> {
    for (topic, name) in plan.topics().iter().enumerate() {
        let mut lines = patient.events(name, Range::default());
        while let Some(line) = lines.next().await? {
            verifier.stored(topic, &serde_json::from_slice(&line)?);
        }
        // A topic to which chance sent nothing does not exist.
        if verifier.expects(topic) {
            let lacks = |stats: &TopicStats| verifier.lacks(topic, stats);
            let stats = settled(patience, async || patient.topic(name).await, lacks).await?;
            verifier.counted(topic, &stats, lost);
        }
    }
    Ok(())
}

/// Looks up a sample of what was sent.
async fn look_up(patient: &Patient, plan: &Plan, verifier: &mut Verifier<'_>) -> anyhow::Result<()> {
    let sample = verifier.sample(SAMPLE);
    let key = |(index, _): &(u64, u64)| {
        let event = plan.event(*index);
        Key { topic: plan.topics()[event.topic].clone(), event_id: event.id.to_string() }
    };
    let keys: Vec<_> = sample.iter().map(key).collect();
    for (expected, found) in sample.into_iter().zip(patient.lookup(&keys).await?) {
        verifier.found(expected, found.map(|place| place.seq));
    }
    Ok(())
}

/// What the server's totals lack of this run. They may have grown by more: others may have published too.
fn lacking(measured: &Measured, before: &Stats, after: &Stats) -> Vec<String> {
    let (old, new) = (&before.persistent, &after.persistent);
    let grown = [
        ("received", measured.all(), old.total_events_received, new.total_events_received),
        ("unique", measured.unique(), old.total_unique_events_processed, new.total_unique_events_processed),
    ];
    let short = grown.into_iter().filter(|(_, sent, from, to)| *to < from + sent);
    let fault =
        |(name, sent, from, to)| format!("/stats: {name} went from {from} to {to}, and {sent} were sent");
    short.map(fault).collect()
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
