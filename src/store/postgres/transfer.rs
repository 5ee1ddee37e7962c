//! Both ends of a copy from store to store, where that end is a PostgreSQL database.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `origin` | a database that is copied while nodes go on |
//! | `target` | a database that is copied to, without any node |

mod origin;
mod target;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::{Arc, LazyLock};

use futures_util::StreamExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Row};

pub(in crate::store) use self::origin::PostgresOrigin;
pub(in crate::store) use self::target::PostgresTarget;
use super::connection::{Database, Use, within};
use super::reader::{BYTES_OF_EVENT, TOTALS, counted, stored_event, totals, with_sources};
use super::schema::COPY_LOCK;
use super::statements::Values;
use super::{Drivers, sources};
use crate::config::{PostgresUrl, Settings};
use crate::domain::{StoredEvent, Topic};
use crate::store::repeated::Place;
use crate::store::transfer::{End, PAGE_TOPICS, print};
use crate::store::{StoreError, TopicSources, Totals};

/// How long to wait for a node that is about to go.
const PATIENCE_SECONDS: u32 = 2;

/// What waits on a node to be stored is not counted yet; no node has this number.
const NO_NODE: i64 = 0;

/// Topics behind $2, $3 of them, each once for each of its sources.
static TOPICS: LazyLock<String> = LazyLock::new(|| {
    let page = "(SELECT * FROM sekali.topics WHERE topic > $2 AND last_seq > 0 ORDER BY topic LIMIT $3)";
    with_sources(page) + " ORDER BY t.topic"
});

/// Events by arrays of topics, of their first and of their last seqs: in the order of these, up to the one with which they
/// have $4 bytes. The server counts bytes, so that it sends nothing that is thrown away.
static EVENTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT n, seq, received_at, event_id, timestamp, source, payload, topic FROM (
            SELECT asked.n, e.*, sum(e.bytes) OVER (ORDER BY asked.n, e.seq
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
            FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS asked (topic, first, last, n)
            CROSS JOIN LATERAL (SELECT *, {BYTES_OF_EVENT} AS bytes FROM sekali.events AS e
                WHERE e.topic = asked.topic AND e.seq BETWEEN asked.first AND asked.last) AS e
        ) AS page WHERE bytes_before IS NULL OR bytes_before < $4 ORDER BY n, seq"
    )
});

/// Events that are asked for: topics with their first and last seqs.
#[derive(Default)]
struct Asked {
    topics: Vec<Topic>,
    first: Vec<i64>,
    last: Vec<i64>,
}

/// What both ends are.
struct Shared {
    client: Arc<Client>,
    database: Database,
    /// Dropped last: it drives the connection.
    _drivers: Drivers,
}

impl Shared {
    fn connect(settings: &Settings, url: &PostgresUrl) -> Result<Self, StoreError> {
        let drivers = Drivers::start()?;
        let database = Database::new(settings, url, drivers.handle.clone())?;
        let client = Arc::new(database.block_on(database.connect(Use::Copy))?);
        Ok(Self { client, database, _drivers: drivers })
    }

    /// Waits for an answer.
    fn ask<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
        Ok(self.database.block_on(answer)?)
    }

    fn execute(&self, sql: &str) -> Result<(), StoreError> {
        self.ask(self.client.batch_execute(sql))
    }

    /// Takes the lock that nodes and copies hold as long as they are connected, shared or alone.
    fn lock(&self, function: &str) -> Result<(), StoreError> {
        let lock = format!(
            "SET lock_timeout = '{PATIENCE_SECONDS}s'; SELECT {function}({COPY_LOCK}); SET lock_timeout = {}",
            self.database.lock_timeout().as_millis()
        );
        match self.database.block_on(self.client.batch_execute(&lock)) {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                Err(StoreError::InUse { store: self.database.name().to_owned() })
            }
            taken => Ok(taken?),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A server sees some time later that a connection is gone, and whoever comes next may be there by then. Where this
        // fails the lock goes with the connection.
        let unlock = self.client.batch_execute("SELECT pg_advisory_unlock_all()");
        let _ = self.database.block_on(within(self.database.statement_timeout, unlock));
    }
}

impl End for Shared {
    fn totals(&mut self) -> Result<Totals, StoreError> {
        let row = self.ask(self.client.query_one(TOTALS, &[&NO_NODE]))?;
        totals(&row)
    }

    fn topics(&mut self, after: Option<&str>) -> Result<Vec<TopicSources>, StoreError> {
        let (after, limit) = (after.unwrap_or_default(), i64::try_from(PAGE_TOPICS).unwrap_or(i64::MAX));
        let rows = self.ask(self.client.query(&*TOPICS, &[&NO_NODE, &after, &limit]))?;
        let topic = |row: &Row| row.try_get::<_, &str>(0).ok().map(str::to_owned);
        let of_topics = rows.chunk_by(|one, other| topic(one) == topic(other));
        of_topics.map(|of| Ok(sources::load(of, 6)?.explain(counted(&of[0])?))).collect()
    }

    fn prints(&mut self, places: &[Place]) -> Result<Vec<Option<u64>>, StoreError> {
        let mut asked = Asked::default();
        for (topic, seq) in places {
            asked.push(topic.clone(), *seq, *seq);
        }
        let mut prints = vec![None; places.len()];
        let asking = read(&self.client, &asked, usize::MAX, |n, stored| {
            if let Some(found) = prints.get_mut(n) {
                *found = Some(print(&stored));
            }
        });
        self.database.block_on(asking)?;
        Ok(prints)
    }
}

impl Asked {
    fn push(&mut self, topic: Topic, first: u64, last: u64) {
        self.topics.push(topic);
        self.first.push(first.cast_signed());
        self.last.push(last.cast_signed());
    }
}

/// Reads events, up to the one with which they have so many bytes, and gives each with its place in what was asked for. One at a time:
/// together they may be large.
async fn read(
    client: &Client,
    asked: &Asked,
    bytes: usize,
    mut take: impl FnMut(usize, StoredEvent),
) -> Result<(), StoreError> {
    let topics: Vec<_> = asked.topics.iter().map(Topic::as_str).collect();
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    let values: Values<'_> = &[&topics, &asked.first, &asked.last, &bytes];
    let mut rows = pin!(client.query_raw(&*EVENTS, values.iter().copied()).await?);
    while let Some(row) = rows.next().await.transpose()? {
        let n = usize::try_from(row.try_get::<_, i64>(0)? - 1).unwrap_or(usize::MAX);
        take(n, stored_event(row.try_get(7)?, &row, 1)?);
    }
    Ok(())
}
