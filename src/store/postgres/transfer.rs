//! Both ends of a copy from store to store, where that end is a PostgreSQL database.
//!
//! What is copied is read in one transaction, and so is of one moment: nodes may go on. What is copied to is locked against
//! them: each holds the lock that is asked for here as long as it is connected.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use futures_util::{StreamExt, TryStreamExt};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, RowStream};

use super::connection::{Database, Use};
use super::reader::{TOTALS, counted, stored_event, totals};
use super::schema::{self, COPY_LOCK, Known};
use super::statements::MAKE_TOPICS;
use super::writer::Values;
use super::{Drivers, repeats, sources};
use crate::config::{PostgresUrl, Settings};
use crate::domain::{Counts, Event, Parts, StoredEvent, Topic};
use crate::store::index::Hasher;
use crate::store::repeated::{Changes, Place};
use crate::store::sources::COLUMNS;
use crate::store::transfer::{
    BATCH_BYTES, BATCH_EVENTS, Done, End, Origin, PAGE_TOPICS, State, Target, print,
};
use crate::store::{Repeats, StoreError, TopicSources, Totals};

/// How long to wait for a node that is about to go.
const PATIENCE_SECONDS: u32 = 2;

/// Topics behind $1, $2 of them, each once for each of its sources.
static TOPICS: LazyLock<String> = LazyLock::new(|| {
    let counts: Vec<_> = COLUMNS.iter().map(|column| format!("s.{column}")).collect();
    format!(
        "SELECT t.topic, t.last_seq, t.duplicates, t.conflicts, t.last_received_at, s.source, {}
        FROM (SELECT * FROM sekali.topics WHERE topic > $1 AND last_seq > 0 ORDER BY topic LIMIT $2) AS t
        LEFT JOIN sekali.sources AS s ON s.topic = t.topic
        ORDER BY t.topic",
        counts.join(", ")
    )
});

/// Events by arrays of topics and seqs.
const EVENTS: &str = "
    SELECT asked.n, e.seq, e.received_at, e.event_id, e.timestamp, e.source, e.payload, e.topic
    FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS asked (topic, seq, n)
    JOIN sekali.events AS e ON e.topic = asked.topic AND e.seq = asked.seq";

/// All events behind those that are done (arrays of topics and seqs), in about the order in which they were stored: clocks
/// of nodes differ, and within a topic it is seq that counts.
const LOG: &str = "
    SELECT 0, seq, received_at, event_id, timestamp, source, payload, topic FROM (
        SELECT e.*, max(e.received_at) OVER (PARTITION BY e.topic ORDER BY e.seq) AS stored_at
        FROM sekali.events AS e
        LEFT JOIN unnest($1::text[], $2::bigint[]) AS done (topic, seq) ON done.topic = e.topic
        WHERE e.seq > coalesce(done.seq, 0)
    ) AS log ORDER BY stored_at, topic, seq";

/// Of an event that is repeated several nodes may know, each in a row of its own.
const REPEATS: &str = "
    SELECT topic, seq, sum(duplicates)::bigint, sum(conflicts)::bigint, max(last_at),
        (array_agg(last_source ORDER BY last_at DESC))[1], (array_agg(last_conflict ORDER BY last_at DESC))[1]
    FROM sekali.repeats GROUP BY topic, seq ORDER BY max(last_at)";

/// Moves topics on: arrays of topics, of their last seqs before and after, and of times.
const MOVE_ON: &str = "
    UPDATE sekali.topics AS t SET last_seq = new.last, last_received_at = new.received_at
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS new (topic, before, last, received_at)
    WHERE t.topic = new.topic AND t.last_seq = new.before";

const STORE: &str = "COPY sekali.events
    (topic, seq, received_at, digest, commit_id, event_id, timestamp, source, payload) FROM STDIN (FORMAT binary)";

/// The types of what is stored so.
const STORED: [Type; 9] = [
    Type::TEXT,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
];

/// Arrays of topics, duplicates, conflicts.
const COUNT_TOPICS: &str = "
    UPDATE sekali.topics AS t SET duplicates = new.duplicates, conflicts = new.conflicts
    FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS new (topic, duplicates, conflicts)
    WHERE t.topic = new.topic";

