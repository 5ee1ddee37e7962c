//! Storing what waits in memory: repeats by source and by event, rejected events, and that this node was seen. One
//! connection does that for all writers of the node, since what waits is one lot.

use std::collections::HashSet;
use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use futures_util::future::{join, join3};
use tokio_postgres::types::ToSql;

use super::Node;
use super::connection::within;
use super::locked::{Retry, first_column};
use super::repeats::Columns;
use super::session::Session;
use super::statements::{FENCE, NEW_FENCE, REPEAT_COLUMNS, Values};
use super::transaction::{LOCKED_OUT_TIMEOUT, Lock, Transaction, Trouble};
use crate::domain::Topic;
use crate::store::repeated::Changes;
use crate::store::tally::Lot;
use crate::store::{AppendError, StoreError};

/// How often a node says that it is there, also where it has nothing to count: a day after it was heard of last it is
/// taken for one that is gone.
const SEEN_EVERY: Duration = Duration::from_hours(1);

/// The connection that stores counts.
#[derive(Default)]
pub(super) struct Counting {
    session: Option<Fenced>,
    /// The fence of the last connection.
    fence: Option<i64>,
    /// When something was stored last.
    seen_at: Option<Instant>,
    /// Whether locks were waited for as long as may be already, because there will be no other time.
    was_last: bool,
}

/// A connection of which the database knows that it counts for this node, and no earlier one does.
struct Fenced {
    session: Session,
    /// What this node's counts must carry to be stored.
    fence: i64,
    /// Where something else had locked one of their topics when they were last to be stored: the next try.
    locked_out: Option<Retry>,
}

/// A lot as the columns of a statement: a row for each source of each topic.
struct BySource<'a> {
    topics: Vec<&'a str>,
    sources: Vec<&'a str>,
    numbers: [Vec<i64>; REPEAT_COLUMNS.len()],
}

impl<'a> BySource<'a> {
    fn of(lot: &'a Lot) -> Self {
        let mut columns = Self { topics: Vec::new(), sources: Vec::new(), numbers: Default::default() };
        for (topic, sources) in &lot.topics {
            for (source, counts) in sources.iter() {
                columns.topics.push(topic.as_str());
                columns.sources.push(source);
                // A lot has repeats only: its sources accept nothing.
                for (column, number) in columns.numbers.iter_mut().zip(counts.numbers().into_iter().skip(1)) {
                    column.push(number);
                }
            }
        }
        columns
    }
}

impl Node {
    /// Stores counts that waited in memory, if it is time.
    pub(super) fn flush_counts(&self) -> Result<(), AppendError> {
        let mut counting = match self.counting.try_lock() {
            Ok(counting) => counting,
            Err(TryLockError::Poisoned(poisoned)) => self.forget_connection(poisoned),
            // Another writer is at it.
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let is_seen = counting.seen_at.is_some_and(|at| at.elapsed() < SEEN_EVERY);
        if is_seen && self.tally.is_empty() && !self.tally.repeated().is_due() {
            // A connection that was lost while nothing was counted is seen here.
            return counting.connect(self).map(drop).map_err(AppendError::Failed);
        }
        self.count_on(&mut counting)
    }

    /// Stores counts that waited in memory, and that this node was seen.
    pub(super) fn store_counts(&self) -> Result<(), AppendError> {
        self.count_on(&mut self.lock_counting())
    }

    /// Stores what waits in memory and is lost else, if there is anything: waits for locks as commits do, once.
    pub(super) fn store_last_counts(&self) -> Result<(), AppendError> {
        let mut counting = self.lock_counting();
        self.tally.repeated().hurry();
        if self.tally.is_empty() && !self.tally.repeated().is_due() {
            return Ok(());
        }
        let lock_timeout = self.database.lock_timeout();
        if !std::mem::replace(&mut counting.was_last, true) {
            counting.connect(self).map_err(AppendError::Failed)?.locked_out = Some(Retry::last(lock_timeout));
        }
        self.count_on(&mut counting)
    }

    fn lock_counting(&self) -> MutexGuard<'_, Counting> {
        self.counting.lock().unwrap_or_else(|poisoned| self.forget_connection(poisoned))
    }

