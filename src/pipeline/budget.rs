//! What may be in flight at once: bytes from their arrival, events from their parsing, until the commit.
//!
//! invariant 8: memory is bounded by this, by the hot caches' room and by `router.consumers`. A lane of a retired
//! consumer lives as long as events of it are in flight.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::error::PublishError;

/// The bytes and events that may be in flight at once, of all requests together.
#[derive(Debug, Clone)]
pub struct Budget {
    bytes: Arc<Pool>,
    events: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    limit: usize,
    taken: AtomicUsize,
    emptied: Notify,
}

/// What one request has taken. It travels with the events and gives everything back when it is dropped,
/// which is when they are decided, not when the caller hangs up.
#[derive(Debug)]
pub struct Permit {
    budget: Budget,
    bytes: usize,
    events: usize,
}

impl Budget {
    /// A budget of so many bytes and events.
    #[must_use]
    pub fn new(bytes: usize, events: usize) -> Self {
        let pool = |limit| Arc::new(Pool { limit, taken: AtomicUsize::new(0), emptied: Notify::new() });
        Self { bytes: pool(bytes), events: pool(events) }
    }

    /// A permit that has taken nothing yet.
    #[must_use]
    pub fn permit(&self) -> Permit {
        Permit { budget: self.clone(), bytes: 0, events: 0 }
    }

    /// The bytes in flight.
    #[must_use]
    pub fn bytes_in_flight(&self) -> usize {
        self.bytes.taken.load(Ordering::Relaxed)
    }

    /// The events in flight.
    #[must_use]
    pub fn events_in_flight(&self) -> usize {
        self.events.taken.load(Ordering::Relaxed)
    }

    /// Waits until no event is in flight.
    pub(super) async fn empty(&self) {
        loop {
            let mut emptied = pin!(self.events.emptied.notified());
            // Listen first, then look: what is given back in between is not missed.
            emptied.as_mut().enable();
            if self.events_in_flight() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Permit {
    /// Takes bytes more.
    ///
    /// # Errors
    /// [`PublishError::Overloaded`] when they are not to be had; what was taken before stays taken.
    pub fn charge_bytes(&mut self, bytes: usize) -> Result<(), PublishError> {
        self.budget.bytes.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Whether there is room for any event: asked before a body is parsed, so that a refusal does not cost that.
    ///
    /// # Errors
    /// [`PublishError::Overloaded`] when there is none.
    pub fn ensure_room(&self) -> Result<(), PublishError> {
        let events = &self.budget.events;
        if self.budget.events_in_flight() < events.limit { Ok(()) } else { Err(PublishError::Overloaded) }
    }

    /// Takes events more.
    ///
    /// # Errors
    /// [`PublishError::Overloaded`] when they are not to be had; what was taken before stays taken.
    pub fn charge_events(&mut self, events: usize) -> Result<(), PublishError> {
        self.budget.events.take(events)?;
        self.events += events;
        Ok(())
    }
}

impl Pool {
    fn take(&self, amount: usize) -> Result<(), PublishError> {
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                taken.checked_add(amount).filter(|sum| *sum <= self.limit)
            })
            .map(drop)
            .map_err(|_| PublishError::Overloaded)
    }

    fn give_back(&self, amount: usize) {
        let before = self.taken.fetch_sub(amount, Ordering::Relaxed);
        debug_assert!(before >= amount, "a permit gives back what it took");
        if before == amount {
            self.emptied.notify_waiters();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.bytes.give_back(self.bytes);
        self.budget.events.give_back(self.events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_takes_up_to_the_limit_and_gives_back_all() {
        let budget = Budget::new(10, 2);
        let mut first = budget.permit();
        first.charge_bytes(6).unwrap();
        first.charge_events(2).unwrap();
        let mut second = budget.permit();
        assert_eq!(second.charge_bytes(5), Err(PublishError::Overloaded));
        assert_eq!(second.charge_events(1), Err(PublishError::Overloaded));
        assert_eq!(second.ensure_room(), Err(PublishError::Overloaded));
        second.charge_bytes(4).unwrap();
        assert_eq!((budget.bytes_in_flight(), budget.events_in_flight()), (10, 2));
        drop(first);
        assert_eq!(second.ensure_room(), Ok(()));
        assert_eq!((budget.bytes_in_flight(), budget.events_in_flight()), (4, 0));
        second.charge_bytes(6).unwrap();
        drop(second);
        assert_eq!((budget.bytes_in_flight(), budget.events_in_flight()), (0, 0));
    }
}
