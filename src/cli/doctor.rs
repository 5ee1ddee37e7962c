//! `sekali doctor`: what is damaged in a stopped store, and its index built again.

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::Outcome;
use super::output::{self, thousands};
use crate::app::{self, Cure, Progress, Report};
use crate::config::{self, Overrides};

/// What the store is, what helps, and what the index is there for.
const AFTER: &str = "\
Stop the server first: the doctor takes the store for itself. It changes nothing and leaves nothing beside the store, except \
where the server was not stopped cleanly (its write-ahead log is read then, and stays), with --rebuild-index, which drops \
the dedup index and builds it again from the events, and with --new-history, which marks the store: its next start tells \
readers of events that a restore lost from those that it holds. Events themselves cannot be rebuilt; those that \
are damaged are named and left as they are. Make a copy of the files before you mend anything.";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct Args {
    /// The configuration file of the server; without one the defaults apply
    #[arg(long, value_name = "FILE", env = "SEKALI_CONFIG")]
    config: Option<PathBuf>,
    /// Where the events are, such as sqlite:data/sekali.db
    #[arg(long, value_name = "URL", env = "SEKALI_STORE", hide_env_values = true)]
    store: Option<String>,
    /// Build the dedup index again from the events, then check
    #[arg(long)]
    rebuild_index: bool,
    /// Let the next start begin a new history, then check: after a restore by another tool than `sekali backup`
    #[arg(long, conflicts_with = "rebuild_index")]
    new_history: bool,
    /// Give the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let overrides = Overrides { store: args.store.clone(), ..Overrides::default() };
    let settings = config::load(args.config.as_deref(), &overrides)?;
    let doctor = app::doctor(&settings)?;
    let bar = output::bar("{human_pos}/{human_len}");
    let tell = |progress: Progress| output::show(&bar, progress);
    let examined = match args {
        Args { rebuild_index: true, .. } => doctor.rebuild_index(&tell),
        Args { new_history: true, .. } => doctor.new_history(&tell),
        _ => doctor.inspect(&tell),
    };
    bar.finish_and_clear();
    let report = examined?;
    if args.json {
        output::json(&Judged { healthy: report.is_healthy(), report: &report })?;
    } else {
        output::result(&text(&report))?;
    }
    Ok(if report.is_healthy() { Outcome::Done } else { Outcome::Failed })
}

/// A report with its verdict in front.
#[derive(Serialize)]
struct Judged<'a> {
    healthy: bool,
    #[serde(flatten)]
    report: &'a Report,
}

fn text(report: &Report) -> String {
    let rows = report.checked.iter().map(|checked| {
        let [one, many] = checked.part.units();
        let amount =
            format!("{} {}", thousands(checked.amount), if checked.amount == 1 { one } else { many });
        vec![checked.part.as_str().to_owned(), amount, thousands(checked.faults)]
    });
    let mut text = output::table(&["part", "checked", "faults"], 1, rows);
    text.push('\n');
    for note in &report.notes {
        let _ = write!(text, "\nnote: {note}");
    }
    for cure in Cure::ALL {
        let named: Vec<_> = report.faults.iter().filter(|fault| fault.cure == cure).collect();
        for fault in &named {
            let _ = write!(text, "\n{}: {}", fault.part.as_str(), fault.what);
        }
        if !named.is_empty() {
            let _ = write!(text, "\n  what to do: {}\n", cure.as_str());
        }
    }
    let _ = write!(text, "\n{}", verdict(report));
    text
}

/// The last line.
fn verdict(report: &Report) -> String {
    let faults: u64 = report.checked.iter().map(|checked| checked.faults).sum();
    match faults {
        0 => "HEALTHY: nothing is damaged".to_owned(),
        1 => "DAMAGED: 1 fault".to_owned(),
        _ => format!("DAMAGED: {} faults", thousands(faults)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Checked, Fault, Part};

    #[test]
    fn faults_come_with_what_to_do_and_the_verdict_last() {
        let fault = |part, cure, what: &str| Fault { part, cure, what: what.to_owned() };
        let report = Report {
            schema_version: 2,
            checked: vec![
                Checked { part: Part::Rows, amount: 12_345, faults: 1_200 },
                Checked { part: Part::Runs, amount: 12_000, faults: 1 },
                Checked { part: Part::Sources, amount: 1, faults: 0 },
            ],
            faults: vec![
                fault(Part::Rows, Cure::Restore, "a row"),
                fault(Part::Runs, Cure::RebuildIndex, "a run"),
            ],
            notes: vec!["left-overs".to_owned()],
        };
        let text = text(&report);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].contains("12,345 events") && lines[1].ends_with("1,200"), "{text}");
        assert!(lines[3].contains("1 source ") && lines[2].contains("12,000 entries"), "{text}");
        for cure in [Cure::Restore, Cure::RebuildIndex] {
            assert!(text.contains(&format!("  what to do: {}", cure.as_str())), "{text}");
        }
        let places = ["note: left-overs", "runs: a run", "rows: a row", "DAMAGED: 1,201 faults"]
            .map(|part| text.find(part).unwrap());
        assert!(places.is_sorted(), "{text}");
        assert_eq!(lines.last(), Some(&"DAMAGED: 1,201 faults"));
    }
}
