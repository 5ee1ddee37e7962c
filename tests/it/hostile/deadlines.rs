//! Rows 2, 3 and 14: every state of a connection has a deadline. One test for each row of the table in
//! docs/OPERATIONS.md, "Connections". In each, all other deadlines are so long that only the tested one
//! can end the connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use super::{OWN, connect};
use crate::support::{Calm, Log, Raw, array, calm, event, event_with, until};

/// A configuration in which no deadline of a connection passes but this one.
fn only(deadline: &str) -> String {
    let long = ["head_timeout", "body_timeout", "drain_timeout", "write_timeout", "keep_alive"];
    let others = long.iter().filter(|name| !deadline.starts_with(**name));
    let others: String = others.flat_map(|name| [*name, " = \"1h\"\n"]).collect();
    format!("[server]\n{others}{deadline}\n")
}

const HEAD: &str = "head_timeout = \"300ms\"";
const IDLE: &str = "keep_alive = \"300ms\"";
const DRAIN: &str = "drain_timeout = \"300ms\"";

const ALIVE: &str = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn start(config: &str) -> Calm<Log> {
    calm(|| Log::configured(config))
}

fn opened(log: &Log) -> TcpStream {
    connect(OWN, log.address()).unwrap()
}

/// Everything that comes until the log ends the connection, which it must.
fn rest(mut stream: TcpStream) -> String {
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the connection does not end");
    }
    String::from_utf8(rest).unwrap()
}

/// The answers in what came, by their status.
fn statuses(text: &str) -> Vec<&str> {
    text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}

/// Checks that the log counts connections that it ended for this reason, and only such.
async fn ended(log: &Log, reason: &str, count: usize) {
    let text = log.get("/metrics").await.ok().text().to_owned();
    let ended = text.lines().filter(|line| line.starts_with("sekali_connections_ended_total{"));
    let ended = ended.filter(|line| !line.ends_with(" 0"));
    let expected = format!("sekali_connections_ended_total{{reason=\"{reason}\"}} {count}");
    assert_eq!(ended.collect::<Vec<_>>(), [expected]);
}

#[actix_web::test]
async fn a_connection_that_says_nothing_ends() {
    let log = start(&only(HEAD));
    assert_eq!(rest(opened(&log)), "", "there is no request to answer");
    ended(&log, "head", 1).await;
}

#[actix_web::test]
async fn a_first_head_that_stalls_or_dribbles_is_408() {
    let log = start(&only(HEAD));
    for begun in ["\r\n", "G", "GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Half: "] {
        let mut stream = opened(&log);
        stream.write_all(begun.as_bytes()).unwrap();
        let text = rest(stream);
        assert_eq!(statuses(&text), ["408"], "{begun:?}: {text}");
        assert!(text.contains("\"code\":\"head_timeout\"") && text.contains("application/problem+json"));
    }
    let mut dribbling = opened(&log);
    dribbling.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ").unwrap();
    // The log ends it while it still sends: whatever its bytes, they do not move the deadline.
    while dribbling.write_all(b"x").is_ok() {
        thread::sleep(Duration::from_millis(20));
    }
    ended(&log, "head", 4).await;
    assert_eq!(refusals(&log, "head_timeout").await, 4);
}

