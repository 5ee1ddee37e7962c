//! The rows of the events that were repeated most recently. Memory answers; they bring it back after a start.

use rusqlite::{Connection, params};

use super::topics::{TopicId, TopicState};
use super::{rows, topics};
use crate::domain::Topic;
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

/// All of them, the one that was repeated last coming last.
pub(super) fn load(connection: &Connection) -> Result<Vec<(Place, Repeats)>, StoreError> {
    let sql = "SELECT t.name, r.seq, r.duplicates, r.conflicts, r.last_at, r.last_source, r.last_conflict
               FROM repeats AS r JOIN topics AS t ON t.id = r.topic ORDER BY r.last_at";
    let mut statement = connection.prepare(sql)?;
    let mut found = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = found.next()? {
        let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let name: String = row.get(0)?;
        // They only explain: one that is damaged must not keep the store from being opened.
        let (Ok(topic), Ok(last_at)) = (Topic::parse(&name), rows::time(row.get(4)?)) else { continue };
        let repeats = Repeats {
            duplicates: number(2)?,
            conflicts: number(3)?,
            last_at,
            last_source: row.get(5)?,
            last_conflict: row.get(6)?,
        };
        all.push(((topic, number(1)?), repeats));
    }
    Ok(all)
}
