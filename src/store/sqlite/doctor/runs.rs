//! The runs of the dedup index: the directory, each run by itself and against its rows, and all of them together.

use std::collections::{BTreeSet, HashMap};
use std::mem;

use rusqlite::Connection;

use super::differences::{Differences, name_repeat};
use super::log::{Log, Sum};
use super::report::{Cure, Findings, Part};
use super::{Progress, Tell};
use crate::store::StoreError;
use crate::store::index::{Block, Entry, Hasher, Run, RunBuilder, Span};
use crate::store::sqlite::building::{Cursor, pop_least};
use crate::store::sqlite::{opening, rows, runs};

/// Positions of lost keys that are listed.
const LOST_NAMED: usize = 100;

/// Blocks between two reports of progress.
const STEP: u64 = 1 << 10;

/// Keys between two reports of progress.
const KEYS_STEP: u64 = 1 << 16;

/// The runs of the directory, without those that cannot be in it. Names those, and what no run owns.
pub(super) fn directory(connection: &Connection, findings: &mut Findings) -> Result<Vec<Span>, StoreError> {
    let last_pos = rows::last_pos(connection)?;
    let (mut spans, mut first_pos): (Vec<Span>, _) = (Vec::new(), 1);
    let directory = match runs::directory(connection) {
        Err(StoreError::Damaged(what)) => {
            findings.add(Part::Runs, Cure::RebuildIndex, format!("the directory of runs: {what}"));
            Vec::new()
        }
        directory => directory?,
    };
    for span in directory {
        let what = opening::misfit(span, first_pos, last_pos);
        let usable = opening::misfit(span, span.first_pos, last_pos).is_none() && span.first_pos >= first_pos;
        if let Some(what) = what {
            findings.add(Part::Runs, Cure::RebuildIndex, what);
        }
        if usable {
            first_pos = span.last_pos + 1;
            spans.push(span);
        }
    }
    let mut owned: Vec<_> = spans.iter().map(|span| (span.first_block, span.end_block())).collect();
    owned.sort_unstable();
    for two in owned.windows(2).filter(|two| two[1].0 < two[0].1) {
        let what = format!("the runs at blocks {} and {} share blocks", two[0].0, two[1].0);
        findings.add(Part::Runs, Cure::RebuildIndex, what);
    }
    let blocks: u64 = runs::left_overs(connection, &spans)?.iter().map(|ids| ids.end - ids.start).sum();
    let parts = runs::orphaned_parts(connection)?.len();
    if blocks > 0 || parts > 0 {
        findings.note(format!(
            "up to {blocks} blocks and the parts of {parts} runs belong to no run: left-overs, which the next \
             start deletes"
        ));
    }
    Ok(spans)
}

/// Checks each run, compares it with its rows, and looks for keys that are stored twice.
pub(super) fn inspect(
    connection: &Connection,
    hasher: &Hasher,
    spans: &[Span],
    log: &mut Log,
    tell: Tell<'_>,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    findings.checked(Part::Runs, spans.iter().map(|span| span.entries).sum());
    let (mut runs, mut differing) = (Vec::new(), Vec::new());
    let mut lost = log.unreadable.clone();
    for (span, expected) in spans.iter().zip(&log.runs) {
        let Some((run, found)) = check_run(connection, *span, &mut lost, tell, findings)? else {
            continue;
        };
        if log.complete && found != *expected {
            differing.push(*span);
        }
        runs.push(run);
    }
    let differences = Differences { connection, hasher, runs: &runs, unreadable: &log.unreadable };
    for span in differing {
        differences.name(span, findings)?;
    }
    if runs.len() == spans.len() {
        report_lost(&lost, findings);
    }
    if log.unsealed > log.recent.len() as u64 {
        let what = format!("{} events are in no run, more than a server leaves", log.unsealed);
        findings.add(Part::Runs, Cure::RebuildIndex, what);
    }
    let recent = mem::take(&mut log.recent);
    find_repeats(connection, runs.iter().map(|run| run.span), recent, tell, findings)
}

/// Says it where neither the row nor the index has the key of an event any more.
fn report_lost(lost: &BTreeSet<u64>, findings: &mut Findings) {
    if lost.is_empty() {
        return;
    }
    let first: Vec<_> = lost.iter().take(LOST_NAMED).map(u64::to_string).collect();
    findings.note(format!(
        "LOST: the keys of {} events, which neither their rows nor the index tell for certain; each may be new to the log \
         if it is sent again. Their positions begin with {}",
        lost.len(),
        first.join(", ")
    ));
}

/// Checks the blocks of a run, and its filter and fences against them. Gives it as its blocks say that it is, with
/// the sum of its entries; `None` where a block is damaged. Entries at positions of `lost`, whose rows cannot be
/// read, are taken from there, and are not part of the sum.
fn check_run(
    connection: &Connection,
    span: Span,
    lost: &mut BTreeSet<u64>,
    tell: Tell<'_>,
    findings: &mut Findings,
) -> Result<Option<(Run, Sum)>, StoreError> {
    let mut faults = Vec::new();
    let check = check_blocks(connection, span, lost, tell, &mut faults)?;
    let damaged = !faults.is_empty();
    for what in faults {
        let what = format!("the run at block {}: {what}", span.first_block);
        findings.add(Part::Runs, Cure::RebuildIndex, what);
    }
    let Some(BlockCheck { builder, sum, .. }) = check.filter(|_| !damaged) else { return Ok(None) };
    let (run, _) = builder.finish();
    check_memory(connection, &run, findings)?;
    Ok(Some((run, sum)))
}

