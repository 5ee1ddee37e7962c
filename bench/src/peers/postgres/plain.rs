//! Plain clients of PostgreSQL: a request is one transaction on a connection.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use async_trait::async_trait;
use futures_util::future::try_join4;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::LOG;
use super::server::{Database, Installed};
use crate::drive::{Answered, Connection, Driven, drive};
use crate::peers::{Peer, Running};
use crate::plan::{Event, Load, Request};
use crate::process::Meter;

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::peers) enum Work {
    /// Stores each key once: a statement that inserts arrays, and gives back the ids that were new.
    Keys,
    /// The same work as sekali: a seq for each event, given under the lock of its topic, and counters.
    Seqs,
}

/// The rows of [`Work::Keys`]. No index but that of the promise: reading in order would need another one.
const KEYS: &str = "CREATE TABLE events (
    pos bigint GENERATED ALWAYS AS IDENTITY,
    topic text NOT NULL,
    event_id text NOT NULL,
    timestamp text NOT NULL,
    source text NOT NULL,
    payload json NOT NULL,
    PRIMARY KEY (topic, event_id)
)";

const INSERT: &str = "INSERT INTO events (topic, event_id, timestamp, source, payload)
    SELECT topic, event_id, timestamp, source, payload::json
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
        AS sent (topic, event_id, timestamp, source, payload)
    ON CONFLICT DO NOTHING RETURNING event_id";

/// The rows of [`Work::Seqs`]: those of sekali, without what it adds for itself (digest, id of the commit, counts by source).
const SEQS: &str = "CREATE TABLE topics (
    topic text PRIMARY KEY,
    last_seq bigint NOT NULL,
    duplicates bigint NOT NULL,
    last_received_at bigint NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE events (
    topic text NOT NULL,
    seq bigint NOT NULL,
    received_at bigint NOT NULL,
    event_id text NOT NULL,
    timestamp text NOT NULL,
    source text NOT NULL,
    payload text NOT NULL,
    PRIMARY KEY (topic, seq),
    UNIQUE (topic, event_id)
)";

const MAKE_TOPICS: &str = "INSERT INTO topics SELECT name, 0, 0, 0 FROM unnest($1::text[]) AS new (name)";

const LOCK_TOPICS: &str =
    "SELECT FROM topics WHERE topic = ANY ($1::text[]) ORDER BY topic FOR NO KEY UPDATE";

/// Keys that are sent once, in arrays; then how many events of each topic repeat a key of the same request.
const STORE: &str = "
    WITH looked AS MATERIALIZED (
        SELECT sent.*, e.seq
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
            WITH ORDINALITY AS sent (topic, event_id, timestamp, source, payload, n)
        LEFT JOIN events AS e ON e.topic = sent.topic AND e.event_id = sent.event_id
    ), fresh AS MATERIALIZED (
        SELECT t.topic, t.last_seq + row_number() OVER (PARTITION BY t.topic ORDER BY l.n) AS seq,
            l.event_id, l.timestamp, l.source, l.payload, l.n
        FROM looked AS l JOIN topics AS t ON t.topic = l.topic
        WHERE l.seq IS NULL
    ), stored AS (
        INSERT INTO events (topic, seq, received_at, event_id, timestamp, source, payload)
        SELECT topic, seq, $6, event_id, timestamp, source, payload FROM fresh
    ), counted AS (
        UPDATE topics AS t SET last_seq = t.last_seq + f.fresh, last_received_at = $6,
            duplicates = t.duplicates + f.repeated
        FROM (SELECT topic, count(*) FILTER (WHERE seq IS NULL) AS fresh, count(seq) AS repeated
            FROM looked GROUP BY topic) AS f
        WHERE t.topic = f.topic
    )
    SELECT n FROM fresh";

/// As sekali sets it: plans are kept, and made again while the tables grow.
const BY_INDEX: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;
    SET enable_mergejoin = off; SET enable_material = off; SET enable_memoize = off;
    SET plan_cache_mode = force_generic_plan; SET jit = off; SET work_mem = '64MB'";

