//! `growth`: sekali alone, until the store is large; then a kill, a restart, and reads.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::TempDir;

use crate::chart;
use crate::disk::{Syncs, allocated, millis};
use crate::drive::{Driven, drive};
use crate::environment::Environment;
use crate::http::{Http, Verdicts, publish};
use crate::output;
use crate::peers::{Peer, Sekali};
use crate::plan::{EVENT_BYTES, Lane, Load, Plan, Request, Shape, Step};
use crate::process::{Meter, Used};
use crate::reads::{self, Pages, Reads};
use crate::results;
use crate::wire::Wire;

/// Topics of the workload.
const TOPICS: u32 = 4;

/// No measurement of it is cut off by time.
const NO_LIMIT: Duration = Duration::from_hours(24 * 365);

/// For how long the disk is measured by itself, before and after: rare stalls need a while to show.
const SYNCS_FOR: Duration = Duration::from_secs(20);

/// Old ids that are sent again at the end.
const RECHECKED: u64 = 10_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sekali: Sekali,
    /// Events to send, a fifth of them repeats; rounded up to whole steps
    #[arg(long, value_name = "N", default_value_t = 50_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Events between two lines of figures
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    step: u64,
    /// Connections, with one batch in flight on each
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Events of a batch
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Random pages of 100 events to read at the end
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pages: u64,
    /// The same seed makes the same events in the same order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the store is while it is measured: on the disk that counts
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Where the raw figures go; the chart is beside them
    #[arg(long, value_name = "FILE", default_value = "target/bench/growth.json")]
    out: PathBuf,
}

/// One run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Growth {
    /// Where it ran.
    pub(crate) environment: Environment,
    /// The program's version.
    pub(crate) version: String,
    /// Figures on the way.
    pub(crate) steps: Vec<Grown>,
    /// Figures at the end.
    pub(crate) end: End,
}

/// Figures of one step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Grown {
    /// Events sent until its end.
    pub(crate) events: u64,
    /// Different ids until its end.
    pub(crate) ids: u64,
    /// Events a second in this step.
    pub(crate) rate: f64,
    /// Time of a request in this step, in milliseconds.
    pub(crate) p50_ms: f64,
    /// All but one in a hundred are faster.
    pub(crate) p99_ms: f64,
    /// The slowest.
    pub(crate) max_ms: f64,
    /// Memory of the server that is not a part of files, at its end, in bytes.
    pub(crate) rss_anon_bytes: u64,
    /// Processor time of the server in this step, in seconds.
    pub(crate) server_cpu_seconds: f64,
    /// Processor time of the client in this step, in seconds.
    pub(crate) client_cpu_seconds: f64,
    /// Seconds of this step in which the client made events instead of sending them.
    pub(crate) making_seconds: f64,
}

/// Figures of the whole run, and of the store at its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct End {
    /// Events sent.
    pub(crate) events: u64,
    /// Different ids.
    pub(crate) ids: u64,
    /// Whether every verdict and count was that of the plan, after the restart too.
    pub(crate) verified: bool,
    /// Events a second over everything.
    pub(crate) rate: f64,
    /// Time of a request over everything, in milliseconds.
    pub(crate) p50_ms: f64,
    /// All but one in a hundred are faster.
    pub(crate) p99_ms: f64,
    /// The slowest.
    pub(crate) max_ms: f64,
    /// A bare loop of writes and syncs of the size of a batch before the run.
    pub(crate) syncs_before: Syncs,
    /// The same after it.
    pub(crate) syncs_after: Syncs,
    /// Bytes of the store on the disk, its write-ahead log included.
    pub(crate) disk_bytes: u64,
    /// Bytes of the JSON of the different events.
    pub(crate) json_bytes: u64,
    /// After a kill and a restart.
    pub(crate) read_back: ReadBack,
}

