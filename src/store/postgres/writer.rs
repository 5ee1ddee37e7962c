//! The transaction of a group commit, and how one of unknown outcome is settled.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{join4, join5};
use jiff::Timestamp;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use super::Node;
use super::connection::within;
use super::group::{Fate, Group};
use super::schema::TOPICS_LOCK;
use super::session::Session;
use crate::domain::{Counts, Topic, Verdict};
use crate::store::tally::Lot;
use crate::store::{AppendError, Batch, StoreError, Writer};

/// How long a commit waits for a lock that the one before it did not get: each in a queue would wait for
/// `store.lock_timeout` else, one after the other.
const LOCKED_OUT_TIMEOUT: Duration = Duration::from_millis(10);

/// How often a group is tried where the database says that it should be, or its outcome is unknown.
const ATTEMPTS: usize = 3;

/// The one writer of this node; other nodes have theirs.
pub(super) struct PostgresWriter {
    node: Arc<Node>,
    session: Session,
    /// Whether something else held a lock for `store.lock_timeout`, and was not seen to let it go since.
    locked_out: bool,
}

/// Why an attempt did not succeed.
enum Trouble {
    /// Nothing of it is stored.
    Failed(StoreError),
    /// It may be stored, and can be tried again on this connection.
    Again(StoreError),
    /// It may be stored, and the connection is of no use any more.
    Lost(StoreError),
}

impl PostgresWriter {
    pub(super) fn open(node: &Arc<Node>) -> Result<Self, StoreError> {
        let session = node.open_session()?;
        Ok(Self { node: Arc::clone(node), session, locked_out: false })
    }

    /// Makes the connection again if it is gone.
    fn reopen(&mut self) -> Result<(), StoreError> {
        if self.session.client.is_closed() {
            self.session = self.node.open_session()?;
        }
        Ok(())
    }

