//! A copy from store to store: events with their seqs and times, counters, and what explains duplicates.
//!
//! What the target holds of a topic is a beginning of what the origin holds of it, at every moment: so a copy that broke off
//! goes on behind it. From its first event until it is whole the target is marked, and no server takes it. Which counters
//! it had then is kept, so that a later copy sees whether a server has counted there since.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::fast::RandomState;
use serde::Serialize;
use thiserror::Error;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::postgres::{PostgresOrigin, PostgresTarget};
use super::repeated::Place;
use super::sqlite::{SqliteOrigin, SqliteTarget, is_same_file};
use super::{Progress, Repeats, StoreError, Tell, TopicSources, Totals};
use crate::config::{Settings, StoreUrl};
use crate::domain::{Counts, HistoryId, StoredEvent, Topic};

/// The most events of one transaction of the target; few in tests, which break off between two of them.
pub(super) const BATCH_EVENTS: usize = if cfg!(test) { 7 } else { 10_000 };

/// The bytes of their texts past which no event is added: a few such batches are in memory at once.
pub(super) const BATCH_BYTES: usize = 8 << 20;

/// Topics that are compared or counted at once.
pub(super) const PAGE_TOPICS: usize = if cfg!(test) { 2 } else { 500 };

/// The last seq of each topic that is copied: about 100 bytes a topic.
pub(super) type Done = HashMap<Topic, u64, RandomState>;

/// What both ends of a copy say of themselves.
pub(super) trait End {
    /// What was counted of everything.
    fn totals(&mut self) -> Result<Totals, StoreError>;

    /// What was counted of some topics, from the one behind this name on, in the order of their bytes; none at the end.
    fn topics(&mut self, after: Option<&str>) -> Result<Vec<TopicSources>, StoreError>;

    /// The [`print`] of each of these events, if it is there.
    fn prints(&mut self, places: &[Place]) -> Result<Vec<Option<u64>>, StoreError>;
}

/// A store to be copied.
pub(super) trait Origin {
    /// What it says of itself.
    fn end(&mut self) -> &mut dyn End;

    /// Begins to give the events that are not there yet.
    fn begin(&mut self, done: Done) -> Result<(), StoreError>;

    /// The next events, as many as belong into one transaction; none at the end. Those of a topic come in the order of seq.
    /// Where others write to the store, the end is where few are left.
    fn next(&mut self) -> Result<Vec<StoredEvent>, StoreError>;

    /// Lets what it says of itself be of one moment from here on, and begins to give the events that came until then. Nothing
    /// has to be done for a store that nobody else writes to.
    fn settle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Its histories, the current one last.
    fn histories(&mut self) -> Result<Vec<History>, StoreError>;

    /// Where these topics were when histories ended.
    fn forks(&mut self, topics: &[TopicSources]) -> Result<Vec<Fork>, StoreError>;

    /// The events that were repeated most recently, the last one last.
    fn repeats(&mut self) -> Result<Vec<(Place, Repeats)>, StoreError>;
}

/// A store that is copied to. After an error it must be dropped.
pub(super) trait Target {
    /// What it says of itself.
    fn end(&mut self) -> &mut dyn End;

    /// What is known of earlier copies to it.
    fn state(&mut self) -> Result<State, StoreError>;

    /// Marks it as half a copy.
    fn begin(&mut self) -> Result<(), StoreError>;

    /// Stores events in one transaction, each behind the last one of its topic.
    fn append(&mut self, events: &[StoredEvent]) -> Result<(), StoreError>;

    /// Begins the transaction that counts, when every event is there.
    fn begin_counts(&mut self) -> Result<(), StoreError>;

    /// Puts these histories, of which the last one is current, in place of its own.
    fn begin_histories(&mut self, histories: &[History]) -> Result<(), StoreError>;

    /// Puts what was counted of these topics in place of what it has, and says where they were when
    /// histories ended.
    fn count(&mut self, topics: &[TopicSources], forks: &[Fork]) -> Result<(), StoreError>;

    /// The same of what belongs to no topic. Begins a history of its own, which has the events that are
    /// there from the last of those that were put there, and ends that transaction.
    fn end_counts(&mut self, rejected: u64, repeats: Vec<(Place, Repeats)>) -> Result<(), StoreError>;

