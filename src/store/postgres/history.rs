//! invariant 11: the histories of a store. A server that takes over may lack the last commits of the one
//! before it, and so may a server that was restored: both have a timeline of their own. Tables that were
//! restored from a dump have a file of their own. A server that acknowledged commits before they were on
//! disk (durability relaxed) may lack the last ones after each of its starts.
//!
//! 1. Each connection that writes asks its server for its identity before its first commit.
//! 2. Where that is not the server of the current history, the connection records the last seq of each
//!    topic and begins a new history, under a lock. Other connections wait for that.
//! 3. So no event is stored on a new timeline before the fork is recorded.

use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::FromSql;
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

/// The parts of a server's identity, and the time of its start. A managed or compatible server may refuse
/// one of them; the others count then.
const IDENTITY: [(&str, &str); 3] = [
    ("its system identifier", "SELECT system_identifier::text FROM pg_control_system()"),
    ("its timeline", "SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"),
    ("the file of a table", "SELECT pg_relation_filenode('sekali.topics')::text"),
];
const STARTED_AT: &str = "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint";

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
    /// The server of its events; `None` until a node writes.
    identity: Option<String>,
    /// When that server was started, if a node with relaxed durability wrote since.
    started_at: Option<i64>,
}

/// What the server of a connection is to the current history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The server that is recorded.
    Known,
    /// The server of this history, to be recorded before this node writes.
    Unrecorded,
    /// A server that may lack events of this history.
    Another,
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
    if last.find(&server, database.durability()) == Found::Known {
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
    let mut number = last.number;
    match last.find(server, database.durability()) {
        Found::Known => return Ok(()),
        Found::Unrecorded => {}
        Found::Another => {
            let id = begin_after(client, &last).await?;
            number += 1;
            let (store, parent) = (database.name(), &last.id);
            let because = match &last.identity {
                Some(identity) if *identity == server.identity => {
                    "the server was started again, and may have lost the last events of relaxed durability"
                }
                _ => "the database was restored, or another server took over",
            };
            tracing::warn!(store, history = %id, %parent, because, "began a new history");
        }
    }
    set_server(client, number, server, database.durability()).await?;
    Ok(())
}

/// Ends the current history, in the transaction that is open, and begins one that no node wrote to yet.
pub(super) async fn begin(client: &Client) -> Result<(), StoreError> {
    let last = last(&client.query_one(LAST, &[]).await?)?;
    begin_after(client, &last).await?;
    Ok(())
}

/// Records the server of a copy before any node writes to it, so that a dump of the copy is noticed. A copy
/// is on disk at its end, whatever the durability.
pub(super) async fn record_copy(client: &Client, database: &Database) -> Result<(), StoreError> {
    if let Some(server) = server(client, database).await? {
        let last = last(&client.query_one(LAST, &[]).await?)?;
        set_server(client, last.number, &server, Durability::Full).await?;
    }
    Ok(())
}

/// Records the server of a history. Its start matters where it may lose commits that it acknowledged.
async fn set_server(
    client: &Client,
    number: i64,
    server: &Server,
    durability: Durability,
) -> Result<u64, Error> {
    let started_at = (durability == Durability::Relaxed).then_some(server.started_at);
    let found = "UPDATE sekali.histories SET server = $2, started_at = $3 WHERE number = $1";
    client.execute(found, &[&number, &server.identity, &started_at]).await
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

/// Which server this is; `None` where it says nothing of itself.
async fn server(client: &Client, database: &Database) -> Result<Option<Server>, StoreError> {
    let mut parts = Vec::new();
    let mut refused = Vec::new();
    for (name, sql) in IDENTITY {
        let part: Option<String> = ask(client, database, sql).await?;
        if part.is_none() {
            refused.push(name);
        }
        parts.push(part.unwrap_or_default());
    }
    if !refused.is_empty() && database.is_first_to_tell() {
        let (store, refused) = (database.name(), refused.join(", "));
        tracing::warn!(
            store,
            refused,
            "the server does not tell all of its identity: some restores and \
            takeovers will not begin a new history"
        );
    }
    if refused.len() == IDENTITY.len() {
        return Ok(None);
    }
    let started_at = ask(client, database, STARTED_AT).await?.unwrap_or(0);
    Ok(Some(Server { identity: parts.join("/"), started_at }))
}

/// One value; `None` where the server knows it not, or refuses it.
async fn ask<T: for<'a> FromSql<'a>>(
    client: &Client,
    database: &Database,
    sql: &str,
) -> Result<Option<T>, StoreError> {
    let asked = async {
        match client.query_one(sql, &[]).await {
            Ok(row) => row.try_get(0),
            Err(error) if says_nothing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    };
    within(database.statement_timeout, asked).await.map_err(|error| match error {
        StoreError::Unavailable(what) => {
            StoreError::Unavailable(format!("the identity of the server is unknown: {what}"))
        }
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
    Ok(Last { number, id: parse(id)?, identity: row.try_get(2)?, started_at: row.try_get(3)? })
}

impl Last {
    /// Whether this server certainly holds all that clients may have read in this history.
    fn find(&self, server: &Server, durability: Durability) -> Found {
        match (&self.identity, self.started_at) {
            (None, _) => Found::Unrecorded,
            (Some(identity), _) if *identity != server.identity => Found::Another,
            // A node with relaxed durability wrote: the server may have lost its commits in a crash, also
            // if the nodes that connect now have full durability.
            (_, Some(started_at)) if started_at != server.started_at => Found::Another,
            (_, None) if durability == Durability::Relaxed => Found::Unrecorded,
            (_, Some(_) | None) => Found::Known,
        }
    }
}

/// A stored id.
pub(super) fn parse(id: &str) -> Result<HistoryId, StoreError> {
    HistoryId::parse(id).ok_or_else(|| StoreError::Damaged(format!("the history {id:?} has no valid id")))
}

/// What a row of [`KINSHIP`] says.
pub(super) fn kinship(row: Option<&Row>) -> Result<Kinship, StoreError> {
    let Some(row) = row else { return Ok(Kinship::Unknown) };
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
    fn another_timeline_ends_a_history_and_a_start_only_where_it_may_lose_commits() {
        use Durability::{Full, Relaxed};
        use Found::{Another, Known, Unrecorded};
        let last = |identity: Option<&str>, started_at| Last {
            number: 1,
            id: HistoryId::first(),
            identity: identity.map(str::to_owned),
            started_at,
        };
        let now = server("7/00000001", 5);
        for (recorded, with_full, with_relaxed) in [
            (last(None, None), Unrecorded, Unrecorded),
            (last(Some("7/00000001"), None), Known, Unrecorded),
            (last(Some("7/00000001"), Some(5)), Known, Known),
            // The nodes may have another durability than those that wrote before the crash.
            (last(Some("7/00000001"), Some(4)), Another, Another),
            (last(Some("7/00000002"), None), Another, Another),
            (last(Some("8/00000001"), Some(5)), Another, Another),
        ] {
            let found = (recorded.find(&now, Full), recorded.find(&now, Relaxed));
            assert_eq!(found, (with_full, with_relaxed), "{:?}", recorded.identity);
        }
    }
}
