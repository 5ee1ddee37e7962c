//! Several writers of one store.

use std::collections::HashMap;

use super::scripted::ScriptedStore;
use super::{accepted, event, settings, start_on};
use crate::domain::Event;

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