    /// Takes the mark away, and keeps what was counted.
    fn finish(&mut self, left: Counts) -> Result<(), StoreError>;
}

/// A history of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct History {
    /// 1, 2, 3, ...
    pub(super) number: i64,
    pub(super) id: HistoryId,
    /// Microseconds since 1970, UTC.
    pub(super) began_at: i64,
}

/// Where a topic was when a history ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fork {
    /// The number of the history.
    pub(super) history: i64,
    pub(super) topic: Topic,
    pub(super) last_seq: u64,
}

/// What is known of copies to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// There was none: what it holds was published to it.
    Own,
    /// One was begun and not run to its end.
    Half,
    /// The last one was whole, and left these counters.
    Whole(Counts),
}

/// A copy that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Transferred {
    /// Events in both stores.
    pub events: u64,
    /// Those of them that this run copied.
    pub copied: u64,
    /// Topics in both stores.
    pub topics: u64,
    /// Duplicates that were counted, conflicts included.
    pub duplicates: u64,
    /// Duplicates with another payload.
    pub conflicts: u64,
    /// Events that were rejected.
    pub rejected: u64,
}

/// Why there is no copy, or half of one.
#[derive(Debug, Error)]
pub enum TransferError {
    /// Both are one store.
    #[error("FROM and TO are the same store")]
    Same,
    /// The target was never copied to.
    #[error("TO has events or counters of its own, which no copy brought there; nothing was changed")]
    NotEmpty,
    /// A server counted in the target since it was copied to.
    #[error("a server ran on TO since it was copied to, and counted there; nothing was changed")]
    Served,
    /// The target holds what the origin does not.
    #[error("TO holds something else than FROM: {0}; nothing was changed")]
    Differs(String),
    /// Somebody said to stop.
    #[error("interrupted; what was copied stays, and the same command goes on behind it")]
    Interrupted,
    /// What is in the target now is not what is in the origin.
    #[error(
        "what was copied is not what FROM holds ({0}): TO stays marked as half a copy, and should be given up"
    )]
    Wrong(String),
    /// The origin cannot be read.
    #[error("FROM: {0}")]
    Origin(StoreError),
    /// The target cannot be written.
    #[error("TO: {0}")]
    Target(StoreError),
    /// The same, after some events were copied.
    #[error("{0}; what was copied stays, and the same command goes on behind it")]
    BrokenOff(Box<TransferError>),
}

/// Copies what one store holds and the other does not. Blocks; `tell` is told of it some times a second, and `stop` ends it.
///
/// # Errors
/// [`TransferError`] says whether anything was copied. It can be tried again in any case.
pub fn transfer(
    from: &Settings,
    to: &Settings,
    tell: Tell<'_>,
    stop: &AtomicBool,
) -> Result<Transferred, TransferError> {
    let is_same = match (&from.store.url, &to.store.url) {
        (StoreUrl::Sqlite(one), StoreUrl::Sqlite(other)) => is_same_file(one, other),
        (one, other) => one.to_string() == other.to_string(),
    };
    if is_same {
        return Err(TransferError::Same);
    }
    // In this order: where there is nothing to copy, nothing is made.
    let origin = open_origin(from).map_err(TransferError::Origin)?;
    let target = open_target(to).map_err(TransferError::Target)?;
    Transfer { origin, target, sources: to.limits.sources, tell, stop }.run()
}

fn open_origin(settings: &Settings) -> Result<Box<dyn Origin>, StoreError> {
    Ok(match &settings.store.url {
        StoreUrl::Sqlite(_) => Box::new(SqliteOrigin::open(settings)?),
        StoreUrl::Postgres(url) => Box::new(PostgresOrigin::open(settings, url)?),
    })
}

fn open_target(settings: &Settings) -> Result<Box<dyn Target>, StoreError> {
    Ok(match &settings.store.url {
        StoreUrl::Sqlite(_) => Box::new(SqliteTarget::open(settings)?),
        StoreUrl::Postgres(url) => Box::new(PostgresTarget::open(settings, url)?),
    })
}

