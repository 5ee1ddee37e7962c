//! A PostgreSQL database that is copied to. It is locked against nodes: each holds the lock that is asked for here as long as it
//! is connected.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use tokio_postgres::Error;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};

use super::Shared;
use crate::config::{PostgresUrl, Settings};
use crate::domain::{Counts, Event, Parts, StoredEvent};
use crate::store::index::Hasher;
use crate::store::postgres::statements::{MAKE_TOPICS, Values};
use crate::store::postgres::{history, repeats, schema};
use crate::store::repeated::{Changes, Place};
use crate::store::sources::COLUMNS;
use crate::store::transfer::{End, Fork, History, State, Target};
use crate::store::{Repeats, StoreError, TopicSources};

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

/// Arrays of numbers, ids, times.
const PUT_HISTORIES: &str = "INSERT INTO sekali.histories (number, id, began_at)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[])";

/// Arrays of topics, numbers of histories, last seqs.
const PUT_FORKS: &str = "INSERT INTO sekali.forks (topic, history, last_seq)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])";

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

/// A database that is copied to.
pub(in crate::store) struct PostgresTarget {
    hasher: Hasher,
    shared: Shared,
}

impl PostgresTarget {
    /// Opens a store that no node runs on, and makes it where there is none.
    pub(in crate::store) fn open(settings: &Settings, url: &PostgresUrl) -> Result<Self, StoreError> {
        let shared = Shared::connect(settings, url)?;
        shared.lock("pg_advisory_lock")?;
        let store = shared.database.block_on(schema::prepare(&shared.database))?;
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

    fn begin_histories(&mut self, histories: &[History]) -> Result<(), StoreError> {
        let numbers: Vec<_> = histories.iter().map(|history| history.number).collect();
        let ids: Vec<_> = histories.iter().map(|history| history.id.as_str()).collect();
        let began_at: Vec<_> = histories.iter().map(|history| history.began_at).collect();
        let client = &self.shared.client;
        self.shared.ask(async {
            client.batch_execute("DELETE FROM sekali.forks; DELETE FROM sekali.histories").await?;
            client.execute(PUT_HISTORIES, &[&numbers, &ids, &began_at]).await
        })?;
        Ok(())
    }

    fn count(&mut self, page: &[TopicSources], forks: &[Fork]) -> Result<(), StoreError> {
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
        let fork_topics: Vec<_> = forks.iter().map(|fork| fork.topic.as_str()).collect();
        let fork_histories: Vec<_> = forks.iter().map(|fork| fork.history).collect();
        let fork_seqs: Vec<_> = forks.iter().map(|fork| fork.last_seq.cast_signed()).collect();
        let client = &self.shared.client;
        self.shared.ask(async {
            client.execute(COUNT_TOPICS, &[&names, &duplicates, &conflicts]).await?;
            client.execute(PUT_FORKS, &[&fork_topics, &fork_histories, &fork_seqs]).await?;
            client.execute(&*COUNT_SOURCES, &values).await
        })?;
        Ok(())
    }

    /// What nodes counted that are gone belongs to node 0.
    fn end_counts(&mut self, rejected: u64, repeats: Vec<(Place, Repeats)>) -> Result<(), StoreError> {
        let events = repeats.into_iter().map(|(place, repeats)| (place, Some(repeats))).collect();
        let changes = Changes { anew: true, events };
        let columns = repeats::Columns::of(&changes);
        let client = &self.shared.client;
        self.shared.ask(async {
            let rejecting = "UPDATE sekali.nodes SET rejected = CASE node WHEN 0 THEN $1::bigint ELSE 0 END";
            client.execute(rejecting, &[&rejected.cast_signed()]).await?;
            client.batch_execute("DELETE FROM sekali.repeats").await?;
            client.execute(repeats::PUT, &columns.values(&0)).await
        })?;
        self.shared.database.block_on(history::begin(client))?;
        self.shared.execute("COMMIT")
    }

    fn finish(&mut self, left: Counts) -> Result<(), StoreError> {
        let Shared { database, client, .. } = &self.shared;
        database.block_on(history::record_copy(client, database))?;
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