/// The refusals with this code.
async fn refusals(log: &Log, code: &str) -> usize {
    let text = log.get("/metrics").await.ok().text().to_owned();
    let name = format!("sekali_refusals_total{{reason=\"{code}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

#[actix_web::test]
async fn a_later_head_has_the_same_deadline_from_its_first_byte() {
    let log = start(&only(HEAD));
    let begun = ["\r\n", "\r\n\r\n", "G", "GET /health/live HTTP/1.1\r\nHost: localhost\r\n"];
    for begun in begun {
        let mut raw = Raw::open(log.address());
        raw.send(ALIVE);
        assert_eq!(raw.answer().status, 200);
        raw.send(begun);
        let text = String::from_utf8(raw.rest()).unwrap();
        assert_eq!(statuses(&text), ["408"], "{begun:?}: {text}");
    }
    ended(&log, "head", begun.len()).await;
}

#[actix_web::test]
async fn a_part_of_a_head_between_pipelined_requests_has_the_deadline_of_a_head() {
    let body = event("t", "1");
    let publish =
        format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let chunked = format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    // What comes behind a chunked body is the rest of the body for all that the log knows.
    for (reason, deadline, firsts) in [
        ("head", HEAD, vec![ALIVE.to_owned(), publish.clone(), [ALIVE, ALIVE].concat(), publish + ALIVE]),
        ("unread_body", DRAIN, vec![chunked]),
    ] {
        let log = start(&only(deadline));
        let begun = ["\r\n", "G", "GET / HTTP/1.1\r\nHost"];
        for (first, begun) in firsts.iter().flat_map(|first| begun.map(|begun| (first, begun))) {
            let mut stream = opened(&log);
            stream.write_all(format!("{first}{begun}").as_bytes()).unwrap();
            let text = rest(stream);
            assert!(text.starts_with("HTTP/1.1 200"), "{first}{begun}: {text}");
        }
        ended(&log, reason, firsts.len() * begun.len()).await;
    }
}

#[actix_web::test]
async fn an_idle_connection_ends_without_an_answer() {
    let log = start(&only(IDLE));
    for body in ["", "Content-Length: 2\r\n\r\n[]", "Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n"]
    {
        let mut stream = opened(&log);
        let request = match body {
            "" => ALIVE.to_owned(),
            body => format!("POST /publish HTTP/1.1\r\nHost: localhost\r\n{body}"),
        };
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(statuses(&rest(stream)), ["200"], "{body:?}");
    }
    until("all are counted", async || log.metric("sekali_connections").await < 1.5).await;
}

/// Requests that are answered before their body is whole, which then never comes: their headers and
/// the beginning of the body.
const REFUSED: [(&str, &str); 8] = [
    ("404", "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n"),
    ("404", "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n["),
    ("405", "DELETE /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n"),
    (
        "415",
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n",
    ),
    ("413", "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n["),
    ("421", "POST /publish HTTP/1.1\r\nHost: evil.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n"),
    ("408", "POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n"),
    ("200", "GET /health/live HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n"),
];

#[actix_web::test]
async fn the_rest_of_a_body_that_was_answered_is_drained_for_a_bounded_time_whatever_its_framing() {
    let hosts = "allowed_hosts = [\"x\"]\nbody_timeout = \"300ms\"";
    let log = start(&format!("{}{hosts}\n", only(DRAIN).replace("body_timeout = \"1h\"\n", "")));
    for (status, request) in REFUSED {
        let mut stream = opened(&log);
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(statuses(&rest(stream)), [status], "{request}");
    }
    ended(&log, "unread_body", REFUSED.len()).await;
}

#[actix_web::test]
async fn the_rest_of_a_body_that_was_answered_is_drained_for_bounded_bytes() {
    let limits = "[limits]\nbody = \"8KiB\"\nevent = \"1KiB\"\ndrain_bytes = \"1MiB\"";
    let log = start(&format!("{}{limits}", only("")));
    for framing in ["Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
        let mut stream = opened(&log);
        stream
            .write_all(format!("POST /publish HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n").as_bytes())
            .unwrap();
        let mut chunk = b"100000\r\n".to_vec();
        chunk.resize(chunk.len() + (1 << 20), b' ');
        chunk.extend_from_slice(b"\r\n");
        let sent = (0..1_000).take_while(|_| stream.write_all(&chunk).is_ok()).count();
        assert!(sent < 1_000, "{framing}: the log reads on without a bound");
    }
    ended(&log, "unread_body", 2).await;
}

#[actix_web::test]
async fn a_sender_that_reads_after_its_whole_body_sees_its_413() {
    let log = start("");
    let body = vec![b' '; 17 << 20];
    for framing in [format!("Content-Length: {}", body.len()), "Transfer-Encoding: chunked".to_owned()] {
        let mut stream = opened(&log);
        stream
            .write_all(format!("POST /publish HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n").as_bytes())
            .unwrap();
        if framing.starts_with("Content") {
            stream.write_all(&body).unwrap();
        } else {
            stream.write_all(format!("{:x}\r\n", body.len()).as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
            stream.write_all(b"\r\n0\r\n\r\n").unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        let text = rest(stream);
        assert_eq!(statuses(&text), ["413"], "{framing}");
        assert!(text.contains("\"code\":\"body_too_large\""), "{text}");
    }
}

#[actix_web::test]
async fn an_answer_that_nobody_reads_ends_its_connection() {
    let log = start(&only("write_timeout = \"300ms\""));
    let payload = format!("{{\"text\":\"{}\"}}", "x".repeat(100_000));
    for batch in 0..20 {
        let events = (0..10).map(|number| event_with("t", &format!("{batch}-{number}"), &payload));
        log.publish(array(events)).await.ok();
    }
    let mut stream = opened(&log);
    stream
        .write_all(b"GET /events?topic=t HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n")
        .unwrap();
    until("the connection ends", async || log.get("/metrics").await.text().contains("\"unread_answer\"} 1"))
        .await;
    assert!(rest(stream).len() < 20_000_000, "a part of the answer is missing");
    ended(&log, "unread_answer", 1).await;
}

#[cfg(target_os = "linux")]
#[actix_web::test]
async fn accepted_sockets_have_tcp_keepalive() {
    /// The code of the keepalive timer in `/proc/net/tcp`.
    const KEEPALIVE: &str = "02";
    let log = start("");
    let stream = opened(&log);
    let port = |address: std::net::SocketAddr| format!(":{:04X}", address.port());
    let (server, client) = (port(log.address()), port(stream.local_addr().unwrap()));
    until("the accepted socket has a timer of keepalive", async || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let sockets = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut own = sockets.filter(|socket| socket[1].ends_with(&server) && socket[2].ends_with(&client));
        own.any(|socket| socket[5].starts_with(KEEPALIVE))
    })
    .await;
}
