//! Which connections are open: a bound for all of them and one for each address, and which one is
//! closed for a new one.
//!
//! A new connection past a bound takes the place of one that waits for its client: first one that owes
//! a head or the rest of a body for more than a second, then an idle one; of each kind the one that
//! waits longest. Past the bound of an address it is one of the same address. So idle connections lock
//! nobody out. A connection that was just accepted has that second too: in a burst, newer connections
//! would otherwise end it before its head is read, and its client would get no answer. Where every
//! connection is being served or has time left, the new one is refused.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::Address;

/// How long a client may take for a head or the rest of a body before its connection can be closed for a
/// new one; for the first head it counts from the accept. Honest clients send a head at once; a second
/// is time for a packet that was lost on the way, which is sent again after 200 ms to 1 s (RFC 6298).
const GRACE: Duration = Duration::from_secs(1);

/// The least time between two searches for the connections that wait, for each connection that the first
/// one looked at: clients can ask for a search with each connection, which takes some 50 ns for each.
const SEARCH_PAUSE_EACH: Duration = Duration::from_micros(1);

/// A connection that may wait for its client.
pub(super) trait Waits {
    /// How it waits; `None` while it is served, up to the last byte of the answer.
    fn wait(&self) -> Option<Wait>;
}

/// A wait of a connection for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wait {
    pub(super) since: Duration,
    /// Whether it is between two requests.
    pub(super) was_served: bool,
}

/// The order in which waiting connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// It owes a head or the rest of a body for longer than [`GRACE`].
    Slow,
    /// It is idle between two requests.
    Idle,
}

