//! Topics that something else has locked: which they are, and how they are kept from holding up others.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use futures_util::future::join3;
use tokio::time::sleep;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use super::group::{Columns, Group};
use super::session::Session;
use super::statements::{Mark, parameters};
use super::transaction::{LOCKED_OUT_TIMEOUT, Lock, Transaction, Trouble};
use super::writer::PostgresWriter;
use crate::domain::Topic;
use crate::store::{Batch, StoreError};

/// How many locked topics are remembered, so that memory does not grow with the topics ever seen locked. One that was
/// forgotten is waited for once more.
const REMEMBERED: usize = 65_536;

/// How long a topic that was tried in vain is left alone at least: less than what producers are told to wait.
const REST: Duration = Duration::from_millis(250);

/// For how many times as long as it has waited in vain a connection tries nothing that may be locked: others lose a fifth of
/// their time at most. What was tried rests for twice as long, so that the next turn is another's.
const PAUSE: u32 = 4;

/// The longest wait of a further try is `store.lock_timeout` divided by this.
const PATIENCE: u32 = 10;

/// How often it is asked whose lock a group did not get, and how long between two times: another node's commit is through by
/// then, and no topic that was free once is taken for locked.
const LOOKS: (u32, Duration) = (3, Duration::from_millis(10));

/// How long an answer of the database that a topic is locked is believed without asking again.
const BELIEVED: Duration = Duration::from_millis(50);

/// How long the next try waits for a lock that was not had. Others wait meanwhile, and so it is short at first. It doubles,
/// because who asks for what many use stands in a queue: one that never waits for its turn never has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    wait: Duration,
    rests_until: Instant,
}

impl Retry {
    /// A lock was not had, also not by the try before, if there was one.
    pub(super) fn after(before: Option<Self>, lock_timeout: Duration) -> Self {
        let waited = before.map_or(LOCKED_OUT_TIMEOUT, |before| before.wait);
        let wait = before.map_or(waited, |_| waited * 2).min(Self::longest(lock_timeout));
        Self { wait, rests_until: Instant::now() + REST.max(waited * PAUSE * 2) }
    }

    /// The only one left, which waits as a commit does.
    pub(super) fn last(lock_timeout: Duration) -> Self {
        Self { wait: lock_timeout.max(LOCKED_OUT_TIMEOUT), rests_until: Instant::now() }
    }

    /// The longest that one waits, but for the last.
    pub(super) fn longest(lock_timeout: Duration) -> Duration {
        (lock_timeout / PATIENCE).max(LOCKED_OUT_TIMEOUT)
    }

    /// How long it waits.
    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    /// Whether others have had their time since the last one.
    pub(super) fn is_due(&self) -> bool {
        self.rests_until <= Instant::now()
    }
}

/// A topic that something else held when it was last looked at.
#[derive(Debug, Clone, Copy)]
struct Held {
    seen_at: Instant,
    /// None where it was not tried by itself yet.
    retry: Option<Retry>,
}

/// What something else held when a writer last tried to lock it.
#[derive(Debug)]
pub(super) struct LockedOut {
    lock_timeout: Duration,
    /// A lock of which no topic can be named, such as that of a whole table.
    store: Option<Retry>,
    topics: HashMap<Topic, Held, RandomState>,
    /// Until when none of them is tried.
    paused_until: Instant,
}

impl LockedOut {
    pub(super) fn new(lock_timeout: Duration) -> Self {
        Self { lock_timeout, store: None, topics: HashMap::default(), paused_until: Instant::now() }
    }

    /// Which topics of a group keep it from being tried: they are to be tried each by itself, or not yet.
    fn apart(&self, group: &[&Batch]) -> BTreeSet<Topic> {
        if self.topics.is_empty() {
            return BTreeSet::new();
        }
        let names = group.iter().map(|batch| &batch.topic);
        let locked: BTreeSet<_> = names.filter(|topic| self.topics.contains_key(*topic)).cloned().collect();
        let is_alone = group.windows(2).all(|pair| pair[0].topic == pair[1].topic);
        match locked.first() {
            Some(only) if is_alone && self.may_be_tried(only) => BTreeSet::new(),
            _ => locked,
        }
    }

    fn may_be_tried(&self, topic: &Topic) -> bool {
        let retry = self.topics.get(topic).and_then(|held| held.retry);
        retry.is_none_or(|retry| retry.is_due()) && self.paused_until <= Instant::now()
    }

