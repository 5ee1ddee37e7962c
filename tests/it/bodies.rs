//! How bodies come: NDJSON in all its shapes, compressed, in pieces.

use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use async_compression::Level;
use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use sekali::api::Code;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::support::{Answer, Log, Raw, array, event, everything, ids, lines, seqs};

#[actix_web::test]
async fn all_three_content_types_of_ndjson_are_known() {
    let log = Log::start();
    let types = ["application/x-ndjson", "application/ndjson; charset=utf-8", "application/jsonl"];
    for (number, content_type) in types.into_iter().enumerate() {
        let body = lines([event("t", &number.to_string()), event("t", &format!("{number} b"))]);
        assert_eq!(log.publish_as(content_type, body).await.counts(), [2, 2, 0, 0, 0], "{content_type}");
    }
}

#[actix_web::test]
async fn ndjson_may_have_empty_lines_carriage_returns_and_no_end() {
    let log = Log::start();
    let (one, two, three) = (event("t", "1"), event("t", "2"), event("t", "3"));
    let body = format!("\n\r\n  \n{one}\r\n\n{two}\n\t{three} ");
    let answer = log.publish_as("application/x-ndjson", body).await;
    assert_eq!(answer.fates(), ["accepted 1", "accepted 2", "accepted 3"]);
}

#[actix_web::test]
async fn a_broken_line_is_one_invalid_event_counted_among_the_lines_that_are_not_empty() {
    let log = Log::start();
    let body = format!("{}\n\n{{\"topic\":\n\n{}\n", event("t", "1"), event("t", "2"));
    let refused = log.publish_as("application/x-ndjson", body.clone()).await;
    assert_eq!(refused.faults(Code::InvalidEvents), ["1 - not_json"]);
    let request = log.post("/publish?invalid=skip").content_type("application/x-ndjson");
    assert_eq!(log.send(request, body).await.fates(), ["accepted 1", "rejected - not_json", "accepted 2"]);
}

#[actix_web::test]
async fn an_array_on_a_line_is_no_event() {
    let log = Log::start();
    let body = format!("{}\n{}\n", event("t", "1"), array([event("t", "2")]));
    let answer = log.publish_as("application/x-ndjson", body).await;
    assert_eq!(answer.faults(Code::InvalidEvents), ["1 - not_an_object"]);
}

#[actix_web::test]
async fn bodies_may_be_compressed_in_four_ways() {
    let log = Log::start();
    for (number, encoding) in ["gzip", "deflate", "br", "zstd"].into_iter().enumerate() {
        let body = array(ids("t", number * 100..number * 100 + 100));
        let answer = publish_encoded(&log, encoding, compressed(encoding, body.as_bytes()).await).await;
        assert_eq!(answer.counts(), [100, 100, 0, 0, 0], "{encoding}");
        let body = lines(ids("t", number * 100..number * 100 + 100));
        let request = log
            .post("/publish")
            .content_type("application/x-ndjson")
            .insert_header(("content-encoding", encoding));
        let answer = log.send(request, compressed(encoding, body.as_bytes()).await).await;
        assert_eq!(answer.counts(), [100, 0, 100, 0, 0], "{encoding}");
    }
}

#[actix_web::test]
async fn a_body_of_several_gzip_members_is_read_to_its_end() {
    let log = Log::start();
    let mut body = compressed("gzip", lines(ids("t", 0..3)).as_bytes()).await;
    body.extend(compressed("gzip", lines(ids("t", 3..5)).as_bytes()).await);
    let request =
        log.post("/publish").content_type("application/x-ndjson").insert_header(("content-encoding", "gzip"));
    assert_eq!(log.send(request, body).await.counts(), [5, 5, 0, 0, 0]);
}

#[actix_web::test]
async fn a_compressed_body_that_is_broken_or_cut_is_a_bad_encoding() {
    let log = Log::start();
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        publish_encoded(&log, encoding, b"[not compressed at all]".to_vec()).await.problem(Code::BadEncoding);
        let mut cut = compressed(encoding, array(ids("t", 0..100)).as_bytes()).await;
        cut.truncate(cut.len() / 2);
        publish_encoded(&log, encoding, cut).await.problem(Code::BadEncoding);
    }
    assert!(everything(&log, "t").await.is_empty());
}

