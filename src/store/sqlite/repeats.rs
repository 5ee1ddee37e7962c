//! The rows of the events that were repeated most recently. Memory answers; they bring it back after a start.

use rusqlite::{Connection, Row, params};

use super::topics::{TopicId, TopicState};
use super::{rows, topics};
use crate::domain::{Topic, check_name};
use crate::store::StoreError;
use crate::store::repeated::{Changes, Place, Repeats};

/// Writes what has changed.
pub(super) fn write(connection: &Connection, changes: &Changes) -> rusqlite::Result<()> {
    if changes.anew {
        connection.execute("DELETE FROM repeats", [])?;
    }
    for ((name, seq), change) in &changes.events {
        // One that is gone has no events that anybody could ask for.
        let Some(TopicState { id, .. }) = topics::load(connection, name)? else { continue };
        match change {
            Some(repeats) => put(connection, id, *seq, repeats)?,
            None => delete(connection, id, *seq)?,
        }
    }
    Ok(())
}

fn put(connection: &Connection, topic: TopicId, seq: u64, repeats: &Repeats) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO repeats
             (topic, seq, duplicates, conflicts, last_at, last_source, last_conflict)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            topic.0,
            seq.cast_signed(),
            repeats.duplicates.cast_signed(),
            repeats.conflicts.cast_signed(),
            repeats.last_at.as_microsecond(),
            repeats.last_source,
            repeats.last_conflict
        ])
        .map(drop)
}

fn delete(connection: &Connection, topic: TopicId, seq: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM repeats WHERE topic = ?1 AND seq = ?2")?
        .execute([topic.0, seq.cast_signed()])
        .map(drop)
}

/// All of them that can be read, the one that was repeated last coming last.
pub(super) fn load(connection: &Connection) -> Result<Vec<(Place, Repeats)>, StoreError> {
    let sql = "SELECT t.name, r.seq, r.duplicates, r.conflicts, r.last_at, r.last_source, r.last_conflict
               FROM repeats AS r JOIN topics AS t ON t.id = r.topic ORDER BY r.last_at";
    let mut statement = connection.prepare(sql)?;
    let mut found = statement.query([])?;
    let (mut all, mut skipped) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let topic = str::from_utf8(rows::bytes(row, 0)?).map(Topic::parse);
        match (topic, known(row)) {
            (Ok(Ok(topic)), Ok(repeats)) => {
                let seq = row.get::<_, i64>(1)?.cast_unsigned();
                all.push(((topic, seq), repeats));
            }
            _ => skipped += 1,
        }
    }
    if skipped > 0 {
        tracing::warn!(rows = skipped, "rows of the table repeats are damaged; going on without them");
    }
    Ok(all)
}

/// The topics and seqs of rows that cannot be read.
pub(super) fn unreadable(connection: &Connection) -> Result<Vec<[i64; 2]>, StoreError> {
    let sql = "SELECT topic, seq, duplicates, conflicts, last_at, last_source, last_conflict FROM repeats";
    let mut statement = connection.prepare(sql)?;
    let mut found = statement.query([])?;
    let mut unreadable = Vec::new();
    while let Some(row) = found.next()? {
        if known(row).is_err() {
            unreadable.push([row.get(0)?, row.get(1)?]);
        }
    }
    Ok(unreadable)
}

/// What a row says, from its third column on.
fn known(row: &Row<'_>) -> Result<Repeats, StoreError> {
    let last_source: String = row.get(5)?;
    if check_name(&last_source).is_err() {
        return Err(StoreError::Damaged(format!("a source {last_source:?}")));
    }
    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let (duplicates, conflicts, last_at) = (number(2)?, number(3)?, rows::time(row.get(4)?)?);
    Ok(Repeats { duplicates, conflicts, last_at, last_source, last_conflict: row.get(6)? })
}
