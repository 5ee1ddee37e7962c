//! The events that were repeated most recently. Each node has a list of its own in memory, and stores it in rows of its own;
//! who asks any node is told the sum of all.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::reader::time;
use crate::store::repeated::Changes;
use crate::store::{Repeats, StoreError};

/// Writes what a node ($1) knows: arrays of topics, seqs, duplicates, conflicts, times, sources, and whether the last one was
/// a conflict.
pub(super) const PUT: &str = "
    INSERT INTO sekali.repeats (topic, seq, node, duplicates, conflicts, last_at, last_source, last_conflict)
    SELECT topic, seq, $1, duplicates, conflicts, last_at, last_source, last_conflict
    FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::boolean[])
        AS new (topic, seq, duplicates, conflicts, last_at, last_source, last_conflict)
    ON CONFLICT (topic, seq, node) DO UPDATE SET duplicates = excluded.duplicates, conflicts = excluded.conflicts,
        last_at = excluded.last_at, last_source = excluded.last_source, last_conflict = excluded.last_conflict";

/// Deletes what has left the list of a node ($1): arrays of topics and seqs. The node is one of the columns, behind a fence
/// (`OFFSET 0`): with a constant a plan would read all rows of the node for each.
pub(super) const DROP: &str = "
    DELETE FROM sekali.repeats AS r
    USING (SELECT topic, seq, $1::bigint AS node FROM unnest($2::text[], $3::bigint[]) AS sent (topic, seq) OFFSET 0) AS old
    WHERE r.topic = old.topic AND r.seq = old.seq AND r.node = old.node";

/// Deletes all that a node ($1) has stored, where its list is written anew.
pub(super) const CLEAR: &str = "DELETE FROM sekali.repeats WHERE node = $1";

/// What other nodes than this one ($3) have of an event: topic, seq.
pub(super) const OF_OTHERS: &str = "
    SELECT duplicates, conflicts, last_at, last_source, last_conflict
    FROM sekali.repeats WHERE topic = $1 AND seq = $2 AND node <> $3";

/// What several rows have of one event, together: the columns that [`known`] reads.
pub(super) const SUMMED: &str = "sum(duplicates)::bigint, sum(conflicts)::bigint, max(last_at),
    (array_agg(last_source ORDER BY last_at DESC))[1], (array_agg(last_conflict ORDER BY last_at DESC))[1]";

/// Changes as the columns of [`PUT`] and [`DROP`].
#[derive(Default)]
pub(super) struct Columns<'a> {
    put: (Vec<&'a str>, Vec<i64>),
    numbers: [Vec<i64>; 3],
    sources: Vec<&'a str>,
    last_conflicts: Vec<bool>,
    pub(super) dropped: (Vec<&'a str>, Vec<i64>),
}

impl<'a> Columns<'a> {
    pub(super) fn of(changes: &'a Changes) -> Self {
        let mut columns = Self::default();
        for ((topic, seq), change) in &changes.events {
            let Some(repeats) = change else {
                columns.dropped.0.push(topic.as_str());
                columns.dropped.1.push(seq.cast_signed());
                continue;
            };
            columns.put.0.push(topic.as_str());
            columns.put.1.push(seq.cast_signed());
            let numbers = [
                repeats.duplicates.cast_signed(),
                repeats.conflicts.cast_signed(),
                repeats.last_at.as_microsecond(),
            ];
            for (column, number) in columns.numbers.iter_mut().zip(numbers) {
                column.push(number);
            }
            columns.sources.push(&repeats.last_source);
            columns.last_conflicts.push(repeats.last_conflict);
        }
        columns
    }

    /// The values of [`PUT`] for a node.
    pub(super) fn values<'s>(&'s self, node: &'s i64) -> [&'s (dyn ToSql + Sync); 8] {
        let ((topics, seqs), [duplicates, conflicts, times]) = (&self.put, &self.numbers);
        [node, topics, seqs, duplicates, conflicts, times, &self.sources, &self.last_conflicts]
    }
}

/// What a row says from this column on: duplicates, conflicts, time, source, whether the last one was a conflict.
pub(super) fn known(row: &Row, first: usize) -> Result<Repeats, StoreError> {
    let number = |column| row.try_get::<_, i64>(first + column).map(i64::cast_unsigned);
    Ok(Repeats {
        duplicates: number(0)?,
        conflicts: number(1)?,
        last_at: time(row.try_get(first + 2)?)?,
        last_source: row.try_get(first + 3)?,
        last_conflict: row.try_get(first + 4)?,
    })
}

/// What this node and others know of an event, together.
pub(super) fn sum(mine: Option<Repeats>, others: &[Row]) -> Result<Option<Repeats>, StoreError> {
    let mut sum = mine;
    for row in others {
        let other = known(row, 0)?;
        sum = Some(match sum {
            Some(known) => known.and(other),
            None => other,
        });
    }
    Ok(sum)
}