#[actix_web::test]
async fn a_bomb_is_refused_before_it_is_inflated() {
    let log = Log::start();
    // 24 MiB of spaces; the limit is 16 MiB, and 200 times the bytes that are sent.
    let mebibyte = vec![b' '; 1 << 20];
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let bomb = repeated(encoding, &mebibyte, 24).await;
        assert!(bomb.len() < 1 << 20, "{encoding}: {} bytes on the wire", bomb.len());
        let started = Instant::now();
        publish_encoded(&log, encoding, bomb).await.problem(Code::RatioTooLarge);
        // Only a hang takes longer. That little is inflated is seen by the limit that the answer
        // names.
        assert!(started.elapsed() < Duration::from_mins(1), "{encoding}: {:?}", started.elapsed());
    }
    // 17 MiB of digits, which no encoding makes 200 times smaller.
    let words = (0..17 << 17).flat_map(|number: u32| number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    let digits: Vec<u8> = words.flat_map(|byte| [b'a' + byte % 16, b'a' + byte / 16]).collect();
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let large = compressed(encoding, &digits).await;
        publish_encoded(&log, encoding, large).await.problem(Code::BodyTooLarge);
    }
    assert!(log.metric("sekali_in_flight_bytes").await.abs() < 0.5, "what was charged is given back");
}

#[actix_web::test]
async fn a_chunked_body_needs_no_length() {
    let log = Log::start();
    let mut raw = Raw::publishing(log.address(), "Transfer-Encoding: chunked\r\n");
    let body = array(ids("t", 0..20));
    for piece in body.as_bytes().chunks(100) {
        raw.send(format!("{:x}\r\n", piece.len()));
        raw.send(piece);
        raw.send("\r\n");
    }
    raw.send("0\r\n\r\n");
    let answer = raw.answer();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(seqs(&everything(&log, "t").await).len(), 20);
}

#[actix_web::test]
async fn a_chunked_body_that_breaks_its_own_framing_is_a_bad_encoding() {
    let log = Log::start();
    let mut raw = Raw::publishing(log.address(), "Transfer-Encoding: chunked\r\n");
    raw.send("5\r\n[\"abc\r\nzz\r\n");
    let answer = raw.answer();
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.body.contains("\"bad_encoding\""), "{}", answer.body);
}

#[actix_web::test]
async fn a_client_that_asks_before_it_sends_is_told_to_go_on() {
    let log = Log::start();
    let body = event("t", "1");
    let mut raw = Raw::publishing(
        log.address(),
        &format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len()),
    );
    assert_eq!(raw.answer().status, 100);
    raw.send(body);
    assert_eq!(raw.answer().status, 200);
}

#[actix_web::test]
async fn requests_of_one_connection_are_answered_in_their_order() {
    let log = Log::start();
    let mut raw = Raw::open(log.address());
    let requests = (1..=5).map(|number| {
        let body = event("t", &number.to_string());
        format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    });
    raw.send(requests.collect::<String>());
    for seq in 1..=5 {
        let answer = raw.answer();
        assert!(answer.body.contains(&format!("\"seq\":{seq}")), "{}", answer.body);
    }
}

async fn publish_encoded(log: &Log, encoding: &str, body: Vec<u8>) -> Answer {
    let request =
        log.post("/publish").content_type("application/json").insert_header(("content-encoding", encoding));
    log.send(request, Bytes::from(body)).await
}

/// A body as a client with this `Content-Encoding` sends it.
pub(crate) async fn compressed(encoding: &str, body: &[u8]) -> Vec<u8> {
    repeated(encoding, body, 1).await
}

/// A body that repeats this piece, compressed.
async fn repeated(encoding: &str, piece: &[u8], times: usize) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        "gzip" => write(GzipEncoder::new(&mut out), piece, times).await,
        "deflate" => write(ZlibEncoder::new(&mut out), piece, times).await,
        "br" => {
            write(BrotliEncoder::with_quality(&mut out, Level::Fastest), piece, times).await;
        }
        _ => write(ZstdEncoder::new(&mut out), piece, times).await,
    }
    out
}

async fn write(mut encoder: impl AsyncWrite + Unpin, piece: &[u8], times: usize) {
    for _ in 0..times {
        encoder.write_all(piece).await.unwrap();
    }
    encoder.shutdown().await.unwrap();
}