/// Figures of a store that was opened again after a kill.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReadBack {
    /// From the start after a kill until it is ready, in seconds.
    pub(crate) ready_seconds: f64,
    /// Events of one topic that were read in one go.
    pub(crate) read_events: u64,
    /// How fast, a second.
    pub(crate) read_rate: f64,
    /// Random pages of 100 that were read.
    pub(crate) pages: u64,
    /// Time of such a page, in milliseconds.
    pub(crate) page_p50_ms: f64,
    /// All but one in a hundred are faster.
    pub(crate) page_p99_ms: f64,
    /// The slowest.
    pub(crate) page_max_ms: f64,
    /// Old ids that were sent again.
    pub(crate) rechecked: u64,
    /// Those of them that were answered as duplicates.
    pub(crate) rechecked_duplicates: u64,
    /// Events stored, as it says.
    pub(crate) stored: u64,
}

pub(crate) async fn run(args: Args, command: String) -> anyhow::Result<()> {
    let directory = args.directory.clone().unwrap_or_else(std::env::temp_dir);
    let store = TempDir::with_prefix_in("sekali-bench-", directory).context("no directory for the store")?;
    let environment = Environment::read(store.path(), command)?;
    let (steps, end) = grow_and_read(&args, store.path()).await?;
    output::result(&json!({ "end": &end }).to_string())?;
    let growth = Growth { environment, version: args.sekali.version()?, steps, end };
    results::write(&args.out, &growth)?;
    let drawing = args.out.with_extension("svg");
    chart::growth(&drawing, &growth)?;
    output::talk(&format!("raw figures: {}, chart: {}", args.out.display(), drawing.display()));
    Ok(())
}

async fn grow_and_read(args: &Args, store: &Path) -> anyhow::Result<(Vec<Grown>, End)> {
    let bytes = EVENT_BYTES * args.batch as usize;
    let syncs_before = Syncs::measure(store, bytes, u64::MAX, SYNCS_FOR)?;
    let load = args.load();
    let (server, address) = args.sekali.serve(store)?;
    let (steps, total) = grow(args, &load, address, &Meter::of(&server)).await?;
    let disk_bytes = allocated(store, None)?;
    server.kill()?;
    let syncs_after = Syncs::measure(store, bytes, u64::MAX, SYNCS_FOR)?;

    let read_back = read_back(args, &load, store, total.new).await?;
    let rechecked = read_back.rechecked == read_back.rechecked_duplicates;
    let end = End {
        events: total.events,
        ids: total.new,
        verified: total.as_planned() && rechecked && read_back.stored == total.new,
        rate: rate(total.events, total.took),
        p50_ms: millis(total.latency.value_at_quantile(0.5)),
        p99_ms: millis(total.latency.value_at_quantile(0.99)),
        max_ms: millis(total.latency.max()),
        syncs_before,
        syncs_after,
        disk_bytes,
        json_bytes: total.new * EVENT_BYTES as u64,
        read_back,
    };
    Ok((steps, end))
}

/// Opens the store again and reads.
async fn read_back(args: &Args, load: &Load, store: &Path, ids: u64) -> anyhow::Result<ReadBack> {
    let started = Instant::now();
    let (server, address) = args.sekali.serve(store)?;
    reads::ready(address).await?;
    let ready_seconds = started.elapsed().as_secs_f64();
    let (reads, meter) = (Reads { address, seed: args.seed }, Meter::of(&server));
    let topic = load.plan.topics().next().context("no topic")?;
    let (read_events, took) = reads.whole(&topic).await?;
    let pages = read_pages(&reads, &load.plan, args.pages, &meter).await?;
    let rechecked = recheck(&reads, load, ids, &meter).await?;
    let stored = reads.stored().await?;
    server.stop()?;
    Ok(ReadBack {
        ready_seconds,
        read_events,
        read_rate: rate(read_events, took),
        pages: pages.latency.len(),
        page_p50_ms: millis(pages.latency.value_at_quantile(0.5)),
        page_p99_ms: millis(pages.latency.value_at_quantile(0.99)),
        page_max_ms: millis(pages.latency.max()),
        rechecked: rechecked.events,
        rechecked_duplicates: rechecked.answered.duplicates,
        stored,
    })
}