/// A copy under way.
struct Transfer<'a> {
    origin: Box<dyn Origin>,
    target: Box<dyn Target>,
    /// Sources of a topic that may have a name in the target.
    sources: usize,
    tell: Tell<'a>,
    stop: &'a AtomicBool,
}

impl Transfer<'_> {
    fn run(mut self) -> Result<Transferred, TransferError> {
        let wanted = self.origin.end().totals().map_err(TransferError::Origin)?;
        let held = self.target.end().totals().map_err(TransferError::Target)?;
        let state = self.target.state().map_err(TransferError::Target)?;
        may_go_on(state, held, wanted)?;
        let done = self.compare()?;
        let (mut copied, mut now) = (0, wanted);
        if !matches!(state, State::Whole(_)) || held != wanted {
            self.target.begin().map_err(TransferError::Target)?;
            (copied, now) = self.copy(done, wanted).map_err(broken_off)?;
        }
        let Counts { accepted: events, duplicates, conflicts, rejected } = now.counts;
        Ok(Transferred { events, copied, topics: now.topics, duplicates, conflicts, rejected })
    }

    /// What of each topic the target holds already, which must be a beginning of what the origin holds of it: its last event
    /// is looked at.
    fn compare(&mut self) -> Result<Done, TransferError> {
        let (mut done, mut last) = (Done::default(), None);
        loop {
            let page = self.target.end().topics(last.as_deref()).map_err(TransferError::Target)?;
            let Some(end) = page.last() else { return Ok(done) };
            last = Some(end.topic.topic.to_string());
            let places: Vec<Place> =
                page.into_iter().map(|counted| (counted.topic.topic, counted.topic.last_seq)).collect();
            let theirs = self.origin.end().prints(&places).map_err(TransferError::Origin)?;
            let ours = self.target.end().prints(&places).map_err(TransferError::Target)?;
            for (((topic, seq), there), here) in places.into_iter().zip(theirs).zip(ours) {
                if here.is_none() || here != there {
                    let what = if there.is_none() { "not in FROM" } else { "another event in FROM" };
                    return Err(TransferError::Differs(format!("topic {topic}, seq {seq} is {what}")));
                }
                done.insert(topic, seq);
            }
            self.go_on()?;
        }
    }

    /// Copies events, then counters, then looks whether all is right; gives the number of events, and what the origin holds.
    /// Others may write to it until nearly all is copied.
    fn copy(&mut self, done: Done, about: Totals) -> Result<(u64, Totals), TransferError> {
        let before = done.values().sum::<u64>();
        self.origin.begin(done).map_err(TransferError::Origin)?;
        let count = self.append(before, about)?;
        self.origin.settle().map_err(TransferError::Origin)?;
        let wanted = self.origin.end().totals().map_err(TransferError::Origin)?;
        let count = self.append(count, wanted)?;
        self.tell("counting", count, wanted);
        self.count(wanted)?;
        self.tell("comparing", count, wanted);
        self.verify(wanted)?;
        self.target.finish(wanted.counts).map_err(TransferError::Target)?;
        Ok((count - before, wanted))
    }

    /// Copies the events that the origin gives behind so many; gives how many there are then.
    fn append(&mut self, mut count: u64, about: Totals) -> Result<u64, TransferError> {
        loop {
            self.tell("copying", count, about);
            self.go_on()?;
            let events = self.origin.next().map_err(TransferError::Origin)?;
            if events.is_empty() {
                return Ok(count);
            }
            self.target.append(&events).map_err(TransferError::Target)?;
            count += events.len() as u64;
        }
    }

    fn tell(&self, stage: &'static str, done: u64, about: Totals) {
        (self.tell)(Progress { stage, done, total: about.counts.accepted.max(done) });
    }

    fn count(&mut self, wanted: Totals) -> Result<(), TransferError> {
        let histories = self.origin.histories().map_err(TransferError::Origin)?;
        self.target.begin_counts().map_err(TransferError::Target)?;
        self.target.begin_histories(&histories).map_err(TransferError::Target)?;
        let mut last: Option<String> = None;
        loop {
            self.go_on()?;
            let page = self.origin.end().topics(last.as_deref()).map_err(TransferError::Origin)?;
            let Some(end) = page.last() else { break };
            last = Some(end.topic.topic.to_string());
            let forks = self.origin.forks(&page).map_err(TransferError::Origin)?;
            let page: Vec<_> = page.into_iter().map(|topic| topic.with_names(self.sources)).collect();
            self.target.count(&page, &forks).map_err(TransferError::Target)?;
        }
        let repeats = self.origin.repeats().map_err(TransferError::Origin)?;
        self.target.end_counts(wanted.counts.rejected, repeats).map_err(TransferError::Target)
    }

    /// Compares what both ends have counted: of each topic its events, of each source of it what it sent.
    fn verify(&mut self, wanted: Totals) -> Result<(), TransferError> {
        let held = self.target.end().totals().map_err(TransferError::Target)?;
        if held != wanted {
            return Err(TransferError::Wrong(format!("{held:?}, and not {wanted:?}")));
        }
        let (mut here, mut there) = (Topics::default(), Topics::default());
        loop {
            let copied = here.next(self.target.end()).map_err(TransferError::Target)?;
            let asked = there.next(self.origin.end()).map_err(TransferError::Origin)?;
            let asked = asked.map(|topic| topic.with_names(self.sources));
            match (copied, asked) {
                (None, None) => return Ok(()),
                (copied, asked) if copied == asked => {}
                (copied, asked) => {
                    let name = copied.or(asked).map(|counted| counted.topic.topic.to_string());
                    let what = format!("topic {}", name.unwrap_or_default());
                    return Err(TransferError::Wrong(what));
                }
            }
            self.go_on()?;
        }
    }

    fn go_on(&self) -> Result<(), TransferError> {
        if self.stop.load(Ordering::Relaxed) { Err(TransferError::Interrupted) } else { Ok(()) }
    }
}

