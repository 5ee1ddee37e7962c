//! What explains duplicates, against the topics: counts by source, events that were repeated, marks of time.

use rusqlite::Connection;

use super::name_of;
use super::report::{Cure, Findings, Part};
use crate::domain::check_name;
use crate::store::StoreError;
use crate::store::sqlite::topics::TopicId;
use crate::store::sqlite::{repeats, rows};

/// The topics whose counts are not the sums of those of their sources. Numbers that no log can count are cut, so that
/// sums stay numbers.
const WRONG: &str = "SELECT t.id FROM topics AS t LEFT JOIN (
         SELECT topic, sum(min(accepted, 1 << 50)) AS accepted, sum(min(duplicates, 1 << 50)) AS duplicates,
                sum(min(conflicts, 1 << 50)) AS conflicts
         FROM sources GROUP BY topic
     ) AS s ON s.topic = t.id
     WHERE t.last_seq <> ifnull(s.accepted, 0) OR t.duplicates <> ifnull(s.duplicates, 0)
        OR t.conflicts <> ifnull(s.conflicts, 0)";

/// Rows of events that are not there, or with numbers that there cannot be.
const STRAY: [(&str, &str); 3] = [
    ("sources", "topic NOT IN (SELECT id FROM topics)"),
    ("repeats", "topic NOT IN (SELECT id FROM topics) OR seq < 1 OR conflicts > duplicates OR conflicts < 0"),
    (
        "times",
        "pos > (SELECT ifnull(max(pos), 0) FROM events) OR pos < 1 OR second NOT BETWEEN 0 AND 4294967295",
    ),
];

/// Checks what explains duplicates. Topics and totals have to be right.
pub(super) fn inspect(connection: &Connection, findings: &mut Findings) -> Result<(), StoreError> {
    let count = connection.query_row("SELECT count(*) FROM sources", [], |row| row.get::<_, i64>(0))?;
    findings.checked(Part::Sources, count.cast_unsigned());
    let mut fault = |what: String| findings.add(Part::Sources, Cure::BeginAnew, what);
    for (topic, name) in misnamed(connection)? {
        fault(format!("{}: the source {name:?} is none", name_of(connection, topic.0)));
    }
    for topic in wrong(connection)? {
        let topic = name_of(connection, topic.0);
        fault(format!("{topic}: the counts by source are not those of the topic together"));
    }
    for (table, stray) in STRAY {
        let sql = format!("SELECT count(*) FROM {table} WHERE {stray}");
        let strays: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
        if strays > 0 {
            fault(format!(
                "{strays} rows of {table} are about no event that there is, or have impossible numbers"
            ));
        }
    }
    let unreadable = repeats::unreadable(connection)?.len();
    if unreadable > 0 {
        fault(format!("{unreadable} rows of repeats cannot be read"));
    }
    Ok(())
}

/// Makes that right: where the counts by source of a topic are wrong, all that was counted has no source any more.
pub(super) fn begin_anew(connection: &Connection) -> Result<(), StoreError> {
    let connection = connection.unchecked_transaction()?;
    let misnamed = misnamed(&connection)?.into_iter().map(|(topic, _)| topic);
    for topic in wrong(&connection)?.into_iter().chain(misnamed) {
        crate::store::sqlite::sources::begin_anew(&connection, topic)?;
    }
    for (table, stray) in STRAY {
        connection.execute(&format!("DELETE FROM {table} WHERE {stray}"), [])?;
    }
    for row in repeats::unreadable(&connection)? {
        connection.execute("DELETE FROM repeats WHERE topic = ?1 AND seq = ?2", row)?;
    }
    Ok(connection.commit()?)
}

fn wrong(connection: &Connection) -> rusqlite::Result<Vec<TopicId>> {
    connection.prepare(WRONG)?.query_map([], |row| row.get(0).map(TopicId))?.collect()
}

/// Sources with names that no event can have, and their topics.
fn misnamed(connection: &Connection) -> Result<Vec<(TopicId, String)>, StoreError> {
    let mut statement = connection.prepare("SELECT topic, source FROM sources WHERE source <> ''")?;
    let mut found = statement.query([])?;
    let mut misnamed = Vec::new();
    while let Some(row) = found.next()? {
        let name = rows::bytes(row, 1)?;
        if !str::from_utf8(name).is_ok_and(|name| check_name(name).is_ok()) {
            misnamed.push((TopicId(row.get(0)?), String::from_utf8_lossy(name).into_owned()));
        }
    }
    Ok(misnamed)
}
