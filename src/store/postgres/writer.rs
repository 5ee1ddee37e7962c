//! Group commits, and how one of unknown outcome is settled.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::join3;
use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::Node;
use super::connection::within;
use super::group::{Fate, Group};
use super::locked::LockedOut;
use super::session::Session;
use super::statements::{Mark, Values, parameters};
use super::transaction::{Lock, Transaction, Trouble};
use crate::domain::{Second, Topic, Verdict};
use crate::store::sources::repeats;
use crate::store::{AppendError, Batch, Finding, StoreError, Writer};

/// How often a group is tried where the database says that it should be, or its outcome is unknown.
const ATTEMPTS: usize = 3;

/// Which of these topics there are.
const HELD: &str = "SELECT topic FROM sekali.topics WHERE topic = ANY ($1::text[])";

/// One of the writers of this node, on a connection of its own; other nodes have theirs.
pub(super) struct PostgresWriter {
    pub(super) node: Arc<Node>,
    pub(super) session: Session,
    /// It outlives a connection: what was locked is so still.
    pub(super) locked_out: LockedOut,
}

impl PostgresWriter {
    pub(super) fn open(node: &Arc<Node>) -> Result<Self, StoreError> {
        let locked_out = LockedOut::new(node.database.lock_timeout());
        Ok(Self { session: node.open_session()?, node: Arc::clone(node), locked_out })
    }

    /// Makes the connection again if it is gone.
    fn reopen(&mut self) -> Result<(), AppendError> {
        if self.session.client.is_closed() { self.replace().map_err(AppendError::Failed) } else { Ok(()) }
    }

    /// Takes another connection for one that is lost, or does not answer.
    pub(super) fn replace(&mut self) -> Result<(), StoreError> {
        self.session = self.node.open_session()?;
        Ok(())
    }

    /// invariant 5: a group whose outcome is not known is run again, under the locks that its first run had to have: what
    /// that has stored carries its id and is accepted, what it has not is stored now.
    fn settle(&mut self, group: &Group<'_>, now: Timestamp) -> Result<Vec<Vec<Finding>>, AppendError> {
        let mark = Mark { received_at: now.as_microsecond(), commit: fastrand::i64(..) };
        let database = self.node.database.clone();
        let (mut unknown, mut locked) = (None, None);
        for _ in 0..ATTEMPTS {
            match database.block_on(self.attempt(group, mark)) {
                Ok(fates) => return Ok(group.findings(&fates, Second::of(now))),
                Err(Trouble::Failed(error)) if unknown.is_none() => return Err(AppendError::Failed(error)),
                Err(Trouble::Locked(error)) if unknown.is_none() => match self.who_is_locked(group) {
                    // What held it may have let go: once more, briefly.
                    Ok(topics) if topics.is_empty() => locked = Some(error),
                    Ok(topics) => return Err(AppendError::Locked { topics }),
                    Err(_) => return Err(AppendError::Failed(error)),
                },
                // The run before this one may hold the lock.
                Err(Trouble::Failed(error) | Trouble::Locked(error)) => {
                    return Err(AppendError::Unknown(error));
                }
                Err(Trouble::Again(error)) => unknown = Some(error),
                Err(Trouble::Lost(error)) => {
                    tracing::warn!(%error, "the outcome of a commit is not known; it is run again");
                    self.replace().map_err(AppendError::Unknown)?;
                    unknown = Some(error);
                }
            }
        }
        let no_attempt = || StoreError::Unavailable("no attempt was made".to_owned());
        match unknown {
            Some(error) => Err(AppendError::Unknown(error)),
            None => Err(AppendError::Failed(locked.unwrap_or_else(no_attempt))),
        }
    }

    /// What became of each key.
    async fn attempt(&mut self, group: &Group<'_>, mark: Mark) -> Result<Vec<Fate>, Trouble> {
        let topics = group.topics();
        let mut missing: Vec<_> = topics.iter().copied().filter(|topic| !self.session.knows(topic)).collect();
        let limit = self.node.topic_limit.filter(|_| !missing.is_empty());
        if limit.is_none() {
            // Who makes topics waits for others that make the same: all in one order. Where they are limited, one lock
            // is for all, and the first that comes is the first that is made.
            missing.sort_unstable();
        }
        let (locked, rows) = self.store(group, &topics, (&missing, limit), mark).await?;
        let fates = fates(group, &rows, mark.commit)?;
        if rows.len() < group.keys.len() && (limit.is_none() || locked.len() == topics.len()) {
            self.session.forget();
            let gone = "a topic that had events is gone".to_owned();
            return Err(Trouble::Again(StoreError::Unavailable(gone)));
        }
        for row in &locked {
            self.session.learn(row.try_get(0)?);
        }
        Ok(fates)
    }

    /// invariant 4: one transaction with everything in it. Gives the topics that exist, and what became of each key.
    async fn store(
        &self,
        group: &Group<'_>,
        topics: &[&str],
        (missing, limit): (&[&str], Option<u64>),
        mark: Mark,
    ) -> Result<(Vec<Row>, Vec<Row>), Trouble> {
        let Session { client, statements, .. } = &self.session;
        let most = limit.unwrap_or(0).cast_signed();
        let make_topics = async {
            match limit {
                _ if missing.is_empty() => Ok(0),
                Some(_) => client.execute(&statements.make_few_topics, &[&missing, &most]).await,
                None => client.execute(&statements.make_topics, &[&missing]).await,
            }
        };
        let columns = group.columns();
        let (storing, names, topic_of_each): (_, &(dyn ToSql + Sync), &(dyn ToSql + Sync)) = match topics {
            [only] => (&statements.one, only, only),
            _ => (&statements.many, &topics, &columns.topics),
        };
        let names: Values<'_> = &[names];
        let values = parameters(&columns, topic_of_each, &mark, &self.node.source_limit);
        let sent = async {
            let lock = client.query(&storing.lock, names);
            let (made, locked, stored) =
                join3(make_topics, lock, client.query(&storing.store, &values)).await;
            made.and_then(|_| Ok((locked?, stored?)))
        };
        let lock = if limit.is_some() { Lock::Topics } else { Lock::Rows };
        let (wait, patience) = (self.locked_out.wait(topics), self.node.database.patience());
        Transaction { client, lock, wait, patience }.commit(sent).await
    }