/// Whether a copy may begin, as far as the counters say.
fn may_go_on(state: State, held: Totals, wanted: Totals) -> Result<(), TransferError> {
    match state {
        State::Half => Ok(()),
        State::Own if held == Totals::default() => Ok(()),
        State::Own => Err(TransferError::NotEmpty),
        State::Whole(left) if left != held.counts => Err(TransferError::Served),
        State::Whole(left) => {
            let numbers = |counts: Counts| {
                let Counts { accepted, duplicates, conflicts, rejected } = counts;
                [accepted, duplicates, conflicts, rejected]
            };
            let less = numbers(wanted.counts).into_iter().zip(numbers(left)).any(|(now, then)| now < then);
            if less { Err(TransferError::Differs("FROM has counted less".to_owned())) } else { Ok(()) }
        }
    }
}

fn broken_off(error: TransferError) -> TransferError {
    match error {
        TransferError::Origin(_) | TransferError::Target(_) => TransferError::BrokenOff(Box::new(error)),
        other => other,
    }
}

/// The topics of an end, one after the other.
#[derive(Default)]
struct Topics {
    page: VecDeque<TopicSources>,
    last: Option<String>,
}

impl Topics {
    fn next(&mut self, end: &mut dyn End) -> Result<Option<TopicSources>, StoreError> {
        if self.page.is_empty() {
            self.page = end.topics(self.last.as_deref())?.into();
            self.last = self.page.back().map(|counted| counted.topic.topic.to_string());
        }
        Ok(self.page.pop_front())
    }
}

/// A fingerprint of all that is stored of an event.
pub(super) fn print(stored: &StoredEvent) -> u64 {
    let parts = stored.event.parts();
    let texts = [parts.topic, parts.event_id, parts.timestamp, parts.source, parts.payload];
    let mut numbers = [0; 16];
    let (seq, time) = numbers.split_at_mut(8);
    seq.copy_from_slice(&stored.seq.to_le_bytes());
    time.copy_from_slice(&stored.received_at.as_microsecond().to_le_bytes());
    // Each text begins with the sum of what is before it, so that nothing can move from one to the next.
    texts.iter().fold(xxh3_64(&numbers), |sum, text| xxh3_64_with_seed(text.as_bytes(), sum))
}
