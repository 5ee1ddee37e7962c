//! Damage in the tables that only explain duplicates: the log goes on without them, as no event and no verdict depends
//! on them. The doctor names it.

use rusqlite::{Connection, ErrorCode};

use super::connection::is_damage;
use crate::store::StoreError;

/// What was read of a table that explains; nothing where that is damaged.
pub(super) fn read<T: Default>(table: &str, read: Result<T, StoreError>) -> Result<T, StoreError> {
    match read {
        Err(StoreError::Damaged(what)) => {
            tracing::warn!(what, "the table {table} is damaged; going on without it");
            Ok(T::default())
        }
        other => other,
    }
}

/// Writes to a table that explains, within the transaction that is open. Where the rows are damaged, nothing is written
/// and the transaction goes on. Where a page is, it cannot: SQLite lets it write nothing more.
pub(super) fn write(
    connection: &Connection,
    table: &str,
    write: impl FnOnce() -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let execute = |sql| connection.prepare_cached(sql)?.execute([]).map(drop);
    execute("SAVEPOINT explain")?;
    match write() {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            tracing::error!(%error, "a page of the table {table} is damaged");
            return Err(error);
        }
        Err(error) if is_damage(&error) => {
            tracing::error!(%error, "the table {table} is damaged; what was to be written there is left out");
            execute("ROLLBACK TO explain")?;
        }
        Err(error) => return Err(error),
        Ok(()) => {}
    }
    execute("RELEASE explain")
}
