//! The SQL of a group commit. All of it is sent at once; each statement runs in one transaction at READ COMMITTED, and
//! so sees what was committed before it began.

use tokio_postgres::{Client, Error, Statement};

/// Makes topics where they are missing: $1 their names, in the order of their bytes.
const MAKE_TOPICS: &str = "
    INSERT INTO sekali.topics (topic, last_seq, duplicates, conflicts, last_received_at)
    SELECT name, 0, 0, 0, 0 FROM unnest($1::text[]) AS new (name)
    ON CONFLICT (topic) DO NOTHING";

/// The same where the number of topics is limited to $2, for whoever holds the lock of that: the first of $1 first.
const MAKE_FEW_TOPICS: &str = "
    INSERT INTO sekali.topics (topic, last_seq, duplicates, conflicts, last_received_at)
    SELECT name, 0, 0, 0, 0 FROM unnest($1::text[]) WITH ORDINALITY AS new (name, n)
    WHERE NOT EXISTS (SELECT FROM sekali.topics AS t WHERE t.topic = name)
    ORDER BY n LIMIT greatest(0, $2::bigint - (SELECT count(*) FROM sekali.topics))";

/// Locks topics until the transaction ends, in the order of their names: two groups never wait for each other.
pub(super) const LOCK_TOPICS: &str = "
    SELECT topic FROM sekali.topics WHERE topic = ANY ($1::text[]) ORDER BY topic FOR NO KEY UPDATE";

/// invariant 3: what is not there is stored; what is there is given back with its digest and its commit. invariant 6: a
/// topic's row says which seq was given last, nobody else can give one while it is locked, and this statement began
/// after it was. invariant 4: events, keys and counters are one statement.
///
/// Arrays of topics, ids, timestamps, sources, payloads and digests, the time, the id of the commit.
pub(super) const STORE: &str = "
    WITH looked AS MATERIALIZED (
        SELECT sent.*, e.seq, e.digest AS stored_digest, e.commit_id
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[]) WITH ORDINALITY
            AS sent (topic, event_id, timestamp, source, payload, digest, n)
        LEFT JOIN sekali.events AS e ON e.topic = sent.topic AND e.event_id = sent.event_id
    ), fresh AS MATERIALIZED (
        SELECT t.topic, t.last_seq + row_number() OVER (PARTITION BY t.topic ORDER BY l.n) AS seq,
            l.event_id, l.timestamp, l.source, l.payload, l.digest, l.n
        FROM looked AS l JOIN sekali.topics AS t ON t.topic = l.topic
        WHERE l.seq IS NULL
    ), stored AS (
        INSERT INTO sekali.events
            (topic, seq, received_at, digest, commit_id, event_id, timestamp, source, payload)
        SELECT topic, seq, $7, digest, $8, event_id, timestamp, source, payload FROM fresh
    ), counted AS (
        UPDATE sekali.topics AS t SET last_seq = f.last_seq, last_received_at = $7
        FROM (SELECT topic, max(seq) AS last_seq FROM fresh GROUP BY topic) AS f
        WHERE t.topic = f.topic
    )
    SELECT n, seq, NULL::bigint, NULL::bigint FROM fresh
    UNION ALL
    SELECT n, seq, stored_digest, commit_id FROM looked WHERE seq IS NOT NULL";

/// The payloads that are stored under keys: arrays of topics and ids.
const PAYLOADS: &str = "
    SELECT asked.n, e.payload
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (topic, event_id, n)
    JOIN sekali.events AS e ON e.topic = asked.topic AND e.event_id = asked.event_id";

/// Stores counts that waited in memory: node, fence, epoch, rejected; arrays of topics, duplicates and conflicts. Does
/// nothing where a later connection of the same node has said that what this one left is settled. Gives how many rows of
/// nodes and topics it changed.
const COUNT: &str = "
    WITH mine AS (
        INSERT INTO sekali.nodes AS n (node, fence, epoch, rejected, seen) VALUES ($1, $2, $3, $4, now())
        ON CONFLICT (node) DO UPDATE SET epoch = greatest(n.epoch, excluded.epoch),
            rejected = n.rejected + excluded.rejected, seen = now()
        WHERE n.fence = excluded.fence
        RETURNING 1
    ), counted AS (
        UPDATE sekali.topics AS t
        SET duplicates = t.duplicates + r.duplicates, conflicts = t.conflicts + r.conflicts
        FROM unnest($5::text[], $6::bigint[], $7::bigint[]) AS r (topic, duplicates, conflicts)
        WHERE t.topic = r.topic AND EXISTS (SELECT FROM mine)
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM mine), (SELECT count(*) FROM counted)";

/// Says that a new connection counts for this node ($1), and gives its fence and the last epoch that is stored. Waits
/// for a transaction of the connection before that is not decided, and keeps one from counting that has not come so far.
pub(super) const FENCE: &str = "
    INSERT INTO sekali.nodes AS n (node, fence, epoch, rejected, seen) VALUES ($1, 1, 0, 0, now())
    ON CONFLICT (node) DO UPDATE SET fence = n.fence + 1, seen = now()
    RETURNING fence, epoch";

/// The statements of a connection.
pub(super) struct Statements {
    pub(super) make_topics: Statement,
    pub(super) make_few_topics: Statement,
    pub(super) lock_topics: Statement,
    pub(super) store: Statement,
    pub(super) payloads: Statement,
    pub(super) count: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        let (make_topics, make_few_topics, lock_topics, store, payloads, count) = tokio::try_join!(
            client.prepare(MAKE_TOPICS),
            client.prepare(MAKE_FEW_TOPICS),
            client.prepare(LOCK_TOPICS),
            client.prepare(STORE),
            client.prepare(PAYLOADS),
            client.prepare(COUNT),
        )?;
        Ok(Self { make_topics, make_few_topics, lock_topics, store, payloads, count })
    }
}
