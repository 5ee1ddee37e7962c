//! The young connections of addresses that hold many: those that are closed where nothing else can be.
//!
//! A flood of new connections fills all places with connections that no rule of `places` may close yet.
//! Then the address that holds the most gives one up, and only to an address that holds far fewer. So
//! a flood takes places from itself.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use super::wait::Wait;
use crate::domain::Address;

/// The connections that were young at the last search.
#[derive(Default)]
pub(super) struct Crowd {
    /// By address, the longest wait first.
    young: HashMap<Address, BinaryHeap<Reverse<(Wait, u64)>>>,
    /// The same addresses by the number of all connections that each of them holds.
    by_count: BTreeSet<(usize, Address)>,
}

impl Crowd {
    /// Forgets all connections, for a new search.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.by_count.clear();
    }

    /// Adds a young connection of an address that holds `count` connections.
    pub(super) fn add(&mut self, address: Address, count: usize, (wait, number): (Wait, u64)) {
        let young = self.young.entry(address).or_default();
        if young.is_empty() {
            self.by_count.insert((count, address));
        }
        young.push(Reverse((wait, number)));
    }

    /// Notes that an address holds another number of connections than before.
    pub(super) fn recount(&mut self, address: Address, before: usize, after: usize) {
        if self.by_count.remove(&(before, address)) {
            self.by_count.insert((after, address));
        }
    }

    /// Takes the young connection that waits longest of the address that holds the most, if it holds
    /// more than `most`. A connection that does not wait as it did at the search is passed over.
    ///
    /// Each connection is looked at once for each search, whatever the number of calls is.
    pub(super) fn take(&mut self, most: usize, is_unchanged: impl Fn(u64, Wait) -> bool) -> Option<u64> {
        while let Some((count, address)) = self.by_count.last().copied()
            && count > most
        {
            let young = self.young.get_mut(&address);
            let mut waits = young.into_iter().flat_map(|young| std::iter::from_fn(|| young.pop()));
            if let Some(Reverse((_, number))) =
                waits.find(|Reverse((wait, number))| is_unchanged(*number, *wait))
            {
                return Some(number);
            }
            self.young.remove(&address);
            self.by_count.remove(&(count, address));
        }
        None
    }
}
