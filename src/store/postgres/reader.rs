//! Reads, on connections of a pool. Each is one statement, and so sees one moment.
//!
//! They ask the server that writes, so that they see every event that any node acknowledged before they were called.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use jiff::Timestamp;
use tokio::time::timeout;
use tokio_postgres::{Config, Error, Row};

use super::Node;
use super::connection::{Database, Made, Use};
use super::history::{self, CURRENT};
use super::statements::Values;
use super::{repeats, sources};
use crate::domain::{Counts, Event, HistoryId, Kinship, Parts, StoredEvent, Topic, check_name};
use crate::metrics::StoreSample;
use crate::store::sources::COLUMNS;
use crate::store::tally::{Lot, Snapshot};
use crate::store::{
    Found, Key, Order, PAGE_BYTES, Page, PageQuery, Reader, Repeats, StoreError, StoredPayload, Tally,
    TopicCounts, TopicSources, Totals, gone,
};

/// The bytes of an event's texts.
pub(super) const BYTES_OF_EVENT: &str = "octet_length(topic) + octet_length(event_id) + octet_length(timestamp) \
    + octet_length(source) + octet_length(payload)";

/// A page with the current history, without the events past the first that make it too large: topic, first and last
/// seq, limit, bytes. One row without an event where there is none.
static PAGE_UP: LazyLock<String> = LazyLock::new(|| page("ASC"));

/// The same from the other end.
static PAGE_DOWN: LazyLock<String> = LazyLock::new(|| page("DESC"));

fn page(order: &str) -> String {
    format!(
        "SELECT current.id, page.* FROM {CURRENT} AS current LEFT JOIN (
            SELECT seq, received_at, event_id, timestamp, source, payload FROM (
                SELECT *, row_number() OVER by_seq AS place, sum({BYTES_OF_EVENT}) OVER by_seq AS bytes
                FROM (SELECT * FROM sekali.events WHERE topic = $1 AND seq BETWEEN $2 AND $3
                    ORDER BY seq {order} LIMIT $4) AS page
                WINDOW by_seq AS (ORDER BY seq {order})
            ) AS page WHERE place = 1 OR bytes <= $5
        ) AS page ON true ORDER BY page.seq {order}"
    )
}

const EVENT: &str = "SELECT seq, received_at, event_id, timestamp, source, payload FROM sekali.events
    WHERE topic = $1 AND event_id = $2";

const LOOK_UP: &str = "SELECT asked.n, e.seq, e.received_at
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (topic, event_id, n)
    JOIN sekali.events AS e ON e.topic = asked.topic AND e.event_id = asked.event_id";

/// The payloads of a first part of the events with these keys, arrays of topics and ids: as many as have so many bytes
/// together, and the first one that is there.
const PAYLOADS: &str = "SELECT n, seq, payload FROM (
        SELECT asked.n, e.seq, e.payload, row_number() OVER by_place AS place,
            sum(octet_length(e.payload)) OVER by_place AS bytes
        FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (topic, event_id, n)
        JOIN sekali.events AS e ON e.topic = asked.topic AND e.event_id = asked.event_id
        WINDOW by_place AS (ORDER BY asked.n)
    ) AS found WHERE place = 1 OR bytes <= $3 ORDER BY n";

/// How often counts are asked for while those of some topics are stored without those of others.
const LOOKS: usize = 3;

/// Where the epoch of this node's counts ($1) is in all that give counts.
const EPOCH: usize = 5;

const TOPIC: &str = "SELECT topic, last_seq, duplicates, conflicts, last_received_at,
    coalesce((SELECT epoch FROM sekali.nodes WHERE node = $1), 0)
    FROM sekali.topics WHERE topic = $2 AND last_seq > 0";

const TOPICS: &str = "SELECT topic, last_seq, duplicates, conflicts, last_received_at,
    coalesce((SELECT epoch FROM sekali.nodes WHERE node = $1), 0)
    FROM sekali.topics WHERE topic > $2 AND last_seq > 0 ORDER BY topic LIMIT $3";

pub(super) const TOTALS: &str = "SELECT t.topics, t.accepted, t.duplicates, t.conflicts,
    (SELECT sum(rejected)::bigint FROM sekali.nodes),
    coalesce((SELECT epoch FROM sekali.nodes WHERE node = $1), 0)
    FROM (SELECT count(*) AS topics, coalesce(sum(last_seq), 0)::bigint AS accepted,
        coalesce(sum(duplicates), 0)::bigint AS duplicates, coalesce(sum(conflicts), 0)::bigint AS conflicts
        FROM sekali.topics) AS t";

