//! `topics`: sekali alone, batches over very many topics against batches over four, in turn.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::compare::measure;
use crate::environment::Environment;
use crate::output;
use crate::peers::{Peer, Sekali};
use crate::plan::{Load, MAX_TOPICS, Plan, Shape};
use crate::results::{self, Figures, median};
use crate::table::{self, Style};

/// What many topics are compared with.
const FEW: u32 = 4;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sekali: Sekali,
    /// Topics
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TOPICS)))]
    count: u32,
    /// Events for each measurement
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Rounds; medians are reported
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The same seed makes the same events in the same order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the store is while it is measured: on the disk that counts
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Where the raw figures go
    #[arg(long, value_name = "FILE", default_value = "target/bench/topics.json")]
    out: PathBuf,
}

/// One run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Topics {
    /// Where it ran.
    pub(crate) environment: Environment,
    /// Four topics, then many.
    pub(crate) rows: Vec<Row>,
}

/// The rounds with one number of topics.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Topics.
    pub(crate) topics: u32,
    /// Its rounds.
    pub(crate) rounds: Vec<Figures>,
}

pub(crate) async fn run(args: Args, command: String) -> anyhow::Result<()> {
    let directory = args.directory.clone().unwrap_or_else(std::env::temp_dir);
    output::talk(&args.sekali.version()?);
    let rows = [FEW, args.count].map(|topics| Row { topics, rounds: Vec::new() }).into();
    let mut results = Topics { environment: Environment::read(&directory, command)?, rows };
    for _ in 0..args.rounds {
        for row in &mut results.rows {
            let plan = Plan::new(args.seed, row.topics);
            let load = Load { plan, seed: args.seed, shape: args.shape() };
            let figures = measure(&args.sekali, &load, &directory).await?;
            output::talk(&format!(
                "{} topics: {} events/s",
                row.topics,
                table::shown(Some(figures.rate()), 0)
            ));
            row.rounds.push(figures);
        }
        results::write(&args.out, &results)?;
    }
    output::result(&results.table(Style::Plain))?;
    output::talk(&format!("raw figures: {}", args.out.display()));
    Ok(())
}

impl Args {
    fn shape(&self) -> Shape {
        Shape {
            name: "topics",
            connections: 8,
            batch: 1000,
            events: self.events,
            limit: Duration::from_hours(1),
        }
    }
}

impl Topics {
    /// The medians, and the rate in relation to the first row's.
    pub(crate) fn table(&self, style: Style) -> String {
        let first = self.rows.first().and_then(|row| row.median(Figures::rate));
        let rows = self.rows.iter().map(|row| {
            let rate = row.median(Figures::rate);
            let verified = row.rounds.iter().all(|figures| figures.verified);
            vec![
                table::shown(Some(f64::from(row.topics)), 0),
                table::shown(rate, 0),
                table::shown(rate.zip(first).map(|(rate, first)| rate / first), 2),
                table::shown(row.median(|figures| figures.p50_ms), 2),
                table::shown(row.median(|figures| figures.p99_ms), 2),
                table::shown(row.median(|figures| figures.max_ms), 1),
                table::shown(row.median(Figures::memory_mib), 0),
                if verified { "yes" } else { "WRONG" }.to_owned(),
            ]
        });
        let header = ["topics", "events/s", "ratio", "p50 ms", "p99 ms", "max ms", "memory MiB", "verified"];
        table::draw(style, &header, 0, rows.collect())
    }
}

impl Row {
    fn median(&self, of: impl Fn(&Figures) -> f64) -> Option<f64> {
        median(self.rounds.iter().map(of).collect())
    }
}
