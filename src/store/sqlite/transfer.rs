//! Both ends of a copy from store to store, where that end is a SQLite file. A copy owns the file as a server does.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::connection::Database;
use super::owner::Ownership;
use super::reader::{explained, totals};
use super::topics::TopicId;
use super::writer::SqliteWriter;
use super::{
    Purpose, Shared, SqliteStore, existing, file_of, history, make_directory, opening, page, repeats, rows,
    schema, sources, topics,
};
use crate::config::Settings;
use crate::domain::{Counts, StoredEvent, Topic};
use crate::store::index::Hasher;
use crate::store::repeated::{Changes, Place};
use crate::store::transfer::{
    BATCH_BYTES, BATCH_EVENTS, Done, End, Fork, History, Origin, PAGE_TOPICS, State, Target, print,
};
use crate::store::{Order, PageQuery, Repeats, StoreError, TopicSources, Totals};

/// What both ends are.
struct File {
    /// Closed before the store, which owns the file.
    connection: Connection,
    store: SqliteStore,
    /// Sources of a topic that may have a name.
    sources: usize,
}

/// A file that is copied.
pub(in crate::store) struct SqliteOrigin {
    file: File,
    topics: HashMap<i64, Topic>,
    done: Done,
    /// The position up to which it is copied.
    end: u64,
}

/// A file that is copied to.
pub(in crate::store) struct SqliteTarget {
    /// Until every event is there.
    writer: Option<SqliteWriter>,
    /// The transaction in which the counters are written.
    counting: Option<Connection>,
    file: File,
}

/// Refuses a store to which a copy was begun and not run to its end.
pub(super) fn refuse_half(database: &Database) -> Result<(), StoreError> {
    match state(&database.open_to_read()?)? {
        State::Half => Err(StoreError::HalfCopied { store: format!("sqlite:{}", database.path.display()) }),
        State::Own | State::Whole(_) => Ok(()),
    }
}

/// What is known of copies to a store.
pub(super) fn state(connection: &Connection) -> Result<State, StoreError> {
    let sql = "SELECT half, accepted, duplicates, conflicts, rejected FROM copies";
    let left = |row: &Row<'_>| {
        let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        if row.get(0)? {
            return Ok(State::Half);
        }
        Ok(State::Whole(Counts {
            accepted: number(1)?,
            duplicates: number(2)?,
            conflicts: number(3)?,
            rejected: number(4)?,
        }))
    };
    Ok(connection.query_row(sql, [], left).optional()?.unwrap_or(State::Own))
}

impl File {
    fn new(store: SqliteStore, settings: &Settings) -> Result<Self, StoreError> {
        let connection = store.options.database.open_to_read()?;
        Ok(Self { connection, store, sources: settings.limits.sources })
    }

    fn read_topics(&self, after: Option<&str>) -> Result<Vec<(TopicId, Topic)>, StoreError> {
        let named = |(id, name): (TopicId, String)| match Topic::parse(&name) {
            Ok(topic) => Ok((id, topic)),
            Err(rule) => Err(StoreError::Damaged(format!("the name of topic {name:?}: {}", rule.as_str()))),
        };
        topics::after(&self.connection, after, PAGE_TOPICS)?.into_iter().map(named).collect()
    }
}

impl End for File {
    fn totals(&mut self) -> Result<Totals, StoreError> {
        Ok(totals(&self.connection)?)
    }

    fn topics(&mut self, after: Option<&str>) -> Result<Vec<TopicSources>, StoreError> {
        let mut last = after.map(str::to_owned);
        loop {
            let (some, mut page) = (self.read_topics(last.as_deref())?, Vec::new());
            let Some((_, name)) = some.last() else { return Ok(page) };
            last = Some(name.to_string());
            let Shared { memory, tally, .. } = &self.store.shared;
            for (id, topic) in &some {
                page.extend(explained(&self.connection, memory, tally, (*id, topic), self.sources)?);
            }
            // An empty page would be the end for whoever reads on.
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }

    fn prints(&mut self, places: &[Place]) -> Result<Vec<Option<u64>>, StoreError> {
        let print_of = |(topic, seq): &Place| {
            let (topic, first, last) = (topic.clone(), *seq, *seq);
            let query = PageQuery { topic, first, last, limit: 1, order: Order::Ascending };
            Ok(page::read(&self.connection, &self.store.shared.memory, &query)?.first().map(print))
        };
        places.iter().map(print_of).collect()
    }
}

impl SqliteOrigin {
    /// Takes over a store that no server runs. Nothing is made or migrated.
    pub(in crate::store) fn open(settings: &Settings) -> Result<Self, StoreError> {
        let path = existing(file_of(settings)?)?;
        let ownership = Ownership::take(&path)?;
        let database = Database { path: path.clone(), lock_timeout: settings.store.lock_timeout };
        let found = schema::check_store(&database, &database.open_to_read()?)?;
        if found < schema::VERSION {
            return Err(StoreError::Older { found, known: schema::VERSION });
        }
        let store = SqliteStore::open_owned(path, ownership, settings, Purpose::CopyFrom)?;
        let file = File::new(store, settings)?;
        Ok(Self { file, topics: HashMap::new(), done: Done::default(), end: 0 })
    }
}

impl Origin for SqliteOrigin {
    fn end(&mut self) -> &mut dyn End {
        &mut self.file
    }

    fn begin(&mut self, done: Done) -> Result<(), StoreError> {
        self.done = done;
        let mut last: Option<Topic> = None;
        loop {
            let some = self.file.read_topics(last.as_ref().map(Topic::as_str))?;
            let Some((_, name)) = some.last() else { return Ok(()) };
            last = Some(name.clone());
            self.topics.extend(some.into_iter().map(|(id, topic)| (id.0, topic)));
        }
    }