/// Reads the blocks of a run in their order, as far as they are.
fn check_blocks(
    connection: &Connection,
    span: Span,
    lost: &mut BTreeSet<u64>,
    tell: Tell<'_>,
    faults: &mut Vec<String>,
) -> Result<Option<BlockCheck>, StoreError> {
    // The last one first: a number of entries that is wrong must not decide how much memory is taken.
    let end = span.end_block();
    if span.entries > 0 && matches!(runs::with_block(connection, end - 1, |_| ()), Ok(None)) {
        faults.push(format!("block {} is missing", end - 1));
        return Ok(None);
    }
    let mut check =
        BlockCheck { end, builder: RunBuilder::new(span), last: None, sum: Sum::default(), entries: 0 };
    for id in span.first_block..end {
        if id.is_multiple_of(STEP) {
            tell(Progress { stage: "blocks of a run", done: id - span.first_block, total: span.blocks() });
        }
        // Behind a fault, entries are not where they have to be.
        let whole = faults.is_empty();
        let add = |block: Block<'_>| if whole { check.add(id, block.entries(), lost) } else { Ok(()) };
        match runs::with_block(connection, id, add) {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(what))) => faults.push(format!("block {id} {what}")),
            Ok(None) => faults.push(format!("block {id} is missing")),
            Err(StoreError::Damaged(_)) => faults.push(format!("block {id} does not match its checksum")),
            Err(error) => return Err(error),
        }
    }
    if faults.is_empty() && check.entries != span.entries {
        let (found, counted) = (check.entries, span.entries);
        faults.push(format!("its blocks have {found} entries, and the directory says {counted}"));
    }
    Ok(Some(check))
}

/// What was seen of the blocks of a run.
struct BlockCheck {
    /// The id behind the last block.
    end: u64,
    builder: RunBuilder,
    last: Option<u128>,
    /// Of the entries whose rows can be read.
    sum: Sum,
    entries: u64,
}

impl BlockCheck {
    /// Adds a block: full, unless it is the last one, and with keys that ascend from the block before.
    fn add(
        &mut self,
        id: u64,
        entries: impl Iterator<Item = Entry>,
        lost: &mut BTreeSet<u64>,
    ) -> Result<(), &'static str> {
        let mut filled = None;
        for entry in entries {
            if self.last.is_some_and(|last| last >= entry.key) {
                return Err("is not sorted, or has a key twice");
            }
            self.last = Some(entry.key);
            self.entries += 1;
            filled = self.builder.push(entry).map(|built| built.id);
            if !lost.remove(&entry.pos) {
                self.sum.add(entry);
            }
        }
        if filled == Some(id) || id + 1 == self.end {
            Ok(())
        } else {
            Err("has not as many entries as a block has")
        }
    }
}

/// Compares the filter and the fences that are stored with those that the blocks give.
fn check_memory(connection: &Connection, built: &Run, findings: &mut Findings) -> Result<(), StoreError> {
    let place = built.span.first_block;
    let what = match runs::load(connection, built.span) {
        Ok(stored) => match (stored.has_filter_of(built), stored.has_fences_of(built)) {
            (true, true) => return Ok(()),
            (false, _) => format!("the run at block {place}: its filter is not that of its blocks"),
            (true, false) => format!("the run at block {place}: its fences are not those of its blocks"),
        },
        Err(StoreError::Damaged(what)) => format!("{what} does not match its checksum"),
        Err(error) => return Err(error),
    };
    findings.add(Part::Runs, Cure::RebuildIndex, what);
    Ok(())
}

/// Reads all runs that are whole, and the recent rows, in the order of their keys, and names keys that come twice.
fn find_repeats(
    connection: &Connection,
    spans: impl Iterator<Item = Span>,
    mut recent: Vec<Entry>,
    tell: Tell<'_>,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    recent.sort_unstable();
    let mut total = recent.len() as u64;
    let mut cursors = vec![Cursor::of(recent)];
    for span in spans {
        total += span.entries;
        cursors.push(Cursor::open(connection, span)?);
    }
    let (mut before, mut done): (Option<Entry>, u64) = (None, 0);
    while let Some(entry) = pop_least(connection, &mut cursors)? {
        if let Some(first) = before.filter(|before| before.key == entry.key) {
            name_repeat(connection, first, entry, findings)?;
        }
        before = Some(entry);
        done += 1;
        if done.is_multiple_of(KEYS_STEP) {
            tell(Progress { stage: "keys", done, total });
        }
    }
    Ok(())
}

/// The entries at these positions, from all blocks that can be read, left-overs included.
pub(super) fn entries_at(
    connection: &Connection,
    positions: &BTreeSet<u64>,
) -> Result<HashMap<u64, Entry>, StoreError> {
    let mut found = HashMap::new();
    if positions.is_empty() {
        return Ok(found);
    }
    runs::each_block(connection, &mut |entries| {
        found.extend(entries.filter(|entry| positions.contains(&entry.pos)).map(|entry| (entry.pos, entry)));
    })?;
    Ok(found)
}
