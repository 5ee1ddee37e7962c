//! Following, over a store that fails: through a real socket, which a follower needs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use actix_web::rt;

use super::{Fake, settings, state};
use crate::http::bind;

/// Everything that comes on a connection until it is closed.
async fn follow(address: SocketAddr, last_event: &'static str) -> String {
    let reading = rt::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = "GET /events?topic=t HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n";
        write!(stream, "{head}{last_event}\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    reading.await.unwrap()
}

fn served(fake: Fake) -> SocketAddr {
    let bound = bind(state(fake, &settings())).unwrap();
    rt::spawn(bound.server);
    bound.addresses[0]
}

#[actix_web::test]
async fn a_read_that_fails_ends_a_follower_with_the_reason_and_is_a_problem_when_it_comes_again() {
    let address = served(Fake { events: 900, missing: Some(700), ..Fake::default() });
    let text = follow(address, "").await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("\nid: 500\n"), "{text}");
    let words = "event: end\ndata: {\"code\":\"store_damaged\",\"detail\":";
    assert!(text.contains(words) && text.contains("\"last_seq\":500}\n\n"), "{text}");
    let again = follow(address, "Connection: close\r\nLast-Event-ID: 500\r\n").await;
    assert!(again.starts_with("HTTP/1.1 500") && again.contains("\"store_damaged\""), "{again}");
}

#[actix_web::test]
async fn a_store_that_cannot_be_read_is_a_problem_before_anything_is_sent() {
    let address = served(Fake { unavailable: true, ..Fake::default() });
    let text = follow(address, "Connection: close\r\n").await;
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("\"store_unavailable\""), "{text}");
}
