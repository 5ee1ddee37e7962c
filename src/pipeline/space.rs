//! Whether there is room on the disk for more events: looked at on the writer's thread, read by everybody.
//!
//! A disk that is full stops more than this log, and a store cannot be tidied up on it. So publishes are
//! refused before that, with room left for everything that is in flight. Reads go on.

use std::sync::atomic::{AtomicU8, Ordering};

use super::error::PublishError;
use crate::config::Limits;
use crate::store::Space;

/// Room is there again once it is more than what is missing by this part of the limit, so that a disk at
/// its limit does not refuse and accept by turns.
const AGAIN_PART: u64 = 8;

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shortage {
    None,
    Disk,
    Store,
}

/// The limits of space, and what is missing.
#[derive(Debug)]
pub(super) struct Room {
    /// Bytes of the disk that must be free; 0 is no limit.
    free_disk: u64,
    /// The most bytes of the store.
    store_bytes: Option<u64>,
    shortage: AtomicU8,
}

impl Room {
    pub(super) fn new(limits: &Limits) -> Self {
        Self::of(limits.free_disk, limits.store_bytes)
    }

    #[cfg(test)]
    pub(super) fn without_limits() -> Self {
        Self::of(0, None)
    }

    fn of(free_disk: u64, store_bytes: Option<u64>) -> Self {
        Self { free_disk, store_bytes, shortage: AtomicU8::new(Shortage::None as u8) }
    }

    /// Looks at the space that an engine has now; one that cannot tell has enough. A line in the log tells
    /// each change.
    pub(super) fn look(&self, space: Option<Space>) {
        let before = self.shortage.load(Ordering::Relaxed);
        let now = space.map_or(Shortage::None, |space| self.shortage_of(space, before));
        if now as u8 == before {
            return;
        }
        self.shortage.store(now as u8, Ordering::Relaxed);
        let (free, bytes) = space.map_or((0, 0), |space| (space.free_bytes, space.store_bytes));
        match now {
            Shortage::None => tracing::info!(free, bytes, "there is room for events again"),
            Shortage::Disk => tracing::error!(
                free,
                limit = self.free_disk,
                "the disk is nearly full (limits.free_disk): publishes are refused, reads go on"
            ),
            Shortage::Store => tracing::error!(
                bytes,
                limit = self.store_bytes,
                "the store has as many bytes as limits.store_bytes allows: publishes are refused, reads go on"
            ),
        }
    }

    fn shortage_of(&self, space: Space, before: u8) -> Shortage {
        let slack = |limit: u64, of: Shortage| if before == of as u8 { limit / AGAIN_PART } else { 0 };
        if space.free_bytes < self.free_disk.saturating_add(slack(self.free_disk, Shortage::Disk)) {
            return Shortage::Disk;
        }
        let is_full = |limit: u64| space.store_bytes >= limit.saturating_sub(slack(limit, Shortage::Store));
        if self.store_bytes.is_some_and(is_full) { Shortage::Store } else { Shortage::None }
    }

    /// Fails where events would find no room.
    pub(super) fn check(&self) -> Result<(), PublishError> {
        match self.shortage.load(Ordering::Relaxed) {
            full if full == Shortage::Disk as u8 => Err(PublishError::DiskLow),
            full if full == Shortage::Store as u8 => Err(PublishError::StoreFull),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(room: &Room, looks: &[(u64, u64)]) -> Vec<Result<(), PublishError>> {
        let look = |(free_bytes, store_bytes): &(u64, u64)| {
            room.look(Some(Space { free_bytes: *free_bytes, store_bytes: *store_bytes }));
            room.check()
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn room_is_gone_below_the_limit_and_there_again_only_above_it() {
        let (low, full) = (Err(PublishError::DiskLow), Err(PublishError::StoreFull));
        let disk = [(801, 0), (800, 0), (799, 0), (800, 0), (899, 0), (900, 0), (850, 0)];
        let expected = [Ok(()), Ok(()), low.clone(), low.clone(), low.clone(), Ok(()), Ok(())];
        assert_eq!(seen(&Room::of(800, None), &disk), expected);
        let store = [(9, 799), (9, 800), (9, 799), (9, 700), (9, 699), (9, 750)];
        let expected = [Ok(()), full.clone(), full.clone(), full.clone(), Ok(()), Ok(())];
        assert_eq!(seen(&Room::of(0, Some(800)), &store), expected);
        assert_eq!(seen(&Room::of(10, Some(800)), &[(9, 900), (12, 900), (12, 100)]), [low, full, Ok(())]);
    }

    #[test]
    fn without_limits_and_where_the_engine_cannot_tell_there_is_room() {
        assert_eq!(seen(&Room::without_limits(), &[(0, u64::MAX)]), [Ok(())]);
        let room = Room::of(800, Some(800));
        assert!(seen(&room, &[(0, 0)])[0].is_err());
        room.look(None);
        assert_eq!(room.check(), Ok(()));
    }
}
