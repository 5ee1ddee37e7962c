//! What is counted by source: a row for each source of a topic that has a name, and one for all others. They change under
//! the lock of their topic.

use tokio_postgres::Row;

use super::statements::Topics;
use crate::store::StoreError;
use crate::store::sources::{SourceCounts, Sources};

/// The end of a statement that adds to these columns: parts of its `WITH`, of which an earlier one, `by_source`, has a topic,
/// a source, what to add, and n; sources with a smaller n get a name before others. `limit` of a topic have one.
pub(super) fn add(columns: &[&str], limit: &str, topics: Topics) -> String {
    let each = |write: fn(&&str) -> String| columns.iter().map(write).collect::<Vec<_>>().join(", ");
    let sums = each(|column| format!("sum({column})::bigint"));
    let sets = each(|column| format!("{column} = s.{column} + excluded.{column}"));
    let columns = columns.join(", ");
    let (of_new, of_placed) = (topics.of("new"), topics.of("p"));
    format!(
        "placed AS MATERIALIZED (
        SELECT b.*, row_number() OVER (PARTITION BY b.topic, b.is_known ORDER BY b.source = '', b.n) AS place
        FROM (SELECT new.*, (SELECT true FROM sekali.sources AS s
            WHERE s.topic = {of_new} AND s.source = new.source) IS NOT NULL AS is_known FROM by_source AS new) AS b
    ), with_room AS MATERIALIZED (
        SELECT p.*, max(CASE WHEN place = 1 AND NOT is_known THEN {limit} - (SELECT count(*) FROM sekali.sources AS s
            WHERE s.topic = {of_placed} AND s.source > '') END) OVER (PARTITION BY p.topic) AS room
        FROM placed AS p
    ), named AS MATERIALIZED (
        SELECT *, CASE WHEN is_known OR place <= room THEN source ELSE '' END AS name FROM with_room
    ), added AS (
        INSERT INTO sekali.sources AS s (topic, source, {columns})
        SELECT topic, name, {sums} FROM named GROUP BY topic, name
        ON CONFLICT (topic, source) DO UPDATE SET {sets}
    )"
    )
}

/// What rows say that have a source, if there is one, and the columns from this one on.
pub(super) fn load(rows: &[Row], source: usize) -> Result<Sources, StoreError> {
    let mut sources = Sources::default();
    for row in rows {
        if let Some(name) = row.try_get::<_, Option<&str>>(source)? {
            let counts = SourceCounts::from_numbers(|at| row.try_get(source + 1 + at))?;
            sources.add(name, counts, usize::MAX);
        }
    }
    Ok(sources)
}
