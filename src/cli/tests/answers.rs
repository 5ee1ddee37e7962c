//! Commands before a server whose answers are slow, cut off or refused.

use super::*;
use crate::client::tests::raw::{RawServer, Seen, status};

fn at(url: &str, arguments: &[&str]) -> anyhow::Result<Outcome> {
    let all = ["sekali"].iter().chain(arguments).copied().chain(["--url", url]);
    run(Cli::try_parse_from(all)?.command.unwrap())
}

fn publish_to(url: &str, input: &str, arguments: &[&str]) -> anyhow::Result<Outcome> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    at(url, &[&["publish", file.path().to_str().unwrap()], arguments].concat())
}

/// Every command of a client, and the events that it needs.
#[test]
fn every_command_asks_again_where_an_answer_is_cut_off() {
    for percent in [0, 30, 99] {
        let log = FakeLog::start();
        // The first answer to each request, and each third one after it.
        let cut =
            move |before: usize, length: usize| before.is_multiple_of(3).then_some(length * percent / 100);
        let cutting = RawServer::cutting(&log.url, cut);
        assert_eq!(publish_to(&cutting.url, &events(30), &["--batch", "10"]).unwrap(), Outcome::Done);
        let mut sent = stored(&log);
        sent.sort_by_key(|id| id.parse::<u32>().unwrap());
        assert_eq!(sent, ids(30));
        for arguments in [
            &["stats"][..],
            &["topics"],
            &["events", "orders"],
            &["events", "orders", "--limit", "3", "--desc"],
            &["lookup", "orders", "0", "2"],
            &["health"],
            &["bench", "--events", "20", "--topics", "1", "--concurrency", "2"],
        ] {
            assert_eq!(at(&cutting.url, arguments).unwrap(), Outcome::Done, "{arguments:?} {percent}");
        }
    }
}

#[test]
fn a_read_gives_up_after_the_time_it_is_given() {
    let server = RawServer::start(|_, _| status(503, "Retry-After: 0\r\n", ""));
    let text = format!("{:#}", at(&server.url, &["stats", "--give-up-after", "3s"]).unwrap_err());
    assert!(text.ends_with("answers with HTTP status 503"), "{text}");
    assert!(server.requests() >= 2, "{}", server.requests());
    let lookup = at(&server.url, &["lookup", "t", "1", "--give-up-after", "0s"]).unwrap_err();
    assert!(lookup.is::<lookup::NotKnown>(), "{lookup:#}");
}

#[test]
fn a_server_that_is_not_there_at_first_is_waited_for_only_if_asked_to() {
    let text = format!("{:#}", at("http://127.0.0.1:1", &["stats"]).unwrap_err());
    assert!(text.starts_with("cannot reach "), "{text}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}");
    let log = FakeLog::start();
    let target = log.url.clone();
    // Whichever of the two is first: the command waits for the server.
    let command = std::thread::spawn(move || at(&url, &["stats", "--give-up-after", "2m"]));
    let server = std::thread::spawn(move || {
        let listener = std::net::TcpListener::bind(closed).unwrap();
        let (mut client, mut log) = (
            listener.accept().unwrap().0,
            std::net::TcpStream::connect(target.replace("http://", "")).unwrap(),
        );
        let mut request = [0; 4096];
        let count = std::io::Read::read(&mut client, &mut request).unwrap();
        log.write_all(&request[..count]).unwrap();
        let mut answer = vec![0; 4096];
        let length = std::io::Read::read(&mut log, &mut answer).unwrap();
        client.write_all(&answer[..length]).unwrap();
        std::thread::park();
    });
    assert_eq!(command.join().unwrap().unwrap(), Outcome::Done);
    drop(server);
}

#[test]
fn a_follower_connects_again_from_its_first_answer_on() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let event = |seq: u64| format!("id: {seq}\ndata: {{\"seq\":{seq}}}\n\n");
    let server = RawServer::start(move |before, request| match before {
        // Of each connection, the first one and the one that resumes: a head that is cut off, then no
        // time. The first one ends within an event.
        0 => head.as_bytes()[..20].to_vec(),
        1 => status(503, "Retry-After: 0\r\n", ""),
        _ if request.line.contains("after=0") => format!("{head}{}id: 2\nda", event(1)).into_bytes(),
        _ => format!("{head}{}{}", event(2), event(3)).into_bytes(),
    });
    assert_eq!(at(&server.url, &["events", "t", "--follow", "--limit", "3"]).unwrap(), Outcome::Done);
    assert_eq!(server.requests(), 6);
}

fn timeout_document() -> Vec<u8> {
    let document = serde_json::to_string(&crate::api::Problem::new(
        crate::api::Code::BodyTimeout,
        "the body took longer than 3 s",
        Vec::new(),
    ));
    status(408, "Content-Type: application/problem+json\r\n", &document.unwrap())
}

/// The lines of a request's body.
fn events_in(request: &Seen) -> usize {
    let text = String::from_utf8_lossy(&request.bytes);
    text.split_once("\r\n\r\n").map_or(0, |(_, body)| body.lines().count())
}

/// A log that answers like this where a request holds more events than it takes.
fn slow(log: &FakeLog, most: usize, answer: Vec<u8>) -> RawServer {
    let address = log.url.clone();
    let inner = RawServer::cutting(&address, |_, _| None);
    let url = inner.url;
    RawServer::start(move |_, request| {
        if events_in(request) > most {
            return answer.clone();
        }
        let mut stream = std::net::TcpStream::connect(url.replace("http://", "")).unwrap();
        stream.write_all(&request.bytes).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut bytes).unwrap();
        bytes
    })
}

#[test]
fn a_body_that_takes_too_long_goes_in_halves() {
    for answer in [timeout_document(), status(408, "", ""), Vec::new()] {
        let log = FakeLog::start();
        let server = slow(&log, 7, answer);
        assert_eq!(publish_to(&server.url, &events(150), &["--batch", "60"]).unwrap(), Outcome::Done);
        assert_eq!(stored(&log), ids(150));
        let sizes: Vec<_> = server.seen.lock().unwrap().iter().map(events_in).collect();
        let refused = sizes.iter().filter(|size| **size > 7).count();
        // 60, 30, 15 and 8 find out the size, a lost answer each of them twice at most; later batches begin small.
        assert!(refused <= 16, "{sizes:?}");
    }
}

#[test]
fn one_event_that_takes_too_long_is_tried_again_and_given_up_with_its_reason() {
    let log = FakeLog::start();
    let server = slow(&log, 0, timeout_document());
    let error = publish_to(&server.url, &events(2), &["--give-up-after", "3s"]).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("stopped at line 1: one event alone takes longer to arrive than"), "{text}");
    assert!(text.contains("408 body_timeout"), "{text}");
    let single = server.seen.lock().unwrap().iter().filter(|seen| events_in(seen) == 1).count();
    assert!(single >= 2, "{single}");
}
