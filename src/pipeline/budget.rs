//! What may be in flight at once: bytes from their arrival, events from their parsing, until the commit.
//!
//! invariant 8: memory is bounded by this, by the hot caches' room and by `router.consumers`. A lane of a retired
//! consumer lives as long as events of it are in flight.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::error::PublishError;
use super::seldom::Seldom;
use crate::domain::{Address, RequestId};

/// The bytes and events that may be in flight at once, of all requests together.
#[derive(Debug, Clone)]
pub struct Budget {
    bytes: Arc<Pool>,
    events: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    /// The key of its limit.
    name: &'static str,
    limit: usize,
    taken: AtomicUsize,
    /// What was refused last, 0 once there was room for it. Until then nobody else needs to try: a request that is
    /// refused late has cost as much as one that is served.
    wanted: AtomicUsize,
    emptied: Notify,
    /// Whether the log is told of a refusal.
    said: Seldom,
}

/// The part of a limit that is kept free at most for what was refused last, so that one large request does not have
/// to wait until nothing else is in flight.
const WANTED_PART: usize = 8;

/// What one request has taken. It travels with the events and gives everything back when it is dropped,
/// which is when they are decided, not when the caller hangs up.
#[derive(Debug)]
pub struct Permit {
    budget: Budget,
    address: Address,
    bytes: usize,
    events: usize,
    /// The id of the request in the log, where it has one.
    request: Option<RequestId>,
}

impl Budget {
    /// A budget of so many bytes and events.
    #[must_use]
    pub fn new(bytes: usize, events: usize) -> Self {
        let pool = |name, limit| {
            let (taken, wanted) = (AtomicUsize::new(0), AtomicUsize::new(0));
            Arc::new(Pool { name, limit, taken, wanted, emptied: Notify::new(), said: Seldom::default() })
        };
        Self { bytes: pool("limits.in_flight_bytes", bytes), events: pool("limits.in_flight_events", events) }
    }

    /// A permit for a request of this address that has taken nothing yet.
    #[must_use]
    pub fn permit(&self, address: Address) -> Permit {
        Permit { budget: self.clone(), address, bytes: 0, events: 0, request: None }
    }

    /// Whether a body that is said to have so many bytes is worth reading now. Takes nothing.
    ///
    /// # Errors
    /// [`PublishError::Overloaded`] where its bytes would be refused.
    pub fn look_for_bytes(&self, bytes: usize) -> Result<(), PublishError> {
        self.bytes.look_for(bytes)
    }

    /// Whether events are worth parsing now. Takes nothing.
    ///
    /// # Errors
    /// [`PublishError::Overloaded`] where there is still no room for as many as were refused last.
    pub fn look_for_events(&self) -> Result<(), PublishError> {
        self.events.look_for(1)
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
    /// Says which request it is, for lines in the log about its events.
    pub fn name(&mut self, request: RequestId) {
        self.request = Some(request);
    }

    /// Which request it is.
    pub(super) fn request(&self) -> Option<&RequestId> {
        self.request.as_ref()
    }

    /// Takes bytes more.
    ///
    /// # Errors
    /// [`PublishError::Overloaded`] when they are not to be had; what was taken before stays taken.
    pub fn charge_bytes(&mut self, bytes: usize) -> Result<(), PublishError> {
        self.budget.bytes.take(bytes, self.address)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Takes events more.
    ///
    /// # Errors
    /// [`PublishError::Overloaded`] when they are not to be had; what was taken before stays taken.
    pub fn charge_events(&mut self, events: usize) -> Result<(), PublishError> {
        self.budget.events.take(events, self.address)?;
        self.events += events;
        Ok(())
    }
}

impl Pool {
    fn take(&self, amount: usize, address: Address) -> Result<(), PublishError> {
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                taken.checked_add(amount).filter(|sum| *sum <= self.limit)
            })
            .map(drop)
            .map_err(|_| {
                self.wanted.store(amount.min(self.limit / WANTED_PART), Ordering::Relaxed);
                self.say(address);
                PublishError::Overloaded
            })
    }

    fn say(&self, address: Address) {
        if self.said.is_due() {
            let (key, limit) = (self.name, self.limit);
            tracing::warn!(key, limit, peer = %address, "overloaded: requests are refused with 503");
        }
    }

    fn look_for(&self, amount: usize) -> Result<(), PublishError> {
        let free = self.limit.saturating_sub(self.taken.load(Ordering::Relaxed));
        let wanted = self.wanted.load(Ordering::Relaxed);
        if free < amount.max(wanted) {
            return Err(PublishError::Overloaded);
        }
        if wanted > 0 {
            self.wanted.store(0, Ordering::Relaxed);
        }
        Ok(())
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
        let mut first = budget.permit(Address::UNKNOWN);
        first.charge_bytes(6).unwrap();
        first.charge_events(2).unwrap();
        let mut second = budget.permit(Address::UNKNOWN);
        assert_eq!(second.charge_bytes(5), Err(PublishError::Overloaded));
        assert_eq!(second.charge_events(1), Err(PublishError::Overloaded));
        assert_eq!(budget.look_for_events(), Err(PublishError::Overloaded));
        second.charge_bytes(4).unwrap();
        assert_eq!((budget.bytes_in_flight(), budget.events_in_flight()), (10, 2));
        drop(first);
        assert_eq!(budget.look_for_events(), Ok(()));
        assert_eq!((budget.bytes_in_flight(), budget.events_in_flight()), (4, 0));
        second.charge_bytes(6).unwrap();
        drop(second);
        assert_eq!((budget.bytes_in_flight(), budget.events_in_flight()), (0, 0));
    }

    #[test]
    fn after_a_refusal_nobody_needs_to_try_until_there_is_room_for_as_much() {
        let budget = Budget::new(1_000, 1_000);
        let (mut first, mut second) = (budget.permit(Address::UNKNOWN), budget.permit(Address::UNKNOWN));
        first.charge_events(950).unwrap();
        second.charge_events(30).unwrap();
        assert_eq!(budget.look_for_events(), Ok(()), "room for 20");
        assert_eq!(budget.permit(Address::UNKNOWN).charge_events(40), Err(PublishError::Overloaded));
        assert_eq!(budget.look_for_events(), Err(PublishError::Overloaded));
        drop(second);
        assert_eq!(budget.look_for_events(), Ok(()), "room for 50");
        assert_eq!(budget.permit(Address::UNKNOWN).charge_events(1_000), Err(PublishError::Overloaded));
        assert_eq!(budget.look_for_events(), Err(PublishError::Overloaded));
        drop(first);
        let mut other = budget.permit(Address::UNKNOWN);
        other.charge_events(1_000 - 1_000 / WANTED_PART).unwrap();
        assert_eq!(budget.look_for_events(), Ok(()), "the whole limit is never kept free");
        assert_eq!(budget.look_for_bytes(1_000), Ok(()));
        assert_eq!(budget.look_for_bytes(1_001), Err(PublishError::Overloaded));
    }
}
