//! What nodes left that are gone, summed up by those that run: in the background, since nothing needs it soon.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::Client;

use super::connection::{Database, Use, within};
use crate::store::StoreError;

/// The lock under which one node at a time sums up what others left ("sekali" in ASCII, and a 3).
pub(super) const PAST_LOCK: i64 = 0x7365_6b61_6c69_0003;

/// Between two looks for nodes that are gone.
const ROUND: Duration = Duration::from_hours(1);

/// The same after one that failed, because of somebody's lock for instance.
const AGAIN: Duration = Duration::from_mins(1);

/// The longest that summing up a node may take: its list of repeated events is found by reading those of all.
const LIMIT: Duration = Duration::from_mins(5);

/// It goes through all rows of a table at once, and so must not be planned as the reads of a node are, by index alone.
const BEGIN: &str = "
    SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on; SET LOCAL enable_material = on;
    SET LOCAL statement_timeout = ";

/// A node that was not heard of for a day.
const GONE: &str =
    "SELECT node FROM sekali.nodes WHERE node <> 0 AND seen < now() - interval '1 day' LIMIT 1";

/// Adds what a node counted ($1) to what all counted that are gone, if it is still not heard of. Of an event that others
/// saw repeated as well, what came last is kept.
const FORGET_NODE: &str = "
    WITH gone AS (
        DELETE FROM sekali.nodes WHERE node = $1 AND seen < now() - interval '1 day' RETURNING node, rejected
    ), counted AS (
        UPDATE sekali.nodes AS n SET rejected = n.rejected + gone.rejected FROM gone WHERE n.node = 0
    ), left_over AS (
        DELETE FROM sekali.repeats AS r USING gone WHERE r.node = gone.node RETURNING r.*
    )
    INSERT INTO sekali.repeats AS r (topic, seq, node, duplicates, conflicts, last_at, last_source, last_conflict)
    SELECT topic, seq, 0, duplicates, conflicts, last_at, last_source, last_conflict FROM left_over
    ON CONFLICT (topic, seq, node) DO UPDATE SET
        duplicates = r.duplicates + excluded.duplicates, conflicts = r.conflicts + excluded.conflicts,
        last_at = greatest(r.last_at, excluded.last_at),
        last_source = CASE WHEN r.last_at > excluded.last_at THEN r.last_source ELSE excluded.last_source END,
        last_conflict = CASE WHEN r.last_at > excluded.last_at THEN r.last_conflict ELSE excluded.last_conflict END";

/// Keeps the newest $1 of the repeated events of nodes that are gone.
const FORGET_REPEATS: &str = "
    DELETE FROM sekali.repeats AS r
    USING (SELECT topic, seq FROM sekali.repeats WHERE node = 0 ORDER BY last_at DESC OFFSET $1) AS old
    WHERE r.topic = old.topic AND r.seq = old.seq AND r.node = 0";

/// Sums up what nodes left that are gone, now and from time to time, as long as connections are driven.
pub(super) fn begin(database: &Database, repeated_keys: usize) {
    let (own, kept) = (database.clone(), i64::try_from(repeated_keys).unwrap_or(i64::MAX));
    database.spawn(async move {
        loop {
            let pause = match sum_up(&own, kept).await {
                Ok(()) => ROUND,
                Err(error) => {
                    tracing::warn!(%error, "what nodes left that are gone is not summed up; it is tried again in a minute");
                    AGAIN
                }
            };
            sleep(pause).await;
        }
    });
}

/// One node after the other, each in a transaction of its own: what was done stays done.
pub(super) async fn sum_up(database: &Database, kept: i64) -> Result<(), StoreError> {
    let mut client = database.connect(Use::Read).await?;
    while within(LIMIT, forget_one(&mut client, kept)).await? {}
    Ok(())
}

/// Sums up one node; false where there is none, or another node is at it.
async fn forget_one(client: &mut Client, kept: i64) -> Result<bool, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let lock = "SELECT pg_try_advisory_xact_lock($1)";
    if !transaction.query_one(lock, &[&PAST_LOCK]).await?.try_get(0)? {
        return Ok(false);
    }
    let Some(row) = transaction.query_opt(GONE, &[]).await? else { return Ok(false) };
    let node: i64 = row.try_get(0)?;
    transaction.batch_execute(&format!("{BEGIN}{}", LIMIT.as_millis())).await?;
    transaction.execute(FORGET_NODE, &[&node]).await?;
    transaction.execute(FORGET_REPEATS, &[&kept]).await?;
    transaction.commit().await?;
    Ok(true)
}
