//! Many clients at once: one verdict for each key, seqs without gaps, readers that miss nothing.

use std::cell::Cell;
use std::collections::BTreeMap;

use futures_util::future::{join, join_all};
use serde_json::json;

use crate::support::{Log, array, event, event_with, everything, ids, seqs, until};

const CLIENTS: usize = 64;

#[actix_web::test]
async fn of_64_clients_with_the_same_event_exactly_one_has_it_accepted() {
    // invariant 2: whoever is told of a duplicate is told the seq of an event that is durable by then.
    // invariant 3: concurrent requests store one event for a key.
    for config in ["", "[cache]\nkeys = 0", "[router]\nlanes = 4"] {
        let log = Log::configured(config);
        let clients: Vec<_> = (0..CLIENTS).map(|_| log.another_client()).collect();
        let answers = join_all(clients.iter().map(|client| client.publish(event("t", "1")))).await;
        let mut fates: Vec<_> = answers.iter().flat_map(crate::support::Answer::fates).collect();
        fates.sort();
        let mut expected = vec!["duplicate 1"; CLIENTS];
        expected[0] = "accepted 1";
        assert_eq!(fates, expected, "with {config:?}");
        assert_eq!(log.totals("persistent").await, [64, 1, 63, 0, 0]);
        assert_eq!(seqs(&everything(&log, "t").await), [1]);
    }
}

#[actix_web::test]
async fn of_many_conflicting_events_one_stays_and_the_others_are_counted() {
    let log = Log::start();
    let send = async |number: usize| {
        let payload = format!("{{\"n\":{number}}}");
        let fates = log.another_client().publish(event_with("t", "1", &payload)).await.fates();
        (number, fates[0].clone())
    };
    let fates = join_all((0..CLIENTS).map(send)).await;
    let winners: Vec<_> = fates.iter().filter(|(_, fate)| fate == "accepted 1").collect();
    assert_eq!(winners.len(), 1);
    assert!(fates.iter().all(|(_, fate)| fate == "accepted 1" || fate == "conflict 1"), "{fates:?}");
    assert_eq!(log.read("/events/t/1").await["payload"], json!({"n": winners[0].0}));
    assert_eq!(log.totals("runtime").await, [64, 1, 63, 63, 0]);
}

#[actix_web::test]
async fn overlapping_batches_of_many_clients_store_every_event_once() {
    let log = Log::configured("[router]\nlanes = 3");
    let send = async |client: usize| {
        let first = client * 20;
        let mut counts = [0; 5];
        for topic in ["a", "b"] {
            let answer = log.another_client().publish(array(ids(topic, first..first + 100))).await;
            counts.iter_mut().zip(answer.counts()).for_each(|(sum, count)| *sum += count);
        }
        counts
    };
    let answers = join_all((0..16).map(send)).await;
    let sum = |at: usize| answers.iter().map(|counts| counts[at]).sum::<u64>();
    assert_eq!([sum(0), sum(1), sum(2), sum(3)], [3_200, 800, 2_400, 0]);
    for topic in ["a", "b"] {
        let events = everything(&log, topic).await;
        assert_eq!(seqs(&events), (1..=400).collect::<Vec<_>>());
        let mut stored: Vec<_> = events.iter().map(|event| event["event_id"].as_str().unwrap()).collect();
        stored.sort_unstable();
        stored.dedup();
        assert_eq!(stored.len(), 400);
    }
}

#[actix_web::test]
async fn a_reader_that_follows_while_events_come_sees_each_once_and_in_order() {
    // invariant 6: a reader that saw seq n never finds a smaller one appear later, and there are no gaps.
    const EVENTS: u64 = 600;
    let log = Log::start();
    let writers = join_all((0..6).map(async |writer: usize| {
        let client = log.another_client();
        for round in 0..20 {
            let first = writer * 100 + round * 5;
            client.publish(array(ids("t", first..first + 5))).await.ok();
        }
    }));
    let seen = Cell::new(0);
    let follow = until("the reader has seen every event", async || {
        let page = log.read(&format!("/events?topic=t&after={}&limit=7", seen.get())).await;
        for seq in seqs(page["events"].as_array().unwrap()) {
            assert_eq!(seq, seen.get() + 1, "no gap, no repeat");
            seen.set(seq);
        }
        assert_eq!(page["next_after"], seen.get());
        seen.get() == EVENTS
    });
    join(writers, follow).await;
    assert_eq!(everything(&log, "t").await.len() as u64, EVENTS);
}

#[actix_web::test]
async fn an_event_can_be_read_as_soon_as_it_is_acknowledged() {
    // invariant 1: what is acknowledged is stored.
    let log = Log::start();
    let publish_and_read = async |client: usize| {
        let client_of_its_own = log.another_client();
        for number in 0..10 {
            let id = format!("{client}-{number}");
            client_of_its_own.publish(event("t", &id)).await.ok();
            assert_eq!(log.read(&format!("/events/t/{id}")).await["event_id"], id);
        }
    };
    join_all((0..8).map(publish_and_read)).await;
}

#[actix_web::test]
async fn every_seq_in_an_answer_is_that_of_the_event_in_the_store() {
    let log = Log::configured("[router]\nlanes = 4");
    let send = async |client: usize| {
        let body = array(ids("t", client * 10..client * 10 + 40));
        let answer = log.another_client().publish(body).await.ok().json();
        let of = |at: usize| answer["results"][at]["seq"].as_u64().unwrap();
        (0..40).map(|at| ((client * 10 + at).to_string(), of(at))).collect::<Vec<_>>()
    };
    let told = join_all((0..12).map(send)).await;
    let stored: BTreeMap<_, _> = everything(&log, "t")
        .await
        .iter()
        .map(|event| (event["event_id"].as_str().unwrap().to_owned(), event["seq"].as_u64().unwrap()))
        .collect();
    for (id, seq) in told.into_iter().flatten() {
        assert_eq!(stored[&id], seq, "event {id}");
    }
}
