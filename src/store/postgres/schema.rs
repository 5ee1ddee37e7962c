//! The tables, their version, and the way from each version to the next.

use std::fmt::Write as _;
use std::time::Duration;

use tokio_postgres::Client;

use super::connection::{Database, Use, within};
use crate::store::StoreError;
use crate::store::index::Hasher;

/// The lock under which a schema is changed ("sekali" in ASCII, and a 1): of nodes that start together one changes it,
/// and the others find it changed.
const SCHEMA_LOCK: i64 = 0x7365_6b61_6c69_0001;

/// The lock under which a topic is made where their number is limited.
pub(super) const TOPICS_LOCK: i64 = 0x7365_6b61_6c69_0002;

/// The lock that each node shares as long as it is connected, and that a copy to this store has alone.
pub(super) const COPY_LOCK: i64 = 0x7365_6b61_6c69_0004;

/// What is known of copies to this store: whether the last one is half, and what the last whole one left.
pub(super) const COPIED: &str = "SELECT half_copied, copied FROM sekali.store";

/// How long a node waits for another one that changes the schema, or begins a history.
pub(super) const MIGRATION: Duration = Duration::from_mins(10);

/// Versions of PostgreSQL before this one (as `server_version_num`) do not have what the statements use.
const OLDEST_SERVER: i32 = 130_000;

/// One migration a version, from nothing on. What stands here was released: never change it, append.
///
/// Every key of what belongs to a topic begins with it, so that these tables can be spread by it. Texts are compared as bytes.
pub(super) const MIGRATIONS: [&str; 3] =
    [include_str!("migrations/1.sql"), include_str!("migrations/2.sql"), include_str!("migrations/3.sql")];

/// The version of the schema that this program writes.
const VERSION: i64 = MIGRATIONS.len().cast_signed() as i64;

/// What is known of a store once it is ready.
pub(super) struct Store {
    /// Makes the digests of payloads.
    pub(super) hasher: Hasher,
    /// A copy to it was begun, and not run to its end.
    pub(super) half_copied: bool,
}

/// What is in a database that is only to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// No store.
    Nothing,
    /// A store that has to be migrated first.
    Older { found: i64, known: i64 },
    /// A store to which a copy was begun, and not run to its end.
    Half,
    /// A store of this version.
    Ready,
}

/// Makes the schema ready and says what a person should know of the server.
///
/// # Errors
/// When the schema is newer than this program, when a schema of that name is something else, when the database cannot
/// keep what is promised.
pub(super) async fn prepare(database: &Database) -> Result<Store, StoreError> {
    let client = database.connect(Use::Read).await?;
    let limit = database.statement_timeout;
    examine(&client, database).await?;
    if version(&client, database).await? != Some(VERSION) {
        migrate(&client, database).await?;
    }
    let asked = "SELECT replace(secret::text, '-', ''), half_copied FROM sekali.store";
    let row = within(limit, client.query_one(asked, &[])).await?;
    let secret = u128::from_str_radix(row.try_get(0)?, 16)
        .map_err(|error| StoreError::Damaged(format!("the secret of the store: {error}")))?;
    Ok(Store { hasher: Hasher::new(&secret.to_be_bytes()), half_copied: row.try_get(1)? })
}

/// What a database is that is to be read and not changed.
///
/// # Errors
/// Also when its schema is newer than this program, or something else.
pub(super) async fn look(client: &Client, database: &Database) -> Result<Known, StoreError> {
    match version(client, database).await? {
        None => Ok(Known::Nothing),
        Some(found) if found > VERSION => Err(StoreError::Newer { found, known: VERSION }),
        Some(found) if found < VERSION => Ok(Known::Older { found, known: VERSION }),
        Some(_) => {
            let row = within(database.statement_timeout, client.query_one(COPIED, &[])).await?;
            Ok(if row.try_get(0)? { Known::Half } else { Known::Ready })
        }
    }
}

