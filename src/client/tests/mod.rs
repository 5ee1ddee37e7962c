//! The client against a small log in memory, through real sockets.

mod answers;
mod cuts;
pub(crate) mod raw;

use std::cell::Cell;
use std::time::Duration;

use super::testing::{Failure, FakeLog};
use super::*;

fn line(topic: &str, id: u32) -> String {
    format!(
        r#"{{"topic":"{topic}","event_id":"{id}","timestamp":"2026-01-01T00:00:00Z","source":"s","payload":{{ "n": 1.50}}}}"#
    ) + "\n"
}

fn lines(ids: std::ops::Range<u32>) -> Bytes {
    ids.map(|id| line("orders", id)).collect::<String>().into()
}

fn started() -> (FakeLog, Client) {
    let log = FakeLog::start();
    let client = Client::new(&log.url).unwrap();
    (log, client)
}

fn patient(client: &Client) -> Patient {
    Patient { client: client.clone(), retry: Retry::of(Duration::from_mins(1)), failed: |_, _| {} }
}

async fn read(client: &Client, range: Range) -> Vec<String> {
    let mut answer = patient(client).events("orders", range);
    let mut found = Vec::new();
    while let Some(text) = answer.next().await.unwrap() {
        found.push(String::from_utf8(text.to_vec()).unwrap());
    }
    found
}

#[actix_web::test]
async fn what_is_published_is_read_back() {
    let (_log, client) = started();
    client.ready(Duration::from_secs(5)).await.unwrap();
    let answer = client.publish(lines(0..5), 5).await.unwrap();
    assert_eq!(answer.results.unwrap()[4], crate::api::EventResult::Accepted { seq: 5 });
    let all = read(&client, Range::default()).await;
    assert_eq!(all.len(), 5);
    assert!(all[0].contains(r#""payload":{ "n": 1.50}"#), "{}", all[0]);
    let some = read(&client, Range { after: Some(3), limit: Some(1), ..Range::default() }).await;
    assert!(some.len() == 1 && some[0].starts_with(r#"{"seq":4,"#), "{some:?}");
    let key = |id: &str| Key { topic: "orders".to_owned(), event_id: id.to_owned() };
    let found = client.lookup(&[key("1"), key("9")]).await.unwrap();
    assert_eq!(
        found.iter().map(|place| place.as_ref().map(|known| known.seq)).collect::<Vec<_>>(),
        [Some(2), None]
    );
    assert_eq!(client.topic("orders").await.unwrap().accepted, 5);
    assert_eq!(client.stats().await.unwrap().persistent.total_unique_events_processed, 5);
}

#[actix_web::test]
async fn topics_come_from_all_pages_and_their_names_may_hold_anything() {
    let (_log, client) = started();
    for topic in [".", "..", "a", "d/e ?%☃", "f"] {
        client.publish(line(topic, 1).into(), 1).await.unwrap();
    }
    let topics = patient(&client).topics().await.unwrap();
    assert_eq!(
        topics.iter().map(|topic| topic.topic.as_str()).collect::<Vec<_>>(),
        [".", "..", "a", "d/e ?%☃", "f"]
    );
    for topic in [".", "..", "d/e ?%☃"] {
        assert_eq!(client.topic(topic).await.unwrap().topic, topic);
    }
}

#[actix_web::test]
async fn a_refusal_carries_its_problem_and_is_not_tried_again() {
    let (log, client) = started();
    log.state.lock().unwrap().batch_events = 1;
    let retry = Retry::of(Duration::from_mins(1));
    let error = retry.run(|| client.publish(lines(0..2), 2), |_, _| panic!("final")).await.unwrap_err();
    assert_eq!(error.refused().unwrap().problem.as_ref().unwrap().code, "batch_too_large");
    assert_eq!(error.refused().unwrap().status, 413);
    let missing = client.topic("none").await.unwrap_err();
    assert!(missing.to_string().starts_with("No such topic (404 topic_not_found): "), "{missing}");
}

#[actix_web::test]
async fn a_503_is_tried_again_until_it_passes() {
    let (log, client) = started();
    log.state.lock().unwrap().failures = [Failure::Refused, Failure::AnswerLost].into();
    let failed = Cell::new(0);
    let retry = Retry::of(Duration::from_mins(1));
    let answer =
        retry.run(|| client.publish(lines(0..1), 1), |_, _| failed.set(failed.get() + 1)).await.unwrap();
    assert_eq!(failed.get(), 2);
    assert_eq!(answer.results.unwrap(), [crate::api::EventResult::Duplicate { seq: 1, conflict: false }]);
}

#[actix_web::test]
async fn patience_ends() {
    let (log, client) = started();
    log.state.lock().unwrap().failures = [Failure::Refused; 100].into();
    let retry = Retry::of(Duration::from_millis(500));
    let error = retry.run(|| client.publish(lines(0..1), 1), |_, _| {}).await.unwrap_err();
    assert_eq!(error.refused().unwrap().status, 503);
    let requests = log.state.lock().unwrap().requests;
    assert!((2..=5).contains(&requests), "{requests}");
}

#[actix_web::test]
async fn an_unreachable_server_and_another_server_are_told_apart() {
    let client = Client::new("http://127.0.0.1:1").unwrap();
    let error = client.stats().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }) && error.is_transient(), "{error}");
    assert!(error.to_string().starts_with("cannot reach http://127.0.0.1:1: "), "{error}");
    let (log, other) = started();
    log.state.lock().unwrap().failures = [Failure::Nonsense].into();
    let nonsense = other.publish(lines(0..1), 1).await.unwrap_err();
    assert!(matches!(nonsense, ClientError::Unreadable { .. }) && !nonsense.is_transient(), "{nonsense}");
}
