//! Which answers are tried again, after which time, and which are final.

use futures_util::future::join_all;

use super::raw::{Framing, RawServer, ok, status};
use super::*;

const RESULTS: &str = r#"{"received":1,"accepted":1,"duplicates":0,"conflicts":0,"rejected":0,"results":[{"status":"accepted","seq":1}]}"#;

/// Publishes one event to a server whose answers are these, one after the other, the last of them for ever.
async fn publish(answers: Vec<Vec<u8>>, patience: Duration) -> (Result<u64, ClientError>, Vec<Duration>) {
    let server = RawServer::start(move |before, _| answers[before.min(answers.len() - 1)].clone());
    let client = Client::new(&server.url).unwrap();
    let mut waits = Vec::new();
    let sent = Retry::of(patience)
        .run(|| client.publish(lines(0..1), 1), |_, delay| waits.push(delay))
        .await
        .map(|answer| answer.accepted);
    (sent, waits)
}

fn good() -> Vec<u8> {
    ok(Framing::Length, RESULTS)
}

#[actix_web::test]
async fn statuses_that_may_pass_are_tried_again_and_others_are_final() {
    for code in [408, 425, 429, 502, 503, 504, 507] {
        let (sent, waits) = publish(vec![status(code, "", "<html>"), good()], Duration::from_mins(1)).await;
        assert_eq!((sent.unwrap(), waits.len()), (1, 1), "{code}");
    }
    for code in [300, 301, 302, 307, 308, 400, 401, 403, 404, 413, 422, 500, 501, 505] {
        let (sent, waits) = publish(vec![status(code, "", ""), good()], Duration::from_mins(1)).await;
        assert_eq!(sent.unwrap_err().refused().unwrap().status, code);
        assert_eq!(waits.len(), 0, "{code}");
    }
    for code in [201, 202, 203, 206] {
        let (sent, waits) = publish(vec![status(code, "", RESULTS), good()], Duration::from_mins(1)).await;
        let text = sent.unwrap_err().to_string();
        assert!(text.contains(&format!("HTTP status {code}, where 200 is expected")), "{text}");
        assert_eq!(waits.len(), 0, "{code}");
    }
    let none = b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
    let (sent, _) = publish(vec![none], Duration::from_mins(1)).await;
    assert!(sent.unwrap_err().to_string().contains("HTTP status 204, where 200 is expected"));
}

#[actix_web::test]
async fn the_server_says_how_long_to_wait_within_the_patience() {
    let soon = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:38 GMT\r\n";
    for (headers, seconds) in [("Retry-After: 1\r\n", 1), (soon, 1)] {
        let (sent, waits) = publish(vec![status(429, headers, ""), good()], Duration::from_mins(1)).await;
        assert_eq!((sent.unwrap(), waits), (1, vec![Duration::from_secs(seconds)]), "{headers}");
    }
    let patience = Duration::from_secs(3);
    let absurd = [
        "Retry-After: 99999999999\r\n",
        "Retry-After: 99999999999999999999999999999\r\n",
        "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n",
    ];
    let bounded = absurd.map(|headers| async move {
        let (sent, waits) = publish(vec![status(503, headers, ""), good()], patience).await;
        assert!(sent.is_ok() && waits.len() == 1 && waits[0] <= patience, "{headers} {waits:?}");
        let (refused, _) = publish(vec![status(503, headers, "")], patience).await;
        assert_eq!(refused.unwrap_err().refused().unwrap().status, 503);
    });
    join_all(bounded).await;
}

#[actix_web::test]
async fn interim_answers_are_skipped() {
    let continued = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n".to_vec();
    let processing = b"HTTP/1.1 102 Processing\r\n\r\n".to_vec();
    for before in [vec![continued.clone()], vec![hints.clone()], vec![processing, hints, continued]] {
        for framing in [Framing::Length, Framing::Chunked, Framing::Close] {
            let answer = [before.concat(), ok(framing, RESULTS)].concat();
            let (sent, waits) = publish(vec![answer], Duration::ZERO).await;
            assert_eq!((sent.unwrap(), waits.len()), (1, 0));
        }
    }
}

#[actix_web::test]
async fn an_answer_without_a_length_ends_with_its_connection() {
    for head in
        ["HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n"]
    {
        let (sent, _) = publish(vec![format!("{head}{RESULTS}").into_bytes()], Duration::ZERO).await;
        assert_eq!(sent.unwrap(), 1, "{head}");
    }
}

#[actix_web::test]
async fn a_redirect_is_told_and_not_followed() {
    let headers = "Location: http://127.0.0.1:1/\u{1b}[31m\r\n".replace('\u{1b}', "\u{c3}");
    let (sent, _) = publish(vec![status(307, &headers, "")], Duration::from_mins(1)).await;
    let text = sent.unwrap_err().to_string();
    assert!(text.contains("HTTP status 307, a redirect to http://127.0.0.1:1/"), "{text}");
    assert!(text.ends_with("name the server's own address with --url"), "{text}");
}

#[actix_web::test]
async fn what_speaks_no_http_is_another_server() {
    let (sent, waits) =
        publish(vec![b"-ERR unknown command 'POST'\r\n".to_vec()], Duration::from_mins(1)).await;
    let text = sent.unwrap_err().to_string();
    assert!(text.starts_with("the server at http://127.0.0.1:") && waits.is_empty(), "{text}");
    assert!(text.contains(" is not a sekali log (unexpected answer: "), "{text}");
}

#[actix_web::test]
async fn a_connection_that_was_closed_meanwhile_is_not_seen() {
    // The server closes each connection after its answer without saying so before.
    let server = RawServer::start(|_, _| good());
    let client = Client::new(&server.url).unwrap();
    for _ in 0..50 {
        let sent = Retry::of(Duration::from_mins(1)).run(|| client.publish(lines(0..1), 1), |_, _| {}).await;
        assert_eq!(sent.unwrap().accepted, 1);
    }
}