static SOURCES: LazyLock<String> =
    LazyLock::new(|| with_sources("(SELECT * FROM sekali.topics WHERE topic = $2 AND last_seq > 0)"));

/// As [`TOPIC`], of some topics, each once for each of its sources, with the source and its [`COLUMNS`].
pub(super) fn with_sources(topics: &str) -> String {
    let counts: Vec<_> = COLUMNS.iter().map(|column| format!("s.{column}")).collect();
    format!(
        "SELECT t.topic, t.last_seq, t.duplicates, t.conflicts, t.last_received_at,
            coalesce((SELECT epoch FROM sekali.nodes WHERE node = $1), 0), s.source, {}
        FROM {topics} AS t LEFT JOIN sekali.sources AS s ON s.topic = t.topic",
        counts.join(", ")
    )
}

/// The bytes of all tables with their indexes.
const BYTES: &str = "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
    WHERE relnamespace = to_regnamespace('sekali') AND relkind = 'r'";

/// Connections that only read.
pub(super) struct PostgresReader {
    node: i64,
    database: Database,
    tally: Arc<Tally>,
    source_limit: usize,
    pool: Pool,
}

/// Makes the pool's connections.
struct Maker(Database);

impl PostgresReader {
    pub(super) fn new(node: &Node, connections: usize) -> Result<Self, StoreError> {
        let source_limit = usize::try_from(node.source_limit).unwrap_or(usize::MAX);
        let database = node.database.clone();
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(Config::new(), Maker(database.clone()), config);
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(database.patience()))
            .create_timeout(Some(database.connect_timeout))
            .build()
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { node: node.id, database, tally: Arc::clone(&node.tally), source_limit, pool })
    }

    /// The rows of a statement, asked for once more where the connection turned out to be lost.
    async fn rows(&self, sql: &str, values: Values<'_>) -> Result<Vec<Row>, StoreError> {
        let mut tried = false;
        loop {
            let client = self.pool.get().await.map_err(unavailable)?;
            let asked = async {
                let statement = client.prepare_cached(sql).await?;
                client.query(&statement, values).await
            };
            match timeout(self.database.statement_timeout, asked).await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(_)) if client.is_closed() && !tried => tried = true,
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {
                    // Whoever came next would wait for an answer that does not come.
                    drop(Object::take(client));
                    let limit = self.database.statement_timeout;
                    return Err(StoreError::Unavailable(format!(
                        "the database did not answer within {limit:?}"
                    )));
                }
            }
        }
    }

    /// Rows with counts and the epoch of this node's, and what waits in memory beside them. Asks again where that is not
    /// known, since some of what waited was stored meanwhile and some of it not; but not for ever: then what was not stored is
    /// missing once.
    pub(super) async fn counted_rows(
        &self,
        waiting: impl Fn(&Tally) -> Snapshot,
        sql: &str,
        values: Values<'_>,
    ) -> Result<(Vec<Row>, Lot), StoreError> {
        let mut looks = 0;
        loop {
            looks += 1;
            let snapshot = waiting(&self.tally);
            let rows = self.rows(sql, values).await?;
            let Some(first) = rows.first() else { return Ok((rows, Lot::default())) };
            let stored = first.try_get::<_, i64>(EPOCH)?.cast_unsigned();
            if looks >= LOOKS || self.tally.tells(&snapshot, stored) {
                return Ok((rows, snapshot.missing_from(stored)));
            }
        }
    }

    /// Whether the database answers reads now.
    pub(super) async fn answers(&self) -> bool {
        self.rows("SELECT 1", &[]).await.is_ok()
    }

    async fn one(&self, sql: &str, values: Values<'_>) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, values).await?.pop())
    }
}

impl Connect for Maker {
    fn connect(&self, _: &Config) -> Pin<Box<dyn Future<Output = Result<Made, Error>> + Send + '_>> {
        Box::pin(async {
            match self.0.begin_to_connect(Use::Read).join_next().await {
                Some(Ok(made)) => made,
                // The store is closing; the pool does not wait for ever.
                Some(Err(_)) | None => std::future::pending().await,
            }
        })
    }
}

