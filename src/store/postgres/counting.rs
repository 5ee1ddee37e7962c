//! Storing what waits in memory: repeats by source and by event, rejected events, and that this node was seen.

use std::sync::Arc;

use futures_util::future::join5;
use tokio_postgres::types::ToSql;

use super::Node;
use super::repeats::Columns;
use super::session::Session;
use super::statements::REPEAT_COLUMNS;
use super::transaction::{Lock, Trouble};
use super::writer::Values;
use crate::domain::Topic;
use crate::store::repeated::Changes;
use crate::store::tally::Lot;
use crate::store::{AppendError, StoreError};

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
    /// Takes what waits, and settles it with the tally.
    pub(super) fn store_counts(&self, session: &Session) -> Result<(), AppendError> {
        let taken = self.tally.take();
        let changes = self.tally.repeated().take();
        match self.database.block_on(self.count(session, taken.as_ref(), changes.as_ref())) {
            Ok(()) => {
                self.tally.stored();
                if changes.is_some() {
                    self.tally.repeated().stored();
                }
                Ok(())
            }
            Err(Trouble::Failed(error) | Trouble::Again(error)) => {
                self.tally.put_back();
                Err(AppendError::Failed(error))
            }
            // The next connection asks which counts are stored.
            Err(Trouble::Lost(error)) => Err(AppendError::Unknown(error)),
        }
    }

    async fn count(
        &self,
        session: &Session,
        taken: Option<&(u64, Arc<Lot>)>,
        changes: Option<&Changes>,
    ) -> Result<(), Trouble> {
        let none = Lot::default();
        let (epoch, lot) = taken.map_or((0, &none), |(epoch, lot)| (epoch.cast_signed(), &**lot));
        let Session { client, statements, fence, locked_out, .. } = session;
        let names: Vec<_> = lot.topics.keys().map(Topic::as_str).collect();
        let (by_source, repeats) = (BySource::of(lot), Columns::of(changes));
        let rejected = lot.rejected.cast_signed();
        let locked: Values<'_> = &[&names];
        let first: Values<'_> =
            &[&self.id, fence, &epoch, &rejected, &self.source_limit, &by_source.topics, &by_source.sources];
        let mut counts = first.to_vec();
        counts.extend(by_source.numbers.iter().map(|column| column as &(dyn ToSql + Sync)));
        let dropped: Values<'_> = &[&self.id, &repeats.dropped.0, &repeats.dropped.1];
        let [duplicates, conflicts, times] = &repeats.numbers;
        let put: Values<'_> = &[
            &self.id,
            &repeats.put.0,
            &repeats.put.1,
            duplicates,
            conflicts,
            times,
            &repeats.sources,
            &repeats.last_conflicts,
        ];
        let clear = async {
            let anew = changes.is_some_and(|changes| changes.anew);
            if anew { client.execute(&statements.clear_repeats, &[&self.id]).await } else { Ok(0) }
        };
        let statements = async {
            let (locked, counted, cleared, dropped, put) = join5(
                client.query(&statements.lock_topics, locked),
                client.query_one(&statements.count, &counts),
                clear,
                client.execute(&statements.drop_repeats, dropped),
                client.execute(&statements.put_repeats, put),
            )
            .await;
            locked.and(cleared).and(dropped).and(put).and(counted)
        };
        let patience = self.database.patience();
        let rows = locked_out.transact(client, (Lock::Rows, patience), statements).await?;
        if rows.try_get::<_, i64>(0)? == 0 {
            let other = "another connection counts for this node".to_owned();
            return Err(Trouble::Lost(StoreError::Unavailable(other)));
        }
        if rows.try_get::<_, i64>(1)? < i64::try_from(names.len()).unwrap_or(i64::MAX) {
            tracing::error!("a topic that had events is gone; its repeats are not counted");
        }
        Ok(())
    }
}
