//! The real program under load, ended by signals: nothing that was acknowledged is lost or doubled.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use futures_util::future::{join, join_all};
use tempfile::tempdir;

use crate::support::{Client, Ended, Locked, Process, array, event, event_with, everything, seqs, until};

/// Clients that publish at the same time.
const CLIENTS: usize = 8;

/// Events that are acknowledged before the signal comes.
const ENOUGH: usize = 400;

/// Each event that was reported stored, with its seq.
type Acknowledged = RefCell<BTreeMap<String, u64>>;

/// Publishes batches until the log goes away, some events twice, and notes what was acknowledged.
async fn publish_until_it_ends(client: Client, number: usize, acknowledged: &Acknowledged) {
    for round in 0.. {
        let fresh: Vec<_> = (0..5).map(|place| format!("{number}-{round}-{place}")).collect();
        let events = fresh.iter().chain(&fresh[..1]).map(|id| event("t", id));
        let request = client.post("/publish").content_type("application/json");
        let Ok(answer) = client.try_send(request, array(events)).await else { return };
        if answer.status != 200 {
            assert_eq!(answer.status, 503, "{}", answer.text());
            return;
        }
        let results = answer.json()["results"].clone();
        for (id, place) in fresh.into_iter().zip(0..) {
            acknowledged.borrow_mut().insert(id, results[place]["seq"].as_u64().unwrap());
        }
    }
}

/// Puts load on the process, sends it the signal in the middle, and gives what was acknowledged.
async fn signal_under_load(process: Process, signal: &str) -> (BTreeMap<String, u64>, Ended) {
    let acknowledged = Acknowledged::default();
    let load = (0..CLIENTS)
        .map(|number| publish_until_it_ends(Client::of(process.address()), number, &acknowledged));
    let signalling = async {
        until("enough is acknowledged", async || acknowledged.borrow().len() >= ENOUGH).await;
        process.signal(signal);
    };
    join(join_all(load), signalling).await;
    (acknowledged.take(), process.ended().await)
}

/// Everything acknowledged is stored once at its seq, counters agree, and sending it again gives duplicates.
async fn check_store(log: &Client, acknowledged: &BTreeMap<String, u64>) {
    let events = everything(log, "t").await;
    assert_eq!(seqs(&events), (1..=events.len() as u64).collect::<Vec<_>>());
    let stored: BTreeMap<_, _> = events
        .iter()
        .map(|event| (event["event_id"].as_str().unwrap().to_owned(), event["seq"].as_u64().unwrap()))
        .collect();
    assert_eq!(stored.len(), events.len(), "no event is there twice");
    for (id, seq) in acknowledged {
        assert_eq!(stored.get(id), Some(seq), "event {id} was acknowledged");
    }
    let [received, unique, duplicates, ..] = log.totals("persistent").await;
    assert_eq!((unique, received), (events.len() as u64, unique + duplicates));
    assert_eq!(log.read("/topics/t").await["accepted"], unique);
    let again = log.publish(array(acknowledged.keys().map(|id| event("t", id)))).await;
    let count = acknowledged.len() as u64;
    assert_eq!(again.counts(), [count, 0, count, 0, 0]);
}

fn wal_bytes(directory: &Path) -> u64 {
    fs::metadata(directory.join("log.db-wal")).map_or(0, |wal| wal.len())
}

#[actix_web::test]
async fn a_termination_under_load_loses_nothing_and_leaves_nothing_to_recover() {
    // invariant 1: what was acknowledged is durable.
    // invariant 9: after a clean stop nothing needs recovery.
    let home = tempdir().unwrap();
    let (acknowledged, ended) = signal_under_load(Process::serve(home.path()), "TERM").await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(wal_bytes(home.path()), 0);
    let again = Process::serve(home.path());
    check_store(&again, &acknowledged).await;
    again.signal("TERM");
    let ended = again.ended().await;
    assert_eq!(ended.code, Some(0));
    assert!(!ended.stderr.contains("recovering"), "{}", ended.stderr);
}

