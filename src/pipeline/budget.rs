//! What may be in flight at once: bytes from their arrival, events from their parsing, until the commit.
//!
//! invariant 8: memory is bounded by this, by the hot caches' room and by `router.consumers`. A lane of a retired
//! consumer lives as long as events of it are in flight. No address takes more than its share: see `pool`.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::Notify;

use super::error::PublishError;
use super::new_topics::Made;
use super::pool::{Refused, Resource, Taken};
use super::shares::{Share, Shares};
use crate::domain::{Address, RequestId};
use crate::throttle::Throttle;

/// The bytes of a small request: most publishes of a few events have less, and half a thousand of them
/// fit into the reserve of the default `limits.in_flight_bytes`.
const SMALL_BYTES: usize = 64 << 10;

/// The events of a small request.
const SMALL_EVENTS: usize = 100;

/// The bytes and events that may be in flight at once, of all requests together.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes: Resource,
    events: Resource,
    shares: Shares,
    /// Told when no event is in flight.
    emptied: Notify,
    /// Whether the log is told of a refusal.
    said: Throttle,
}

/// Bytes that the log itself takes for a moment. They count as in flight and may pass the limit: what needs them is bounded
/// elsewhere and must not wait for requests that wait for it. Dropped, it gives them back.
#[derive(Debug)]
pub(super) struct Overdraft {
    budget: Arc<Inner>,
    bytes: usize,
}

/// What one request has taken. It travels with the events and gives everything back when it is dropped,
/// which is when they are decided, not when the caller hangs up.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Inner>,
    address: Address,
    share: Arc<Share>,
    bytes: Taken,
    events: Taken,
    /// The id of the request in the log, where it has one.
    request: Option<RequestId>,
}

impl Budget {
    /// A budget of so many bytes and events.
    #[must_use]
    pub fn new(bytes: usize, events: usize) -> Self {
        Self(Arc::new(Inner {
            bytes: Resource::new("limits.in_flight_bytes", bytes, SMALL_BYTES),
            events: Resource::new("limits.in_flight_events", events, SMALL_EVENTS),
            shares: Shares::new(),
            emptied: Notify::new(),
            said: Throttle::default(),
        }))
    }

    /// A budget of the bytes of answers; of it no events are taken.
    #[must_use]
    pub fn of_answers(bytes: usize) -> Self {
        Self(Arc::new(Inner {
            bytes: Resource::new("limits.answer_bytes", bytes, SMALL_BYTES),
            events: Resource::new("limits.answer_bytes", 0, 0),
            shares: Shares::new(),
            emptied: Notify::new(),
            said: Throttle::default(),
        }))
    }

    /// A permit for a request of this address that has taken nothing yet.
    #[must_use]
    pub fn permit(&self, address: Address) -> Permit {
        let (bytes, events) = (Taken::default(), Taken::default());
        let share = self.0.shares.of(address);
        Permit { budget: Arc::clone(&self.0), address, share, bytes, events, request: None }
    }

    /// An overdraft that has taken nothing yet.
    pub(super) fn overdraft(&self) -> Overdraft {
        Overdraft { budget: Arc::clone(&self.0), bytes: 0 }
    }

    /// The bytes in flight.
    #[must_use]
    pub fn bytes_in_flight(&self) -> usize {
        self.0.bytes.taken()
    }

    /// The events in flight.
    #[must_use]
    pub fn events_in_flight(&self) -> usize {
        self.0.events.taken()
    }