impl Args {
    fn load(&self) -> Load {
        let shape = Shape {
            name: "growth",
            connections: self.connections,
            batch: self.batch,
            events: self.step,
            limit: NO_LIMIT,
        };
        Load { plan: Plan::new(self.seed, TOPICS), seed: self.seed, shape }
    }
}

/// Sends everything, a step after the other; gives the figures of each and of all together.
async fn grow(
    args: &Args,
    load: &Load,
    address: SocketAddr,
    meter: &Meter,
) -> anyhow::Result<(Vec<Grown>, Driven)> {
    let mut lanes = Vec::new();
    for lane in load.lanes() {
        lanes.push((Wire::open(address, Http::new(Verdicts::InBody)).await?, lane));
    }
    let (mut steps, mut total) = (Vec::new(), Driven::empty(Duration::ZERO, Used::default())?);
    while total.events < args.events {
        let (driven, making) = step(load, &mut lanes, meter).await?;
        total.add(&driven)?;
        let grown = Grown::of(&driven, &total, making, meter.anonymous_memory()?);
        output::result(&serde_json::to_string(&grown)?)?;
        steps.push(grown);
    }
    Ok((steps, total))
}

/// Sends one step. Its events are made while it runs, since all together they would not fit into memory; gives
/// the time that this took as well.
async fn step(
    load: &Load,
    lanes: &mut [(Wire<Http>, Lane)],
    meter: &Meter,
) -> anyhow::Result<(Driven, Duration)> {
    let making = Cell::new(Duration::ZERO);
    let requests = |lane| {
        let making = &making;
        (0..load.requests_each()).map({
            let lane: &mut Lane = lane;
            move |_| {
                let started = Instant::now();
                let request = load.request(lane, |plan, steps| Ok(publish(plan, steps)));
                making.set(making.get() + started.elapsed());
                request
            }
        })
    };
    let lanes = lanes.iter_mut().map(|(connection, lane)| (connection, requests(lane))).collect();
    let driven = drive(lanes, load.shape.limit, meter).await?;
    Ok((driven, making.get()))
}

impl Grown {
    fn of(driven: &Driven, total: &Driven, making: Duration, rss_anon_bytes: u64) -> Self {
        Self {
            events: total.events,
            ids: total.new,
            rate: rate(driven.events, driven.took),
            p50_ms: millis(driven.latency.value_at_quantile(0.5)),
            p99_ms: millis(driven.latency.value_at_quantile(0.99)),
            max_ms: millis(driven.latency.max()),
            rss_anon_bytes,
            server_cpu_seconds: driven.used.server,
            client_cpu_seconds: driven.used.client,
            making_seconds: making.as_secs_f64(),
        }
    }
}

/// Reads random pages of random topics.
async fn read_pages(reads: &Reads, plan: &Plan, count: u64, meter: &Meter) -> anyhow::Result<Driven> {
    let requests = reads.random_pages(&plan.topics().collect::<Vec<_>>(), count).await?;
    let mut connection = Wire::open(reads.address, Pages).await?;
    drive(vec![(&mut connection, requests.into_iter().map(Ok))], NO_LIMIT, meter).await
}

/// Sends ids again that were sent before the kill: each has to be a duplicate.
async fn recheck(reads: &Reads, load: &Load, ids: u64, meter: &Meter) -> anyhow::Result<Driven> {
    let mut random = fastrand::Rng::with_seed(load.seed);
    let batches = RECHECKED.div_ceil(u64::from(load.shape.batch));
    let requests = (0..batches).map(|_| {
        let old = |_| Step { number: random.u64(..ids), new: false };
        let steps: Vec<_> = (0..load.shape.batch).map(old).collect();
        Ok(Request { content: publish(&load.plan, &steps), new: vec![false; steps.len()] })
    });
    let mut connection = Wire::open(reads.address, Http::new(Verdicts::InBody)).await?;
    drive(vec![(&mut connection, requests)], NO_LIMIT, meter).await
}

fn rate(events: u64, took: Duration) -> f64 {
    results::number(events) / took.as_secs_f64().max(f64::MIN_POSITIVE)
}
