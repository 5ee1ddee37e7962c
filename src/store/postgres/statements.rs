//! The SQL of a group commit. All of it is sent at once; each statement runs in one transaction at READ COMMITTED, and
//! so sees what was committed before it began.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};

use super::group::Columns;
use super::{repeats, sources};
use crate::store::sources::COLUMNS;

/// Makes topics where they are missing: $1 their names, in the order of their bytes.
pub(super) const MAKE_TOPICS: &str = "
    INSERT INTO sekali.topics (topic, last_seq, duplicates, conflicts, last_received_at)
    SELECT name, 0, 0, 0, 0 FROM unnest($1::text[]) AS new (name)
    ON CONFLICT (topic) DO NOTHING";

/// The same where the number of topics is limited to $2, for whoever holds the lock of that: the first of $1 first.
const MAKE_FEW_TOPICS: &str = "
    INSERT INTO sekali.topics (topic, last_seq, duplicates, conflicts, last_received_at)
    SELECT name, 0, 0, 0, 0 FROM unnest($1::text[]) WITH ORDINALITY AS new (name, n)
    WHERE NOT EXISTS (SELECT FROM sekali.topics AS t WHERE t.topic = name)
    ORDER BY n LIMIT greatest(0, $2::bigint - (SELECT count(*) FROM sekali.topics))";

/// What a statement is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Topics {
    /// Any number; $1 is an array with the topic of each row.
    Many,
    /// A single one, $1: each table is asked for it by name, so that where the tables are spread by topic the database knows
    /// which part of them it needs before it has seen a row.
    One,
}

impl Topics {
    /// Gives those topics that exist, in the order of their names.
    pub(super) fn there(self) -> &'static str {
        match self {
            Self::Many => "SELECT topic FROM sekali.topics WHERE topic = ANY ($1::text[]) ORDER BY topic",
            Self::One => "SELECT topic FROM sekali.topics WHERE topic = $1",
        }
    }

    /// Locks them until the transaction ends, in that order: two groups never wait for each other.
    pub(super) fn lock(self) -> String {
        format!("{} FOR NO KEY UPDATE", self.there())
    }

    /// Locks those of them that nothing else has locked.
    pub(super) fn lock_free(self) -> String {
        format!("{} SKIP LOCKED", self.lock())
    }

    /// The topic of a row, where it is that of a table's.
    pub(super) fn of(self, row: &str) -> String {
        match self {
            Self::Many => format!("{row}.topic"),
            Self::One => "$1::text".to_owned(),
        }
    }

    /// The rows that are sent.
    fn sent(self) -> &'static str {
        match self {
            Self::Many => {
                "unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
            WITH ORDINALITY AS sent (topic, event_id, timestamp, source, payload, digest, n)"
            }
            Self::One => {
                "(SELECT $1::text AS topic, given.*
            FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
                WITH ORDINALITY AS given (event_id, timestamp, source, payload, digest, n)) AS sent"
            }
        }
    }
}

/// invariant 3: what is not there is stored; what is there is given back with its digest and its commit. invariant 6: a
/// topic's row says which seq was given last, nobody else can give one while it is locked, and this statement began
/// after it was. invariant 4: events, keys and counters are one statement.
///
/// No stored payload is read here: where digests differ, a reader compares them after the commit.
///
/// Topics (an array, or the one), arrays of ids, timestamps, sources, payloads and digests; the time, the id of the commit,
/// how many sources of a topic may have a name.
pub(super) fn store(topics: Topics) -> String {
    let by_source = sources::add(&["accepted"], "$9::bigint", topics);
    let (rows, of_sent, of_looked, of_fresh) =
        (topics.sent(), topics.of("sent"), topics.of("l"), topics.of("f"));
    format!(
        "
    WITH looked AS MATERIALIZED (
        SELECT sent.*, e.seq, e.digest AS stored_digest, e.commit_id, e.received_at
        FROM {rows}
        LEFT JOIN sekali.events AS e ON e.topic = {of_sent} AND e.event_id = sent.event_id
    ), fresh AS MATERIALIZED (
        SELECT t.topic, t.last_seq + row_number() OVER (PARTITION BY t.topic ORDER BY l.n) AS seq,
            l.event_id, l.timestamp, l.source, l.payload, l.digest, l.n
        FROM looked AS l JOIN sekali.topics AS t ON t.topic = {of_looked}
        WHERE l.seq IS NULL
    ), stored AS (
        INSERT INTO sekali.events
            (topic, seq, received_at, digest, commit_id, event_id, timestamp, source, payload)
        SELECT topic, seq, $7, digest, $8, event_id, timestamp, source, payload FROM fresh
    ), counted AS (
        UPDATE sekali.topics AS t SET last_seq = f.last_seq, last_received_at = $7
        FROM (SELECT topic, max(seq) AS last_seq FROM fresh GROUP BY topic) AS f
        WHERE t.topic = {of_fresh}
    ), by_source AS (
        SELECT topic, source, count(*) AS accepted, min(n) AS n FROM fresh GROUP BY topic, source
    ), {by_source} {STORED}"
    )
}

const STORED: &str = "
    SELECT n, seq, NULL::bigint, NULL::bigint, NULL::bigint FROM fresh
    UNION ALL
    SELECT n, seq, stored_digest, commit_id, received_at FROM looked WHERE seq IS NOT NULL";