#[actix_web::test]
async fn a_kill_under_load_loses_nothing_that_was_acknowledged() {
    // invariant 1: an event is acknowledged only when it is durable.
    // invariant 4: an event, its key and its counters change together.
    // invariant 9: after a kill, start-up repairs by itself and says what it did.
    let home = tempdir().unwrap();
    let (acknowledged, ended) = signal_under_load(Process::serve(home.path()), "KILL").await;
    assert_eq!(ended.code, None, "a signal ended it");
    assert!(wal_bytes(home.path()) > 0, "the test is of recovery");
    let again = Process::serve(home.path());
    check_store(&again, &acknowledged).await;
    again.signal("TERM");
    let ended = again.ended().await;
    assert!(ended.stderr.contains("recovering"), "it says what it did: {}", ended.stderr);
}

#[actix_web::test]
async fn kills_again_and_again_lose_nothing() {
    let home = tempdir().unwrap();
    let mut sum = BTreeMap::new();
    for round in 0..3 {
        let process = Process::serve(home.path());
        let topic_of_round = |id: &str| format!("{round}-{id}");
        for id in 0..30 {
            let id = topic_of_round(&id.to_string());
            let answer = process.publish(event("t", &id)).await.ok().json();
            sum.insert(id, answer["results"][0]["seq"].as_u64().unwrap());
        }
        process.signal("KILL");
        process.ended().await;
    }
    check_store(&Process::serve(home.path()), &sum).await;
}

#[actix_web::test]
async fn a_conflict_is_known_also_after_a_kill() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(event_with("t", "1", "{\"n\":1}")).await.ok();
    process.signal("KILL");
    process.ended().await;
    let again = Process::serve(home.path());
    assert_eq!(again.publish(event_with("t", "1", "{\"n\":2}")).await.fates(), ["conflict 1"]);
    assert_eq!(again.publish(event_with("t", "1", "{\"n\":1.0}")).await.fates(), ["duplicate 1"]);
}

#[actix_web::test]
async fn an_interrupt_stops_it_as_cleanly_as_a_termination() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(event("t", "1")).await.ok();
    process.signal("INT");
    let ended = process.ended().await;
    assert_eq!((ended.code, wal_bytes(home.path())), (Some(0), 0), "{}", ended.stderr);
}

#[actix_web::test]
async fn a_stop_of_a_store_that_takes_nothing_says_which_counts_are_lost() {
    let home = tempdir().unwrap();
    let config = "[store]\nlock_timeout = \"100ms\"";
    let process = Process::configured(home.path(), config);
    process.publish(event("t", "1")).await.ok();
    let locked = Locked::take(&home.path().join("log.db"));
    assert_eq!(process.publish(array(["1"; 3].map(|id| event("t", id)))).await.counts()[2], 3);
    process.publish_skipping(event("", "1")).await.ok();
    process.signal("TERM");
    let ended = process.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lost = "\"duplicates\":3,\"conflicts\":0,\"rejected\":1";
    assert!(ended.stderr.contains(lost), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("the last maintenance before the store is closed failed"),
        "{}",
        ended.stderr
    );
    drop(locked);
    let again = Process::configured(home.path(), config);
    assert_eq!(again.totals("persistent").await, [1, 1, 0, 0, 0]);
    again.publish(event("t", "1")).await.ok();
    again.signal("TERM");
    let ended = again.ended().await;
    assert!(!ended.stderr.contains("lost"), "{}", ended.stderr);
    assert_eq!(Process::serve(home.path()).totals("persistent").await, [2, 1, 1, 0, 0]);
}

#[actix_web::test]
async fn a_second_signal_stops_it_at_once() {
    let home = tempdir().unwrap();
    let process =
        Process::configured(home.path(), "[server]\nshutdown_timeout = \"1h\"\nbody_timeout = \"1h\"");
    let mut slow = crate::support::Raw::publishing(process.address(), "Content-Length: 10\r\n");
    slow.send("[");
    until("its body is being read", async || process.metric("sekali_in_flight_bytes").await > 0.5).await;
    process.signal("TERM");
    let gone = async || std::net::TcpStream::connect(process.address()).is_err();
    until("it does not listen any more", gone).await;
    process.signal("TERM");
    let ended = process.ended().await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
}