/// Arrays of topics, sources, and [`COLUMNS`].
static COUNT_SOURCES: LazyLock<String> = LazyLock::new(|| {
    let arrays: Vec<_> = (3..3 + COLUMNS.len()).map(|at| format!("${at}::bigint[]")).collect();
    let (columns, arrays) = (COLUMNS.join(", "), arrays.join(", "));
    format!(
        "INSERT INTO sekali.sources (topic, source, {columns})
        SELECT * FROM unnest($1::text[], $2::text[], {arrays})"
    )
});

/// What both ends are.
struct Shared {
    client: Client,
    database: Database,
    /// Dropped last: it drives the connection.
    _drivers: Drivers,
}

/// A database that is copied.
pub(in crate::store) struct PostgresOrigin {
    /// What is still to be copied.
    log: Option<Pin<Box<RowStream>>>,
    shared: Shared,
}

/// A database that is copied to.
pub(in crate::store) struct PostgresTarget {
    hasher: Hasher,
    shared: Shared,
}

impl Shared {
    fn connect(settings: &Settings, url: &PostgresUrl) -> Result<Self, StoreError> {
        let drivers = Drivers::start()?;
        let database = Database::new(settings, url, drivers.handle.clone())?;
        let client = database.block_on(database.connect(Use::Copy))?;
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
            self.database.lock_timeout.as_millis()
        );
        match self.database.block_on(self.client.batch_execute(&lock)) {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                Err(StoreError::InUse { store: self.database.name().to_owned() })
            }
            taken => Ok(taken?),
        }
    }
}

impl End for Shared {
    fn totals(&mut self) -> Result<Totals, StoreError> {
        // What waits on a node to be stored is not counted yet; no node has the number 0.
        let row = self.ask(self.client.query_one(TOTALS, &[&0_i64]))?;
        totals(&row)
    }

    fn topics(&mut self, after: Option<&str>) -> Result<Vec<TopicSources>, StoreError> {
        let (after, limit) = (after.unwrap_or_default(), i64::try_from(PAGE_TOPICS).unwrap_or(i64::MAX));
        let rows = self.ask(self.client.query(&*TOPICS, &[&after, &limit]))?;
        let topic = |row: &Row| row.try_get::<_, &str>(0).ok().map(str::to_owned);
        let of_topics = rows.chunk_by(|one, other| topic(one) == topic(other));
        of_topics.map(|of| Ok(sources::load(of, 5)?.explain(counted(&of[0])?))).collect()
    }

    fn prints(&mut self, places: &[Place]) -> Result<Vec<Option<u64>>, StoreError> {
        let topics: Vec<_> = places.iter().map(|(topic, _)| topic.as_str()).collect();
        let seqs: Vec<_> = places.iter().map(|(_, seq)| seq.cast_signed()).collect();
        let values: Values<'_> = &[&topics, &seqs];
        let mut prints = vec![None; places.len()];
        self.database.block_on(async {
            let mut rows = pin!(self.client.query_raw(EVENTS, values.iter().copied()).await?);
            // One at a time: together they may be large.
            while let Some(row) = rows.next().await.transpose()? {
                let place = usize::try_from(row.try_get::<_, i64>(0)? - 1).ok();
                if let Some(found) = place.and_then(|at| prints.get_mut(at)) {
                    *found = Some(print(&of_topic(&row)?));
                }
            }
            Ok(prints)
        })
    }
}

/// An event, with its topic in the last column.
fn of_topic(row: &Row) -> Result<StoredEvent, StoreError> {
    stored_event(row.try_get(7)?, row, 1)
}

impl PostgresOrigin {
    /// Begins to read a store as it is now. Nothing is made or migrated.
    pub(in crate::store) fn open(settings: &Settings, url: &PostgresUrl) -> Result<Self, StoreError> {
        let shared = Shared::connect(settings, url)?;
        let store = shared.database.name().to_owned();
        // Nobody can begin to copy to it from here on.
        shared.lock("pg_advisory_lock_shared")?;
        match shared.database.block_on(schema::look(&shared.client, &shared.database))? {
            Known::Nothing => {
                return Err(StoreError::Foreign { path: store, reason: "nothing is in it".to_owned() });
            }
            Known::Older { found, known } => return Err(StoreError::Older { found, known }),
            Known::Half => return Err(StoreError::HalfCopied { store }),
            Known::Ready => {}
        }
        shared.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        Ok(Self { log: None, shared })
    }
}

impl Origin for PostgresOrigin {
    fn end(&mut self) -> &mut dyn End {
        &mut self.shared
    }

