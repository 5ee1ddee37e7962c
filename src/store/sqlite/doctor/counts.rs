//! Topics and totals against the rows.

use rusqlite::{Connection, Row};

use super::log::{Log, Seen};
use super::report::{Cure, Findings, Part};
use crate::domain::check_name;
use crate::store::StoreError;
use crate::store::sqlite::rows;

/// The sums over all topics that the totals have too.
#[derive(Default)]
struct Sums {
    topics: i64,
    duplicates: i64,
    conflicts: i64,
}

/// Checks what topics and totals count. What depends on rows is left out where those could not all be read.
pub(super) fn inspect(connection: &Connection, log: &Log, findings: &mut Findings) -> Result<(), StoreError> {
    let sums = topics(connection, log, findings)?;
    totals(connection, log, &sums, findings)
}

fn topics(connection: &Connection, log: &Log, findings: &mut Findings) -> Result<Sums, StoreError> {
    let sql = "SELECT id, last_seq, duplicates, conflicts, last_received_at, name FROM topics ORDER BY id";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut sums = Sums::default();
    while let Some(row) = rows.next()? {
        sums.topics += 1;
        sums.duplicates = sums.duplicates.saturating_add(row.get(2)?);
        sums.conflicts = sums.conflicts.saturating_add(row.get(3)?);
        if let Err(what) = topic(row, log) {
            findings.add(Part::Topics, Cure::Restore, what);
        }
    }
    findings.checked(Part::Topics, sums.topics.cast_unsigned());
    Ok(sums)
}

fn topic(row: &Row<'_>, log: &Log) -> Result<(), String> {
    let number = |column| row.get::<_, i64>(column).map_err(|error| error.to_string());
    let (id, counted) = (number(0)?, number(1)?);
    let bytes = rows::bytes(row, 5).map_err(|error| error.to_string())?;
    let name = String::from_utf8_lossy(bytes);
    str::from_utf8(bytes)
        .ok()
        .filter(|text| check_name(text).is_ok())
        .ok_or_else(|| format!("topic {name:?} (number {id}): its name is none"))?;
    rows::time(number(4)?).map_err(|error| format!("topic {name:?}: {error}"))?;
    let seen = usize::try_from(id).ok().and_then(|id| *log.topics.get(id)?);
    let seen = seen.ok_or_else(|| {
        format!("topic {name:?}: its number {id} is none that sekali gives to so few topics")
    })?;
    // A server writes it when it seals, before the run is whole; the last row may be the first one behind a gap.
    let known = [seen.last, log.odd.get(&id).copied().unwrap_or(0)].into_iter().max().unwrap_or(0);
    if log.complete && !(seen.sealed..=known).contains(&counted.cast_unsigned()) {
        let Seen { sealed, last, .. } = seen;
        return Err(format!(
            "topic {name:?} counts {counted} sealed events; {sealed} are, and its rows end with seq {last}"
        ));
    }
    Ok(())
}

fn totals(
    connection: &Connection,
    log: &Log,
    sums: &Sums,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let sql = "SELECT topics, accepted, duplicates, conflicts FROM totals";
    let mut statement = connection.prepare(sql)?;
    let mut found = statement.query([])?;
    let Some(row) = found.next()? else {
        findings.add(Part::Totals, Cure::Restore, "the row of totals is missing");
        return Ok(());
    };
    findings.checked(Part::Totals, 1);
    let counted = [
        ("topics", sums.topics, "topics", true),
        ("accepted", log.rows.cast_signed(), "rows of events", log.complete),
        ("duplicates", sums.duplicates, "duplicates of all topics together", true),
        ("conflicts", sums.conflicts, "conflicts of all topics together", true),
    ];
    for (column, (name, is, what, known)) in counted.into_iter().enumerate() {
        let says: i64 = row.get(column)?;
        if known && says != is {
            findings.add(Part::Totals, Cure::Recount, format!("{name} is {says}, and there are {is} {what}"));
        }
    }
    Ok(())
}
