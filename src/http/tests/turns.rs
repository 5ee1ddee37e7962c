//! Requests that wait for a reader: addresses take turns, and no request reads without one.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;

use super::*;
use crate::domain::Address;
use crate::http::reads::Turn;

type Asked = Pin<Box<dyn Future<Output = Answer>>>;

fn with_events() -> Arc<State> {
    let mut patient = settings();
    patient.server.request_timeout = Duration::from_hours(1);
    patient.limits.lookup_keys = 250;
    patient.limits.batch_events = 250;
    state(Fake { events: 2_500, ..Fake::default() }, &patient)
}

/// A request from an address.
fn from(last: u8, request: TestRequest) -> TestRequest {
    request.peer_addr(SocketAddr::from(([192, 0, 2, last], 4711)))
}

fn read(uri: &str) -> TestRequest {
    TestRequest::get().uri(uri)
}

fn look_up() -> TestRequest {
    TestRequest::post().uri("/events/lookup").set_payload(r#"[{"topic":"t","event_id":"a/2"}]"#)
}

/// Every turn that is free.
fn busy(state: &State) -> Vec<Turn> {
    let turn = || state.reads.turn_of_stream(Address::UNKNOWN).now_or_never();
    std::iter::from_fn(turn).collect()
}

/// A request that waits for its turn.
fn waits(state: &Arc<State>, request: TestRequest) -> Asked {
    let mut asked: Asked = Box::pin(send(Arc::clone(state), request));
    assert!((&mut asked).now_or_never().is_none(), "it was answered without a turn");
    asked
}

#[actix_web::test]
async fn every_read_waits_for_its_turn_and_gives_it_back() {
    let state = with_events();
    let all = busy(&state).len();
    assert!(all > 0);
    for request in [
        || read("/events?topic=t&limit=3"),
        || read("/events?topic=t"),
        || read("/events?topic=unknown"),
        || read("/events?topic=t").insert_header(("accept", "text/event-stream")),
        || read("/events/t/a%2F3"),
        || read("/event?topic=t&event_id=a/3"),
        || read("/events/t/unknown"),
        look_up,
        || read("/topics"),
        || read("/topics/t"),
        || read("/topic?topic=t"),
        || read("/stats"),
        || read("/metrics"),
    ] {
        let turns = busy(&state);
        let asked = waits(&state, request());
        drop(turns);
        asked.await;
        assert_eq!(busy(&state).len(), all, "every turn is free again");
        // A client that goes while its request waits.
        let turns = busy(&state);
        drop(waits(&state, request()));
        drop(turns);
        assert_eq!(busy(&state).len(), all, "every turn is free again");
    }
}

#[actix_web::test]
async fn a_read_without_a_turn_is_told_so_after_a_while() {
    let mut hasty = settings();
    hasty.server.request_timeout = Duration::from_millis(1);
    let state = state(Fake { events: 5, ..Fake::default() }, &hasty);
    let turns = busy(&state);
    for request in
        [read("/events?topic=t"), read("/events/t/a%2F3"), look_up(), read("/topics"), read("/stats")]
    {
        let refused = send(Arc::clone(&state), request).await;
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(refused.problem(), (503, "store_unavailable".to_owned()));
    }
    drop(turns);
    assert_eq!(get(&state, "/events?topic=t").await.status, 200);
}

#[actix_web::test]
async fn a_read_waits_for_one_read_of_another_address_and_not_for_all_of_them() {
    let state = with_events();
    let mut turns = busy(&state);
    let flood = [
        || read("/events?topic=t&limit=1000"),
        look_up,
        || read("/topics"),
        || read("/events?topic=t&order=desc&limit=1000"),
    ];
    let mut waiting: Vec<_> =
        flood.iter().cycle().take(40).map(|ask| (1, waits(&state, from(1, ask())))).collect();
    for request in [read("/events/t/a%2F3"), read("/events?topic=t&limit=2"), look_up()] {
        waiting.push((2, waits(&state, from(2, request))));
    }
    // One turn for all of them.
    drop(turns.pop());
    let mut order = Vec::new();
    while order.len() < 6 {
        let is_answered = |(_, asked): &mut (u8, Asked)| asked.now_or_never();
        let (at, answer) = waiting
            .iter_mut()
            .enumerate()
            .find_map(|(at, one)| Some((at, is_answered(one)?)))
            .expect("one request has the turn");
        assert_eq!(answer.status, 200);
        order.push(waiting.remove(at).0);
    }
    assert_eq!(order, [1, 2, 1, 2, 1, 2]);
}

#[actix_web::test]
async fn a_read_in_several_parts_gives_way_after_each_of_them() {
    let state = with_events();
    let keys: Vec<_> = (0..250).map(|id| format!(r#"{{"topic":"t","event_id":"a/{id}"}}"#)).collect();
    let long_look_up = TestRequest::post().uri("/events/lookup").set_payload(format!("[{}]", keys.join(",")));
    for long in [long_look_up, read("/events?topic=t")] {
        let mut turns = busy(&state);
        let mut long = waits(&state, from(1, long));
        let short = waits(&state, from(2, read("/events/t/a%2F3")));
        drop(turns.pop());
        assert!((&mut long).now_or_never().is_none(), "it has had one turn and waits for the next");
        let short = short.now_or_never().expect("the second turn");
        assert_eq!((short.status, long.await.status), (200, 200));
    }
}
