//! Answers that are cut off: at every byte, whichever way the end of an answer is told.

use std::sync::Arc;

use futures_util::future::join_all;

use super::raw::{Framing, RawServer, ok};
use super::*;
use crate::api::EventResult;

const FRAMINGS: [Framing; 3] = [Framing::Length, Framing::Chunked, Framing::Close];

const RESULTS: &str = r#"{"received":2,"accepted":1,"duplicates":1,"conflicts":0,"rejected":0,"results":[{"status":"accepted","seq":7},{"status":"duplicate","seq":3,"conflict":false}]}"#;

const TOPICS: &str = r#"{"topics":[{"topic":"größe","lanes":1,"accepted":1,"duplicates":0,"conflicts":0,"first_seq":1,"last_seq":1,"last_received_at":"2026-01-01T00:00:00Z"}],"next_after":null}"#;

/// A server whose first answer to each of its addresses `/AT` ends after so many bytes.
fn cutting(framing: Framing, body: &'static str) -> (RawServer, usize) {
    let whole = Arc::new(ok(framing, body));
    let length = whole.len();
    let server = RawServer::start(move |before, request| {
        let at = request.line.split('/').nth(1).unwrap().parse::<usize>().unwrap();
        whole[..if before == 0 { at } else { whole.len() }].to_vec()
    });
    (server, length)
}

/// Does the same at every cut, at once, and checks that each was asked for twice.
async fn at_every_cut<T>(
    framing: Framing,
    body: &'static str,
    act: impl AsyncFn(Patient) -> Result<T, ClientError>,
) -> Vec<T> {
    let (server, length) = cutting(framing, body);
    let acts = (0..length).map(|at| act(patient(&Client::new(&format!("{}/{at}", server.url)).unwrap())));
    let done = join_all(acts).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(server.requests(), 2 * length, "{framing:?}: each answer but the first is whole");
    done
}

#[actix_web::test]
async fn a_publish_is_sent_again_wherever_its_answer_is_cut() {
    for framing in FRAMINGS {
        let publish = async |patient: Patient| {
            let Patient { client, retry, .. } = patient;
            retry.run(|| client.publish(lines(0..2), 2), |_, _| {}).await
        };
        for answer in at_every_cut(framing, RESULTS, publish).await {
            let duplicate = EventResult::Duplicate { seq: 3, conflict: false };
            assert_eq!(answer.results.unwrap(), [EventResult::Accepted { seq: 7 }, duplicate]);
        }
    }
}

#[actix_web::test]
async fn topics_are_read_again_wherever_the_answer_is_cut() {
    for framing in FRAMINGS {
        let topics = async |patient: Patient| patient.topics().await;
        for found in at_every_cut(framing, TOPICS, topics).await {
            assert_eq!(found.iter().map(|topic| &*topic.topic).collect::<Vec<_>>(), ["größe"]);
        }
    }
}

const TOPIC: &str = r#"{"topic":"orders","lanes":1,"accepted":5,"duplicates":0,"conflicts":0,"first_seq":1,"last_seq":5,"last_received_at":"2026-01-01T00:00:00Z"}"#;

fn event_lines(seqs: impl Iterator<Item = u64>) -> String {
    seqs.map(|seq| format!("{{\"seq\":{seq},\"payload\":\"ééééé\"}}\n")).collect::<Vec<_>>().concat()
}

/// Five events; the first read of them ends after so many bytes.
fn five_events(framing: Framing, at: usize, descending: bool) -> RawServer {
    RawServer::start(move |earlier, request| {
        if !request.line.contains("/events?") {
            return ok(Framing::Length, TOPIC);
        }
        let value = |name: &str| {
            let (_, rest) = request.line.split_once(&format!("{name}="))?;
            rest.split('&').next()?.parse::<u64>().ok()
        };
        let (after, before) = (value("after").unwrap_or(0), value("before").unwrap());
        let within = (1..=5).filter(|seq| *seq > after && *seq < before);
        let mut seqs: Vec<u64> = within.collect();
        if descending {
            seqs.reverse();
        }
        seqs.truncate(usize::try_from(value("limit").unwrap_or(9)).unwrap());
        let mut answer = ok(framing, &event_lines(seqs.iter().copied()));
        if earlier == 0 && after == 0 && before == 6 {
            answer.truncate(at);
        }
        answer
    })
}