/// Says that a node is connected, for as long as this connection lives: no copy to this store begins until then.
///
/// # Errors
/// When one is under way, or was not run to its end.
pub(super) async fn join(client: &Client, database: &Database) -> Result<(), StoreError> {
    let limit = database.statement_timeout;
    let lock = "SELECT pg_try_advisory_lock_shared($1)";
    let is_free: bool = within(limit, client.query_one(lock, &[&COPY_LOCK])).await?.try_get(0)?;
    // In a statement of its own: it sees what was committed before the lock was given.
    let is_half: bool = within(limit, client.query_one(COPIED, &[])).await?.try_get(0)?;
    let store = || database.name().to_owned();
    match (is_free, is_half) {
        (true, false) => Ok(()),
        (_, true) => Err(StoreError::HalfCopied { store: store() }),
        // A copy waits for the lock, or has begun and not marked the store yet.
        (false, false) => Err(StoreError::InUse { store: store() }),
    }
}

/// Refuses a database that cannot keep what is promised, and warns of a server that does not.
async fn examine(client: &Client, database: &Database) -> Result<(), StoreError> {
    // Others that speak the protocol need not know what syncs a file.
    let asked = "SELECT current_setting('server_encoding'), current_setting('fsync', true), \
        current_setting('full_page_writes', true), current_setting('server_version_num')::integer";
    let row = within(database.statement_timeout, client.query_one(asked, &[])).await?;
    let (encoding, fsync, pages): (String, Option<String>, Option<String>) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let foreign = |reason| StoreError::Foreign { path: database.name().to_owned(), reason };
    if encoding != "UTF8" {
        return Err(foreign(format!("its encoding is {encoding}, and must be UTF8")));
    }
    let server: i32 = row.try_get(3)?;
    if server < OLDEST_SERVER {
        return Err(foreign(format!(
            "the server's version is {server}, and must be {OLDEST_SERVER} or newer"
        )));
    }
    for (setting, value) in [("fsync", fsync), ("full_page_writes", pages)] {
        if value.as_deref() == Some("off") {
            tracing::warn!(
                store = database.name(),
                "the server runs with {setting} = off: a power cut may damage the store or lose what was acknowledged"
            );
        }
    }
    Ok(())
}

/// The version of the schema; `None` where there is none.
async fn version(client: &Client, database: &Database) -> Result<Option<i64>, StoreError> {
    let limit = database.statement_timeout;
    let asked = "SELECT to_regclass('sekali.store') IS NOT NULL, \
        EXISTS (SELECT FROM pg_tables WHERE schemaname = 'sekali')";
    let row = within(limit, client.query_one(asked, &[])).await?;
    if !row.try_get::<_, bool>(0)? {
        return if row.try_get(1)? {
            let reason = "its schema sekali has other tables".to_owned();
            Err(StoreError::Foreign { path: database.name().to_owned(), reason })
        } else {
            Ok(None)
        };
    }
    let found = "SELECT version::bigint FROM sekali.store";
    Ok(Some(within(limit, client.query_one(found, &[])).await?.try_get(0)?))
}

/// Brings the schema up to date, in one transaction and under a lock. It is on disk before any node uses it: a node that runs
/// on does not make it anew.
async fn migrate(client: &Client, database: &Database) -> Result<(), StoreError> {
    let lock = format!(
        "BEGIN; SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = {}; \
         SET LOCAL enable_seqscan = on; \
         SELECT pg_advisory_xact_lock({SCHEMA_LOCK})",
        MIGRATION.as_millis()
    );
    within(MIGRATION, client.batch_execute(&lock)).await?;
    let found = version(client, database).await?;
    if let Some(found) = found.filter(|found| *found > VERSION) {
        return Err(StoreError::Newer { found, known: VERSION });
    }
    // A schema that an administrator made needs no right to make schemas.
    let has_schema = "SELECT to_regnamespace('sekali') IS NOT NULL";
    let row = within(database.statement_timeout, client.query_one(has_schema, &[])).await?;
    let mut sql = String::new();
    if !row.try_get::<_, bool>(0)? {
        sql.push_str("CREATE SCHEMA sekali;");
    }
    let done = usize::try_from(found.unwrap_or(0)).unwrap_or(usize::MAX);
    for migration in MIGRATIONS.iter().skip(done) {
        sql.push_str(migration);
    }
    // Writing to a String cannot fail.
    let _ = write!(sql, "UPDATE sekali.store SET version = {VERSION}; COMMIT");
    within(MIGRATION, client.batch_execute(&sql)).await?;
    tracing::info!(
        store = database.name(),
        from = found.unwrap_or(0),
        to = VERSION,
        "the schema is up to date"
    );
    Ok(())
}
