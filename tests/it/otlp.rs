//! Spans of requests, sent to a collector over HTTP: a small one that keeps what it is given.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use tempfile::tempdir;

use crate::support::{Process, event_with, free_port};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A collector: where it listens, and the bodies that it was sent, with their paths.
fn collector() -> (SocketAddr, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, sent) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            thread::spawn(move || {
                let stream = stream.unwrap();
                while take(&stream).is_some_and(|taken| sender.send(taken).is_ok()) {}
            });
        }
    });
    (address, sent)
}

/// Takes one request off a connection and says that it was well; nothing where the connection ends.
fn take(mut stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok().filter(|bytes| *bytes > 0)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    Some((first.split(' ').nth(1).unwrap().to_owned(), body))
}

fn holds(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    (0..hexadecimal.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap())
        .collect()
}

async fn publish(process: &Process, id: &str, traceparent: &str) {
    let request = process.post("/publish").content_type("application/json");
    let request =
        request.insert_header(("traceparent", traceparent)).insert_header(("authorization", "SECRET"));
    process.send(request, event_with("t", id, "{\"card\":\"SECRET\"}")).await.ok();
}

#[actix_web::test]
async fn a_request_is_a_span_of_the_callers_trace() {
    let (home, (address, sent)) = (tempdir().unwrap(), collector());
    let process = Process::exporting(home.path(), &format!("http://{address}"));
    publish(&process, "1", &format!("00-{TRACE}-{SPAN}-01")).await;
    let unrecorded = "f".repeat(32);
    publish(&process, "2", &format!("00-{unrecorded}-{SPAN}-00")).await;
    process.get("/nothing").await;
    process.signal("TERM");
    assert_eq!(process.ended().await.code, Some(0));

    let (paths, bodies): (Vec<_>, Vec<_>) = sent.try_iter().unzip();
    assert!(!paths.is_empty() && paths.iter().all(|path| path == "/v1/traces"), "{paths:?}");
    let body = bodies.concat();
    for part in
        [&bytes(TRACE)[..], &bytes(SPAN), b"POST /publish", b"sekali.accepted", b"GET none", b"not_found"]
    {
        assert!(holds(&body, part), "{}", String::from_utf8_lossy(part));
    }
    assert!(!holds(&body, &bytes(&unrecorded)), "the caller does not record that trace");
    assert!(!holds(&body, b"SECRET"));
}

#[actix_web::test]
async fn a_collector_that_is_not_there_holds_nothing_up() {
    let home = tempdir().unwrap();
    let process = Process::exporting(home.path(), &format!("http://127.0.0.1:{}", free_port()));
    publish(&process, "1", &format!("00-{TRACE}-{SPAN}-01")).await;
    process.signal("TERM");
    let ended = process.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("opentelemetry"), "it says so: {}", ended.stderr);
}