    /// After a panic it is not known whether what was taken is stored: the next connection asks.
    fn forget_connection<'c>(
        &'c self,
        poisoned: PoisonError<MutexGuard<'c, Counting>>,
    ) -> MutexGuard<'c, Counting> {
        self.counting.clear_poison();
        let mut counting = poisoned.into_inner();
        counting.session = None;
        counting
    }

    /// Takes what waits, and settles it with the tally. Whatever goes wrong, a writer can go on.
    fn count_on(&self, counting: &mut Counting) -> Result<(), AppendError> {
        let wait = if counting.was_last { None } else { Some(Retry::longest(self.database.lock_timeout())) };
        let fenced = counting.connect(self).map_err(AppendError::Failed)?;
        let counted = self.count_all(fenced).or_else(|trouble| match trouble {
            // They can wait, and nothing else has to wait with them.
            Trouble::Locked(_) => self.count_free(fenced),
            other => Err(other),
        });
        // In a transaction of its own, which holds no topic's lock: it may write thousands of rows.
        let stored = counted.and_then(|()| {
            let Some(changes) = self.tally.repeated().take() else { return Ok(()) };
            match self.database.block_on(self.put_repeats(fenced, &changes, wait)) {
                // No commit waits for what something else has locked there, and they can wait too: all are taken next time.
                Err(Trouble::Locked(error)) if wait.is_some() => {
                    tracing::debug!(%error, "something else has locked repeats of events; they are stored later");
                    Ok(())
                }
                put => put.map(|()| self.tally.repeated().stored()),
            }
        });
        match stored {
            Ok(()) => {
                counting.seen_at = Some(Instant::now());
                Ok(())
            }
            Err(Trouble::Failed(error) | Trouble::Locked(error) | Trouble::Again(error)) => {
                Err(AppendError::Failed(error))
            }
            Err(Trouble::Lost(error)) => {
                counting.session = None;
                Err(AppendError::Failed(error))
            }
        }
    }

    /// Counts all that waits, if it is time to wait for locks. It holds the topics that it has meanwhile, and those who
    /// commit to them wait.
    fn count_all(&self, fenced: &mut Fenced) -> Result<(), Trouble> {
        let lock_timeout = self.database.lock_timeout();
        let wait = match fenced.locked_out {
            Some(retry) if !retry.is_due() => {
                let resting = "a topic was locked, and is tried again later".to_owned();
                return Err(Trouble::Locked(StoreError::Unavailable(resting)));
            }
            Some(retry) => retry.wait(),
            None => Retry::longest(lock_timeout),
        };
        let counted = self.settle_counts(fenced, self.tally.take().as_ref(), wait);
        fenced.locked_out = match counted {
            Err(Trouble::Locked(_)) => Some(Retry::after(fenced.locked_out, lock_timeout)),
            _ => None,
        };
        counted
    }

    /// Counts what is of topics that nothing else has locked now, and of no topic.
    fn count_free(&self, fenced: &Fenced) -> Result<(), Trouble> {
        let waiting = self.tally.topics();
        let names: Vec<_> = waiting.iter().map(Topic::as_str).collect();
        let Session { client, statements, .. } = &fenced.session;
        let names: Values<'_> = &[&names];
        let asked = client.query(&statements.many.lock_free, names);
        // For no topic, and for a table as long as whoever commits next might.
        let wait = Some(Retry::longest(self.database.lock_timeout()));
        let patience = self.database.patience();
        let transaction = Transaction { client, lock: Lock::Rows, wait, patience };
        let rows = self.database.block_on(transaction.roll_back(asked))?;
        let free: HashSet<String> = first_column(&rows)?;
        match self.settle_counts(fenced, self.tally.take_of(&free).as_ref(), LOCKED_OUT_TIMEOUT) {
            // Somebody has one of them again.
            Err(Trouble::Locked(_)) => Ok(()),
            counted => counted,
        }
    }

    /// Counts what was taken of the tally, and tells that what became of it.
    fn settle_counts(
        &self,
        fenced: &Fenced,
        taken: Option<&(u64, Arc<Lot>)>,
        wait: Duration,
    ) -> Result<(), Trouble> {
        let counted = self.database.block_on(self.count(fenced, taken, wait));
        match &counted {
            Ok(()) => self.tally.stored(),
            Err(Trouble::Failed(_) | Trouble::Locked(_) | Trouble::Again(_)) => self.tally.put_back(),
            // The next connection asks which counts are stored.
            Err(Trouble::Lost(_)) => {}
        }
        counted
    }

    /// A connection that counts from now on. What the one before it left is settled.
    fn open_fenced(&self, last: Option<i64>) -> Result<Fenced, StoreError> {
        let session = self.open_session()?;
        let node: Values<'_> = &[&self.id];
        let asked = session.client.query_one(FENCE, node);
        let row = self.database.block_on(within(self.database.patience(), asked))?;
        let (fence, epoch): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        if last.is_some_and(|last| fence - last >= NEW_FENCE) {
            tracing::warn!("other nodes took this one for gone, and have summed up what it had stored");
            self.tally.begin_anew();
        }
        self.tally.resume(epoch.cast_unsigned());
        Ok(Fenced { fence, session, locked_out: None })
    }

    async fn count(
        &self,
        Fenced { session, fence, .. }: &Fenced,
        taken: Option<&(u64, Arc<Lot>)>,
        wait: Duration,
    ) -> Result<(), Trouble> {
        let none = Lot::default();
        let (epoch, lot) = taken.map_or((0, &none), |(epoch, lot)| (epoch.cast_signed(), &**lot));
        let Session { client, statements, .. } = session;
        let names: Vec<_> = lot.topics.keys().map(Topic::as_str).collect();
        let by_source = BySource::of(lot);
        let rejected = lot.rejected.cast_signed();
        let locked: Values<'_> = &[&names];
        let first: Values<'_> =
            &[&self.id, fence, &epoch, &rejected, &self.source_limit, &by_source.topics, &by_source.sources];
        let mut counts = first.to_vec();
        counts.extend(by_source.numbers.iter().map(|column| column as &(dyn ToSql + Sync)));
        let statements = async {
            let lock = client.query(&statements.many.lock, locked);
            let (rows, counted) = join(lock, client.query_one(&statements.count, &counts)).await;
            rows.and(counted)
        };
        let (patience, wait) = (self.database.patience(), Some(wait));
        let rows = Transaction { client, lock: Lock::Rows, wait, patience }.commit(statements).await?;
        if rows.try_get::<_, i64>(0)? == 0 {
            // Known by that, unlike what else is lost.
            self.tally.put_back();
            let other = "the database does not know this connection as the one that counts".to_owned();
            return Err(Trouble::Lost(StoreError::Unavailable(other)));
        }
        if rows.try_get::<_, i64>(1)? < i64::try_from(names.len()).unwrap_or(i64::MAX) {
            tracing::error!("a topic that had events is gone; its repeats are not counted");
        }
        Ok(())
    }

    async fn put_repeats(
        &self,
        fenced: &Fenced,
        changes: &Changes,
        wait: Option<Duration>,
    ) -> Result<(), Trouble> {
        let Session { client, statements, .. } = &fenced.session;
        let repeats = Columns::of(changes);
        let dropped: Values<'_> = &[&self.id, &repeats.dropped.0, &repeats.dropped.1];
        let put = repeats.values(&self.id);
        let clear = async {
            if changes.anew { client.execute(&statements.clear_repeats, &[&self.id]).await } else { Ok(0) }
        };
        let statements = async {
            let drop = client.execute(&statements.drop_repeats, dropped);
            let put = client.execute(&statements.put_repeats, &put);
            let (cleared, gone, stored) = join3(clear, drop, put).await;
            cleared.and(gone).and(stored)
        };
        let patience = self.database.patience();
        Transaction { client, lock: Lock::Rows, wait, patience }.commit(statements).await.map(drop)
    }
}

impl Counting {
    /// The connection; another one where it is gone.
    fn connect(&mut self, node: &Node) -> Result<&mut Fenced, StoreError> {
        let mut fenced = match self.session.take() {
            Some(fenced) if !fenced.session.client.is_closed() => fenced,
            _ => node.open_fenced(self.fence)?,
        };
        self.fence = Some(fenced.fence);
        node.database.block_on(fenced.session.plan_again(&node.database))?;
        Ok(self.session.insert(fenced))
    }
}
