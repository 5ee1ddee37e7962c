//! Group commits, and how one of unknown outcome is settled.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::{join, join3};
use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::Node;
use super::connection::within;
use super::group::{Fate, Group};
use super::session::Session;
use super::transaction::{Lock, Trouble};
use crate::domain::{Counts, Topic, Verdict};
use crate::store::tally::Lot;
use crate::store::{AppendError, Batch, StoreError, Writer};

/// How often a group is tried where the database says that it should be, or its outcome is unknown.
const ATTEMPTS: usize = 3;

/// The one writer of this node; other nodes have theirs.
pub(super) struct PostgresWriter {
    node: Arc<Node>,
    session: Session,
}

/// The time of a group, and the id by which its rows are known.
#[derive(Clone, Copy)]
struct Mark {
    received_at: i64,
    commit: i64,
}

type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

impl PostgresWriter {
    pub(super) fn open(node: &Arc<Node>) -> Result<Self, StoreError> {
        Ok(Self { session: node.open_session()?, node: Arc::clone(node) })
    }

    /// Makes the connection again if it is gone.
    fn reopen(&mut self) -> Result<(), AppendError> {
        if self.session.client.is_closed() {
            self.session = self.node.open_session().map_err(AppendError::Failed)?;
        }
        Ok(())
    }

    /// invariant 5: a group whose outcome is not known is run again, under the locks that its first run had to have: what
    /// that has stored carries its id and is accepted, what it has not is stored now.
    fn settle(&mut self, group: &Group<'_>, now: Timestamp) -> Result<Vec<Vec<Verdict>>, AppendError> {
        let mark = Mark { received_at: now.as_microsecond(), commit: fastrand::i64(..) };
        let database = self.node.database.clone();
        let mut unknown = None;
        for _ in 0..ATTEMPTS {
            match database.block_on(self.attempt(group, mark)) {
                Ok(verdicts) => return Ok(verdicts),
                Err(Trouble::Failed(error)) if unknown.is_none() => return Err(AppendError::Failed(error)),
                Err(Trouble::Failed(error)) => return Err(AppendError::Unknown(error)),
                Err(Trouble::Again(error)) => unknown = Some(error),
                Err(Trouble::Lost(error)) => {
                    tracing::warn!(%error, "the outcome of a commit is not known; it is run again");
                    self.session = self.node.open_session().map_err(AppendError::Unknown)?;
                    unknown = Some(error);
                }
            }
        }
        let error = unknown.unwrap_or_else(|| StoreError::Unavailable("no attempt was made".to_owned()));
        Err(AppendError::Unknown(error))
    }

    async fn attempt(&mut self, group: &Group<'_>, mark: Mark) -> Result<Vec<Vec<Verdict>>, Trouble> {
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
        let conflicts = self.conflicts(group, &fates).await?;
        Ok(group.verdicts(&fates, &conflicts))
    }

