//! The dedup index when a store is opened: what the file has of it, and what the rows add; all of it from the rows
//! where it has to be built again.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, TransactionBehavior};

use super::building::{Amount, Building, Output};
use super::rows::{self, Unreadable};
use super::{Sealing, runs};
use crate::store::StoreError;
use crate::store::index::{Entry, Hasher, MAX_NUMBER, Recent, Run, Span};

/// So many times the keys of a seal may be read into memory at start; more are sealed at once, before the log is
/// ready. After a kill there are at most about two, so that opening writes nothing and needs no free disk.
const UNSEALED_AT_START: u64 = 4;

/// Checks what every answer rests on and nothing reads again: the names of the topics, and that topics, totals and
/// the end of the log agree.
pub(super) fn verify(connection: &Connection) -> Result<(), StoreError> {
    let names: String = connection.query_row("PRAGMA integrity_check(topics)", [], |row| row.get(0))?;
    if names != "ok" {
        return Err(StoreError::Damaged(format!("the table of topics: {names}; `sekali doctor` says more")));
    }
    let numbers = |sql: &str| {
        connection.query_row(sql, [], |row| {
            rusqlite::Result::Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
        })
    };
    let totals: [i64; 4] = numbers("SELECT topics, accepted, duplicates, conflicts FROM totals")?;
    // The log has no gaps: its last position is the number of its events.
    let sums = numbers(
        "SELECT count(*), ifnull((SELECT max(pos) FROM events), 0), ifnull(sum(duplicates), 0),
         ifnull(sum(conflicts), 0) FROM topics",
    )?;
    let words = ["topics", "accepted events", "duplicates", "conflicts"];
    for ((counted, found), what) in totals.into_iter().zip(sums).zip(words) {
        if counted != found {
            return Err(StoreError::Damaged(format!(
                "the totals count {counted} {what}, and there are {found}; `sekali doctor` says more"
            )));
        }
    }
    Ok(())
}

/// The runs of the directory, with what memory holds of them.
///
/// # Errors
/// [`StoreError::Damaged`] where the index has to be built again.
pub(super) fn load(connection: &Connection, hasher: &Hasher) -> Result<Vec<Arc<Run>>, StoreError> {
    let (mut loaded, mut first_pos) = (Vec::new(), 1);
    let last_pos = rows::last_pos(connection)?;
    for span in runs::directory(connection)? {
        if let Some(what) = misfit(span, first_pos, last_pos) {
            return Err(StoreError::Damaged(what));
        }
        first_pos = span.last_pos + 1;
        loaded.push(Arc::new(runs::load(connection, span)?));
    }
    if let Some(newest) = loaded.last() {
        check_secret(connection, hasher, newest)?;
    }
    Ok(loaded)
}

/// Checks that the store's secret still makes the keys of a run: with another one, every old key would be new.
fn check_secret(connection: &Connection, hasher: &Hasher, run: &Run) -> Result<(), StoreError> {
    // A damaged block is told of where it is met, and a changed row too; another one is asked.
    let entries =
        runs::with_block(connection, run.span.first_block, |block| block.entries().collect::<Vec<_>>());
    for entry in entries.ok().flatten().unwrap_or_default() {
        if let Ok(Some(said)) = rows::said_at(connection, hasher, entry.pos) {
            let other = || StoreError::Damaged("the secret does not make the keys of the runs".to_owned());
            return if said.key == entry.key { Ok(()) } else { Err(other()) };
        }
    }
    Ok(())
}

/// Why a run of the directory cannot be the one that begins at `first_pos`, in a log up to `last_pos`.
pub(super) fn misfit(span: Span, first_pos: u64, last_pos: u64) -> Option<String> {
    let Span { first_pos: first, last_pos: last, entries, first_block, .. } = span;
    if first != first_pos {
        let what = if first > first_pos { "a gap" } else { "an overlap" };
        Some(format!("the directory of runs has {what} at position {first_pos}"))
    } else if last < first || last > last_pos {
        Some(format!("the run at block {first_block} ends with position {last}, the rows with {last_pos}"))
    } else if entries > last - first + 1 || first_block > MAX_NUMBER {
        Some(format!("the run at block {first_block} has {entries} entries for positions {first} to {last}"))
    } else {
        None
    }
}

