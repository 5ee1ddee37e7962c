//! A PostgreSQL database that is copied while nodes go on.
//!
//! Events never change, so nearly all of them are read by short statements, each of a moment of its own. A transaction that
//! lasted as long as they take would keep the server from taking away what was replaced since it began: above all the
//! versions of each topic's row, of which every commit makes one, and every commit would find its topic more slowly. Only the
//! rest is read in one transaction, with all that was counted, and the copy is of that moment.

use std::collections::VecDeque;
use std::mem::replace;
use std::sync::{Arc, LazyLock};

use tokio::task::JoinHandle;
use tokio_postgres::Row;

use super::{Asked, Shared, read};
use crate::config::{PostgresUrl, Settings};
use crate::domain::{StoredEvent, Topic};
use crate::store::postgres::reader::topic;
use crate::store::postgres::schema::{self, Known};
use crate::store::postgres::{history, repeats};
use crate::store::repeated::Place;
use crate::store::transfer::{BATCH_BYTES, BATCH_EVENTS, Done, End, Fork, History, Origin, PAGE_TOPICS};
use crate::store::{Repeats, StoreError, TopicSources};

/// Last seqs of topics behind $1, $2 of them.
const LAST_SEQS: &str =
    "SELECT topic, last_seq FROM sekali.topics WHERE topic > $1 AND last_seq > 0 ORDER BY topic LIMIT $2";

const HISTORIES: &str = "SELECT number, id, began_at FROM sekali.histories ORDER BY number";

/// Where topics ($1) were when histories ended.
const FORKS: &str = "SELECT f.history, f.topic, f.last_seq FROM sekali.forks AS f
    JOIN sekali.histories AS h ON h.number = f.history WHERE f.topic = ANY($1::text[])";

/// Of an event that is repeated several nodes may know, each in a row of its own.
static REPEATS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT topic, seq, {} FROM sekali.repeats GROUP BY topic, seq ORDER BY max(last_at)",
        repeats::SUMMED
    )
});

/// A database that is copied.
pub(in crate::store) struct PostgresOrigin {
    rounds: Rounds,
    /// Events that were found and not asked for yet.
    found: VecDeque<Span>,
    /// How many they are.
    waiting: u64,
    /// Events that the server was asked for.
    ahead: Option<JoinHandle<Result<Vec<StoredEvent>, StoreError>>>,
    shared: Shared,
}

/// Events of a topic.
struct Span {
    topic: Topic,
    first: u64,
    last: u64,
}

/// Rounds over all topics, page by page: each finds what came since the one before.
struct Rounds {
    /// What was found of each topic in all of them.
    done: Done,
    /// The last topic that was looked at in this one; none at its end.
    after: Option<String>,
    /// Events that were found in this one.
    new: u64,
    /// Events that were found in the one before.
    before: u64,
    /// Whether what is seen stays as it is, so that one round is enough.
    is_settled: bool,
}

impl PostgresOrigin {
    /// Begins to read a store, and keeps it from being copied to. Nothing is made or migrated.
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
        let rounds = Rounds::of(Done::default());
        Ok(Self { rounds, found: VecDeque::new(), waiting: 0, ahead: None, shared })
    }

    /// Looks for events until they are enough for a transaction, or no more.
    fn find(&mut self) -> Result<(), StoreError> {
        while self.waiting < BATCH_EVENTS as u64 {
            let Some(after) = &self.rounds.after else {
                if self.rounds.again() {
                    continue;
                }
                break;
            };
            let limit = i64::try_from(PAGE_TOPICS).unwrap_or(i64::MAX);
            let page = self.shared.ask(self.shared.client.query(LAST_SEQS, &[after, &limit]))?;
            self.rounds.after = page.last().map(|row| row.try_get(0)).transpose()?;
            for row in page {
                let last = row.try_get::<_, i64>(1)?.cast_unsigned();
                if let Some(span) = self.rounds.find(topic(row.try_get(0)?)?, last) {
                    self.waiting += span.count();
                    self.found.push_back(span);
                }
            }
        }
        Ok(())
    }

    /// As many of the events that were found as belong into one transaction, if they are small.
    fn next_asked(&self) -> Asked {
        let (mut asked, mut room) = (Asked::default(), BATCH_EVENTS as u64);
        for span in &self.found {
            if room == 0 {
                break;
            }
            let count = span.count().min(room);
            asked.push(span.topic.clone(), span.first, span.first + count - 1);
            room -= count;
        }
        asked
    }

    /// Asks the server for the next events, so that it reads them while those before them are stored.
    fn ask_ahead(&mut self) -> Result<(), StoreError> {
        self.find()?;
        let asked = self.next_asked();
        if asked.topics.is_empty() {
            return Ok(());
        }
        let client = Arc::clone(&self.shared.client);
        self.ahead = Some(self.shared.database.spawn(async move {
            let mut events = Vec::new();
            read(&client, &asked, BATCH_BYTES, |_, stored| events.push(stored)).await?;
            Ok(events)
        }));
        Ok(())
    }

    /// Strikes out what was read. It is the beginning of what was asked for: seqs have no gaps.
    fn strike(&mut self, read: &[StoredEvent]) -> Result<(), StoreError> {
        for at in 0..read.len().max(1) {
            let Some(span) = self.found.front_mut() else { break };
            let is_next = |it: &StoredEvent| it.event.topic() == span.topic.as_str() && it.seq == span.first;
            if !read.get(at).is_some_and(is_next) {
                let what = format!("topic {}: seq {} is missing", span.topic, span.first);
                return Err(StoreError::Damaged(what));
            }
            (span.first, self.waiting) = (span.first + 1, self.waiting - 1);
            if span.first > span.last {
                self.found.pop_front();
            }
        }
        Ok(())
    }
}