    /// Waits until no event is in flight.
    pub(super) async fn empty(&self) {
        loop {
            let mut emptied = pin!(self.0.emptied.notified());
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

    /// The address that the request counts for.
    pub(super) fn address(&self) -> Address {
        self.address
    }

    /// The topics that the address of the request made.
    pub(super) fn made(&self) -> &Made {
        &self.share.topics
    }

    /// Whether a body that is said to have so many bytes is worth reading now. Takes nothing.
    ///
    /// # Errors
    /// As [`Self::charge_bytes`], where its bytes would be refused.
    pub fn look_for_bytes(&self, bytes: usize) -> Result<(), PublishError> {
        let pool = &self.budget.bytes;
        let looked = pool.look_for(bytes, pool.is_small(bytes), &self.share.bytes);
        looked.map_err(|refused| self.refused(pool, refused))
    }

    /// Whether the events of a body of so many bytes are worth parsing now. Takes nothing.
    ///
    /// # Errors
    /// As [`Self::charge_events`], where there is still no room for as many events as were refused to
    /// this address last.
    pub fn look_for_events(&self, bytes: usize) -> Result<(), PublishError> {
        let pool = &self.budget.events;
        let looked = pool.look_for(1, self.budget.bytes.is_small(bytes), &self.share.events);
        looked.map_err(|refused| self.refused(pool, refused))
    }

    /// Takes bytes more.
    ///
    /// # Errors
    /// [`PublishError::Overloaded`] where they are not free, [`PublishError::OverShare`] where the
    /// address of the request holds its share. What was taken before stays taken.
    pub fn charge_bytes(&mut self, bytes: usize) -> Result<(), PublishError> {
        let pool = &self.budget.bytes;
        let taken = pool.take(bytes, &self.share.bytes, &mut self.bytes);
        taken.map_err(|refused| self.refused(pool, refused))
    }

    /// Gives back bytes that the request holds no longer, at most those that it has taken.
    pub fn release_bytes(&mut self, bytes: usize) {
        self.budget.bytes.give_back(bytes, &self.share.bytes, &mut self.bytes);
    }

    /// Takes events more.
    ///
    /// # Errors
    /// As [`Self::charge_bytes`].
    pub fn charge_events(&mut self, events: usize) -> Result<(), PublishError> {
        let pool = &self.budget.events;
        let taken = pool.take(events, &self.share.events, &mut self.events);
        taken.map_err(|refused| self.refused(pool, refused))
    }

    fn refused(&self, pool: &Resource, refused: Refused) -> PublishError {
        match refused {
            Refused::OverShare => PublishError::OverShare(pool.name),
            Refused::Full => {
                if self.budget.said.admits() {
                    let (key, limit, peer) = (pool.name, pool.limit, self.address);
                    tracing::warn!(key, limit, %peer, "overloaded: requests are refused with 503");
                }
                PublishError::Overloaded
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Inner { bytes, events, emptied, .. } = &*self.budget;
        bytes.give_back(self.bytes.amount, &self.share.bytes, &mut self.bytes);
        let held = self.events.amount;
        events.give_back(held, &self.share.events, &mut self.events);
        if held > 0 && events.taken() == 0 {
            emptied.notify_waiters();
        }
    }
}

impl Overdraft {
    /// Takes bytes more, whatever the limit is.
    pub(super) fn take(&mut self, bytes: usize) {
        self.budget.bytes.overdraw(bytes);
        self.bytes += bytes;
    }
}

impl Drop for Overdraft {
    fn drop(&mut self) {
        self.budget.bytes.repay(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::of(text.parse().unwrap())
    }

    #[test]
    fn a_permit_takes_up_to_the_limit_and_gives_back_all() {
        let budget = Budget::new(100, 20);
        let [mut first, mut second] = ["10.0.0.1", "10.0.0.2"].map(|of| budget.permit(address(of)));
        first.charge_bytes(60).unwrap();
        first.charge_events(15).unwrap();
        assert_eq!(first.charge_bytes(20), Err(PublishError::OverShare("limits.in_flight_bytes")));
        assert_eq!(first.charge_events(1), Err(PublishError::OverShare("limits.in_flight_events")));
        assert_eq!(second.charge_bytes(41), Err(PublishError::Overloaded));
        second.charge_bytes(30).unwrap();
        assert_eq!((budget.bytes_in_flight(), budget.events_in_flight()), (90, 15));
        first.release_bytes(50);
        assert_eq!(budget.bytes_in_flight(), 40);
        drop(first);
        assert_eq!((budget.bytes_in_flight(), budget.events_in_flight()), (30, 0));
        second.charge_bytes(20).unwrap();
        drop(second);
        assert_eq!((budget.bytes_in_flight(), budget.events_in_flight()), (0, 0));
    }

    #[test]
    fn an_overdraft_passes_the_limit_and_refuses_others_meanwhile() {
        let budget = Budget::new(10, 2);
        let mut permit = budget.permit(address("10.0.0.1"));
        permit.charge_bytes(5).unwrap();
        let mut overdraft = budget.overdraft();
        overdraft.take(3);
        overdraft.take(4);
        assert_eq!(budget.bytes_in_flight(), 12);
        let other = budget.permit(address("10.0.0.2"));
        assert_eq!(other.look_for_bytes(1), Err(PublishError::Overloaded));
        assert!(permit.charge_bytes(1).is_err());
        drop(overdraft);
        assert_eq!(budget.bytes_in_flight(), 5);
        permit.charge_bytes(2).unwrap();
    }

    #[test]
    fn a_request_that_would_be_refused_is_refused_before_it_is_read() {
        let budget = Budget::new(1_000, 1_000);
        let (greedy, other) = (address("10.0.0.1"), address("10.0.0.2"));
        let mut first = budget.permit(greedy);
        first.charge_events(650).unwrap();
        assert_eq!(budget.permit(greedy).look_for_events(1), Ok(()));
        let refused = Err(PublishError::OverShare("limits.in_flight_events"));
        assert_eq!(budget.permit(greedy).charge_events(100), refused);
        assert_eq!(budget.permit(greedy).look_for_events(1_000), refused);
        assert_eq!(budget.permit(other).look_for_events(1_000), Ok(()));
        drop(first);
        assert_eq!(budget.permit(greedy).look_for_events(1_000), Ok(()));
        assert_eq!(budget.permit(greedy).look_for_bytes(1_001), Err(PublishError::Overloaded));
    }
}
