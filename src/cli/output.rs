//! Standard output for results, standard error for talk, and tables: on a terminal for people, one JSON value a line
//! in a pipe.

#[cfg(not(test))]
use std::io as streams;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

use crate::app::Progress;
#[cfg(test)]
use crate::testing as streams;

/// How a list is given.
#[derive(Debug, clap::Args)]
pub(super) struct Form {
    /// Give one JSON document; without it: a table on a terminal, one JSON value a line in a pipe
    #[arg(long)]
    json: bool,
    /// Give a table also in a pipe
    #[arg(long, conflicts_with = "json")]
    table: bool,
}

impl Form {
    /// Gives a list.
    pub(super) fn list<T: Serialize>(
        &self,
        items: Vec<T>,
        table: impl FnOnce(Vec<T>) -> String,
    ) -> anyhow::Result<()> {
        if self.json {
            return json(&items);
        }
        if self.is_for_people() {
            return Ok(result(&table(items))?);
        }
        items.iter().try_for_each(json)
    }

    /// Gives what is one thing.
    pub(super) fn one<T: Serialize>(&self, item: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        if self.json || !self.is_for_people() { json(item) } else { Ok(result(&text(item))?) }
    }

    fn is_for_people(&self) -> bool {
        self.table || io::stdout().is_terminal()
    }
}

/// Writes a result and a line end. A reader that has seen enough (`| head`) is no error.
pub(super) fn result(text: &str) -> io::Result<()> {
    let mut out = streams::stdout();
    match out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| unwritten(&error)),
    }
}

/// What failed, which "no space left on device" alone does not say.
pub(super) fn unwritten(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("standard output cannot be written: {error}"))
}

/// Waits until whoever reads standard output has gone; for ever where nobody can, as with a file.
pub(super) async fn reader_gone() {
    let watched = io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
    if let Ok(out) = watched {
        // Only watched: nothing is written through this handle, and what it writes to may be no pipe.
        while out.ready(Interest::ERROR).await.is_ok_and(|ready| !ready.is_error()) {}
    } else {
        std::future::pending::<()>().await;
    }
}

/// Writes a result as JSON on one line.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(result(&serde_json::to_string(value)?)?)
}

/// Says something to the user. When even that fails there is nobody to tell.
pub(super) fn talk(text: &str) {
    let _ = streams::stderr().write_all(format!("{text}\n").as_bytes());
}

/// A table in plain columns; the columns from `numbers` on are aligned to the right.
pub(super) fn table(header: &[&str], numbers: usize, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    for row in rows {
        let cell = |(column, text): (usize, String)| {
            let side = if column < numbers { CellAlignment::Left } else { CellAlignment::Right };
            Cell::new(text).set_alignment(side)
        };
        table.add_row(row.into_iter().enumerate().map(cell));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A bar for work that tells how far it is, and what is counted, such as `{bytes}/{total_bytes}`. Nothing in a pipe.
pub(super) fn bar(counted: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(&format!("[{{elapsed}}] {{wide_bar}} {counted} {{msg}}"))
    {
        bar.set_style(style);
    }
    bar
}

/// Moves a bar to where the work is.
pub(super) fn show(bar: &ProgressBar, Progress { stage, done, total }: Progress) {
    bar.set_length(total);
    bar.set_position(done);
    bar.set_message(stage);
}

/// So many things, as people read it: `1 topic`, `1,234 topics`.
pub(super) fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", thousands(number))
}

/// A number with its thousands apart, as people read it.
pub(super) fn thousands(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_not_many() {
        assert_eq!(
            [0, 1, 1234].map(|number| counted(number, "topic")),
            ["0 topics", "1 topic", "1,234 topics"]
        );
    }

    #[test]
    fn tables_are_plain_columns() {
        let rows = [vec!["orders".to_owned(), "7".to_owned()], vec!["x".to_owned(), thousands(1234)]];
        let text = table(&["topic", "events"], 1, rows);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines, [["topic", "events"], ["orders", "7"], ["x", "1,234"]]);
    }
}
