//! All followers: how many there may be, what those of one topic share, and when they have to end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::watch;

use super::tail::Tail;
use crate::api::Code;
use crate::domain::{Address, HistoryId, Topic};
use crate::http::answers::Answers;
use crate::http::failure::Failure;
use crate::http::reads::Reads;
use crate::metrics::Metrics;

/// The followers of this server.
pub(in crate::http) struct Followers {
    limit: usize,
    /// `limits.followers_per_address`.
    limit_each: usize,
    taken: Arc<Mutex<Taken>>,
    stop: watch::Sender<bool>,
    tails: Arc<Tails>,
}

/// The places that are taken.
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Of each address that has any.
    by_address: HashMap<Address, usize, RandomState>,
}

/// What is followed: a topic in one history.
pub(super) type Followed = (Topic, HistoryId);

/// The tails of the topics that are followed now.
#[derive(Default)]
pub(super) struct Tails {
    followed: Mutex<HashMap<Followed, Weak<Tail>, RandomState>>,
    /// When the pieces that were only kept were dropped last.
    shed: Mutex<Option<Instant>>,
}

/// The least time between two times that kept pieces are dropped: each locks every tail.
const SHED_PAUSE: Duration = Duration::from_millis(100);

/// A place among the followers, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    address: Address,
    taken: Arc<Mutex<Taken>>,
    metrics: Arc<Metrics>,
}

impl Followers {
    /// No followers yet, and never more than `limit`, of which `limit_each` at most for one address.
    pub(in crate::http) fn new(limit: usize, limit_each: usize) -> Self {
        let (taken, stop, tails) = (Arc::default(), watch::Sender::new(false), Arc::default());
        Self { limit, limit_each, taken, stop, tails }
    }

    /// Ends all followers.
    pub(in crate::http) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Drops every piece that is only kept for followers that may come.
    pub(in crate::http) fn shed(&self) {
        self.tails.shed();
    }

    /// Becomes true when all followers have to end.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Takes a place for a client at this address.
    ///
    /// # Errors
    /// 429 where the address has `limits.followers_per_address` of them, 503 where all are taken.
    pub(super) fn place(&self, address: Address, metrics: &Arc<Metrics>) -> Result<Place, Failure> {
        let mut taken = lock(&self.taken);
        let own = taken.by_address.get(&address).copied().unwrap_or_default();
        if own >= self.limit_each {
            return Err(Failure::too_many_requests(format_args!(
                "this address has {own} followers (limits.followers_per_address)"
            )));
        }
        if taken.all >= self.limit {
            let detail = format!("the log has {} followers already (limits.followers)", self.limit);
            return Err(Failure::new(Code::Overloaded, detail));
        }
        taken.all += 1;
        taken.by_address.insert(address, own + 1);
        metrics.followers.inc();
        Ok(Place { address, taken: Arc::clone(&self.taken), metrics: Arc::clone(metrics) })
    }

    /// What the followers of a topic share.
    pub(super) fn tail(&self, followed: Followed, (reads, answers): (&Reads, &Arc<Answers>)) -> Arc<Tail> {
        let mut tails = self.tails.lock();
        if let Some(tail) = tails.get(&followed).and_then(Weak::upgrade) {
            return tail;
        }
        let store = (reads.clone(), Arc::clone(answers));
        let tail = Arc::new(Tail::new(followed.clone(), store, Arc::clone(&self.tails)));
        tails.insert(followed, Arc::downgrade(&tail));
        tail
    }
}

impl Tails {
    /// Forgets a tail that nobody holds any more, unless the topic has a new one.
    pub(super) fn forget(&self, followed: &Followed) {
        let mut tails = self.lock();
        if tails.get(followed).is_some_and(|tail| tail.strong_count() == 0) {
            tails.remove(followed);
        }
    }

    /// Drops every piece that is only kept for followers that may come, so that answers have its room.
    pub(super) fn shed(&self) {
        let now = Instant::now();
        let mut last = lock(&self.shed);
        if last.is_some_and(|last| now.duration_since(last) < SHED_PAUSE) {
            return;
        }
        *last = Some(now);
        drop(last);
        // A tail that is dropped forgets itself under the lock, so none may be dropped while it is held.
        let tails: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        for tail in tails {
            tail.shed();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Followed, Weak<Tail>, RandomState>> {
        lock(&self.followed)
    }
}

/// Every change under the locks here is whole, also where its thread panics afterwards.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        let own = taken.by_address.get(&self.address).copied().unwrap_or_default();
        // An address without followers costs no memory.
        match own {
            0 | 1 => drop(taken.by_address.remove(&self.address)),
            more => drop(taken.by_address.insert(self.address, more - 1)),
        }
        self.metrics.followers.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{Fake, settings};

    fn address(last: u8) -> Address {
        Address::of([192, 0, 2, last].into())
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let (followers, metrics) = (Followers::new(2, 2), Arc::new(Metrics::new()));
        let first = followers.place(address(1), &metrics).unwrap();
        let _second = followers.place(address(2), &metrics).unwrap();
        let refused = followers.place(address(1), &metrics).unwrap_err().to_string();
        assert_eq!(refused, "overloaded: the log has 2 followers already (limits.followers)");
        assert_eq!(metrics.followers.get(), 2);
        drop(first);
        assert_eq!(metrics.followers.get(), 1);
        followers.place(address(1), &metrics).unwrap();
    }

    #[test]
    fn one_address_leaves_places_for_others() {
        let (followers, metrics) = (Followers::new(4, 3), Arc::new(Metrics::new()));
        let place = |last| followers.place(address(last), &metrics);
        let mut greedy: Vec<_> = (0..3).map(|_| place(1).unwrap()).collect();
        let refused = place(1).unwrap_err();
        assert_eq!(refused.code(), Code::TooManyRequests);
        assert!(refused.to_string().contains("this address has 3 followers"), "{refused}");
        drop(place(2).unwrap());
        greedy.pop();
        place(1).unwrap();
        drop(greedy);
        assert!(lock(&followers.taken).by_address.is_empty(), "addresses leave nothing behind");
        assert_eq!((lock(&followers.taken).all, metrics.followers.get()), (0, 0));
    }

    #[test]
    fn followers_of_a_topic_share_its_tail_and_leave_nothing_behind() {
        let (followers, reads) = (Followers::new(2, 2), Reads::new(Arc::new(Fake::default()), &settings()));
        let answers = Arc::new(Answers::new(&settings(), Arc::new(Metrics::new())));
        let tail = |name: &str, history: &str| {
            let followed = (Topic::parse(name).unwrap(), HistoryId::parse(history).unwrap());
            followers.tail(followed, (&reads, &answers))
        };
        let (one, same, other, restored) = (tail("a", "1"), tail("a", "1"), tail("b", "1"), tail("a", "2"));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        assert!(!Arc::ptr_eq(&one, &restored), "the same seqs may be other events");
        drop((one, same, restored));
        assert_eq!(followers.tails.lock().len(), 1);
        drop(other);
        assert!(followers.tails.lock().is_empty());
    }
}
