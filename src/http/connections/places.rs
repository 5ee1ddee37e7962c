//! Which connections are open: a bound for all of them and one for each address, and which one is
//! closed for a new one.
//!
//! A new connection past a bound takes the place of one that waits for its client: first one that owes
//! a head or the rest of a body for more than a second, then an idle one; of each kind the one that
//! waits longest. Past the bound of an address it is one of the same address. So idle connections lock
//! nobody out. A connection that was just accepted has that second too: in a burst, newer connections
//! would otherwise end it before its head is read, and its client would get no answer.
//!
//! A flood could fill all places within that second. So where nothing else can be closed, an address
//! gives up a young connection to an address that, with the new connection, holds less than half as
//! many. It is the address that holds the most of those that have a young connection, and it must hold
//! more than the average. An address that holds few can therefore lose none, also not to a client with
//! many addresses. A burst of one address takes nothing from itself: it meets the bound.
//!
//! Otherwise the new connection is refused.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::crowd::Crowd;
use super::wait::{Rank, Wait, Waits};
use crate::domain::Address;

/// The least time between two searches for the connections that wait, for each connection that the first
/// one looked at: clients can ask for a search with each connection, which takes some 50 ns for each.
const SEARCH_PAUSE_EACH: Duration = Duration::from_micros(1);

/// How many times as many connections as the address of a new one an address must hold at least, for
/// one of them to be closed while it is young. With 2, two addresses in turn take nothing from each
/// other: after a place has changed hands, the address that lost it still holds more.
const CLEARLY_MORE: usize = 2;

/// Why a new connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// `limits.connections_per_address`.
    Address,
    /// `limits.connections`.
    All,
}

/// Why a connection was closed for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// It waited for its client.
    Waited,
    /// It was young, and its address held far more connections than that of the new one.
    Crowded,
}

