//! Tables: plain for a terminal, Markdown for a document.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use crate::results::{Comparison, Figures, Outcome};

/// How a table is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// In columns of spaces.
    Plain,
    /// For a document.
    Markdown,
}

/// A column of figures.
struct Column {
    header: &'static str,
    value: fn(&Figures) -> f64,
    decimals: usize,
}

/// Every figure of a measurement that is reported.
const COLUMNS: [Column; 8] = [
    Column { header: "events/s", value: Figures::rate, decimals: 0 },
    Column { header: "p50 ms", value: |figures| figures.p50_ms, decimals: 2 },
    Column { header: "p99 ms", value: |figures| figures.p99_ms, decimals: 2 },
    Column { header: "max ms", value: |figures| figures.max_ms, decimals: 1 },
    Column { header: "server CPU s/M", value: Figures::server_cpu, decimals: 2 },
    Column { header: "client CPU s/M", value: Figures::client_cpu, decimals: 2 },
    Column { header: "memory MiB", value: Figures::memory_mib, decimals: 0 },
    Column { header: "disk B/event", value: Figures::disk_per_event, decimals: 0 },
];

/// Draws a table; the columns from `numbers` on are aligned to the right.
pub(crate) fn draw(style: Style, header: &[&str], numbers: usize, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    let preset = if style == Style::Plain { presets::NOTHING } else { presets::ASCII_MARKDOWN };
    table.load_style(preset).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    for row in rows {
        let cell = |(column, text)| {
            let side = if column < numbers { CellAlignment::Left } else { CellAlignment::Right };
            Cell::new(text).set_alignment(side)
        };
        table.add_row(row.into_iter().enumerate().map(cell));
    }
    table.trim_fmt()
}

/// The medians of a shape, a row a peer.
pub(crate) fn medians(results: &Comparison, shape: &str, style: Style) -> String {
    let row = |peer: &str| {
        let median = |column: &Column| results.median(peer, shape, column.value);
        COLUMNS.iter().map(|column| shown(median(column), column.decimals)).collect::<Vec<_>>()
    };
    rows(results, shape, style, &row, &["", "verified"])
}

/// The same, divided by the figures of the reference.
pub(crate) fn ratios(results: &Comparison, shape: &str, style: Style) -> String {
    let divisor = results.reference();
    let row = |peer: &str| {
        let ratio = |column: &Column| {
            let reference = results.median(divisor, shape, column.value)?;
            let value = results.median(peer, shape, column.value)?;
            (reference > 0.0).then_some(value / reference)
        };
        COLUMNS.iter().map(|column| shown(ratio(column), 2)).collect::<Vec<_>>()
    };
    rows(results, shape, style, &row, &[&format!("divided by {divisor}"), "verified"])
}

fn rows(
    results: &Comparison,
    shape: &str,
    style: Style,
    row: &dyn Fn(&str) -> Vec<String>,
    ends: &[&str; 2],
) -> String {
    let mut header = vec![ends[0]];
    header.extend(COLUMNS.iter().map(|column| column.header));
    header.push(ends[1]);
    let rows = results.peers.iter().map(|peer| {
        let mut cells = vec![peer.name.clone()];
        cells.extend(row(&peer.name));
        cells.push(verified(results, &peer.name, shape));
        cells
    });
    draw(style, &header, 1, rows.collect())
}

/// Whether all rounds of a peer answered and stored what they should.
fn verified(results: &Comparison, peer: &str, shape: &str) -> String {
    let all = || {
        results
            .measurements
            .iter()
            .filter(|measurement| measurement.peer == peer && measurement.shape == shape)
    };
    let failed = all().filter(|measurement| matches!(measurement.outcome, Outcome::Failed(_))).count();
    let figures = results.figures(peer, shape);
    let wrong = figures.iter().filter(|figures| !figures.verified).count();
    match (all().count(), failed, wrong) {
        (0, ..) => "MISSING".to_owned(),
        (_, 0, 0) if figures.iter().all(|figures| figures.stored.is_none()) => "stores nothing".to_owned(),
        (_, 0, 0) => "yes".to_owned(),
        (_, 0, wrong) => format!("WRONG in {wrong}"),
        (_, failed, _) => format!("FAILED in {failed}"),
    }
}

/// A figure for people; a dash where there is none.
pub(crate) fn shown(value: Option<f64>, decimals: usize) -> String {
    let Some(value) = value else {
        return "-".to_owned();
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut apart = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) && !apart.ends_with('-') {
            apart.push(',');
        }
        apart.push(digit);
    }
    if fraction.is_empty() { apart } else { format!("{apart}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_their_thousands_apart() {
        assert_eq!(shown(Some(1_234_567.4), 0), "1,234,567");
        assert_eq!(shown(Some(-123.456), 2), "-123.46");
        assert_eq!(shown(Some(999.0), 1), "999.0");
        assert_eq!(shown(None, 1), "-");
    }

    #[test]
    fn a_document_gets_a_table_of_markdown() {
        let text = draw(Style::Markdown, &["a", "b"], 1, vec![vec!["x".to_owned(), "1".to_owned()]]);
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert!(lines.iter().all(|line| line.starts_with('|') && line.ends_with('|')), "{text}");
    }
}