    /// invariant 4: one transaction with everything in it. Gives the topics that exist, and what became of each key.
    async fn store(
        &self,
        group: &Group<'_>,
        topics: &[&str],
        (missing, limit): (&[&str], Option<u64>),
        mark: Mark,
    ) -> Result<(Vec<Row>, Vec<Row>), Trouble> {
        let Session { client, statements, locked_out, .. } = &self.session;
        let most = limit.unwrap_or(0).cast_signed();
        let make_topics = async {
            match limit {
                _ if missing.is_empty() => Ok(0),
                Some(_) => client.execute(&statements.make_few_topics, &[&missing, &most]).await,
                None => client.execute(&statements.make_topics, &[&missing]).await,
            }
        };
        let columns = group.columns();
        let names: Values<'_> = &[&topics];
        let values: Values<'_> = &[
            &columns.topics,
            &columns.ids,
            &columns.timestamps,
            &columns.sources,
            &columns.payloads,
            &columns.digests,
            &mark.received_at,
            &mark.commit,
        ];
        let statements = async {
            let lock = client.query(&statements.lock_topics, names);
            let (made, locked, stored) =
                join3(make_topics, lock, client.query(&statements.store, values)).await;
            made.and_then(|_| Ok((locked?, stored?)))
        };
        let lock = if limit.is_some() { Lock::Topics } else { Lock::Rows };
        locked_out.transact(client, (lock, self.node.database.patience()), statements).await
    }

    /// Compares what repeats say with what is stored, where their digests differ: the places of those that say something
    /// else, in their order. What is stored never changes, so that this needs no transaction.
    async fn conflicts(&self, group: &Group<'_>, fates: &[Fate]) -> Result<Vec<usize>, Trouble> {
        let doubts = group.doubts(fates);
        if doubts.is_empty() {
            return Ok(Vec::new());
        }
        let Session { client, statements, .. } = &self.session;
        let topics: Vec<_> = doubts.iter().map(|key| group.keys[*key].topic()).collect();
        let ids: Vec<_> = doubts.iter().map(|key| group.keys[*key].event_id()).collect();
        let values: Values<'_> = &[&topics, &ids];
        let (mut conflicts, mut damage) = (Vec::new(), None);
        let read = async {
            let mut rows = Box::pin(client.query_raw(&statements.payloads, values.iter().copied()).await?);
            // One at a time: together they may be large.
            while let Some(row) = rows.next().await.transpose()? {
                let (n, payload): (i64, &str) = (row.try_get(0)?, row.try_get(1)?);
                let key = usize::try_from(n - 1).ok().and_then(|at| doubts.get(at));
                match key.map(|key| group.conflicts(*key, payload)) {
                    Some(Ok(found)) => conflicts.extend(found),
                    Some(Err(error)) => damage = Some(error),
                    None => debug_assert!(false, "an answer to nothing that was asked"),
                }
            }
            Ok(())
        };
        within(self.node.database.patience(), read).await.map_err(Trouble::Lost)?;
        conflicts.sort_unstable();
        // The pipeline tries each batch of the group alone, and only the one that meets this fails; of the others, which
        // are stored by now, it is told that they are duplicates.
        damage.map_or(Ok(conflicts), |error| Err(Trouble::Failed(error)))
    }

    /// Tells the tally and other nodes what was committed.
    fn report(&self, group: &[&Batch], verdicts: &[Vec<Verdict>]) {
        let mut fresh = Vec::with_capacity(group.len());
        for (batch, decided) in group.iter().zip(verdicts) {
            let counts: Counts = decided.iter().collect();
            let repeats = Counts { accepted: 0, rejected: 0, ..counts };
            if repeats != Counts::default() {
                self.node.tally.count(&batch.topic, repeats);
            }
            if counts.rejected > 0 {
                self.node.tally.reject(counts.rejected);
            }
            let last = decided.iter().rev().find_map(|verdict| match verdict {
                Verdict::Accepted { seq } => Some(*seq),
                Verdict::Duplicate { .. } | Verdict::Refused(_) => None,
            });
            fresh.extend(last.map(|last| (&batch.topic, last)));
        }
        self.node.herald.tell(&fresh);
    }

    /// Stores counts that waited in memory, if there are any, and that this node was seen.
    fn store_counts(&mut self) -> Result<(), AppendError> {
        self.reopen()?;
        let taken = self.node.tally.take();
        match self.node.database.block_on(self.count(taken.as_ref())) {
            Ok(()) => {
                self.node.tally.stored();
                Ok(())
            }
            Err(Trouble::Failed(error) | Trouble::Again(error)) => {
                self.node.tally.put_back();
                Err(AppendError::Failed(error))
            }
            // The next connection asks which counts are stored.
            Err(Trouble::Lost(error)) => Err(AppendError::Unknown(error)),
        }
    }

    async fn count(&self, taken: Option<&(u64, Arc<Lot>)>) -> Result<(), Trouble> {
        let none = Lot::default();
        let (epoch, lot) = taken.map_or((0, &none), |(epoch, lot)| (epoch.cast_signed(), &**lot));
        let mut counted: Vec<(&Topic, &Counts)> = lot.topics.iter().collect();
        counted.sort_unstable_by_key(|(topic, _)| *topic);
        let topics: Vec<_> = counted.iter().map(|(topic, _)| topic.as_str()).collect();
        let all = |number: fn(&Counts) -> u64| -> Vec<i64> {
            counted.iter().map(|(_, counts)| number(counts).cast_signed()).collect()
        };
        let (duplicates, conflicts) = (all(|counts| counts.duplicates), all(|counts| counts.conflicts));
        let rejected = lot.rejected.cast_signed();
        let Session { client, statements, fence, locked_out, .. } = &self.session;
        let names: Values<'_> = &[&topics];
        let values: Values<'_> = &[&self.node.id, fence, &epoch, &rejected, &topics, &duplicates, &conflicts];
        let statements = async {
            let lock = client.query(&statements.lock_topics, names);
            let (locked, stored) = join(lock, client.query_one(&statements.count, values)).await;
            locked.and(stored)
        };
        let patience = self.node.database.patience();
        let changed = locked_out.transact(client, (Lock::Rows, patience), statements).await?;
        if changed.try_get::<_, i64>(0)? == 0 {
            let other = "another connection counts for this node".to_owned();
            return Err(Trouble::Lost(StoreError::Unavailable(other)));
        }
        if changed.try_get::<_, i64>(1)? < i64::try_from(topics.len()).unwrap_or(i64::MAX) {
            tracing::error!("a topic that had events is gone; its repeats are not counted");
        }
        Ok(())
    }
}

impl Writer for PostgresWriter {
    fn append(&mut self, group: &[&Batch], now: Timestamp) -> Result<Vec<Vec<Verdict>>, AppendError> {
        self.reopen()?;
        let keyed = Group::new(group, &self.node.store.hasher);
        let verdicts = self.settle(&keyed, now)?;
        self.report(group, &verdicts);
        Ok(verdicts)
    }

    fn flush(&mut self, _: Timestamp) -> Result<(), AppendError> {
        // A connection that was lost while nothing was written is seen here.
        self.reopen()?;
        if self.node.tally.is_empty() { Ok(()) } else { self.store_counts() }
    }

    fn probe(&mut self, _: Timestamp) -> Result<(), AppendError> {
        self.store_counts()
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What became of each key.
fn fates(group: &Group<'_>, rows: &[Row], commit: i64) -> Result<Vec<Fate>, Trouble> {
    let mut fates = vec![Fate::Refused; group.keys.len()];
    for row in rows {
        let (n, seq): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let seq = seq.cast_unsigned();
        let fate = match (row.try_get(2)?, row.try_get::<_, Option<i64>>(3)?) {
            (Some(digest), Some(stored_by)) if stored_by != commit => Fate::Known { seq, digest },
            _ => Fate::New { seq },
        };
        if let Some(place) = usize::try_from(n - 1).ok().and_then(|at| fates.get_mut(at)) {
            *place = fate;
        }
    }
    Ok(fates)
}
