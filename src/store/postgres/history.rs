//! invariant 11: the histories of a store. A server that takes over may lack the last commits of the one before it,
//! and so may one that was restored: both have a timeline of their own. Tables that were restored from
//! a dump have a file of their own.
//!
//! 1. Each connection that writes asks its server for its timeline before its first commit.
//! 2. Where that is not the timeline of the current history, the connection records the last seq of each
//!    topic and begins a new history, under a lock. Whoever connects meanwhile waits for that.
//! 3. So no event is stored on a new timeline before the fork is recorded.

use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Row};

use super::connection::{Database, within};
use super::schema::MIGRATION;
use crate::config::Durability;
use crate::domain::{HistoryId, Kinship};
use crate::store::{HISTORIES_MAX, StoreError};

/// The lock under which a history begins.
const HISTORY_LOCK: i64 = 0x7365_6b61_6c69_0005;

/// The current history, as a table of one row: its number and its id.
pub(super) const CURRENT: &str = "(SELECT number, id FROM sekali.histories ORDER BY number DESC LIMIT 1)";

/// The id of the current history.
pub(super) const ID: &str = "SELECT id FROM sekali.histories ORDER BY number DESC LIMIT 1";

/// How seqs of a topic ($1) in a history ($2) relate to the current one; no row where it is unknown. A
/// topic that had no event when a history ended has no row of it.
pub(super) const KINSHIP: &str = "
    SELECT current.number = asked.number, coalesce((SELECT min(coalesce(f.last_seq, 0))
        FROM sekali.histories AS h LEFT JOIN sekali.forks AS f ON f.history = h.number AND f.topic = $1
        WHERE h.number >= asked.number AND h.number < current.number), 0)
    FROM (SELECT number FROM sekali.histories ORDER BY number DESC LIMIT 1) AS current
    JOIN sekali.histories AS asked ON asked.id = $2";

const SERVER: &str = "
    SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
            left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
            pg_relation_filenode('sekali.topics')),
        (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint";

const LAST: &str = "SELECT number, id, server, started_at FROM sekali.histories ORDER BY number DESC LIMIT 1";

/// Ends the history with number $1.
const END: &str = "INSERT INTO sekali.forks (topic, history, last_seq)
    SELECT topic, $1::bigint, last_seq FROM sekali.topics WHERE last_seq > 0";

/// Begins the history with number $1 and id $2.
const BEGIN: &str = "INSERT INTO sekali.histories (number, id, began_at)
    VALUES ($1::bigint, $2::text, (extract(epoch FROM now()) * 1000000)::bigint)";

/// The server that a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    /// Its system identifier, its timeline, and the file of a table.
    identity: String,
    /// When it was started, in microseconds since 1970.
    started_at: i64,
}

/// The current history as it is stored.
struct Last {
    number: i64,
    id: HistoryId,
    server: Option<Server>,
}

/// Begins a new history where this connection leads to another server than the current history, or to
/// another timeline of it.
///
/// # Errors
/// Also where the server is a standby: it may be promoted under this connection.
pub(super) async fn resume(client: &Client, database: &Database) -> Result<(), StoreError> {
    let limit = database.statement_timeout;
    let Some(server) = server(client, database).await? else { return Ok(()) };
    let last = last(&within(limit, client.query_one(LAST, &[])).await?)?;
    if last.continues(&server, database.durability()) {
        return Ok(());
    }
    let locked = format!(
        "BEGIN; SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = 0; \
         SET LOCAL statement_timeout = {}; SELECT pg_advisory_xact_lock({HISTORY_LOCK})",
        MIGRATION.as_millis()
    );
    within(MIGRATION, client.batch_execute(&locked)).await?;
    let late = |_| StoreError::Unavailable(format!("no history was recorded within {MIGRATION:?}"));
    timeout(MIGRATION, record(client, &server, database)).await.map_err(late)??;
    within(MIGRATION, client.batch_execute("COMMIT")).await
}

/// Records the server under the lock, unless another node has done that meanwhile.
async fn record(client: &Client, server: &Server, database: &Database) -> Result<(), StoreError> {
    let last = last(&client.query_one(LAST, &[]).await?)?;
    if last.continues(server, database.durability()) {
        return Ok(());
    }
    let mut number = last.number;
    if last.server.is_some() {
        let id = begin_after(client, &last).await?;
        number += 1;
        let (store, parent) = (database.name(), &last.id);
        let because = "the database was restored, or another server took over";
        tracing::warn!(store, history = %id, %parent, because, "a new history begins");
    }
    let found = "UPDATE sekali.histories SET server = $2, started_at = $3 WHERE number = $1";
    client.execute(found, &[&number, &server.identity, &server.started_at]).await?;
    Ok(())
}

