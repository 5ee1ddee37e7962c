//! What the writer says to those who follow: every topic that has new events, once they can be read.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::timeout;

use super::scripted::Fault;
use super::{Started, accepted, event, settings, start};
use crate::domain::Topic;
use crate::store::{Engine, Listener, PageQuery};

fn listen(log: &Started, topic: &str) -> Listener {
    log.store.news().listen(Topic::parse(topic).unwrap())
}

/// Waits for news beyond this seq.
async fn told(listener: &mut Listener, seq: u64) {
    timeout(Duration::from_mins(2), listener.beyond(seq)).await.expect("news in time");
}

/// Whether there is news beyond this seq.
fn is_told(listener: &mut Listener, seq: u64) -> bool {
    listener.beyond(seq).now_or_never().is_some()
}

async fn readable(log: &Started, topic: &str) -> usize {
    let topic = Topic::parse(topic).unwrap();
    let query =
        PageQuery { topic, first: 1, last: u64::MAX, limit: 9, order: crate::store::Order::Ascending };
    log.store.reader().page(query).await.unwrap().events.len()
}

#[actix::test]
async fn who_follows_is_told_how_far_each_topic_goes() {
    let log = start(&settings());
    let (mut a, mut b) = (listen(&log, "a"), listen(&log, "b"));
    let events = [("a", "1"), ("b", "1"), ("a", "2"), ("a", "1")].map(|(topic, id)| event(topic, id, "{}"));
    log.publish(events.to_vec()).await.unwrap();
    told(&mut a, 1).await;
    told(&mut b, 0).await;
    assert!(!is_told(&mut a, 2) && !is_told(&mut b, 1));
    log.publish(vec![event("a", "2", "{}")]).await.unwrap();
    assert_eq!(log.publish_one("b", "2").await, Ok(accepted(2)));
    told(&mut b, 1).await;
    assert!(!is_told(&mut a, 2), "a repeat is no news");
    log.pipeline.stop().await;
}

#[actix::test]
async fn nothing_is_said_before_it_can_be_read() {
    // invariant 1: what a follower is told of is durable.
    let log = start(&settings());
    let mut listener = listen(&log, "a");
    log.store.close_gate();
    let publishing = log.publish_one("a", "1");
    let watching = async {
        log.until(|log| log.store.groups().len() == 1).await;
        assert!(!is_told(&mut listener, 0) && readable(&log, "a").await == 0);
        log.store.open_gate();
        told(&mut listener, 0).await;
        assert_eq!(readable(&log, "a").await, 1);
    };
    assert_eq!(tokio::join!(publishing, watching).0, Ok(accepted(1)));
    log.pipeline.stop().await;
}

#[actix::test]
async fn a_commit_of_unknown_outcome_is_news_as_soon_as_the_store_is_open_again() {
    // invariant 5: what is not known is looked for, not guessed.
    let log = start(&settings());
    let mut listener = listen(&log, "a");
    log.store.fail_next(&[Fault::Failed]);
    assert!(log.publish_one("a", "1").await.is_err());
    assert!(!is_told(&mut listener, 0), "what is known not to be stored is no news");
    log.store.fail_next(&[Fault::UnknownStored]);
    assert!(log.publish_one("a", "1").await.is_err());
    told(&mut listener, 0).await;
    assert_eq!((log.store.opened(), readable(&log, "a").await), (2, 1));
    log.pipeline.stop().await;
}
