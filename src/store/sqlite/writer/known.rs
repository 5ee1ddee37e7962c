//! What the writer knows of topics.

use super::SqliteWriter;
use crate::domain::Topic;
use crate::store::StoreError;
use crate::store::sqlite::topics::{self, TopicState};

impl SqliteWriter {
    /// A topic as the store has it.
    pub(super) fn find_topic(&self, name: &Topic) -> Result<Option<TopicState>, StoreError> {
        if let Some(state) = self.remembered.get(name) {
            return Ok(Some(state));
        }
        let Some(row) = topics::load(&self.connection, name)? else { return Ok(None) };
        let last_seq = self.index.last_seq(&self.connection, name, row)?;
        Ok(Some(TopicState { last_seq, ..row }))
    }

    /// Whether the store lacks a topic.
    pub(super) fn lacks(&self, name: &Topic) -> Result<bool, StoreError> {
        Ok(self.remembered.get(name).is_none() && topics::load(&self.connection, name)?.is_none())
    }
}