    /// Those of them of which the database should be asked whether they are free by now.
    fn doubtful<'a>(&self, topics: &'a BTreeSet<Topic>) -> Vec<&'a str> {
        let is_old =
            |topic: &&Topic| self.topics.get(*topic).is_none_or(|held| held.seen_at.elapsed() >= BELIEVED);
        topics.iter().filter(is_old).map(Topic::as_str).collect()
    }

    /// How long a group of these topics waits for each lock, where that is not `store.lock_timeout`.
    pub(super) fn wait(&self, topics: &[&str]) -> Option<Duration> {
        match topics.first().and_then(|topic| self.topics.get(*topic)) {
            Some(held) => Some(held.retry.map_or(LOCKED_OUT_TIMEOUT, |retry| retry.wait())),
            None => self.store.map(|retry| retry.wait()),
        }
    }

    /// A group did not get the locks of these topics, of which there are some; whether it had no other.
    fn remember(&mut self, locked: &BTreeSet<Topic>, is_alone: bool) {
        self.store = None;
        if self.topics.len() + locked.len() > REMEMBERED {
            self.topics.clear();
        }
        let (before, now) = (self.topics.len(), Instant::now());
        for topic in locked {
            let held = self.topics.entry(topic.clone()).or_insert(Held { seen_at: now, retry: None });
            held.seen_at = now;
            if is_alone {
                let waited = held.retry.map_or(LOCKED_OUT_TIMEOUT, |retry| retry.wait());
                self.paused_until = now + waited * PAUSE;
                held.retry = Some(Retry::after(held.retry, self.lock_timeout));
            }
        }
        let new = self.topics.len() - before;
        if let Some(topic) = locked.first().filter(|_| new > 0) {
            tracing::warn!(%topic, topics = new, "something else has locked topics; their events are refused");
        }
    }

    /// How long to wait for a table that is locked: vacuum and an administrator have one for a moment, which must not pass
    /// for a store that cannot be written to.
    fn wait_for_tables(&self) -> Duration {
        self.store.map_or(Retry::longest(self.lock_timeout), |retry| retry.wait())
    }

    /// Something else has locked all there is, or what nobody can name.
    fn remember_all(&mut self) {
        self.store = Some(Retry::after(self.store, self.lock_timeout));
    }

    /// A group has got its locks.
    pub(super) fn forget(&mut self, group: &[&Batch]) {
        self.store = None;
        for batch in group {
            self.free(&batch.topic);
        }
    }

    fn free(&mut self, topic: &Topic) {
        if !self.topics.is_empty() && self.topics.remove(topic).is_some() {
            tracing::info!(%topic, "a topic that was locked is free");
        }
    }
}

/// What is known of the topics of a group that did not get its locks.
pub(super) struct Asked {
    there: HashSet<String>,
    free: HashSet<String>,
}

impl PostgresWriter {
    /// Which topics of a group something else has still locked, as far as is known without waiting for them.
    ///
    /// # Errors
    /// Where the connection turned out to be lost, and there is no other. Nothing was sent of the group.
    pub(super) fn locked_of(&mut self, group: &[&Batch]) -> Result<BTreeSet<Topic>, StoreError> {
        let mut locked = self.locked_out.apart(group);
        let doubtful = self.locked_out.doubtful(&locked);
        if doubtful.is_empty() {
            return Ok(locked);
        }
        let database = self.node.database.clone();
        let Asked { there, free } = match database.block_on(self.ask(&doubtful)) {
            Ok(asked) => asked,
            Err(Trouble::Lost(_)) => {
                self.replace()?;
                return Ok(locked);
            }
            // What is known stands.
            Err(Trouble::Locked(_) | Trouble::Failed(_) | Trouble::Again(_)) => return Ok(locked),
        };
        // One that does not exist may be what somebody else makes just now: it is tried, and not asked for.
        for topic in there.iter().map(|topic| Topic::trusted(topic)) {
            if free.contains(topic.as_str()) {
                self.locked_out.free(&topic);
                locked.remove(&topic);
            } else if let Some(held) = self.locked_out.topics.get_mut(&topic) {
                held.seen_at = Instant::now();
            }
        }
        Ok(locked)
    }