#[actix_web::test]
async fn a_read_of_events_is_resumed_behind_the_last_whole_line() {
    for framing in FRAMINGS {
        let length = ok(framing, &event_lines(1..6)).len();
        for (descending, limit) in [(false, None), (true, None), (false, Some(4))] {
            let reads = (0..length).map(|at| async move {
                let server = five_events(framing, at, descending);
                let order = if descending { Order::Desc } else { Order::Asc };
                let range = Range { limit, order, ..Range::default() };
                let mut reading = patient(&Client::new(&server.url).unwrap()).events("orders", range);
                let mut seqs = Vec::new();
                while let Some(line) = reading.next().await.unwrap() {
                    assert!(line.ends_with("ééééé\"}".as_bytes()), "{line:?}");
                    seqs.push(reading.last_seq().unwrap());
                }
                let mut expected: Vec<u64> = (1..=limit.unwrap_or(5)).collect();
                if descending {
                    expected.reverse();
                }
                assert_eq!(seqs, expected, "{framing:?} cut at {at}");
            });
            join_all(reads).await;
        }
    }
}

#[actix_web::test]
async fn a_read_that_is_resumed_in_another_history_ends_with_both_histories() {
    // invariant 11: the end of the read is a seq of the first history.
    let topic = TOPIC.replacen("\"topic\"", "\"history\":\"k3f9\",\"topic\"", 1);
    let server = RawServer::start(move |_, request| {
        if !request.line.contains("/events?") {
            return ok(Framing::Length, &topic);
        }
        let is_resumed = request.line.contains("after=2") && request.line.contains("history=k3f9");
        let (seqs, history) = if is_resumed { (3..6, "k3zz") } else { (1..3, "k3f9") };
        let answer = String::from_utf8(ok(Framing::Close, &event_lines(seqs))).unwrap();
        answer.replacen("\r\n", &format!("\r\nSekali-History: {history}\r\n"), 1).into_bytes()
    });
    let mut reading = patient(&Client::new(&server.url).unwrap()).events("orders", Range::default());
    for _ in 0..2 {
        reading.next().await.unwrap().unwrap();
    }
    let error = reading.next().await.unwrap_err();
    let ClientError::HistoryChanged { first, now, .. } = &error else { panic!("{error}") };
    assert_eq!((first.as_str(), now.as_str(), reading.last_seq()), ("k3f9", "k3zz", Some(2)));
}

#[actix_web::test]
async fn patience_begins_again_with_each_line_that_comes_and_ends_without() {
    let server = RawServer::start(|_, request| {
        if request.line.contains("/events?") { Vec::new() } else { ok(Framing::Length, TOPIC) }
    });
    let client = Client::new(&server.url).unwrap();
    let short = Patient { retry: Retry::of(Duration::from_secs(3)), ..patient(&client) };
    let error = short.events("orders", Range::default()).next().await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
    assert!(server.requests() >= 3, "{}", server.requests());
}

#[actix_web::test]
async fn the_status_of_a_cut_refusal_decides() {
    let document = r#"{"type":"urn:sekali:problem:topic_not_found","title":"No such topic","status":404,"code":"topic_not_found","detail":"x","errors":[]}"#;
    let whole = raw::status(404, "Content-Type: application/problem+json\r\n", document);
    let head = whole.len() - document.len();
    let shared = whole.clone();
    let server = RawServer::start(move |_, request| {
        let at = request.line.split('/').nth(1).unwrap().parse::<usize>().unwrap();
        shared[..at].to_vec()
    });
    let asked = (head..=whole.len()).map(|at| {
        let client = Client::new(&format!("{}/{at}", server.url)).unwrap();
        async move { (at, patient(&client).topic("t").await.unwrap_err()) }
    });
    for (at, error) in join_all(asked).await {
        let refused = error.refused().unwrap();
        assert_eq!((refused.status, refused.problem.is_some()), (404, at == whole.len()), "{at}");
    }
    assert_eq!(server.requests(), whole.len() - head + 1, "none is asked for again");
}