/// Reads the rows behind the last run. Where they are many, because the index is being built again, seals them
/// as far as they fill runs; gives the rest.
pub(super) fn catch_up(
    connection: &mut Connection,
    hasher: &Hasher,
    sealing: Sealing,
    runs: &mut Vec<Arc<Run>>,
    next_block: &mut u64,
) -> Result<Recent, StoreError> {
    let most = UNSEALED_AT_START * sealing.keys as u64;
    let (mut sealed, last_pos) = (end(runs), rows::last_pos(connection)?);
    while last_pos - sealed >= most {
        let recent = rows::recent(connection, hasher, sealed, sealing.keys, Unreadable::Refuse)?;
        runs.push(seal(connection, recent, sealed + 1, next_block, sealing)?);
        sealed = end(runs);
    }
    rows::recent(connection, hasher, sealed, usize::MAX, Unreadable::Refuse)
}

/// Builds the whole index again, and seals every row, so that a row that cannot be read does not keep the store
/// from being opened. `kept` has the entries of such rows, by position, as the index knew them before.
/// `done` is told the last position that is sealed. What was done when this fails is a whole index of fewer rows.
pub(super) fn rebuild(
    connection: &mut Connection,
    hasher: &Hasher,
    sealing: Sealing,
    kept: &HashMap<u64, Entry>,
    done: &dyn Fn(u64),
) -> Result<(), StoreError> {
    let next_block = runs::unused_block(connection)?;
    runs::forget(connection)?;
    seal_behind(connection, hasher, sealing, (0, next_block), Unreadable::Keep(kept), done)
}

/// Seals the rows that are in no run yet, of a store that has no writer.
pub(super) fn seal_rest(
    connection: &mut Connection,
    hasher: &Hasher,
    sealing: Sealing,
) -> Result<(), StoreError> {
    let spans = runs::directory(connection)?;
    let sealed = spans.last().map_or(0, |span| span.last_pos);
    let next_block = spans.iter().map(Span::end_block).fold(runs::unused_block(connection)?, u64::max);
    seal_behind(connection, hasher, sealing, (sealed, next_block), Unreadable::Refuse, &|_| ())
}

/// Seals every row behind a position in runs of their own, with blocks from this one on.
fn seal_behind(
    connection: &mut Connection,
    hasher: &Hasher,
    sealing: Sealing,
    (mut sealed, mut next_block): (u64, u64),
    unreadable: Unreadable<'_>,
    done: &dyn Fn(u64),
) -> Result<(), StoreError> {
    let last_pos = rows::last_pos(connection)?;
    while sealed < last_pos {
        let recent = rows::recent(connection, hasher, sealed, sealing.keys, unreadable)?;
        sealed = seal(connection, recent, sealed + 1, &mut next_block, sealing)?.span.last_pos;
        done(sealed);
    }
    Ok(())
}

/// The last position that is in a run.
fn end(runs: &[Arc<Run>]) -> u64 {
    runs.last().map_or(0, |run| run.span.last_pos)
}

/// Seals recent keys in a transaction of their own, waiting for the thread that builds the run.
fn seal(
    connection: &mut Connection,
    recent: Recent,
    first_pos: u64,
    next_block: &mut u64,
    sealing: Sealing,
) -> Result<Arc<Run>, StoreError> {
    let mut building = Building::seal(Arc::new(recent), first_pos, next_block, sealing)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut slices = Vec::new();
    building.write_some(&transaction, Amount::All, &mut slices)?;
    transaction.commit()?;
    match slices.pop() {
        Some(Output::Done { run, .. }) => Ok(run),
        _ => Err(StoreError::Unavailable("a run could not be built from the rows".to_owned())),
    }
}