#[async_trait]
impl Reader for PostgresReader {
    async fn page(&self, query: PageQuery) -> Result<Page, StoreError> {
        let (first, last) = (number(query.first.max(1)), number(query.last));
        let sql = match query.order {
            Order::Ascending => &*PAGE_UP,
            Order::Descending => &*PAGE_DOWN,
        };
        let (limit, bytes) = (number(query.limit as u64), number(PAGE_BYTES as u64));
        let topic = query.topic.as_str();
        let rows = self.rows(sql, &[&topic, &first, &last, &limit, &bytes]).await?;
        let history = history::parse(rows.first().ok_or_else(no_history)?.try_get(0)?)?;
        let mut events = Vec::with_capacity(rows.len());
        for row in &rows {
            if row.try_get::<_, Option<i64>>(1)?.is_some() {
                events.push(stored_event(topic, row, 1)?);
            }
        }
        Ok(Page { history, events })
    }

    async fn history(&self) -> Result<HistoryId, StoreError> {
        let row = self.one(history::ID, &[]).await?.ok_or_else(no_history)?;
        history::parse(row.try_get(0)?)
    }

    async fn kinship(&self, topic: Topic, other: HistoryId) -> Result<Kinship, StoreError> {
        history::kinship(self.one(history::KINSHIP, &[&topic.as_str(), &other.as_str()]).await?.as_ref())
    }

    async fn event(&self, key: Key) -> Result<Option<StoredEvent>, StoreError> {
        if check_name(&key.event_id).is_err() {
            return Ok(None);
        }
        let topic = key.topic.as_str();
        let row = self.one(EVENT, &[&topic, &key.event_id]).await?;
        row.map(|row| stored_event(topic, &row, 0)).transpose()
    }

    async fn payloads(&self, keys: &[Key]) -> Result<Vec<Result<StoredPayload, StoreError>>, StoreError> {
        let topics: Vec<_> = keys.iter().map(|key| key.topic.as_str()).collect();
        let ids: Vec<_> = keys.iter().map(|key| key.event_id.as_str()).collect();
        let mut found = Vec::with_capacity(keys.len());
        for row in self.rows(PAYLOADS, &[&topics, &ids, &number(PAGE_BYTES as u64)]).await? {
            let place = usize::try_from(row.try_get::<_, i64>(0)? - 1).unwrap_or(usize::MAX).min(keys.len());
            // Before the last one that is given, none was left out for its size.
            found.extend(keys.iter().take(place).skip(found.len()).map(|key| Err(gone(key))));
            let payload = row.try_get(2).map_err(StoreError::from);
            let seq = row.try_get::<_, i64>(1)?.cast_unsigned();
            found.push(payload.map(|json| StoredPayload { seq, json }));
        }
        if found.is_empty() {
            found.extend(keys.iter().map(|key| Err(gone(key))));
        }
        Ok(found)
    }

    async fn lookup(&self, keys: Vec<Key>) -> Result<Vec<Option<Found>>, StoreError> {
        let mut found = vec![None; keys.len()];
        // What breaks the rules of ids is not stored, and may be what the database does not take for a text.
        let places: Vec<_> = (0..keys.len()).filter(|at| check_name(&keys[*at].event_id).is_ok()).collect();
        let topics: Vec<_> = places.iter().map(|at| keys[*at].topic.as_str()).collect();
        let ids: Vec<_> = places.iter().map(|at| keys[*at].event_id.as_str()).collect();
        for row in self.rows(LOOK_UP, &[&topics, &ids]).await? {
            let place = usize::try_from(row.try_get::<_, i64>(0)? - 1).ok().and_then(|n| places.get(n));
            if let Some(place) = place {
                let seq = row.try_get::<_, i64>(1)?.cast_unsigned();
                found[*place] = Some(Found { seq, received_at: time(row.try_get(2)?)? });
            }
        }
        Ok(found)
    }

    async fn topic(&self, topic: Topic) -> Result<Option<TopicCounts>, StoreError> {
        let values: Values<'_> = &[&self.node, &topic.as_str()];
        let (rows, missing) = self.counted_rows(|tally| tally.snapshot_of(&topic), TOPIC, values).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let mut counted = counted(row)?;
        counted.counts += missing.of(&topic);
        Ok(Some(counted))
    }