    /// Says which topics it was that kept a group, of which nothing is stored, from its locks; none where whatever did that
    /// has let go since, or holds something that is no topic's.
    ///
    /// # Errors
    /// Where it is a whole table that is locked, or nothing can be asked now.
    pub(super) fn who_is_locked(&mut self, group: &Group<'_>) -> Result<BTreeSet<Topic>, StoreError> {
        let (database, topics) = (self.node.database.clone(), group.topics());
        let Asked { there, free } = match database.block_on(self.look(&topics)) {
            Ok(asked) => asked,
            Err(Trouble::Lost(error)) => {
                self.replace()?;
                return Err(error);
            }
            Err(Trouble::Locked(error) | Trouble::Failed(error) | Trouble::Again(error)) => {
                self.locked_out.remember_all();
                return Err(error);
            }
        };
        for topic in &there {
            self.session.learn(topic);
        }
        let (mut held, mut new) = (Vec::new(), Vec::new());
        for topic in &topics {
            if !there.contains(*topic) {
                new.push(*topic);
            } else if !free.contains(*topic) {
                held.push(*topic);
            }
        }
        // Somebody else makes one of the new ones, or has the lock of their number. A topic that is alone was not had,
        // whatever is seen of it by now.
        let locked = if held.is_empty() { new } else { held };
        let locked = if locked.is_empty() && topics.len() == 1 { topics.clone() } else { locked };
        let locked = locked.into_iter().map(Topic::trusted).collect::<BTreeSet<_>>();
        if locked.is_empty() {
            self.locked_out.remember_all();
        } else {
            self.locked_out.remember(&locked, topics.len() == 1);
        }
        Ok(locked)
    }

    /// Asks a few times, as long as a topic is held: each that was free once is.
    async fn look(&self, topics: &[&str]) -> Result<Asked, Trouble> {
        let (times, pause) = LOOKS;
        let mut asked = self.ask(topics).await?;
        for _ in 1..times {
            if topics.len() == 1 || asked.there.is_subset(&asked.free) {
                break;
            }
            sleep(pause).await;
            let again = self.ask(topics).await?;
            asked.there.extend(again.there);
            asked.free.extend(again.free);
        }
        Ok(asked)
    }

    /// Asks, without waiting for any of them, which of these topics exist and which could be locked, and whether anything
    /// could be stored: what a commit of nothing waits for, every commit does.
    ///
    /// # Errors
    /// [`Trouble::Locked`]: a whole table is locked, and was for some time.
    pub(super) async fn ask(&self, topics: &[&str]) -> Result<Asked, Trouble> {
        let Session { client, statements, .. } = &self.session;
        let (storing, names): (_, &(dyn ToSql + Sync)) = match topics {
            [only] => (&statements.one, only),
            _ => (&statements.many, &topics),
        };
        let (nothing, mark) = (Columns::default(), Mark { received_at: 0, commit: 0 });
        let of_each: &(dyn ToSql + Sync) = if topics.len() == 1 { names } else { &nothing.topics };
        let (names, values) = ([names], parameters(&nothing, of_each, &mark, &self.node.source_limit));
        let sent = async {
            // First what may wait, so that no topic is held meanwhile.
            let stored = client.query(&storing.store, &values);
            let there = client.query(&storing.there, &names);
            let (stored, there, free) = join3(stored, there, client.query(&storing.lock_free, &names)).await;
            stored?;
            Ok(Asked { there: first_column(&there?)?, free: first_column(&free?)? })
        };
        let (wait, patience) = (Some(self.locked_out.wait_for_tables()), self.node.database.patience());
        Transaction { client, lock: Lock::Rows, wait, patience }.roll_back(sent).await
    }
}

/// The names in the first column.
pub(super) fn first_column(rows: &[Row]) -> Result<HashSet<String>, Error> {
    rows.iter().map(|row| row.try_get(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_was_tried_in_vain_leaves_the_next_turn_to_another() {
        let [a, b] = ["a", "b"].map(Topic::trusted);
        let mut locked = LockedOut::new(Duration::from_secs(5));
        locked.remember(&[a.clone(), b.clone()].into(), false);
        assert!(locked.may_be_tried(&a) && locked.may_be_tried(&b));
        for tries in 0..12 {
            let begun = Instant::now();
            locked.remember(&[b.clone()].into(), true);
            assert!(
                locked.paused_until >= begun + Duration::from_millis(40),
                "{tries}: others have their time"
            );
            let retry = locked.topics[&b].retry.unwrap();
            let turn = retry.rests_until - locked.paused_until;
            assert!(turn >= Duration::from_millis(40).max(retry.wait), "{tries}: {turn:?} for others");
            locked.paused_until = Instant::now();
            assert!(locked.may_be_tried(&a), "{tries}");
        }
        assert_eq!(locked.wait(&["b"]), Some(Duration::from_millis(500)));
    }
}
