//! Following, over a store that fails: through a real socket, which a follower needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix_web::rt;
use actix_web::rt::task::yield_now;
use futures_util::FutureExt;

use super::fake::{PARENT, SHARED};
use super::{Fake, settings, state};
use crate::domain::Address;
use crate::http::reads::Turn;
use crate::http::{State, bind};

/// The longest wait for something that is so at once where nothing is wrong.
const PATIENCE: Duration = Duration::from_mins(1);

/// Everything that comes on a connection until it is closed.
async fn follow(address: SocketAddr, last_event: &str) -> String {
    rest(begin_to_follow(address, last_event).await).await
}

/// A connection on which a follower was asked for.
async fn begin_to_follow(address: SocketAddr, last_event: &str) -> BufReader<TcpStream> {
    begin_to_follow_at(address, "", last_event).await
}

/// The same with more parameters.
async fn begin_to_follow_at(address: SocketAddr, query: &str, last_event: &str) -> BufReader<TcpStream> {
    let head =
        format!("GET /events?topic=t{query} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n");
    let asked = format!("{head}{last_event}\r\n");
    let asking = rt::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(asked.as_bytes()).unwrap();
        BufReader::new(stream)
    });
    asking.await.unwrap()
}

async fn rest(mut stream: BufReader<TcpStream>) -> String {
    let reading = rt::task::spawn_blocking(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    reading.await.unwrap()
}

/// Reads up to the first line that begins like this, and gives the line.
async fn until(mut stream: BufReader<TcpStream>, beginning: &'static str) -> (BufReader<TcpStream>, String) {
    let reading = rt::task::spawn_blocking(move || {
        let mut line = String::new();
        while !line.starts_with(beginning) {
            line.clear();
            assert!(stream.read_line(&mut line).unwrap() > 0, "it ends before {beginning}");
        }
        (stream, line)
    });
    reading.await.unwrap()
}

fn served(fake: Fake) -> SocketAddr {
    served_of(&state(fake, &settings()))
}

fn served_of(state: &Arc<State>) -> SocketAddr {
    let bound = bind(state).unwrap();
    rt::spawn(bound.server);
    bound.addresses[0]
}

/// Both turns of the one reader, as soon as no request has them.
async fn all_turns(state: &State) -> [Turn; 2] {
    [state.reads.turn_of_stream(Address::UNKNOWN).await, state.reads.turn_of_stream(Address::UNKNOWN).await]
}

/// Waits until something is so.
async fn until_so(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it never is so");
        yield_now().await;
    }
}

#[actix_web::test]
async fn a_read_that_fails_ends_a_follower_with_the_reason_and_is_a_problem_when_it_comes_again() {
    let address = served(Fake { events: 900, missing: Some(700), ..Fake::default() });
    let text = follow(address, "").await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("\nid: 500@fake0\n"), "{text}");
    let words = "event: end\ndata: {\"code\":\"store_damaged\",\"detail\":";
    assert!(text.contains(words) && text.contains("\"last_seq\":500}\n\n"), "{text}");
    let again = follow(address, "Connection: close\r\nLast-Event-ID: 500@fake0\r\n").await;
    assert!(again.starts_with("HTTP/1.1 500") && again.contains("\"store_damaged\""), "{again}");
}

#[actix_web::test]
async fn a_store_that_cannot_be_read_is_a_problem_before_anything_is_sent() {
    let address = served(Fake { unavailable: true, ..Fake::default() });
    let text = follow(address, "Connection: close\r\n").await;
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("\"store_unavailable\""), "{text}");
}