    fn begin(&mut self, done: Done) -> Result<(), StoreError> {
        let (topics, seqs): (Vec<_>, Vec<_>) =
            done.iter().map(|(topic, seq)| (topic.as_str(), seq.cast_signed())).unzip();
        let values: Values<'_> = &[&topics, &seqs];
        let log = self.shared.ask(self.shared.client.query_raw(LOG, values.iter().copied()))?;
        self.log = Some(Box::pin(log));
        Ok(())
    }

    fn next(&mut self) -> Result<Vec<StoredEvent>, StoreError> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        let Some(log) = &mut self.log else { return Ok(events) };
        let has_ended = self.shared.database.block_on(async {
            while events.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
                let Some(row) = log.try_next().await? else { return Ok(true) };
                let stored = of_topic(&row)?;
                bytes += stored.event.bytes();
                events.push(stored);
            }
            Ok::<_, StoreError>(false)
        })?;
        if has_ended {
            self.log = None;
        }
        Ok(events)
    }

    fn repeats(&mut self) -> Result<Vec<(Place, Repeats)>, StoreError> {
        let rows = self.shared.ask(self.shared.client.query(REPEATS, &[]))?;
        let known = |row: &Row| {
            let name: &str = row.try_get(0)?;
            let topic = Topic::parse(name).map_err(|rule| {
                StoreError::Damaged(format!("the name of topic {name:?}: {}", rule.as_str()))
            })?;
            Ok(((topic, row.try_get::<_, i64>(1)?.cast_unsigned()), repeats::known(row, 2)?))
        };
        rows.iter().map(known).collect()
    }
}

impl PostgresTarget {
    /// Opens a store that no node runs on, and makes it where there is none.
    pub(in crate::store) fn open(settings: &Settings, url: &PostgresUrl) -> Result<Self, StoreError> {
        let shared = Shared::connect(settings, url)?;
        shared.lock("pg_advisory_lock")?;
        let prepared = schema::prepare(&shared.database);
        let store = shared.database.block_on(prepared)?;
        Ok(Self { hasher: store.hasher, shared })
    }

    /// Stores events by their topics' spans, in the transaction that is open.
    async fn store(&self, events: &[StoredEvent], spans: &Spans<'_>) -> Result<u64, Error> {
        let client = &self.shared.client;
        client.execute(MAKE_TOPICS, &[&spans.topics]).await?;
        let values: Values<'_> = &[&spans.topics, &spans.before, &spans.last, &spans.received_at];
        let moved = client.execute(MOVE_ON, values).await?;
        let mut rows = pin!(BinaryCopyInWriter::new(client.copy_in(STORE).await?, &STORED));
        let commit = fastrand::i64(..);
        for StoredEvent { seq, received_at, event } in events {
            let Parts { topic, event_id, timestamp, source, payload } = event.parts();
            let (seq, received_at) = (seq.cast_signed(), received_at.as_microsecond());
            let digest = self.hasher.digest(payload.as_bytes()).cast_signed();
            let row: Values<'_> =
                &[&topic, &seq, &received_at, &digest, &commit, &event_id, &timestamp, &source, &payload];
            rows.as_mut().write(row).await?;
        }
        rows.finish().await?;
        Ok(moved)
    }
}

impl Target for PostgresTarget {
    fn end(&mut self) -> &mut dyn End {
        &mut self.shared
    }

    fn state(&mut self) -> Result<State, StoreError> {
        let row = self.shared.ask(self.shared.client.query_one(schema::COPIED, &[]))?;
        let numbers: Option<Vec<i64>> = row.try_get(1)?;
        Ok(match (row.try_get(0)?, numbers.as_deref()) {
            (true, _) => State::Half,
            (false, Some(&[accepted, duplicates, conflicts, rejected])) => State::Whole(Counts {
                accepted: accepted.cast_unsigned(),
                duplicates: duplicates.cast_unsigned(),
                conflicts: conflicts.cast_unsigned(),
                rejected: rejected.cast_unsigned(),
            }),
            (false, _) => State::Own,
        })
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.shared.execute("UPDATE sekali.store SET half_copied = true")
    }

    fn append(&mut self, events: &[StoredEvent]) -> Result<(), StoreError> {
        let spans = Spans::of(events)?;
        self.shared.execute("BEGIN")?;
        let moved = self.shared.ask(self.store(events, &spans))?;
        if moved != spans.topics.len() as u64 {
            let what = "a topic's last seq is not the one before those that are copied".to_owned();
            return Err(StoreError::Damaged(what));
        }
        self.shared.execute("COMMIT")
    }

