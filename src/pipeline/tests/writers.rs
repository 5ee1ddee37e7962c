//! Several writers of one store.

use std::collections::HashMap;
use std::time::Instant;

use actix::clock::timeout;

use super::on_file::PATIENCE;
use super::scripted::{Fault, ScriptedStore};
use super::{PublishError, Started, accepted, event, settings, start_on};
use crate::domain::Event;
use crate::store::Engine;

const TOPICS: usize = 64;

/// An event of each topic.
fn events(event_id: &str) -> Vec<Event> {
    (0..TOPICS).map(|number| event(&format!("topic {number}"), event_id, "{}")).collect()
}

#[actix::test]
async fn groups_of_several_writers_are_committed_at_once_and_a_topic_has_one_writer() {
    let log = start_on(&settings(), ScriptedStore::new().with_writers(2));
    log.store.close_gate();
    let both = async {
        log.until(|log| log.store.groups().len() == 2).await;
        let groups = log.store.groups();
        assert!(groups.iter().sum::<usize>() == TOPICS && !groups.contains(&0), "{groups:?}");
        log.store.open_gate();
    };
    let (first, ()) = tokio::join!(log.publish(events("1")), both);
    assert_eq!(first, Ok(vec![accepted(1); TOPICS]), "both waited at the gate at the same time");
    for round in 2..10 {
        assert_eq!(log.publish(events(&round.to_string())).await, Ok(vec![accepted(round); TOPICS]));
    }
    let mut writers = HashMap::new();
    for (topic, thread) in log.store.appended() {
        assert_eq!(*writers.entry(topic).or_insert(thread), thread);
    }
    log.pipeline.stop().await;
    assert_eq!(log.store.opened(), 2);
}

/// The topics of the store.
async fn topics(log: &Started) -> u64 {
    log.store.reader().totals().await.unwrap().topics
}

#[actix::test]
async fn writers_that_commit_at_once_make_no_more_new_topics_than_the_limit() {
    let mut settings = settings();
    let limit = u32::try_from(TOPICS).unwrap() - 1;
    settings.limits.new_topics_per_minute = Some(limit);
    let log = start_on(&settings, ScriptedStore::new().with_writers(2));
    // Nothing is charged before a commit has ended, so that the time which passes gives nothing
    // back.
    for (commits, faults) in [(2, &[Fault::Failed; 2][..]), (4, &[])] {
        log.store.fail_next(faults);
        log.store.close_gate();
        let both = async {
            let both_wait = log.until(|log| log.store.groups().len() == commits);
            let waited = timeout(PATIENCE, both_wait).await;
            log.store.open_gate();
            waited.expect("each writer may commit a part");
        };
        let (refused, ()) = tokio::join!(log.publish(events("1")), both);
        match refused {
            Err(PublishError::TooManyTopics { seconds: 1 }) => {}
            Err(PublishError::Unavailable(_)) if !faults.is_empty() => {}
            other => panic!("{other:?}"),
        }
        let made = if faults.is_empty() { u64::from(limit) } else { 0 };
        assert_eq!(topics(&log).await, made, "a commit that failed costs nothing");
    }
    log.pipeline.stop().await;
}

#[actix::test]
async fn topics_of_a_commit_whose_outcome_is_unknown_count_as_made() {
    let limit = u32::try_from(TOPICS).unwrap() - 1;
    for fault in [Fault::UnknownStored, Fault::PanicStored] {
        let mut settings = settings();
        settings.limits.new_topics_per_minute = Some(limit);
        let log = start_on(&settings, ScriptedStore::new().with_writers(2));
        log.store.fail_next(&[fault; 2]);
        let begun = Instant::now();
        assert!(log.publish(events("1")).await.is_err());
        // Each writer takes its time before it opens the store again.
        let others = || (0..TOPICS).map(|number| event(&format!("other {number}"), "1", "{}")).collect();
        while let Err(PublishError::Unavailable(_)) = log.publish(others()).await {}
        let made = topics(&log).await;
        // What was made counts less as time goes by.
        let most = u64::from(limit) + begun.elapsed().as_secs() * u64::from(limit) / 60 + 1;
        assert!((u64::from(limit)..=most).contains(&made), "{made} of {most} after {fault:?}");
        log.pipeline.stop().await;
    }
}