    /// Tells the tally and other nodes what was committed.
    fn report(&self, group: &[&Batch], findings: &[Vec<Finding>], now: Timestamp) {
        let mut fresh = Vec::with_capacity(group.len());
        for (batch, found) in group.iter().zip(findings) {
            let (mut last, mut is_repeated, mut refused) = (None, false, 0);
            for finding in found {
                match finding.verdict() {
                    Some(Verdict::Accepted { seq }) => last = Some(seq),
                    Some(Verdict::Duplicate { .. }) => is_repeated = true,
                    Some(Verdict::Refused(_)) => refused += 1,
                    None => {}
                }
            }
            if is_repeated {
                self.node.tally.count(&batch.topic, now, repeats(batch, found, now));
            }
            if refused > 0 {
                self.node.tally.reject(refused);
            }
            fresh.extend(last.map(|last| (&batch.topic, last)));
        }
        self.node.herald.tell(&fresh);
    }
}

impl Writer for PostgresWriter {
    fn append(&mut self, group: &[&Batch], now: Timestamp) -> Result<Vec<Vec<Finding>>, AppendError> {
        self.reopen()?;
        let topics = self.locked_of(group).map_err(AppendError::Failed)?;
        if !topics.is_empty() {
            return Err(AppendError::Locked { topics });
        }
        if self.node.tally.is_large()
            && let Err(AppendError::Failed(error) | AppendError::Unknown(error)) = self.node.store_counts()
        {
            // They wait on, and are bounded; the next flush says that it failed.
            tracing::debug!(%error, "many counts wait and are not stored");
        }
        let keyed = Group::new(group, &self.node.store.hasher);
        let database = &self.node.database;
        if let Err(error) = database.block_on(self.session.plan_again(database)) {
            tracing::debug!(%error, "statements are not planned again; connecting again");
            self.replace().map_err(AppendError::Failed)?;
        }
        let findings = self.settle(&keyed, now)?;
        self.locked_out.forget(group);
        self.report(group, &findings, now);
        Ok(findings)
    }

    fn missing(&mut self, topics: &[&Topic]) -> Result<Vec<bool>, StoreError> {
        if self.session.client.is_closed() {
            self.replace()?;
        }
        let (session, database) = (&self.session, &self.node.database);
        let unknown: Vec<_> =
            topics.iter().map(|topic| topic.as_str()).filter(|name| !session.knows(name)).collect();
        let parameters: &[&(dyn ToSql + Sync)] = &[&unknown];
        let asked = session.client.query(HELD, parameters);
        let rows = database.block_on(within(database.patience(), asked))?;
        let held: HashSet<&str> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let unknown: HashSet<&str> = unknown.into_iter().collect();
        let is_missing = |name: &str| unknown.contains(name) && !held.contains(name);
        Ok(topics.iter().map(|topic| is_missing(topic.as_str())).collect())
    }

    fn flush(&mut self, _: Timestamp) -> Result<(), AppendError> {
        // A connection that was lost while nothing was written is seen here.
        self.reopen()?;
        self.node.flush_counts()
    }

    fn probe(&mut self, _: Timestamp) -> Result<(), AppendError> {
        self.reopen()?;
        let database = self.node.database.clone();
        match database.block_on(self.ask(&[])) {
            Ok(_) => {
                self.locked_out.forget(&[]);
                self.node.store_counts()
            }
            Err(Trouble::Again(_)) => self.node.store_counts(),
            // Counts wait for another time, and commits cannot.
            Err(Trouble::Locked(error) | Trouble::Failed(error)) => Err(AppendError::Failed(error)),
            Err(Trouble::Lost(error)) => {
                self.replace().map_err(AppendError::Failed)?;
                Err(AppendError::Failed(error))
            }
        }
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        if let Err(error) = self.node.store_last_counts() {
            tracing::warn!(%error, "the last counts are not stored");
        }
        Ok(())
    }
}

/// What became of each key.
fn fates(group: &Group<'_>, rows: &[Row], commit: i64) -> Result<Vec<Fate>, Trouble> {
    let mut fates = vec![Fate::Refused; group.keys.len()];
    for row in rows {
        let (n, seq): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let seq = seq.cast_unsigned();
        let fate = match (row.try_get(2)?, row.try_get::<_, Option<i64>>(3)?, row.try_get(4)?) {
            (Some(digest), Some(stored_by), Some(micros)) if stored_by != commit => {
                // A time that is none does not keep a repeat from being one.
                let stored_at = Second::of(Timestamp::from_microsecond(micros).unwrap_or_default());
                Fate::Known { seq, digest, stored_at }
            }
            _ => Fate::New { seq },
        };
        if let Some(place) = usize::try_from(n - 1).ok().and_then(|at| fates.get_mut(at)) {
            *place = fate;
        }
    }
    Ok(fates)
}