/// A connection that lost its place to a new one.
pub(super) struct Closed<C> {
    pub(super) connection: Arc<C>,
    pub(super) why: Closing,
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct Bounds {
    /// Of all addresses together, at least 1.
    pub(in crate::http) all: usize,
    /// Of one address, at least 1.
    pub(in crate::http) address: usize,
    /// Of refused connections that stay open at once until their clients have read the answer.
    pub(in crate::http) refused: usize,
}

/// The open connections.
pub(super) struct Places<C> {
    bounds: Bounds,
    open: HashMap<u64, Open<C>>,
    addresses: HashMap<Address, Held>,
    /// Connections without an address of their own: those of trusted proxies.
    proxied: usize,
    waiting: Waiting,
    crowd: Crowd,
    next: u64,
}

/// One open connection.
struct Open<C> {
    /// `None` where the bound of an address does not hold for it.
    address: Option<Address>,
    connection: Arc<C>,
}

/// The connections of one address.
#[derive(Default)]
struct Held {
    numbers: HashSet<u64>,
    waiting: Waiting,
}

/// The connections that could be closed at the last search, in the order in which they end.
#[derive(Default)]
struct Waiting {
    queue: VecDeque<(Wait, u64)>,
    /// When another search is allowed.
    next_search: Duration,
}

impl<C: Waits> Places<C> {
    /// Places for so many connections, all free.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            open: HashMap::new(),
            addresses: HashMap::new(),
            proxied: 0,
            waiting: Waiting::default(),
            crowd: Crowd::default(),
            next: 0,
        }
    }

    /// Gives a place to a new connection of this address; `None` is an address without a bound of its
    /// own. Returns the number of the place, and the connection that has to be closed for it, which
    /// has lost its place already.
    ///
    /// # Errors
    /// The bound that is reached where no connection can be closed.
    pub(super) fn admit(
        &mut self,
        address: Option<Address>,
        connection: Arc<C>,
        now: Duration,
    ) -> Result<(u64, Option<Closed<C>>), Full> {
        let mut closing = None;
        if let Some(Held { numbers, waiting }) = address.and_then(|address| self.addresses.get_mut(&address))
            && numbers.len() >= self.bounds.address
        {
            if waiting.is_due(&self.open, now) {
                waiting.search(&self.open, numbers.iter(), now, |_, _| {});
            }
            closing = Some((waiting.take().ok_or(Full::Address)?, Closing::Waited));
        } else if self.open.len() >= self.bounds.all {
            closing = Some(self.room(address, now).ok_or(Full::All)?);
        }
        let closed = closing.and_then(|(other, why)| Some(Closed { connection: self.remove(other)?, why }));
        let number = self.next;
        self.next += 1;
        self.open.insert(number, Open { address, connection });
        match address {
            Some(address) => {
                let numbers = &mut self.addresses.entry(address).or_default().numbers;
                numbers.insert(number);
                self.crowd.recount(address, numbers.len() - 1, numbers.len());
            }
            None => self.proxied += 1,
        }
        debug_assert!(self.open.len() <= self.bounds.all, "there are never more connections than places");
        Ok((number, closed))
    }

    /// The connection that is closed for a new one of this address, where all places are taken.
    fn room(&mut self, address: Option<Address>, now: Duration) -> Option<(u64, Closing)> {
        let Self { open, addresses, waiting, crowd, .. } = self;
        let held = |of: Address| addresses.get(&of).map_or(0, |held| held.numbers.len());
        if waiting.is_due(open, now) {
            crowd.clear();
            waiting.search(open, open.keys(), now, |number, wait| {
                if let Some(holder) = open.get(&number).and_then(|open| open.address) {
                    crowd.add(holder, held(holder), (wait, number));
                }
            });
        }
        if let Some(number) = waiting.take() {
            return Some((number, Closing::Waited));
        }
        // All proxies count as one address that loses nothing: each stands for many clients.
        let own = address.map_or(self.proxied, held);
        let holders = addresses.len() + usize::from(own == 0);
        let average = (open.len() - self.proxied) / holders.max(1);
        let is_unchanged = |number, wait| wait_of(open, number) == Some(wait);
        let number = crowd.take(average.max(CLEARLY_MORE * (own + 1)), is_unchanged)?;
        Some((number, Closing::Crowded))
    }

    /// Frees a place, unless it was given to another connection before.
    pub(super) fn remove(&mut self, number: u64) -> Option<Arc<C>> {
        let Open { address, connection } = self.open.remove(&number)?;
        let Some(address) = address else {
            self.proxied -= 1;
            return Some(connection);
        };
        if let Some(held) = self.addresses.get_mut(&address) {
            held.numbers.remove(&number);
            let left = held.numbers.len();
            self.crowd.recount(address, left + 1, left);
            if left == 0 {
                self.addresses.remove(&address);
            }
        }
        Some(connection)
    }

    /// The open connections.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<C>> {
        self.open.values().map(|open| &open.connection)
    }
}

/// How an open connection waits.
fn wait_of<C: Waits>(open: &HashMap<u64, Open<C>>, number: u64) -> Option<Wait> {
    open.get(&number).and_then(|open| open.connection.wait())
}

impl Waiting {
    /// Whether the connection that ends first is only known after another search, which may be made now.
    /// A connection that was served since the last search is passed over.
    fn is_due<C: Waits>(&mut self, open: &HashMap<u64, Open<C>>, now: Duration) -> bool {
        while self.queue.pop_front_if(|(then, number)| wait_of(open, *number) != Some(*then)).is_some() {}
        let is_clear = self.queue.front().is_some_and(|(first, _)| first.rank(now) == Rank::Slow);
        !is_clear && now >= self.next_search
    }

    /// Finds the connections among these that can be closed for any other one, and gives `young` the
    /// young ones.
    fn search<'a, C: Waits>(
        &mut self,
        open: &HashMap<u64, Open<C>>,
        numbers: impl ExactSizeIterator<Item = &'a u64>,
        now: Duration,
        mut young: impl FnMut(u64, Wait),
    ) {
        self.next_search = now + SEARCH_PAUSE_EACH * u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        let mut found = Vec::new();
        for number in numbers {
            let Some(wait) = wait_of(open, *number) else { continue };
            match wait.rank(now) {
                Rank::Young => young(*number, wait),
                rank => found.push((rank, wait, *number)),
            }
        }
        found.sort_unstable();
        self.queue = found.into_iter().map(|(_, wait, number)| (wait, number)).collect();
    }

    /// Takes the connection that ends first, of those that were found.
    fn take(&mut self) -> Option<u64> {
        self.queue.pop_front().map(|(_, number)| number)
    }
}

#[cfg(test)]
mod tests;