    fn next(&mut self) -> Result<Vec<StoredEvent>, StoreError> {
        let Self { file, topics, done, end } = self;
        let wanted = |topic: &Topic, seq| done.get(topic).is_none_or(|last| *last < seq);
        let stretch = rows::behind(&file.connection, *end, (BATCH_EVENTS, BATCH_BYTES), topics, &wanted)?;
        *end = stretch.end;
        Ok(stretch.events)
    }

    fn histories(&mut self) -> Result<Vec<History>, StoreError> {
        history::all(&self.file.connection)
    }

    fn forks(&mut self, topics: &[TopicSources]) -> Result<Vec<Fork>, StoreError> {
        let mut forks = Vec::new();
        for TopicSources { topic, .. } in topics {
            forks.append(&mut history::forks(&self.file.connection, &topic.topic)?);
        }
        Ok(forks)
    }

    fn repeats(&mut self) -> Result<Vec<(Place, Repeats)>, StoreError> {
        repeats::load(&self.file.connection)
    }
}

/// A topic whose events are copied.
fn copied(connection: &Connection, topic: &Topic) -> Result<TopicId, StoreError> {
    let found = topics::load(connection, topic)?;
    found.map(|state| state.id).ok_or_else(|| StoreError::Damaged(format!("topic {topic} is not there")))
}

impl SqliteTarget {
    /// Opens a store that no server runs, and makes it where there is none.
    pub(in crate::store) fn open(settings: &Settings) -> Result<Self, StoreError> {
        let path = make_directory(file_of(settings)?)?;
        let ownership = Ownership::take(&path)?;
        // What is copied was accepted elsewhere.
        let mut unlimited = settings.clone();
        unlimited.limits.topics = None;
        let store = SqliteStore::open_owned(path, ownership, &unlimited, Purpose::CopyTo)?;
        let writer = store.first_writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Self { writer, counting: None, file: File::new(store, settings)? })
    }

    fn open_to_write(&self) -> Result<Connection, StoreError> {
        self.file.store.options.database.open_to_write()
    }

    /// The transaction that counts.
    fn counting(&self) -> Result<&Connection, StoreError> {
        self.counting.as_ref().ok_or_else(|| StoreError::Unavailable("no transaction is open".to_owned()))
    }
}

impl Target for SqliteTarget {
    fn end(&mut self) -> &mut dyn End {
        &mut self.file
    }

    fn state(&mut self) -> Result<State, StoreError> {
        state(&self.file.connection)
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO copies VALUES (1, 1, 0, 0, 0, 0)";
        self.open_to_write()?.execute(sql, [])?;
        Ok(())
    }

    fn append(&mut self, events: &[StoredEvent]) -> Result<(), StoreError> {
        match &mut self.writer {
            Some(writer) => writer.import(events),
            None => Err(StoreError::Unavailable("its events are complete".to_owned())),
        }
    }

    /// Seals all that is there first: what is counted by source is then in the rows alone.
    fn begin_counts(&mut self) -> Result<(), StoreError> {
        self.writer = None;
        let mut connection = self.open_to_write()?;
        let hasher = Hasher::new(&schema::index_key(&connection)?);
        opening::seal_rest(&mut connection, &hasher, self.file.store.options.sealing)?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        self.counting = Some(connection);
        Ok(())
    }

    fn begin_histories(&mut self, histories: &[History]) -> Result<(), StoreError> {
        Ok(history::replace(self.counting()?, histories)?)
    }

    fn count(&mut self, page: &[TopicSources], forks: &[Fork]) -> Result<(), StoreError> {
        let connection = self.counting()?;
        let sql = "UPDATE topics SET duplicates = ?2, conflicts = ?3 WHERE id = ?1";
        for counted in page {
            let id = copied(connection, &counted.topic.topic)?;
            let Counts { duplicates, conflicts, .. } = counted.topic.counts;
            connection.prepare_cached(sql)?.execute([
                id.0,
                duplicates.cast_signed(),
                conflicts.cast_signed(),
            ])?;
            sources::replace(connection, id, counted)?;
        }
        for fork in forks {
            history::add_fork(connection, copied(connection, &fork.topic)?, fork)?;
        }
        Ok(())
    }

    fn end_counts(&mut self, rejected: u64, repeats: Vec<(Place, Repeats)>) -> Result<(), StoreError> {
        let connection = self.counting()?;
        connection.execute(
            "UPDATE totals SET rejected = ?1, (duplicates, conflicts) =
             (SELECT ifnull(sum(duplicates), 0), ifnull(sum(conflicts), 0) FROM topics)",
            [rejected.cast_signed()],
        )?;
        let events = repeats.into_iter().map(|(place, repeats)| (place, Some(repeats))).collect();
        repeats::write(connection, &Changes { anew: true, events })?;
        history::begin(connection, &history::current(connection)?)?;
        connection.execute_batch("COMMIT")?;
        self.counting = None;
        Ok(())
    }

    fn finish(&mut self, left: Counts) -> Result<(), StoreError> {
        let connection = self.open_to_write()?;
        let Counts { accepted, duplicates, conflicts, rejected } = left;
        let numbers = [accepted, duplicates, conflicts, rejected].map(u64::cast_signed);
        let sql = "UPDATE copies SET half = 0, accepted = ?1, duplicates = ?2, conflicts = ?3, rejected = ?4";
        connection.execute(sql, params![numbers[0], numbers[1], numbers[2], numbers[3]])?;
        Arc::clone(&self.file.store.shared.checkpointer).finish(&connection)
    }
}