impl Origin for PostgresOrigin {
    fn end(&mut self) -> &mut dyn End {
        &mut self.shared
    }

    fn begin(&mut self, done: Done) -> Result<(), StoreError> {
        self.rounds = Rounds::of(done);
        Ok(())
    }

    fn next(&mut self) -> Result<Vec<StoredEvent>, StoreError> {
        if self.ahead.is_none() {
            self.ask_ahead()?;
        }
        let Some(ahead) = self.ahead.take() else { return Ok(Vec::new()) };
        let failed = |error| StoreError::Unavailable(format!("the copy's thread for connections: {error}"));
        let events = self.shared.database.block_on(ahead).map_err(failed)??;
        self.strike(&events)?;
        self.ask_ahead()?;
        Ok(events)
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        // Its first statement, which looks for the rest, says which moment it is of.
        self.shared.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        self.rounds.settle();
        Ok(())
    }

    fn histories(&mut self) -> Result<Vec<History>, StoreError> {
        let rows = self.shared.ask(self.shared.client.query(HISTORIES, &[]))?;
        let history = |row: &Row| {
            let id = history::parse(row.try_get(1)?)?;
            Ok(History { number: row.try_get(0)?, id, began_at: row.try_get(2)? })
        };
        rows.iter().map(history).collect()
    }

    fn forks(&mut self, topics: &[TopicSources]) -> Result<Vec<Fork>, StoreError> {
        let names: Vec<_> = topics.iter().map(|counted| counted.topic.topic.as_str()).collect();
        let rows = self.shared.ask(self.shared.client.query(FORKS, &[&names]))?;
        let fork = |row: &Row| {
            let last_seq = row.try_get::<_, i64>(2)?.cast_unsigned();
            Ok(Fork { history: row.try_get(0)?, topic: topic(row.try_get(1)?)?, last_seq })
        };
        rows.iter().map(fork).collect()
    }

    fn repeats(&mut self) -> Result<Vec<(Place, Repeats)>, StoreError> {
        let rows = self.shared.ask(self.shared.client.query(&*REPEATS, &[]))?;
        let known = |row: &Row| {
            let place = (topic(row.try_get(0)?)?, row.try_get::<_, i64>(1)?.cast_unsigned());
            Ok((place, repeats::known(row, 2)?))
        };
        rows.iter().map(known).collect()
    }
}

impl Span {
    fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

impl Rounds {
    /// Rounds that find what is behind these seqs.
    fn of(done: Done) -> Self {
        Self { done, after: Some(String::new()), new: 0, before: u64::MAX, is_settled: false }
    }

    /// What is new in a topic with this last seq.
    fn find(&mut self, topic: Topic, last: u64) -> Option<Span> {
        let before = self.done.insert(topic.clone(), last).unwrap_or(0);
        let span = Span { topic, first: before + 1, last };
        self.new += last.saturating_sub(before);
        (before < last).then_some(span)
    }

    /// Begins another round, unless the one that has ended found few events, or no fewer than the one before: then nodes
    /// store them as fast as they are copied.
    fn again(&mut self) -> bool {
        let before = replace(&mut self.before, replace(&mut self.new, 0));
        let is_worth_it = self.before > BATCH_EVENTS as u64 && self.before < before;
        if is_worth_it && !self.is_settled {
            self.after = Some(String::new());
        }
        self.after.is_some()
    }

    /// Begins the last round.
    fn settle(&mut self) {
        (self.after, self.new, self.is_settled) = (Some(String::new()), 0, true);
    }
}
