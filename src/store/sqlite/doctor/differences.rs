//! Where a run and its rows differ: which rows and entries they are. Looks up one by one, and stops when enough
//! are named.
//!
//! Blocks have checksums, and rows of older versions have none, so that where an entry and the row at its position
//! differ, it is the row that was changed.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::name_of;
use super::report::{Cure, Findings, Part};
use crate::store::StoreError;
use crate::store::index::{Entry, Hasher, Run, Span};
use crate::store::sqlite::rows;
use crate::store::sqlite::runs::{self, Search};

/// What differences are looked for in.
pub(super) struct Differences<'a> {
    pub(super) connection: &'a Connection,
    pub(super) hasher: &'a Hasher,
    /// Every run whose blocks are whole.
    pub(super) runs: &'a [Run],
    /// Rows that were changed, or of which no key can be made.
    pub(super) unreadable: &'a BTreeSet<u64>,
}

impl Differences<'_> {
    /// Names how a run and its rows differ.
    pub(super) fn name(&self, span: Span, findings: &mut Findings) -> Result<(), StoreError> {
        let changed = self.name_changed(span, findings)?;
        self.name_missing(span, &changed, findings)
    }

    /// Names rows that are gone or are not what their entries say; gives the positions of the latter.
    fn name_changed(&self, span: Span, findings: &mut Findings) -> Result<BTreeSet<u64>, StoreError> {
        let mut changed = BTreeSet::new();
        for id in span.first_block..span.end_block() {
            let entries = runs::with_block(self.connection, id, |block| block.entries().collect::<Vec<_>>())?;
            for entry in entries.unwrap_or_default() {
                if findings.is_full(Part::Rows) {
                    return Ok(changed);
                }
                if self.unreadable.contains(&entry.pos) {
                    continue;
                }
                let what = match rows::entry_at(self.connection, self.hasher, entry.pos)? {
                    Some((_, Some(row))) if row == entry => continue,
                    Some((topic, Some(row))) => {
                        changed.insert(entry.pos);
                        self.what_changed(topic, entry, row, findings)?
                    }
                    // Rows that cannot be read are named already.
                    Some((_, None)) => continue,
                    None => format!("position {} has no row, and had one of seq {}", entry.pos, entry.seq),
                };
                findings.add(Part::Rows, Cure::Restore, what);
            }
        }
        Ok(changed)
    }

    fn what_changed(
        &self,
        topic: i64,
        entry: Entry,
        row: Entry,
        findings: &mut Findings,
    ) -> Result<String, StoreError> {
        let what = if entry.key != row.key {
            if let Search::Found(first) = runs::search(self.connection, self.runs.iter(), row.key)? {
                name_repeat(self.connection, first, row, findings)?;
            }
            "its topic or its event_id was changed".to_owned()
        } else if entry.seq != row.seq {
            format!("its seq was {}", entry.seq)
        } else {
            "its payload was changed".to_owned()
        };
        let topic = name_of(self.connection, topic);
        Ok(format!("{topic}, seq {}, position {}: {what} since it was stored", row.seq, row.pos))
    }

    /// Names rows that no entry is for.
    fn name_missing(
        &self,
        span: Span,
        changed: &BTreeSet<u64>,
        findings: &mut Findings,
    ) -> Result<(), StoreError> {
        let Some(run) = self.runs.iter().find(|run| run.span == span) else { return Ok(()) };
        for pos in span.first_pos..=span.last_pos {
            if findings.is_full(Part::Runs) {
                return Ok(());
            }
            if changed.contains(&pos) {
                continue;
            }
            let Some((topic, Some(row))) = rows::entry_at(self.connection, self.hasher, pos)? else {
                continue;
            };
            match runs::search(self.connection, std::iter::once(run), row.key)? {
                Search::Found(entry) if entry.pos == pos => {}
                Search::Found(first) => name_repeat(self.connection, first, row, findings)?,
                Search::NotThere | Search::Outdated(_) => {
                    let topic = name_of(self.connection, topic);
                    let what = format!(
                        "{topic}, seq {}, position {pos}: the run at block {} does not know this event",
                        row.seq, span.first_block
                    );
                    findings.add(Part::Runs, Cure::RebuildIndex, what);
                }
            }
        }
        Ok(())
    }
}

/// Names two positions with one key: an event that is stored twice, or an index that says so wrongly.
pub(super) fn name_repeat(
    connection: &Connection,
    one: Entry,
    other: Entry,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let (first, second) = if one.pos < other.pos { (one, other) } else { (other, one) };
    let places = format!(
        "seq {} (position {}) and seq {} (position {})",
        first.seq, first.pos, second.seq, second.pos
    );
    match (rows::id_at(connection, first.pos)?, rows::id_at(connection, second.pos)?) {
        (Some((topic, id)), Some(same)) if (topic, &id) == (same.0, &same.1) => {
            let id = String::from_utf8_lossy(&id);
            let what = format!("{}: event {id:?} is stored twice, as {places}", name_of(connection, topic));
            findings.add(Part::Rows, Cure::Restore, what);
        }
        _ => {
            findings.add(Part::Runs, Cure::RebuildIndex, format!("one key is in the index for {places}"));
        }
    }
    Ok(())
}