    fn begin_counts(&mut self) -> Result<(), StoreError> {
        self.shared.execute("BEGIN; DELETE FROM sekali.sources")
    }

    fn count(&mut self, page: &[TopicSources]) -> Result<(), StoreError> {
        let names: Vec<_> = page.iter().map(|counted| counted.topic.topic.as_str()).collect();
        let numbers = |number: fn(&Counts) -> u64| -> Vec<i64> {
            page.iter().map(|counted| number(&counted.topic.counts).cast_signed()).collect()
        };
        let (duplicates, conflicts) =
            (numbers(|counts| counts.duplicates), numbers(|counts| counts.conflicts));
        let rows: Vec<_> = page.iter().flat_map(|of| of.rows().map(move |row| (of, row))).collect();
        let topics: Vec<_> = rows.iter().map(|(of, _)| of.topic.topic.as_str()).collect();
        let sources: Vec<_> = rows.iter().map(|(_, (source, _))| *source).collect();
        let mut columns: [Vec<i64>; COLUMNS.len()] = Default::default();
        for (_, (_, counts)) in &rows {
            columns.iter_mut().zip(counts.numbers()).for_each(|(column, number)| column.push(number));
        }
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&topics, &sources];
        values.extend(columns.iter().map(|column| column as &(dyn ToSql + Sync)));
        let client = &self.shared.client;
        self.shared.ask(async {
            client.execute(COUNT_TOPICS, &[&names, &duplicates, &conflicts]).await?;
            client.execute(&*COUNT_SOURCES, &values).await
        })?;
        Ok(())
    }

    /// What nodes counted that are gone belongs to node 0.
    fn end_counts(&mut self, rejected: u64, repeats: Vec<(Place, Repeats)>) -> Result<(), StoreError> {
        let events = repeats.into_iter().map(|(place, repeats)| (place, Some(repeats))).collect();
        let changes = Changes { anew: true, events };
        let columns = repeats::Columns::of(&changes);
        let [duplicates, conflicts, times] = &columns.numbers;
        let (topics, seqs) = &columns.put;
        let put: Values<'_> =
            &[&0_i64, topics, seqs, duplicates, conflicts, times, &columns.sources, &columns.last_conflicts];
        let client = &self.shared.client;
        self.shared.ask(async {
            let rejecting = "UPDATE sekali.nodes SET rejected = CASE node WHEN 0 THEN $1::bigint ELSE 0 END";
            client.execute(rejecting, &[&rejected.cast_signed()]).await?;
            client.batch_execute("DELETE FROM sekali.repeats").await?;
            client.execute(repeats::PUT, put).await?;
            client.batch_execute("COMMIT").await
        })
    }

    fn finish(&mut self, left: Counts) -> Result<(), StoreError> {
        let Counts { accepted, duplicates, conflicts, rejected } = left;
        let numbers = [accepted, duplicates, conflicts, rejected].map(u64::cast_signed).to_vec();
        let finished = "UPDATE sekali.store SET half_copied = false, copied = $1";
        self.shared.ask(self.shared.client.execute(finished, &[&numbers]))?;
        Ok(())
    }
}

/// What events are of each topic, as columns.
#[derive(Default)]
struct Spans<'a> {
    topics: Vec<&'a str>,
    /// The seq before the first one.
    before: Vec<i64>,
    last: Vec<i64>,
    /// When the last one was stored.
    received_at: Vec<i64>,
}

impl<'a> Spans<'a> {
    fn of(events: &'a [StoredEvent]) -> Result<Self, StoreError> {
        let mut places: HashMap<&str, usize, RandomState> = HashMap::default();
        let mut spans = Self::default();
        for StoredEvent { seq, received_at, event } in events {
            let (topic, seq) = (Event::topic(event), seq.cast_signed());
            let place = *places.entry(topic).or_insert(spans.topics.len());
            if place == spans.topics.len() {
                spans.topics.push(topic);
                spans.before.push(seq - 1);
                spans.last.push(seq - 1);
                spans.received_at.push(0);
            }
            let last = spans.last[place];
            if seq != last + 1 {
                return Err(StoreError::Damaged(format!("topic {topic}: seq {seq} comes behind seq {last}")));
            }
            (spans.last[place], spans.received_at[place]) = (seq, received_at.as_microsecond());
        }
        Ok(spans)
    }
}