#[actix_web::test]
async fn a_cursor_of_another_history_resumes_where_both_have_the_same_events_and_is_told_elsewhere() {
    // invariant 11: a follower never skips an event, also after a restore.
    let address = served(Fake { events: 7, ..Fake::default() });
    let shared = format!("Last-Event-ID: {SHARED}@{PARENT}\r\n");
    let beyond = format!("Connection: close\r\nLast-Event-ID: {}@{PARENT}\r\n", SHARED + 1);
    for unknown in ["Connection: close\r\nLast-Event-ID: 1@unknown\r\n", &beyond] {
        let text = follow(address, unknown).await;
        assert!(text.starts_with("HTTP/1.1 409") && text.contains("\"history_changed\""), "{text}");
        assert!(text.contains("\"history\":\"fake0\""), "{text}");
    }
    let text = follow(address, &beyond).await;
    assert!(text.contains(&format!("\"common_seq\":{SHARED}")), "{text}");
    let text = follow(address, "Connection: close\r\nLast-Event-ID: 8@fake0\r\n").await;
    assert!(text.starts_with("HTTP/1.1 409") && text.contains("\"common_seq\":7"), "{text}");
    let stream = begin_to_follow(address, &shared).await;
    let (stream, place) = until(stream, "id: ").await;
    assert_eq!(place, "id: 2@fake0\n", "the place in the current history");
    assert_eq!(until(stream, "id: ").await.1, "id: 3@fake0\n");
}

#[actix_web::test]
async fn a_follower_has_a_cursor_with_a_history_before_its_first_event() {
    // invariant 11: else one that got no event before a restore would skip events after it.
    let address = served(Fake { events: 7, ..Fake::default() });
    for (query, expected) in [("&after=7", "id: 7@fake0\n"), ("&after=8", "\n"), ("", "id: 0@fake0\n")] {
        let stream = begin_to_follow_at(address, query, "").await;
        let (mut stream, _) = until(stream, "retry: 1000").await;
        let mut next = String::new();
        stream.read_line(&mut next).unwrap();
        assert_eq!(next, expected, "{query}: a seq past the end names no event in any history");
    }
}

#[actix_web::test]
async fn a_follower_ends_when_the_store_is_restored_under_it() {
    let fake = Fake { events: 900, missing: None, ..Fake::default() };
    let (restores, news) = (Arc::clone(&fake.restores), Arc::clone(&fake.news));
    let address = served(fake);
    let (stream, _) = until(begin_to_follow(address, "").await, "id: 900@fake0").await;
    restores.store(1, Ordering::Relaxed);
    news.look_again();
    let text = rest(stream).await;
    let words = "event: end\ndata: {\"code\":\"history_changed\",\"detail\":";
    assert!(text.contains(words) && !text.contains("@fake1"), "{text}");
}

#[actix_web::test]
async fn a_follower_whose_client_goes_while_it_waits_for_its_turn_gives_its_place_back() {
    let fake = Fake { events: 7, ..Fake::default() };
    let news = Arc::clone(&fake.news);
    let state = state(fake, &settings());
    let (stream, _) = until(begin_to_follow(served_of(&state), "").await, "id: 7@fake0").await;
    let turns = all_turns(&state).await;
    news.look_again();
    until_so(|| state.reads.are_awaited()).await;
    assert_eq!(state.metrics.followers.get(), 1);
    drop(stream);
    until_so(|| state.metrics.followers.get() == 0).await;
    assert!(!state.reads.are_awaited(), "it waits no more");
    drop(turns);
}

#[actix_web::test]
async fn a_follower_has_its_first_page_within_the_time_of_a_request() {
    let state = state(Fake { events: 7, ..Fake::default() }, &settings());
    let address = served_of(&state);
    let [first, _second] = all_turns(&state).await;
    let stream = begin_to_follow(address, "Connection: close\r\n").await;
    until_so(|| state.reads.are_awaited()).await;
    // The turn goes to the request, and from it to this one, which keeps it.
    let mut next = Box::pin(state.reads.turn_of_stream(Address::UNKNOWN));
    assert!((&mut next).now_or_never().is_none());
    drop(first);
    stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    let text = rest(stream).await;
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("\"store_unavailable\""), "{text}");
    assert_eq!(state.metrics.followers.get(), 0);
}
