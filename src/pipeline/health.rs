//! Whether the store can write: shared by all writers and everything that asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::space::Room;
use crate::store::StoreError;

/// Whether the store could write when it was last tried.
#[derive(Debug, Clone)]
pub(super) struct Health {
    /// A bit for each writer that could not write.
    failing: Arc<AtomicU64>,
    /// A bit for each writer that could not be opened.
    closed: Arc<AtomicU64>,
    /// The bit of the writer that holds this.
    own: u64,
    /// Whether there is room on the disk.
    room: Arc<Room>,
}

impl Health {
    #[cfg(test)]
    pub(super) fn good() -> Self {
        Self::within(Room::without_limits())
    }

    /// A store that can write, within these limits of space.
    pub(super) fn within(room: Room) -> Self {
        Self { failing: Arc::default(), closed: Arc::default(), own: 1, room: Arc::new(room) }
    }

    /// The room on the disk.
    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    /// The same, for the writer with this number, of which there are 64 at most.
    pub(super) fn of(&self, number: usize) -> Self {
        Self { own: 1 << number, ..self.clone() }
    }

    /// Whether every writer could write.
    pub(super) fn is_good(&self) -> bool {
        self.failing.load(Ordering::Relaxed) == 0
    }

    /// Whether the writer that holds this could.
    pub(super) fn can_write(&self) -> bool {
        self.failing.load(Ordering::Relaxed) & self.own == 0
    }

    /// Remembers whether this writer could write. A line in the log tells when the first one
    /// cannot, and when all can.
    pub(super) fn set(&self, good: bool) {
        let before = self.mark(&self.failing, !good);
        if good && before == self.own {
            tracing::info!("the store can write again");
        } else if !good && before == 0 {
            tracing::error!("the store cannot write; reads go on");
        }
    }

    /// Remembers that this writer is open.
    pub(super) fn opened(&self) {
        if self.mark(&self.closed, false) == self.own {
            tracing::info!("the store is open for writing again");
        }
    }

    /// Remembers that this writer could not be opened. One line tells it, and not one for each try.
    pub(super) fn not_opened(&self, error: &StoreError) {
        if self.mark(&self.closed, true) == 0 {
            tracing::error!(%error, "the store cannot be opened for writing, retrying");
        } else {
            tracing::debug!(%error, "the store still cannot be opened for writing");
        }
    }

    /// Sets the bit of this writer or clears it; gives the bits before.
    fn mark(&self, bits: &AtomicU64, is_set: bool) -> u64 {
        if is_set {
            bits.fetch_or(self.own, Ordering::Relaxed)
        } else {
            bits.fetch_and(!self.own, Ordering::Relaxed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_can_write_when_each_of_its_writers_can() {
        let health = Health::good();
        let writers = [0, 1, 63].map(|number| health.of(number));
        let [first, second, _] = &writers;
        first.set(false);
        second.set(true);
        assert!(!health.is_good() && !first.can_write() && second.can_write());
        second.set(false);
        first.set(true);
        assert!(!health.is_good() && first.can_write() && !second.can_write());
        second.set(true);
        assert!(health.is_good() && writers.iter().all(Health::can_write));
    }
}