/// The time of a group, and the id by which its rows are known.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub(super) received_at: i64,
    pub(super) commit: i64,
}

/// The values of a statement.
pub(super) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The values of the statement that stores a group, which says in its own way of which topic each row is.
pub(super) fn parameters<'a>(
    columns: &'a Columns<'_>,
    topic_of_each: &'a (dyn ToSql + Sync),
    mark: &'a Mark,
    source_limit: &'a i64,
) -> [&'a (dyn ToSql + Sync); 9] {
    [
        topic_of_each,
        &columns.ids,
        &columns.timestamps,
        &columns.sources,
        &columns.payloads,
        &columns.digests,
        &mark.received_at,
        &mark.commit,
        source_limit,
    ]
}

/// Stores counts that waited in memory: node, fence, epoch, rejected, how many sources of a topic may have a name; arrays of
/// topics, sources and [`REPEAT_COLUMNS`]. Does nothing where a later connection of the same node has said that what this
/// one left is settled, or others have taken the node for one that is gone. Gives how many rows of nodes and topics it changed.
fn count() -> String {
    let columns = REPEAT_COLUMNS.join(", ");
    let arrays: Vec<_> = (8..8 + REPEAT_COLUMNS.len()).map(|at| format!("${at}::bigint[]")).collect();
    let (arrays, by_source) = (arrays.join(", "), sources::add(REPEAT_COLUMNS, "$5::bigint", Topics::Many));
    format!(
        "
    WITH mine AS (
        UPDATE sekali.nodes SET epoch = greatest(epoch, $3), rejected = rejected + $4, seen = now()
        WHERE node = $1 AND fence = $2
        RETURNING 1
    ), by_source AS MATERIALIZED (
        SELECT r.* FROM unnest($6::text[], $7::text[], {arrays}) WITH ORDINALITY AS r (topic, source, {columns}, n)
        JOIN sekali.topics AS t ON t.topic = r.topic
        WHERE EXISTS (SELECT FROM mine)
    ), counted AS (
        UPDATE sekali.topics AS t
        SET duplicates = t.duplicates + r.duplicates, conflicts = t.conflicts + r.conflicts
        FROM (SELECT topic, sum(duplicates)::bigint AS duplicates, sum(conflicts)::bigint AS conflicts
            FROM by_source GROUP BY topic) AS r
        WHERE t.topic = r.topic
        RETURNING 1
    ), {by_source}
    SELECT (SELECT count(*) FROM mine), (SELECT count(*) FROM counted)"
    )
}

/// What repeats change of [`COLUMNS`]: all but what was accepted.
pub(super) const REPEAT_COLUMNS: &[&str] = COLUMNS.split_at(1).1;

/// Says that a new connection counts for this node ($1), and gives its fence and the last epoch that is stored. Waits
/// for a transaction of the connection before that is not decided, and keeps one from counting that has not come so far. A
/// node's first fence is the time in microseconds.
pub(super) const FENCE: &str = "
    INSERT INTO sekali.nodes AS n (node, fence, epoch, rejected, seen)
    VALUES ($1, (extract(epoch FROM now()) * 1000000)::bigint, 0, 0, now())
    ON CONFLICT (node) DO UPDATE SET fence = n.fence + 1, seen = now()
    RETURNING fence, epoch";

/// By how much a node's fence never grows while its row is there, and always has when the row was made anew: rows of nodes
/// that were not heard of for a day are taken away.
pub(super) const NEW_FENCE: i64 = 1_000_000;

/// How a group is stored.
pub(super) struct Storing {
    pub(super) lock: Statement,
    pub(super) store: Statement,
    /// Why it could not be stored.
    pub(super) there: Statement,
    pub(super) lock_free: Statement,
}

impl Storing {
    async fn prepare(client: &Client, topics: Topics) -> Result<Self, Error> {
        let (lock, store, lock_free) = (topics.lock(), store(topics), topics.lock_free());
        let (lock, store, there, lock_free) = tokio::try_join!(
            client.prepare(&lock),
            client.prepare(&store),
            client.prepare(topics.there()),
            client.prepare(&lock_free)
        )?;
        Ok(Self { lock, store, there, lock_free })
    }
}

/// The statements of a connection.
pub(super) struct Statements {
    pub(super) make_topics: Statement,
    pub(super) make_few_topics: Statement,
    /// A group of several topics.
    pub(super) many: Storing,
    /// A group of one topic.
    pub(super) one: Storing,
    pub(super) count: Statement,
    pub(super) put_repeats: Statement,
    pub(super) drop_repeats: Statement,
    pub(super) clear_repeats: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        let counting = count();
        let prepared = tokio::try_join!(
            client.prepare(MAKE_TOPICS),
            client.prepare(MAKE_FEW_TOPICS),
            Storing::prepare(client, Topics::Many),
            Storing::prepare(client, Topics::One),
            client.prepare(&counting),
            client.prepare(repeats::PUT),
            client.prepare(repeats::DROP),
            client.prepare(repeats::CLEAR),
        )?;
        let (make_topics, make_few_topics, many, one, count, put_repeats, drop_repeats, clear_repeats) =
            prepared;
        Ok(Self { make_topics, make_few_topics, many, one, count, put_repeats, drop_repeats, clear_repeats })
    }
}
