//! What is new: whoever follows a topic is woken when it may have more events, and is told how far it goes, nothing
//! else. The events themselves are read from the store.
//!
//! So this is all that an engine has to say when another process writes: "topic, up to seq". It may say it late, twice
//! or of several commits at once, as long as nobody who listens misses the last word.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use tokio::sync::watch;

use crate::domain::Topic;

/// Who listens to which topic. Bounded by those who listen: a topic that nobody follows takes no memory.
#[derive(Debug, Default)]
pub struct News {
    listeners: AtomicUsize,
    topics: Mutex<HashMap<Topic, watch::Sender<Heard>, RandomState>>,
}

/// What was said of a topic.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    /// Events up to this seq can be read.
    last: u64,
    /// How often it was said that there may be more than that.
    looks: u64,
}

impl News {
    /// Whether anybody listens. Where nobody does, this is all that a commit asks.
    ///
    /// Asked after the commit can be read: who begins to listen after that reads it without being told.
    #[must_use]
    pub fn anybody_listens(&self) -> bool {
        self.listeners.load(Ordering::SeqCst) > 0
    }

    /// Says that these topics can be read up to these seqs.
    pub fn announce<'a>(&self, fresh: impl IntoIterator<Item = (&'a Topic, u64)>) {
        let topics = self.lock();
        for (topic, last) in fresh {
            if let Some(sender) = topics.get(topic) {
                sender.send_if_modified(|heard| {
                    let more = last > heard.last;
                    heard.last = heard.last.max(last);
                    more
                });
            }
        }
    }

    /// The topics that somebody listens to.
    pub(super) fn listened(&self) -> Vec<Topic> {
        self.lock().keys().cloned().collect()
    }

    /// Says that every topic may have more events, since nobody knows: after a commit whose outcome was unknown, or
    /// after news from elsewhere may have been lost. Earlier news are forgotten: the topic may be shorter now, where
    /// another server took over, and everyone who listens reads it anyway.
    pub fn look_again(&self) {
        for sender in self.lock().values() {
            sender.send_modify(|heard| *heard = Heard { last: 0, looks: heard.looks + 1 });
        }
    }

    /// Listens to a topic, which need not exist yet. Whoever listens reads first and waits after that, so that nothing
    /// falls between the two.
    #[must_use]
    pub fn listen(self: &Arc<Self>, topic: Topic) -> Listener {
        self.listeners.fetch_add(1, Ordering::SeqCst);
        let heard = self.lock().entry(topic.clone()).or_default().subscribe();
        let looks = heard.borrow().looks;
        Listener { news: Arc::clone(self), topic, heard, looks }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, watch::Sender<Heard>, RandomState>> {
        // Every change under the lock is whole, also where its thread panics afterwards.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Someone who listens to one topic.
#[derive(Debug)]
pub struct Listener {
    news: Arc<News>,
    topic: Topic,
    heard: watch::Receiver<Heard>,
    /// What was seen of [`Heard::looks`].
    looks: u64,
}

impl Listener {
    /// Waits until there may be an event with a greater seq than this one. Costs nothing while it waits; dropped
    /// before it is ready, it has taken no news away.
    pub async fn beyond(&mut self, seq: u64) {
        loop {
            let Heard { last, looks } = *self.heard.borrow_and_update();
            if looks != self.looks || last > seq {
                self.looks = looks;
                return;
            }
            if self.heard.changed().await.is_err() {
                // Never: the sender is kept for as long as someone listens.
                debug_assert!(false, "a topic with a listener has a sender");
                return std::future::pending().await;
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut topics = self.news.lock();
        if topics.get(&self.topic).is_some_and(|sender| sender.receiver_count() == 1) {
            topics.remove(&self.topic);
        }
        self.news.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::timeout;

    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::parse(name).unwrap()
    }

    /// Whether the wait is over at once.
    fn is_told(listener: &mut Listener, seq: u64) -> bool {
        listener.beyond(seq).now_or_never().is_some()
    }

    #[test]
    fn a_listener_is_told_of_its_topic_and_only_of_what_it_has_not_read() {
        let news = Arc::new(News::default());
        let mut listener = news.listen(topic("a"));
        news.announce([(&topic("b"), 9)]);
        assert!(!is_told(&mut listener, 0), "another topic");
        news.announce([(&topic("a"), 3), (&topic("b"), 10)]);
        assert!(is_told(&mut listener, 2), "one more");
        assert!(is_told(&mut listener, 2), "until it was read");
        assert!(!is_told(&mut listener, 3), "nothing more");
        news.announce([(&topic("a"), 2)]);
        assert!(!is_told(&mut listener, 3), "an old word is no news");
    }

    #[test]
    fn who_begins_to_listen_late_hears_what_was_said_last() {
        let news = Arc::new(News::default());
        let _first = news.listen(topic("a"));
        news.announce([(&topic("a"), 3)]);
        let mut second = news.listen(topic("a"));
        assert!(is_told(&mut second, 2) && !is_told(&mut second, 3));
    }

    #[test]
    fn where_nobody_knows_everybody_looks_once() {
        let news = Arc::new(News::default());
        let mut listeners = [news.listen(topic("a")), news.listen(topic("b"))];
        news.look_again();
        for listener in &mut listeners {
            assert!(is_told(listener, u64::MAX) && !is_told(listener, u64::MAX));
        }
    }

    #[test]
    fn a_topic_that_nobody_follows_is_forgotten() {
        let news = Arc::new(News::default());
        assert!(!news.anybody_listens());
        let listeners = [news.listen(topic("a")), news.listen(topic("a")), news.listen(topic("b"))];
        assert!(news.anybody_listens() && news.lock().len() == 2);
        drop(listeners);
        assert!(!news.anybody_listens() && news.lock().is_empty());
    }

    #[actix_web::test]
    async fn a_wait_that_was_given_up_takes_no_news_away() {
        let news = Arc::new(News::default());
        let mut listener = news.listen(topic("a"));
        assert!(timeout(Duration::from_millis(1), listener.beyond(0)).await.is_err());
        news.announce([(&topic("a"), 1)]);
        timeout(Duration::from_mins(1), listener.beyond(0)).await.unwrap();
    }
}