/// Ends the current history, in the transaction that is open, and begins one that no node wrote to yet.
pub(super) async fn begin(client: &Client) -> Result<(), StoreError> {
    let last = last(&client.query_one(LAST, &[]).await?)?;
    begin_after(client, &last).await?;
    Ok(())
}

async fn begin_after(client: &Client, ended: &Last) -> Result<HistoryId, Error> {
    let (number, id) = (ended.number + 1, ended.id.successor());
    client.execute(END, &[&ended.number]).await?;
    client.execute(BEGIN, &[&number, &id.as_str()]).await?;
    let oldest = number - HISTORIES_MAX;
    client.execute("DELETE FROM sekali.forks WHERE history <= $1", &[&oldest]).await?;
    client.execute("DELETE FROM sekali.histories WHERE number <= $1", &[&oldest]).await?;
    Ok(id)
}

/// Which server this is; `None` where it does not say, as others that speak PostgreSQL's protocol.
async fn server(client: &Client, database: &Database) -> Result<Option<Server>, StoreError> {
    let asked = async {
        match client.query_one(SERVER, &[]).await {
            Ok(row) => Ok(Some(Server { identity: row.try_get(0)?, started_at: row.try_get(1)? })),
            Err(error) if says_nothing(&error) => {
                let store = database.name();
                tracing::warn!(store, %error, "the server does not tell its timeline: a restore or a \
                    takeover begins no new history");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    };
    within(database.statement_timeout, asked).await.map_err(|error| match error {
        StoreError::Unavailable(what) => StoreError::Unavailable(format!("its timeline is unknown: {what}")),
        other => other,
    })
}

fn says_nothing(error: &Error) -> bool {
    let reasons = [
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_TABLE,
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::INSUFFICIENT_PRIVILEGE,
    ];
    error.code().is_some_and(|code| reasons.contains(code))
}

fn last(row: &Row) -> Result<Last, StoreError> {
    let (number, id): (i64, &str) = (row.try_get(0)?, row.try_get(1)?);
    let server = match (row.try_get(2)?, row.try_get(3)?) {
        (Some(identity), Some(started_at)) => Some(Server { identity, started_at }),
        _ => None,
    };
    Ok(Last { number, id: parse(id)?, server })
}

impl Last {
    /// Whether this server certainly holds all that clients may have read in this history.
    fn continues(&self, server: &Server, durability: Durability) -> bool {
        self.server.as_ref().is_some_and(|known| match durability {
            Durability::Full => known.identity == server.identity,
            // Such a server loses its last commits when it crashes, and keeps its timeline.
            Durability::Relaxed => known == server,
        })
    }
}

/// A stored id.
pub(super) fn parse(id: &str) -> Result<HistoryId, StoreError> {
    HistoryId::parse(id).ok_or_else(|| StoreError::Damaged(format!("the history {id:?} has no valid id")))
}

/// What a row of [`KINSHIP`] says.
pub(super) fn kinship(row: Option<&Row>) -> Result<Kinship, StoreError> {
    let Some(row) = row else { return Ok(Kinship::SharedUpTo(0)) };
    if row.try_get(0)? {
        return Ok(Kinship::Same);
    }
    let shared: i64 = row.try_get(1)?;
    Ok(Kinship::SharedUpTo(shared.max(0).cast_unsigned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(identity: &str, started_at: i64) -> Server {
        Server { identity: identity.to_owned(), started_at }
    }

    #[test]
    fn another_timeline_ends_a_history_and_a_restart_only_where_it_may_lose_commits() {
        let known = |server| Last { number: 1, id: HistoryId::first(), server };
        let (full, relaxed) = (Durability::Full, Durability::Relaxed);
        let last = known(Some(server("7/00000001", 5)));
        for (now, with_full, with_relaxed) in [
            (server("7/00000001", 5), true, true),
            (server("7/00000001", 6), true, false),
            (server("7/00000002", 5), false, false),
            (server("8/00000001", 5), false, false),
        ] {
            let found = (last.continues(&now, full), last.continues(&now, relaxed));
            assert_eq!(found, (with_full, with_relaxed), "{now:?}");
        }
        assert!(!known(None).continues(&server("7/00000001", 5), full), "the first server is recorded");
    }
}