/// Why a new connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// `limits.connections_per_address`.
    Address,
    /// `limits.connections`.
    All,
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
    waiting: Waiting,
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
        let (open, addresses) = (HashMap::new(), HashMap::new());
        Self { bounds, open, addresses, waiting: Waiting::default(), next: 0 }
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
    ) -> Result<(u64, Option<Arc<C>>), Full> {
        let mut longest = None;
        if let Some(Held { numbers, waiting }) = address.and_then(|address| self.addresses.get_mut(&address))
            && numbers.len() >= self.bounds.address
        {
            longest = Some(waiting.longest(&self.open, numbers.iter(), now).ok_or(Full::Address)?);
        } else if self.open.len() >= self.bounds.all {
            longest = Some(self.waiting.longest(&self.open, self.open.keys(), now).ok_or(Full::All)?);
        }
        let closed = longest.and_then(|longest| self.remove(longest));
        let number = self.next;
        self.next += 1;
        self.open.insert(number, Open { address, connection });
        if let Some(address) = address {
            self.addresses.entry(address).or_default().numbers.insert(number);
        }
        debug_assert!(self.open.len() <= self.bounds.all, "there are never more connections than places");
        Ok((number, closed))
    }

    /// Frees a place, unless it was given to another connection before.
    pub(super) fn remove(&mut self, number: u64) -> Option<Arc<C>> {
        let Open { address, connection } = self.open.remove(&number)?;
        if let Some(address) = address
            && let Some(held) = self.addresses.get_mut(&address)
        {
            held.numbers.remove(&number);
            if held.numbers.is_empty() {
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

impl Wait {
    /// When the connection ends; `None` while it cannot be closed for another one.
    fn turn(self, now: Duration) -> Option<Turn> {
        if self.was_served {
            Some(Turn::Idle)
        } else {
            (now.saturating_sub(self.since) >= GRACE).then_some(Turn::Slow)
        }
    }
}

impl Waiting {
    /// The connection among these that ends first. A connection that was served since the last search
    /// is passed over.
    fn longest<'a, C: Waits>(
        &mut self,
        open: &HashMap<u64, Open<C>>,
        numbers: impl ExactSizeIterator<Item = &'a u64>,
        now: Duration,
    ) -> Option<u64> {
        let wait = |number: &u64| open.get(number).and_then(|open| open.connection.wait());
        let drop_changed = |queue: &mut VecDeque<(Wait, u64)>| {
            while queue.pop_front_if(|(then, number)| wait(number) != Some(*then)).is_some() {}
        };
        drop_changed(&mut self.queue);
        let is_clear = self.queue.front().is_some_and(|(first, _)| first.turn(now) == Some(Turn::Slow));
        if !is_clear && now >= self.next_search {
            self.next_search = now + SEARCH_PAUSE_EACH * u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            let candidate = |number: &u64| {
                let waits = wait(number)?;
                Some((waits.turn(now)?, waits, *number))
            };
            let mut found: Vec<_> = numbers.filter_map(candidate).collect();
            found.sort_unstable();
            self.queue = found.into_iter().map(|(_, waits, number)| (waits, number)).collect();
        }
        self.queue.pop_front().map(|(_, number)| number)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Fake(Mutex<Option<Wait>>);

    impl Waits for Fake {
        fn wait(&self) -> Option<Wait> {
            *self.0.lock().unwrap()
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn since(seconds: u64) -> Wait {
        Wait { was_served: true, since: at(seconds) }
    }

    fn waiting(seconds: u64) -> Arc<Fake> {
        Arc::new(Fake(Mutex::new(Some(since(seconds)))))
    }

    fn busy() -> Arc<Fake> {
        Arc::new(Fake(Mutex::new(None)))
    }

    /// An address with a bound.
    fn address(text: &str) -> Option<Address> {
        text.parse().ok().map(Address::of)
    }

    fn places(all: usize, address: usize) -> Places<Fake> {
        Places::new(Bounds { all, address, refused: 1 })
    }

    #[test]
    fn past_all_places_the_longest_waiting_connection_is_closed() {
        let mut places = places(3, 3);
        for (ip, connection) in [("10.0.0.1", waiting(2)), ("10.0.0.2", waiting(1)), ("10.0.0.3", busy())] {
            assert!(places.admit(address(ip), connection, at(3)).unwrap().1.is_none());
        }
        let (_, closed) = places.admit(address("10.0.0.4"), busy(), at(3)).unwrap();
        assert_eq!(closed.unwrap().wait(), Some(since(1)));
        let (_, closed) = places.admit(address("10.0.0.4"), busy(), at(3)).unwrap();
        assert_eq!(closed.unwrap().wait(), Some(since(2)));
        assert_eq!(places.admit(address("10.0.0.5"), busy(), at(4)).err(), Some(Full::All));
        assert_eq!(places.iter().count(), 3);
    }

    #[test]
    fn an_address_past_its_bound_closes_its_own_connections_only() {
        let mut places = places(10, 2);
        places.admit(address("10.0.0.1"), waiting(1), at(3)).unwrap();
        for seconds in [2, 3] {
            assert!(places.admit(address("10.0.0.2"), waiting(seconds), at(3)).unwrap().1.is_none());
        }
        let (_, closed) = places.admit(address("10.0.0.2"), busy(), at(3)).unwrap();
        assert_eq!(closed.unwrap().wait(), Some(since(2)));
        places.admit(address("10.0.0.2"), busy(), at(3)).unwrap();
        assert_eq!(places.admit(address("10.0.0.2"), busy(), at(4)).err(), Some(Full::Address));
        assert!(places.admit(None, busy(), at(4)).is_ok(), "a proxy has no bound of its own");
    }

    #[test]
    fn addresses_of_one_network_share_a_bound() {
        let mut places = places(10, 1);
        places.admit(address("2001:db8::1"), busy(), at(0)).unwrap();
        assert_eq!(places.admit(address("2001:db8::2"), busy(), at(0)).err(), Some(Full::Address));
        assert!(places.admit(address("2001:db8:0:1::2"), busy(), at(0)).is_ok());
    }

    #[test]
    fn a_connection_that_was_served_since_the_search_is_not_closed() {
        let mut places = places(3, 3);
        let first = waiting(1);
        for connection in [waiting(0), first.clone(), waiting(2)] {
            places.admit(None, connection, at(3)).unwrap();
        }
        places.admit(None, busy(), at(3)).unwrap();
        *first.0.lock().unwrap() = Some(since(4));
        let (_, closed) = places.admit(None, busy(), at(4)).unwrap();
        assert_eq!(closed.unwrap().wait(), Some(since(2)));
    }

    #[test]
    fn a_place_is_free_again_once() {
        let mut places = places(1, 1);
        let (number, _) = places.admit(address("10.0.0.1"), busy(), at(0)).unwrap();
        assert!(places.remove(number).is_some() && places.remove(number).is_none());
        assert!(places.addresses.is_empty(), "an address without connections is forgotten");
        assert!(places.admit(address("10.0.0.1"), busy(), at(0)).is_ok());
    }

    fn unserved(seconds: u64) -> Wait {
        Wait { was_served: false, since: at(seconds) }
    }

    fn sending(seconds: u64) -> Arc<Fake> {
        Arc::new(Fake(Mutex::new(Some(unserved(seconds)))))
    }

    #[test]
    fn slow_connections_end_before_idle_ones_and_new_ones_have_their_second() {
        let mut places = places(4, 4);
        for connection in [waiting(1), sending(5), sending(3), sending(2)] {
            places.admit(None, connection, at(5)).unwrap();
        }
        for expected in [unserved(2), unserved(3), since(1)] {
            let (_, closed) = places.admit(None, busy(), at(5)).unwrap();
            assert_eq!(closed.unwrap().wait(), Some(expected));
        }
        let almost = at(6).checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(places.admit(None, busy(), almost).err(), Some(Full::All));
        let (_, closed) = places.admit(None, busy(), at(6)).unwrap();
        assert_eq!(closed.unwrap().wait(), Some(unserved(5)));
    }

    #[test]
    fn in_a_burst_the_first_connections_keep_their_places() {
        let mut places = places(10, 2);
        let burst: Vec<_> = (0..5).map(|_| places.admit(address("10.0.0.1"), sending(0), at(0))).collect();
        assert!(burst[..2].iter().all(|admitted| matches!(admitted, Ok((_, None)))));
        assert!(burst[2..].iter().all(|admitted| matches!(admitted, Err(Full::Address))));
        let (_, closed) = places.admit(address("10.0.0.1"), sending(1), at(1)).unwrap();
        assert_eq!(closed.unwrap().wait(), Some(unserved(0)));
    }
}