/// The server and what its clients do.
#[derive(Debug)]
pub(in crate::peers) struct Plain {
    database: Installed,
    work: Work,
}

struct Serving {
    database: Database,
    work: Work,
}

impl Plain {
    pub(in crate::peers) fn new(database: Installed, work: Work) -> Self {
        Self { database, work }
    }
}

#[async_trait(?Send)]
impl Peer for Plain {
    fn name(&self) -> &'static str {
        match self.work {
            Work::Keys => "postgres",
            Work::Seqs => "postgres-seqs",
        }
    }

    fn promise(&self) -> &'static str {
        "synced, remembered for ever"
    }

    fn version(&self) -> anyhow::Result<String> {
        self.database.version()
    }

    fn log_directory(&self) -> Option<&'static str> {
        Some(LOG)
    }

    async fn start(&self, directory: &Path) -> anyhow::Result<Box<dyn Running>> {
        let (database, work) = (self.database.start(directory)?, self.work);
        let tables = match work {
            Work::Keys => KEYS,
            Work::Seqs => SEQS,
        };
        database.connect().await?.batch_execute(tables).await?;
        Ok(Box::new(Serving { database, work }))
    }
}

#[async_trait(?Send)]
impl Running for Serving {
    fn meter(&self) -> Meter {
        Meter::of(&self.database.server)
    }

    async fn publish(&mut self, load: &Load) -> anyhow::Result<Driven> {
        if self.work == Work::Seqs {
            let topics: Vec<_> = load.plan.topics().collect();
            self.database.connect().await?.execute(MAKE_TOPICS, &[&topics]).await?;
        }
        let mut connections = Vec::new();
        for lane in load.lanes() {
            let requests = load.requests(lane, |plan, steps| plan.text(steps))?;
            connections.push((Session::open(&self.database, self.work).await?, requests));
        }
        let lanes = connections
            .iter_mut()
            .map(|(connection, requests)| (connection, std::mem::take(requests).into_iter().map(Ok)));
        drive(lanes.collect(), load.shape.limit, &self.meter()).await
    }

    async fn stored(&mut self) -> anyhow::Result<Option<u64>> {
        let rows = match self.work {
            Work::Keys => "SELECT count(*) FROM events",
            // A gap would be seen.
            Work::Seqs => "SELECT sum(last_seq)::bigint FROM topics AS t
                WHERE last_seq = (SELECT count(*) FROM events AS e WHERE e.topic = t.topic AND e.seq <= last_seq)",
        };
        let row = self.database.connect().await?.query_one(rows, &[]).await?;
        Ok(row.try_get::<_, Option<i64>>(0)?.map(u64::try_from).transpose()?)
    }

    async fn stop(self: Box<Self>) -> anyhow::Result<()> {
        self.database.server.stop()
    }
}

/// A connection with its statements.
struct Session {
    client: Client,
    work: Work,
    statements: Statements,
    planned_at: Instant,
    planned_for: Duration,
}

enum Statements {
    Keys { insert: Statement },
    Seqs { lock: Statement, store: Statement },
}

impl Statements {
    async fn prepare(client: &Client, work: Work) -> anyhow::Result<Self> {
        Ok(match work {
            Work::Keys => Self::Keys { insert: client.prepare(INSERT).await? },
            Work::Seqs => {
                Self::Seqs { lock: client.prepare(LOCK_TOPICS).await?, store: client.prepare(STORE).await? }
            }
        })
    }
}

/// Columns of a statement.
#[derive(Default)]
struct Columns<'a> {
    topics: Vec<&'a str>,
    ids: Vec<&'a str>,
    timestamps: Vec<&'a str>,
    sources: Vec<&'a str>,
    payloads: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, event: Event<'a>) {
        self.topics.push(event.topic());
        self.ids.push(event.id());
        self.timestamps.push(event.timestamp());
        self.sources.push(event.source());
        self.payloads.push(event.payload());
    }

    fn values(&self) -> [&(dyn ToSql + Sync); 5] {
        [&self.topics, &self.ids, &self.timestamps, &self.sources, &self.payloads]
    }
}

