//! `compare`: the same load on every peer, in turn, round after round.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::disk::allocated;
use crate::environment::Environment;
use crate::output;
use crate::peers::{self, Peer, Programs};
use crate::plan::{Load, Plan, Shape};
use crate::results::{self, Comparison, Figures, Measurement, Outcome, Participant, ShapeUsed};
use crate::table::{self, Style};

/// Topics of the workload.
const TOPICS: u32 = 4;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    programs: Programs,
    /// Rounds; every peer is measured once in each, and medians are reported
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Events sent in batches, for each peer and round; 0 leaves them out
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    events: u64,
    /// Events sent one by one, for each peer and round; 0 leaves them out
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    single_events: u64,
    /// Connections for batches, with one batch in flight on each
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Events of a batch
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Connections for single events, with one event in flight on each
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    single_connections: u32,
    /// Seconds after which a measurement sends nothing more, so that a slow peer does not take hours
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    limit: u64,
    /// Only these peers, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    peers: Vec<String>,
    /// The same seed makes the same events in the same order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where peers keep their stores while they are measured: on the disk that counts
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Where the raw figures go
    #[arg(long, value_name = "FILE", default_value = "target/bench/compare.json")]
    out: PathBuf,
}

pub(crate) async fn run(args: Args, command: String) -> anyhow::Result<()> {
    let directory = args.directory.clone().unwrap_or_else(std::env::temp_dir);
    let peers = chosen(peers::all(&args.programs), &args.peers)?;
    let mut results = Comparison {
        environment: Environment::read(&directory, command)?,
        peers: peers.iter().map(|peer| participant(peer.as_ref())).collect(),
        shapes: args.shapes().iter().map(ShapeUsed::of).collect(),
        measurements: Vec::new(),
    };
    for round in 1..=args.rounds {
        for shape in args.shapes() {
            let load = Load { plan: Plan::new(args.seed, TOPICS), seed: args.seed, shape };
            for peer in &peers {
                let measured = measure_in(round, peer.as_ref(), &load, &directory, &results).await;
                results.measurements.extend(measured);
                // After each measurement, so that a run that is broken off leaves what it has.
                results::write(&args.out, &results)?;
            }
        }
    }
    for shape in &results.shapes {
        output::result(&format!("\n{}: {}", shape.name, shape.said()))?;
        output::result(&table::medians(&results, &shape.name, Style::Plain))?;
        output::result(&table::ratios(&results, &shape.name, Style::Plain))?;
    }
    output::result(&format!("\nraw figures: {}", args.out.display()))?;
    Ok(())
}

impl Args {
    fn shapes(&self) -> Vec<Shape> {
        let limit = Duration::from_secs(self.limit);
        let batches = Shape {
            name: "batches",
            connections: self.connections,
            batch: self.batch,
            events: self.events,
            limit,
        };
        let singles = Shape {
            name: "singles",
            connections: self.single_connections,
            batch: 1,
            events: self.single_events,
            limit,
        };
        [batches, singles].into_iter().filter(|shape| shape.events > 0).collect()
    }
}

impl ShapeUsed {
    fn of(shape: &Shape) -> Self {
        Self {
            name: shape.name.to_owned(),
            connections: shape.connections,
            batch: shape.batch,
            events: shape.events,
            limit_seconds: shape.limit.as_secs(),
        }
    }

    /// The shape in words.
    pub(crate) fn said(&self) -> String {
        format!(
            "{} events in requests of {}, {} connections with one request in flight on each, {} s at most",
            table::shown(Some(results::number(self.events)), 0),
            table::shown(Some(f64::from(self.batch)), 0),
            self.connections,
            self.limit_seconds
        )
    }
}

impl Comparison {
    fn has(&self, peer: &str) -> bool {
        self.peers.iter().any(|participant| participant.name == peer && participant.version.is_some())
    }
}

/// The peers of these names, or all.
fn chosen(all: Vec<Box<dyn Peer>>, names: &[String]) -> anyhow::Result<Vec<Box<dyn Peer>>> {
    let known: Vec<_> = all.iter().map(|peer| peer.name()).collect();
    for name in names {
        ensure!(known.contains(&name.as_str()), "no peer {name}; there are: {}", known.join(", "));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    Ok(all.into_iter().filter(|peer| wanted(peer.name())).collect())
}

fn participant(peer: &dyn Peer) -> Participant {
    let version = peer.version();
    if let Err(error) = &version {
        output::talk(&format!("MISSING: {} is left out: {error:#}", peer.name()));
    }
    let (name, promise) = (peer.name().to_owned(), peer.promise().to_owned());
    Participant { name, promise, version: version.ok() }
}

/// One measurement of a round, if the peer is there.
async fn measure_in(
    round: u32,
    peer: &dyn Peer,
    load: &Load,
    directory: &Path,
    results: &Comparison,
) -> Option<Measurement> {
    if !results.has(peer.name()) {
        return None;
    }
    let measured = measure(peer, load, directory).await;
    let outcome = measured.map_or_else(|error| Outcome::Failed(format!("{error:#}")), Outcome::Measured);
    output::talk(&line(round, peer.name(), load.shape.name, &outcome));
    let (peer, shape) = (peer.name().to_owned(), load.shape.name.to_owned());
    Some(Measurement { peer, shape, round, outcome })
}

/// One measurement with a store of its own.
pub(crate) async fn measure(peer: &dyn Peer, load: &Load, directory: &Path) -> anyhow::Result<Figures> {
    let store = TempDir::with_prefix_in("sekali-bench-", directory).context("no directory for the store")?;
    // A server that runs as another user has to reach its own directory in it.
    fs::set_permissions(store.path(), Permissions::from_mode(0o755))?;
    let mut running = peer.start(store.path()).await?;
    let before = allocated(store.path(), peer.log_directory())?;
    let driven = running.publish(load).await?;
    let memory = running.meter().memory()?;
    let mut figures = Figures::new(&driven, running.stored().await?, memory);
    running.stop().await?;
    figures.disk_bytes = allocated(store.path(), peer.log_directory())?.saturating_sub(before);
    Ok(figures)
}

/// What one measurement gave, for whoever waits.
fn line(round: u32, peer: &str, shape: &str, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(error) => format!("round {round} {shape} {peer}: FAILED: {error}"),
        Outcome::Measured(figures) => format!(
            "round {round} {shape} {peer}: {} events/s, p99 {:.2} ms, {} accepted, {} duplicates{}",
            table::shown(Some(figures.rate()), 0),
            figures.p99_ms,
            figures.accepted,
            figures.duplicates,
            if figures.verified { "" } else { ", WRONG" }
        ),
    }
}