    async fn sources(&self, topic: Topic) -> Result<Option<TopicSources>, StoreError> {
        let values: Values<'_> = &[&self.node, &topic.as_str()];
        let (rows, missing) = self.counted_rows(|tally| tally.snapshot_of(&topic), &SOURCES, values).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let (mut counted, mut sources) = (counted(first)?, sources::load(&rows, EPOCH + 1)?);
        if sources.sum() != counted.counts {
            return Err(StoreError::Damaged(format!(
                "the counts by source of topic {topic} are not those of the topic"
            )));
        }
        missing.add_to(&topic, &mut sources, self.source_limit);
        counted.counts += missing.of(&topic);
        Ok(Some(sources.explain(counted)))
    }

    async fn repeats(&self, topic: Topic, seq: u64) -> Result<Option<Repeats>, StoreError> {
        let others = self.rows(repeats::OF_OTHERS, &[&topic.as_str(), &number(seq), &self.node]).await?;
        let mine = self.tally.repeated().of(&(topic, seq));
        repeats::sum(mine, &others)
    }

    async fn topics(&self, after: Option<String>, limit: usize) -> Result<Vec<TopicCounts>, StoreError> {
        // The database takes no text with a NUL. No name has one, so that the same names are greater without the rest.
        let after = after.unwrap_or_default();
        let after = after.split('\0').next().unwrap_or_default();
        let values: Values<'_> = &[&self.node, &after, &number(limit as u64)];
        let (rows, missing) = self.counted_rows(Tally::snapshot, TOPICS, values).await?;
        let mut page = rows.iter().map(counted).collect::<Result<Vec<_>, _>>()?;
        for found in &mut page {
            found.counts += missing.of(&found.topic);
        }
        Ok(page)
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        let (rows, missing) = self.counted_rows(Tally::snapshot, TOTALS, &[&self.node]).await?;
        let Some(row) = rows.first() else { return Ok(Totals::default()) };
        let mut totals = totals(row)?;
        totals.counts += missing.sum();
        Ok(totals)
    }

    async fn sample(&self) -> Result<StoreSample, StoreError> {
        let bytes = match self.one(BYTES, &[]).await? {
            Some(row) => row.try_get::<_, i64>(0)?.cast_unsigned(),
            None => 0,
        };
        Ok(StoreSample { database_bytes: bytes, own: None })
    }
}

/// A number as the database has it; none of its own is greater than the greatest of these.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn no_history() -> StoreError {
    StoreError::Damaged("the table of histories is empty".to_owned())
}

fn unavailable(error: PoolError) -> StoreError {
    match error {
        PoolError::Backend(error) => error.into(),
        other => StoreError::Unavailable(other.to_string()),
    }
}

/// A stored time.
pub(super) fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros)
        .map_err(|error| StoreError::Damaged(format!("a stored time of {micros} microseconds: {error}")))
}

/// A stored topic.
pub(super) fn topic(name: &str) -> Result<Topic, StoreError> {
    Topic::parse(name)
        .map_err(|rule| StoreError::Damaged(format!("the name of topic {name:?}: {}", rule.as_str())))
}

/// What a row says from this column on: seq, time, id, timestamp, source, payload.
pub(super) fn stored_event(topic: &str, row: &Row, first: usize) -> Result<StoredEvent, StoreError> {
    let event = Event::pack(Parts {
        topic,
        event_id: row.try_get(first + 2)?,
        timestamp: row.try_get(first + 3)?,
        source: row.try_get(first + 4)?,
        payload: row.try_get(first + 5)?,
    });
    Ok(StoredEvent {
        seq: row.try_get::<_, i64>(first)?.cast_unsigned(),
        received_at: time(row.try_get(first + 1)?)?,
        event,
    })
}

/// What a row of [`TOTALS`] says.
pub(super) fn totals(row: &Row) -> Result<Totals, StoreError> {
    let number = |column| row.try_get::<_, i64>(column).map(i64::cast_unsigned);
    let counts =
        Counts { accepted: number(1)?, duplicates: number(2)?, conflicts: number(3)?, rejected: number(4)? };
    Ok(Totals { topics: number(0)?, counts })
}

/// What a row says: topic, last seq, duplicates, conflicts, time.
pub(super) fn counted(row: &Row) -> Result<TopicCounts, StoreError> {
    let number = |column| row.try_get::<_, i64>(column).map(i64::cast_unsigned);
    let last_seq = number(1)?;
    Ok(TopicCounts {
        topic: topic(row.try_get(0)?)?,
        counts: Counts { accepted: last_seq, duplicates: number(2)?, conflicts: number(3)?, rejected: 0 },
        first_seq: 1,
        last_seq,
        last_received_at: time(row.try_get(4)?)?,
    })
}
