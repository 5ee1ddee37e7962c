//! Events of another store, taken as they are: with their seqs and with the times at which they were stored there.

use super::{SqliteWriter, Staged};
use crate::domain::{Counts, Second, StoredEvent, Topic};
use crate::store::StoreError;
use crate::store::index::Entry;
use crate::store::sqlite::rows;

impl SqliteWriter {
    /// invariants 4 and 6: stores events behind those that are there, with keys and totals in one transaction. Each must
    /// follow its topic's last seq, and its key must be new. After an error this writer must be dropped: what it holds in
    /// memory may be ahead of the file.
    pub(in crate::store::sqlite) fn import(&mut self, events: &[StoredEvent]) -> Result<(), StoreError> {
        self.checkpointer.make_room(&self.connection);
        self.begin()?;
        let mut staged =
            Staged { topics_total: self.topics_total, next_pos: self.next_pos, ..Staged::default() };
        self.write_imported(events, &mut staged)?;
        self.index.write_slices(&self.connection, events.len(), &mut staged.slices)?;
        self.write_totals(&staged, Counts::default(), None)?;
        self.connection.execute_batch("COMMIT")?;
        (self.topics_total, self.next_pos) = (staged.topics_total, staged.next_pos);
        self.remembered.learn(staged.topics.into_iter().map(|(name, topic)| (name, topic.state)));
        let sources = events.iter().map(|stored| stored.event.source());
        self.index.committed(staged.slices, &staged.events, sources);
        self.checkpointer.committed();
        Ok(())
    }

    fn write_imported(&mut self, events: &[StoredEvent], staged: &mut Staged) -> Result<(), StoreError> {
        let Some(first) = events.first() else { return Ok(()) };
        let keys = self.keys_of(events, staged)?;
        let stored = self.index.find(&self.connection, &keys)?;
        let mut rows = rows::Appender::new(&self.connection, first.received_at)?;
        for ((StoredEvent { seq, received_at, event }, key), known) in events.iter().zip(keys).zip(stored) {
            let name = event.topic();
            let damaged = |what| StoreError::Damaged(format!("topic {name}, seq {seq}: {what}"));
            let topic = staged.topics.get_mut(name).ok_or_else(|| damaged("its topic is gone"))?;
            if *seq != topic.state.last_seq + 1 {
                return Err(damaged("it does not follow the last one of its topic"));
            }
            let digest = self.hasher.digest(event.payload().as_bytes());
            let entry = Entry { key, pos: staged.next_pos, seq: *seq, digest };
            if known.is_some() || staged.keys.insert(key, entry).is_some() {
                return Err(damaged("its id is stored before"));
            }
            let marked = self.times.mark_copied(entry.pos, Second::of(*received_at));
            marked.write(&self.connection)?;
            self.times.committed(marked);
            rows.at(*received_at);
            rows.append(topic.state.id, (entry.pos, entry.seq), event)?;
            (staged.next_pos, topic.state.last_seq) = (entry.pos + 1, entry.seq);
            staged.events.push((topic.state.id, entry));
        }
        Ok(())
    }

    /// Makes the topics of these events part of the transaction, and gives their keys.
    fn keys_of(&self, events: &[StoredEvent], staged: &mut Staged) -> Result<Vec<u128>, StoreError> {
        let mut keys = Vec::with_capacity(events.len());
        for stored in events {
            let name = stored.event.topic();
            if !staged.topics.contains_key(name) {
                let topic = Topic::parse(name)
                    .map_err(|rule| StoreError::Damaged(format!("topic {name:?}: {}", rule.as_str())))?;
                self.stage(&topic, staged)?;
            }
            let staged = staged.topics.get(name);
            let topic =
                staged.ok_or_else(|| StoreError::Damaged(format!("topic {name}: it is one too many")))?;
            keys.push(self.hasher.key(topic.state.id.0, stored.event.event_id()));
        }
        Ok(keys)
    }
}
