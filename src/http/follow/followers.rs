//! All followers: how many there may be, what those of one topic share, and when they have to end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use foldhash::fast::RandomState;
use tokio::sync::watch;

use super::tail::Tail;
use crate::api::Code;
use crate::domain::{HistoryId, Topic};
use crate::http::failure::Failure;
use crate::metrics::Metrics;
use crate::store::Reader;

/// The followers of this server.
pub(in crate::http) struct Followers {
    limit: usize,
    places: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    tails: Arc<Tails>,
}

/// What is followed: a topic in one history.
pub(super) type Followed = (Topic, HistoryId);

/// The tails of the topics that are followed now.
#[derive(Default)]
pub(super) struct Tails(Mutex<HashMap<Followed, Weak<Tail>, RandomState>>);

/// A place among the followers, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Followers {
    /// No followers yet, and never more than this.
    pub(in crate::http) fn new(limit: usize) -> Self {
        Self { limit, places: Arc::default(), stop: watch::Sender::new(false), tails: Arc::default() }
    }

    /// Ends all followers.
    pub(in crate::http) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Becomes true when all followers have to end.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Takes a place.
    ///
    /// # Errors
    /// When all are taken.
    pub(super) fn place(&self, metrics: &Arc<Metrics>) -> Result<Place, Failure> {
        let more = |taken| (taken < self.limit).then_some(taken + 1);
        if self.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            let detail = format!("the log has {} followers already (limits.followers)", self.limit);
            return Err(Failure::new(Code::Overloaded, detail));
        }
        metrics.followers.inc();
        Ok(Place { places: Arc::clone(&self.places), metrics: Arc::clone(metrics) })
    }

    /// What the followers of a topic share.
    pub(super) fn tail(&self, followed: Followed, reader: &Arc<dyn Reader>) -> Arc<Tail> {
        let mut tails = self.tails.lock();
        if let Some(tail) = tails.get(&followed).and_then(Weak::upgrade) {
            return tail;
        }
        let tail = Arc::new(Tail::new(followed.clone(), Arc::clone(reader), Arc::clone(&self.tails)));
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

    fn lock(&self) -> MutexGuard<'_, HashMap<Followed, Weak<Tail>, RandomState>> {
        // Every change under the lock is whole, also where its thread panics afterwards.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.fetch_sub(1, Ordering::Relaxed);
        self.metrics.followers.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::Fake;

    #[test]
    fn places_are_bounded_and_given_back() {
        let (followers, metrics) = (Followers::new(2), Arc::new(Metrics::new()));
        let first = followers.place(&metrics).unwrap();
        let _second = followers.place(&metrics).unwrap();
        let refused = followers.place(&metrics).unwrap_err().to_string();
        assert_eq!(refused, "overloaded: the log has 2 followers already (limits.followers)");
        assert_eq!(metrics.followers.get(), 2);
        drop(first);
        assert_eq!(metrics.followers.get(), 1);
        followers.place(&metrics).unwrap();
    }

    #[test]
    fn followers_of_a_topic_share_its_tail_and_leave_nothing_behind() {
        let (followers, reader) = (Followers::new(2), Arc::new(Fake::default()) as Arc<dyn Reader>);
        let tail = |name: &str, history: &str| {
            let followed = (Topic::parse(name).unwrap(), HistoryId::parse(history).unwrap());
            followers.tail(followed, &reader)
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