    /// invariant 5: a group whose outcome is not known is run again, under the locks that its first run had to have: what
    /// that has stored carries its id and is accepted, what it has not is stored now.
    fn settle(&mut self, group: &Group<'_>, now: Timestamp) -> Result<Vec<Vec<Verdict>>, AppendError> {
        let commit = fastrand::i64(..);
        let mut unknown = None;
        for _ in 0..ATTEMPTS {
            let database = self.node.database.clone();
            match database.block_on(self.attempt(group, now, commit)) {
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

    /// invariant 4: one transaction with everything in it, sent as a whole: no lock waits for this node.
    async fn attempt(
        &mut self,
        group: &Group<'_>,
        now: Timestamp,
        commit: i64,
    ) -> Result<Vec<Vec<Verdict>>, Trouble> {
        let topics = group.topics();
        let missing: Vec<_> = topics.iter().copied().filter(|topic| !self.session.knows(topic)).collect();
        let limit = self.node.topic_limit.filter(|_| !missing.is_empty());
        let (locked, rows) = self.transact(group, &topics, (&missing, limit), (now, commit)).await?;
        let fates = fates(group, &rows, commit).map_err(Trouble::Lost)?;
        let refused = topics.len() - locked.len();
        if rows.len() < group.keys.len() && (limit.is_none() || refused == 0) {
            self.session.forget();
            let gone = "a topic that had events is gone".to_owned();
            return Err(Trouble::Again(StoreError::Unavailable(gone)));
        }
        self.session.learn(locked.iter().map(String::as_str));
        let conflicts = self.conflicts(group, &fates).await?;
        Ok(group.verdicts(&fates, &conflicts))
    }

    /// Gives the topics that exist, and what became of each key.
    async fn transact(
        &mut self,
        group: &Group<'_>,
        topics: &[&str],
        (missing, limit): (&[&str], Option<u64>),
        (now, commit): (Timestamp, i64),
    ) -> Result<(Vec<String>, Vec<Row>), Trouble> {
        let Session { client, statements, .. } = &self.session;
        let begin = begin(self.locked_out, limit.is_some());
        let few = limit.unwrap_or(0).cast_signed();
        let make = async {
            match limit {
                _ if missing.is_empty() => Ok(0),
                Some(_) => client.execute(&statements.make_few_topics, &[&missing, &few]).await,
                None => client.execute(&statements.make_topics, &[&missing]).await,
            }
        };
        let columns = group.columns();
        let now = now.as_microsecond();
        let values: [&(dyn ToSql + Sync); 8] = [
            &columns.topics,
            &columns.ids,
            &columns.timestamps,
            &columns.sources,
            &columns.payloads,
            &columns.digests,
            &now,
            &commit,
        ];
        let names: [&(dyn ToSql + Sync); 1] = [&topics];
        // Polled in this order, and so sent in this order.
        let sent = join5(
            client.batch_execute(&begin),
            make,
            client.query(&statements.lock_topics, &names),
            client.query(&statements.store, &values),
            client.batch_execute("COMMIT"),
        );
        let patience = self.node.database.patience();
        let Ok((begun, made, locked, stored, committed)) = timeout(patience, sent).await else {
            let late = format!("the database did not answer within {patience:?}");
            return Err(Trouble::Lost(StoreError::Unavailable(late)));
        };
        // Without its beginning, each statement was a transaction of its own.
        committed.and(begun).map_err(|error| Trouble::Lost(error.into()))?;
        let outcome = made.and_then(|_| Ok((locked?, stored?)));
        self.locked_out = outcome.as_ref().err().is_some_and(is_locked_out);
        let (locked, rows) = outcome.map_err(Trouble::of)?;
        let existing: Result<_, _> = locked.iter().map(|row| row.try_get(0)).collect();
        Ok((existing.map_err(|error| Trouble::Lost(error.into()))?, rows))
    }

    /// Compares what repeats say with what is stored, where their digests differ. What is stored never changes, so that
    /// this needs no transaction.
    async fn conflicts(&self, group: &Group<'_>, fates: &[Fate]) -> Result<Vec<usize>, Trouble> {
        let doubts = group.doubts(fates);
        if doubts.is_empty() {
            return Ok(Vec::new());
        }
        let Session { client, statements, .. } = &self.session;
        let topics: Vec<_> = doubts.iter().map(|key| group.keys[*key].topic()).collect();
        let ids: Vec<_> = doubts.iter().map(|key| group.keys[*key].event_id()).collect();
        let values: [&(dyn ToSql + Sync); 2] = [&topics, &ids];
        let mut conflicts = Vec::new();
        let mut damage = None;
        let read = async {
            let mut rows = Box::pin(client.query_raw(&statements.payloads, values).await?);
            // One at a time: together they may be large.
            while let Some(row) = rows.next().await {
                let row = row?;
                let (n, payload): (i64, &str) = (row.try_get(0)?, row.try_get(1)?);
                let key = usize::try_from(n - 1).ok().and_then(|at| doubts.get(at)).copied();
                match key.map(|key| group.conflicts(key, payload)) {
                    Some(Ok(found)) => conflicts.extend(found),
                    Some(Err(error)) => damage = Some(error),
                    None => debug_assert!(false, "an answer to what was asked"),
                }
            }
            Ok(())
        };
        within(self.node.database.patience(), read).await.map_err(Trouble::Lost)?;
        conflicts.sort_unstable();
        // The rest of the group may be stored; what is damaged fails alone when it is tried alone.
        damage.map_or(Ok(conflicts), |error| Err(Trouble::Failed(error)))
    }

    /// Tells the tally and other nodes what was committed.
    fn report(&self, group: &[&Batch], verdicts: &[Vec<Verdict>]) {
        for (batch, verdicts) in group.iter().zip(verdicts) {
            let counts: Counts = verdicts.iter().collect();
            let repeats = Counts { accepted: 0, rejected: 0, ..counts };
            if repeats != Counts::default() {
                self.node.tally.count(&batch.topic, repeats);
            }
            if counts.rejected > 0 {
                self.node.tally.reject(counts.rejected);
            }
        }
        let last = |verdicts: &Vec<Verdict>| {
            verdicts.iter().rev().find_map(|verdict| match verdict {
                Verdict::Accepted { seq } => Some(*seq),
                Verdict::Duplicate { .. } | Verdict::Refused(_) => None,
            })
        };
        let fresh = group.iter().zip(verdicts);
        self.node.herald.tell(fresh.filter_map(|(batch, verdicts)| Some((&batch.topic, last(verdicts)?))));
    }

    /// Stores counts that waited in memory, if there are any, and that this node was seen.
    async fn count(&mut self, taken: Option<&(u64, Arc<Lot>)>) -> Result<(), Trouble> {
        let none = Lot::default();
        let (epoch, lot) = taken.map_or((0, &none), |(epoch, lot)| (epoch.cast_signed(), &**lot));
        let mut counted: Vec<(&Topic, &Counts)> = lot.topics.iter().collect();
        counted.sort_unstable_by_key(|(topic, _)| *topic);
        let topics: Vec<_> = counted.iter().map(|(topic, _)| topic.as_str()).collect();
        let column = |number: fn(&Counts) -> u64| -> Vec<i64> {
            counted.iter().map(|(_, counts)| number(counts).cast_signed()).collect()
        };
        let (duplicates, conflicts) = (column(|counts| counts.duplicates), column(|counts| counts.conflicts));
        let rejected = lot.rejected.cast_signed();
        let Session { client, statements, fence, .. } = &self.session;
        let values: [&(dyn ToSql + Sync); 7] =
            [&self.node.id, fence, &epoch, &rejected, &topics, &duplicates, &conflicts];
        let names: [&(dyn ToSql + Sync); 1] = [&topics];
        let begin = begin(self.locked_out, false);
        let sent = join4(
            client.batch_execute(&begin),
            client.query(&statements.lock_topics, &names),
            client.query_one(&statements.count, &values),
            client.batch_execute("COMMIT"),
        );
        let patience = self.node.database.patience();
        let Ok((begun, locked, stored, committed)) = timeout(patience, sent).await else {
            let late = format!("the database did not answer within {patience:?}");
            return Err(Trouble::Lost(StoreError::Unavailable(late)));
        };
        committed.and(begun).map_err(|error| Trouble::Lost(error.into()))?;
        let outcome = locked.and(stored);
        self.locked_out = outcome.as_ref().err().is_some_and(is_locked_out);
        let row = outcome.map_err(Trouble::of)?;
        let changed = |column| row.try_get::<_, i64>(column).map_err(|error| Trouble::Lost(error.into()));
        if changed(0)? == 0 {
            let other = "another connection counts for this node".to_owned();
            return Err(Trouble::Lost(StoreError::Unavailable(other)));
        }
        if changed(1)? < i64::try_from(topics.len()).unwrap_or(i64::MAX) {
            tracing::error!("a topic that had events is gone; its repeats are not counted");
        }
        Ok(())
    }

    fn store_counts(&mut self) -> Result<(), AppendError> {
        self.reopen().map_err(AppendError::Failed)?;
        let taken = self.node.tally.take();
        let database = self.node.database.clone();
        match database.block_on(self.count(taken.as_ref())) {
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
}

impl Writer for PostgresWriter {
    fn append(&mut self, group: &[&Batch], now: Timestamp) -> Result<Vec<Vec<Verdict>>, AppendError> {
        if group.is_empty() {
            return self.flush(now).map(|()| Vec::new());
        }
        self.reopen().map_err(AppendError::Failed)?;
        let columns = Group::new(group, &self.node.store.hasher);
        let verdicts = self.settle(&columns, now)?;
        self.report(group, &verdicts);
        Ok(verdicts)
    }

    fn flush(&mut self, _: Timestamp) -> Result<(), AppendError> {
        // A connection that was lost while nothing was written is seen here.
        self.reopen().map_err(AppendError::Failed)?;
        if self.node.tally.is_empty() { Ok(()) } else { self.store_counts() }
    }

    fn probe(&mut self, _: Timestamp) -> Result<(), AppendError> {
        self.store_counts()
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Trouble {
    /// An error of a statement of a transaction that was rolled back.
    fn of(error: Error) -> Self {
        // What the database itself asks to be tried again: a deadlock, or on others that speak its protocol a restart.
        let is_passing = error.code().is_some_and(|code| code.code().starts_with("40"));
        if is_passing { Self::Again(error.into()) } else { Self::Failed(error.into()) }
    }
}

/// The beginning of a transaction.
fn begin(locked_out: bool, limits_topics: bool) -> String {
    let mut sql = "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned();
    if locked_out {
        sql.push_str(&format!("; SET LOCAL lock_timeout = {}", LOCKED_OUT_TIMEOUT.as_millis()));
    }
    if limits_topics {
        sql.push_str(&format!("; SELECT pg_advisory_xact_lock({TOPICS_LOCK})"));
    }
    sql
}

fn is_locked_out(error: &Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// What became of each key.
fn fates(group: &Group<'_>, rows: &[Row], commit: i64) -> Result<Vec<Fate>, StoreError> {
    let mut fates = vec![Fate::Refused; group.keys.len()];
    for row in rows {
        let n: i64 = row.try_get(0)?;
        let seq = row.try_get::<_, i64>(1)?.cast_unsigned();
        let fate = match (row.try_get(2)?, row.try_get::<_, Option<i64>>(3)?) {
            (Some(digest), Some(stored_by)) if stored_by != commit => Fate::Known { seq, digest },
            _ => Fate::New { seq },
        };
        let place = usize::try_from(n - 1).ok().and_then(|at| fates.get_mut(at));
        *place.ok_or_else(|| StoreError::Unavailable("an answer to nothing that was asked".to_owned()))? = fate;
    }
    Ok(fates)
}
