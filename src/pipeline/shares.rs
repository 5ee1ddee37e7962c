//! What each address holds at the moment, and how many topics it made in the last minute.
//!
//! A request looks its address up once and keeps the entry. Entries that nobody uses are swept when as
//! many new ones have come as the last sweep left, so that addresses in a row cost neither memory nor
//! time that grows with their number.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use super::new_topics::Made;
use super::pool::Held;
use crate::domain::Address;

/// The entries that are kept without a sweep, of about 200 bytes each.
const KEPT: usize = 1_024;

/// What one address holds and made.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) bytes: Held,
    pub(super) events: Held,
    pub(super) topics: Made,
}

/// The entries of all addresses.
#[derive(Debug)]
pub(super) struct Shares {
    of: DashMap<Address, Arc<Share>, RandomState>,
    /// New entries until the next sweep.
    until_sweep: AtomicUsize,
}

impl Shares {
    pub(super) fn new() -> Self {
        Self { of: DashMap::default(), until_sweep: AtomicUsize::new(KEPT) }
    }

    /// The entry of an address.
    pub(super) fn of(&self, address: Address) -> Arc<Share> {
        if let Some(share) = self.of.get(&address) {
            return Arc::clone(&share);
        }
        if self.until_sweep.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.sweep();
        }
        Arc::clone(&self.of.entry(address).or_default())
    }

    /// Drops the entries that only the map holds, and that remember nothing: the map is locked, so none is
    /// handed out meanwhile.
    fn sweep(&self) {
        let now = Instant::now();
        self.of.retain(|_, share| Arc::strong_count(share) > 1 || !share.topics.is_forgotten(now));
        self.until_sweep.store(self.of.len().max(KEPT), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn addresses_that_hold_something_are_kept_and_others_swept() {
        let (shares, address) = (Shares::new(), |number: u32| Address::of(Ipv4Addr::from(number).into()));
        let held = shares.of(address(7));
        for number in 0..100_000 {
            shares.of(address(1_000 + number));
        }
        assert!(shares.of.len() <= 2 * KEPT, "{}", shares.of.len());
        assert!(Arc::ptr_eq(&held, &shares.of(address(7))), "its entry is still the same");
        let all: Vec<_> = (0..5_000).map(|number| shares.of(address(number))).collect();
        assert!(all.iter().zip(0..).all(|(share, number)| Arc::ptr_eq(share, &shares.of(address(number)))));
    }
}