impl Session {
    async fn open(database: &Database, work: Work) -> anyhow::Result<Self> {
        let client = database.connect().await?;
        if work == Work::Seqs {
            client.batch_execute(BY_INDEX).await?;
        }
        let statements = Statements::prepare(&client, work).await?;
        Ok(Self { client, work, statements, planned_at: Instant::now(), planned_for: Duration::from_secs(1) })
    }

    /// As a node of sekali does it.
    async fn plan_again(&mut self) -> anyhow::Result<()> {
        if self.planned_at.elapsed() >= self.planned_for {
            self.statements = Statements::prepare(&self.client, self.work).await?;
            (self.planned_at, self.planned_for) = (Instant::now(), self.planned_for * 2);
        }
        Ok(())
    }

    async fn insert(&self, insert: &Statement, request: &Request<String>) -> anyhow::Result<Answered> {
        let mut columns = Columns::default();
        Event::all(&request.content).for_each(|event| columns.push(event));
        let inserted = self.client.query(insert, &columns.values()).await?.len();
        ensure!(inserted <= request.new.len(), "more rows than events");
        Ok(by_count(inserted, &request.new))
    }

    /// Everything is sent at once, and each key once.
    async fn store(
        &self,
        (lock, store): (&Statement, &Statement),
        request: &Request<String>,
    ) -> anyhow::Result<Answered> {
        let (mut columns, mut places, mut seen) = (Columns::default(), Vec::new(), HashSet::new());
        for (place, event) in Event::all(&request.content).enumerate() {
            if seen.insert((event.topic(), event.id())) {
                columns.push(event);
                places.push(place);
            }
        }
        let topics: Vec<_> = columns.topics.iter().copied().collect::<HashSet<_>>().into_iter().collect();
        let now = jiff::Timestamp::now().as_microsecond();
        let mut values = columns.values().to_vec();
        values.push(&now);
        let locked: [&(dyn ToSql + Sync); 1] = [&topics];
        let ((), _, rows, ()) = try_join4(
            self.client.batch_execute("BEGIN"),
            self.client.query(lock, &locked),
            self.client.query(store, &values),
            self.client.batch_execute("COMMIT"),
        )
        .await?;
        let mut is_new = vec![false; request.new.len()];
        for row in rows {
            let place = usize::try_from(row.try_get::<_, i64>(0)? - 1)?;
            is_new[places[place]] = true;
        }
        let mut answered = Answered::default();
        is_new.iter().zip(&request.new).for_each(|(said, planned)| answered.count(*said, *planned));
        Ok(answered)
    }
}

impl Connection for Session {
    type Content = String;

    async fn exchange(&mut self, request: &Request<String>) -> anyhow::Result<Answered> {
        self.plan_again().await?;
        match &self.statements {
            Statements::Keys { insert } => self.insert(insert, request).await,
            Statements::Seqs { lock, store } => self.store((lock, store), request).await,
        }
    }
}

/// Verdicts of a request of which only the number of new events is compared: which of two equal events in it was
/// the first is not told.
fn by_count(inserted: usize, new: &[bool]) -> Answered {
    let planned = new.iter().filter(|new| **new).count();
    Answered {
        accepted: inserted as u64,
        duplicates: (new.len() - inserted) as u64,
        wrong: inserted.abs_diff(planned) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_number_of_new_events_than_planned_is_wrong() {
        let right = by_count(2, &[true, false, true]);
        assert_eq!((right.accepted, right.duplicates, right.wrong), (2, 1, 0));
        assert_eq!(by_count(3, &[true, false, true]).wrong, 1);
        assert_eq!(by_count(0, &[true, false, true]).wrong, 2);
    }
}
