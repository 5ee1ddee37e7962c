//! What is counted by source: a row for each source of a topic that has a name, and one for all others.
//!
//! Of what was accepted the rows count the events up to the topic's last sealed seq, and change with that in one transaction;
//! the recent events behind it say the rest. So no commit writes here, and a kill loses nothing. Repeats come with
//! the tally.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use rusqlite::{Connection, Row, ToSql, params_from_iter};

use super::explain;
use super::topics::TopicId;
use crate::domain::Lateness;
use crate::store::sources::{COLUMNS, OTHER, SourceCounts, Sources};
use crate::store::{StoreError, TopicSources};

/// The columns of a row from this one on.
fn counts(row: &Row<'_>, first: usize) -> rusqlite::Result<SourceCounts> {
    SourceCounts::from_numbers(|at| row.get(first + at))
}

/// Adds to the rows of a topic, of which this many may have a name. Where one of the sources has no row yet, those that
/// came `earlier` and are not counted here have theirs first: a name that was shown stays. Where the rows are damaged,
/// nothing is added.
pub(super) fn add<'a>(
    connection: &Connection,
    topic: TopicId,
    sources: impl Iterator<Item = (&'a str, SourceCounts)>,
    earlier: impl Fn() -> Vec<Arc<str>>,
    limit: usize,
) -> rusqlite::Result<()> {
    explain::write(connection, "sources", || add_all(connection, topic, sources, earlier, limit))
}

fn add_all<'a>(
    connection: &Connection,
    topic: TopicId,
    sources: impl Iterator<Item = (&'a str, SourceCounts)>,
    earlier: impl Fn() -> Vec<Arc<str>>,
    limit: usize,
) -> rusqlite::Result<()> {
    let mut other = SourceCounts::default();
    // Read when the first one has no row yet: nearly always all have one.
    let mut known: Option<HashSet<Box<str>>> = None;
    for (source, counts) in sources {
        if known.as_ref().is_none_or(|known| known.contains(source))
            && update(connection, topic, source, &counts)?
        {
            continue;
        }
        let named = if let Some(named) = &mut known {
            named
        } else {
            let mut named = names(connection, topic)?;
            // Looked for only while there is room: it is a pass over recent events.
            let earlier = if named.len() < limit { earlier() } else { Vec::new() };
            for name in earlier {
                name_one(connection, topic, (&name, &SourceCounts::default()), &mut named, limit)?;
            }
            known.insert(named)
        };
        // It may be one of those that came earlier.
        let is_counted = named.contains(source) && update(connection, topic, source, &counts)?;
        if !is_counted && !name_one(connection, topic, (source, &counts), named, limit)? {
            other += counts;
        }
    }
    if other != SourceCounts::default() && !update(connection, topic, OTHER, &other)? {
        insert(connection, topic, OTHER, &other)?;
    }
    Ok(())
}

/// Gives a source a row where it has none and there is room for its name; false where it was not given one.
fn name_one(
    connection: &Connection,
    topic: TopicId,
    (source, counts): (&str, &SourceCounts),
    named: &mut HashSet<Box<str>>,
    limit: usize,
) -> rusqlite::Result<bool> {
    if source == OTHER || named.len() >= limit || !named.insert(source.into()) {
        return Ok(false);
    }
    insert(connection, topic, source, counts).map(|()| true)
}

/// The sources of a topic that have a name.
fn names(connection: &Connection, topic: TopicId) -> rusqlite::Result<HashSet<Box<str>>> {
    let sql = "SELECT source FROM sources WHERE topic = ?1 AND source > ''";
    connection.prepare_cached(sql)?.query_map([topic.0], |row| row.get(0))?.collect()
}

/// Adds to a row; false where there is none.
fn update(
    connection: &Connection,
    topic: TopicId,
    source: &str,
    counts: &SourceCounts,
) -> rusqlite::Result<bool> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let sets: Vec<_> =
            COLUMNS.iter().zip(3..).map(|(column, at)| format!("{column} = {column} + ?{at}")).collect();
        format!("UPDATE sources SET {} WHERE topic = ?1 AND source = ?2", sets.join(", "))
    });
    execute(connection, &SQL, topic, source, counts).map(|rows| rows == 1)
}

fn insert(
    connection: &Connection,
    topic: TopicId,
    source: &str,
    counts: &SourceCounts,
) -> rusqlite::Result<()> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let places: Vec<_> = (3..3 + COLUMNS.len()).map(|at| format!("?{at}")).collect();
        let (columns, places) = (COLUMNS.join(", "), places.join(", "));
        format!("INSERT INTO sources (topic, source, {columns}) VALUES (?1, ?2, {places})")
    });
    execute(connection, &SQL, topic, source, counts).map(drop)
}

/// Executes a statement with topic, source and all columns.
fn execute(
    connection: &Connection,
    sql: &str,
    topic: TopicId,
    source: &str,
    counts: &SourceCounts,
) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached(sql)?;
    let numbers = counts.numbers();
    let values: [&dyn ToSql; 2] = [&topic.0, &source];
    let all = values.into_iter().chain(numbers.iter().map(|number| number as &dyn ToSql));
    statement.execute(params_from_iter(all))
}

/// What is stored of the sources of a topic.
pub(super) fn load(connection: &Connection, topic: TopicId) -> Result<Sources, StoreError> {
    let sql = format!("SELECT source, {} FROM sources WHERE topic = ?1", COLUMNS.join(", "));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([topic.0])?;
    let mut sources = Sources::default();
    while let Some(row) = rows.next()? {
        let name: Box<str> = row.get(0)?;
        sources.add(&name, counts(row, 1)?, usize::MAX);
    }
    Ok(sources)
}

/// Puts these in place of all that is counted of a topic, every event of which is sealed.
pub(super) fn replace(
    connection: &Connection,
    topic: TopicId,
    sources: &TopicSources,
) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM sources WHERE topic = ?1")?.execute([topic.0])?;
    for (source, counts) in sources.rows() {
        insert(connection, topic, source, counts)?;
    }
    Ok(())
}

/// Counts all that a topic counts under no name, as a store does that gets its sources from an older version.
pub(super) fn begin_anew(connection: &Connection, topic: TopicId) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM sources WHERE topic = ?1")?.execute([topic.0])?;
    let sql = "SELECT last_seq, duplicates, conflicts FROM topics WHERE id = ?1";
    let counts = connection.prepare_cached(sql)?.query_row([topic.0], |row| {
        let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let (accepted, duplicates, conflicts) = (number(0)?, number(1)?, number(2)?);
        Ok(SourceCounts { accepted, duplicates, conflicts, lateness: Lateness::default() })
    })?;
    insert(connection, topic, OTHER, &counts)
}
