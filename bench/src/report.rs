//! `report`: writes tables and charts from raw figures into a document, between two comments for each kind, so
//! that no figure in it is written by hand.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::chart;
use crate::disk::Syncs;
use crate::environment::Environment;
use crate::growth::Growth;
use crate::output;
use crate::results::{Comparison, number, read};
use crate::table::{self, Style, shown};
use crate::topics::Topics;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory with compare.json, postgres.json (another comparison), growth.json and topics.json, as far as they are there
    #[arg(long, value_name = "DIRECTORY", default_value = "target/bench")]
    results: PathBuf,
    /// The directory that keeps them for readers of the document, and gets the charts
    #[arg(long, value_name = "DIRECTORY", default_value = "docs/bench")]
    kept: PathBuf,
    /// The document with the comments
    #[arg(long, value_name = "FILE", default_value = "docs/BENCHMARKS.md")]
    document: PathBuf,
}

/// One kind of results: its name, and what it puts into the document.
type Kind = (&'static str, fn(&Path, &Path) -> anyhow::Result<String>);

const KINDS: [Kind; 4] = [
    ("compare", |figures, charts| comparison("compare", figures, charts)),
    ("postgres", |figures, charts| comparison("postgres", figures, charts)),
    ("growth", growth),
    ("topics", topics),
];

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let path = &args.document;
    fs::create_dir_all(&args.kept)?;
    let mut text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    for (kind, block) in KINDS {
        let file = format!("{kind}.json");
        let figures = args.results.join(&file);
        if figures.exists() {
            text = replaced(&text, kind, &block(&figures, &args.kept)?)?;
            // Read first: the two directories may be the same.
            fs::write(args.kept.join(file), fs::read(&figures)?)?;
        } else {
            output::talk(&format!("no {}: the document keeps what it says of it", figures.display()));
        }
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The text with a new block between the comments of a kind.
fn replaced(text: &str, kind: &str, block: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- bench:{kind} -->"), format!("<!-- /bench:{kind} -->"));
    let (before, rest) = text.split_once(&begin).with_context(|| format!("no {begin} in the document"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("no {end} behind {begin}"))?;
    Ok(format!("{before}{begin}\n{}\n{end}{after}", block.trim_end()))
}

fn comparison(kind: &str, figures: &Path, charts: &Path) -> anyhow::Result<String> {
    let results: Comparison = read(figures)?;
    let mut block = environment(&results.environment)?;
    let rows = results.peers.iter().map(|peer| {
        let version = peer.version.clone().unwrap_or_else(|| "MISSING: not measured".to_owned());
        vec![peer.name.clone(), version, peer.promise.clone()]
    });
    let header = ["peer", "version", "an acknowledgement means"];
    writeln!(block, "{}", table::draw(Style::Markdown, &header, 3, rows.collect()))?;
    for shape in &results.shapes {
        let chart = format!("{kind}-{}.svg", shape.name);
        chart::comparison(&charts.join(&chart), &results, &shape.name)?;
        let rounds =
            results.measurements.iter().map(|measurement| measurement.round).max().unwrap_or_default();
        writeln!(block, "\n### {}\n\n{}. Medians of {rounds} rounds.\n", titled(&shape.name), shape.said())?;
        writeln!(block, "![{}](bench/{chart})\n", titled(&shape.name))?;
        writeln!(block, "{}\n", table::medians(&results, &shape.name, Style::Markdown))?;
        writeln!(block, "{}", table::ratios(&results, &shape.name, Style::Markdown))?;
    }
    Ok(block)
}

fn growth(figures: &Path, charts: &Path) -> anyhow::Result<String> {
    let results: Growth = read(figures)?;
    chart::growth(&charts.join("growth.svg"), &results)?;
    let (end, back) = (&results.end, &results.end.read_back);
    let mut block = environment(&results.environment)?;
    writeln!(block, "![Rate and memory over the ids stored](bench/growth.svg)\n")?;
    let row = |name: &str, figure: String| vec![name.to_owned(), figure];
    let last = results.steps.last().context("no steps")?;
    let slowest = results.steps.iter().map(|step| step.rate).reduce(f64::min);
    let made: f64 = results.steps.iter().map(|step| step.making_seconds).sum();
    let times = |p50, p99, max| {
        [(p50, 2), (p99, 2), (max, 1)].map(|(ms, digits)| shown(Some(ms), digits)).join(" / ")
    };
    let rows = vec![
        row("version", results.version.clone()),
        row("events sent, different ids", format!("{}, {}", count(end.events), count(end.ids))),
        row("every verdict and count as planned", if end.verified { "yes" } else { "NO" }.to_owned()),
        row("events/s over everything", shown(Some(end.rate), 0)),
        row("events/s of the first, the slowest, the last step", {
            let first = results.steps.first().map(|step| step.rate);
            [first, slowest, Some(last.rate)].map(|rate| shown(rate, 0)).join(" / ")
        }),
        row("request of a batch, p50 / p99 / max ms", times(end.p50_ms, end.p99_ms, end.max_ms)),
        row("bare write and sync of the same size before, p50 / p99 / max ms", syncs(&end.syncs_before)),
        row("the same after", syncs(&end.syncs_after)),
        row(
            "memory at the end (RssAnon), MiB",
            shown(Some(number(last.rss_anon_bytes) / f64::from(1 << 20)), 0),
        ),
        row("bytes on disk for each id, and of its JSON", {
            let each = |bytes| shown(Some(number(bytes) / number(end.ids.max(1))), 1);
            format!("{}, {}", each(end.disk_bytes), each(end.json_bytes))
        }),
        row("ready after a kill, seconds", shown(Some(back.ready_seconds), 2)),
        row(
            "whole read of one topic, events/s",
            format!("{} ({} events)", shown(Some(back.read_rate), 0), count(back.read_events)),
        ),
        row(
            &format!("{} random pages of 100, p50 / p99 / max ms", count(back.pages)),
            times(back.page_p50_ms, back.page_p99_ms, back.page_max_ms),
        ),
        row(
            "old ids sent again, of which duplicates",
            format!("{}, {}", count(back.rechecked), count(back.rechecked_duplicates)),
        ),
        row("seconds in which the client made events instead of sending them", shown(Some(made), 1)),
    ];
    writeln!(block, "{}", table::draw(Style::Markdown, &["what", "figure"], 1, rows))?;
    Ok(block)
}

fn topics(figures: &Path, _charts: &Path) -> anyhow::Result<String> {
    let results: Topics = read(figures)?;
    let mut block = environment(&results.environment)?;
    writeln!(block, "{}", results.table(Style::Markdown))?;
    Ok(block)
}

/// Where and how figures were made.
fn environment(environment: &Environment) -> anyhow::Result<String> {
    let mut block = String::new();
    writeln!(
        block,
        "`{}`, at commit {}, {}: {} cores ({}), {} GiB of memory, Linux {}.",
        environment.command,
        environment.commit,
        environment.started,
        environment.cores,
        environment.processor,
        environment.memory_bytes >> 30,
        environment.kernel,
    )?;
    writeln!(
        block,
        "A bare write and sync of {} bytes on the same disk takes {} ms (p50 / p99 / max of {}).\n",
        environment.disk.bytes,
        syncs(&environment.disk),
        count(environment.disk.count)
    )?;
    Ok(block)
}

fn syncs(syncs: &Syncs) -> String {
    [syncs.p50_ms, syncs.p99_ms, syncs.max_ms].map(|ms| shown(Some(ms), 2)).join(" / ")
}

fn count(count: u64) -> String {
    shown(Some(number(count)), 0)
}

/// With a capital.
fn titled(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "# A\n<!-- bench:topics -->\nold\n<!-- /bench:topics -->\nend\n";

    #[test]
    fn a_block_replaces_what_is_between_its_comments_and_nothing_else() {
        let text = replaced(DOCUMENT, "topics", "new\n").unwrap();
        assert_eq!(text, "# A\n<!-- bench:topics -->\nnew\n<!-- /bench:topics -->\nend\n");
        assert_eq!(replaced(&text, "topics", "new").unwrap(), text);
    }

    #[test]
    fn a_document_without_the_comments_is_an_error() {
        assert!(replaced(DOCUMENT, "growth", "new").is_err());
        assert!(replaced("<!-- bench:topics -->", "topics", "new").is_err());
    }
}
