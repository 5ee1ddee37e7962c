//! Bodies: compressed, too large, too slow, broken off, and more than may be in flight.

use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::error::PayloadError;
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse};
use async_compression::Level;
use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use async_compression::zstd::CParameter;
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::*;
use crate::http::body;

const TEXT: &[u8] = b"[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]";

async fn all(mut reader: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn encodings(text: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    [
        ("gzip", all(GzipEncoder::new(text)).await),
        ("deflate", all(ZlibEncoder::new(text)).await),
        ("br", all(BrotliEncoder::new(text)).await),
        ("zstd", all(ZstdEncoder::new(text)).await),
    ]
}

fn request(encoding: &str) -> HttpRequest {
    TestRequest::post().insert_header(("content-encoding", encoding)).to_http_request()
}

/// Reads a body that arrives in chunks of so many bytes.
async fn read(state: &State, encoding: &str, bytes: &[u8], chunk: usize) -> Result<Vec<u8>, (u16, String)> {
    let chunks: Vec<_> = bytes.chunks(chunk).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    read_chunks(state, encoding, stream::iter(chunks)).await
}

async fn read_chunks(
    state: &State,
    encoding: &str,
    chunks: impl stream::Stream<Item = Result<Bytes, PayloadError>> + 'static,
) -> Result<Vec<u8>, (u16, String)> {
    use actix_web::ResponseError;
    let payload = actix_web::dev::Payload::Stream { payload: chunks.boxed_local() };
    let request = request(encoding);
    let payload =
        <Payload as actix_web::FromRequest>::from_request(&request, &mut { payload }).await.unwrap();
    let mut permit = body::permit(state, &request);
    match body::read(state, &request, payload, &mut permit).await {
        Ok(bytes) => {
            let held = state.pipeline.budget().bytes_in_flight();
            assert_eq!(held, bytes.len(), "what a decoder took is given back");
            Ok(bytes)
        }
        Err(failure) => {
            let text = failure.to_string();
            Err((failure.status_code().as_u16(), text.split(':').next().unwrap_or_default().to_owned()))
        }
    }
}

fn plain() -> Arc<State> {
    state(Fake::default(), &settings())
}

#[actix_web::test]
async fn every_encoding_gives_back_the_text() {
    let state = plain();
    assert_eq!(read(&state, "identity", TEXT, 7).await.unwrap(), TEXT);
    for (encoding, bytes) in encodings(TEXT).await {
        for chunk in [1, 7, 1 << 20] {
            assert_eq!(read(&state, encoding, &bytes, chunk).await.unwrap(), TEXT, "{encoding} {chunk}");
        }
    }
    assert_eq!(state.pipeline.budget().bytes_in_flight(), 0, "what was charged is given back");
}

#[actix_web::test]
async fn several_members_are_one_body() {
    let twice = [TEXT, TEXT].concat();
    for (encoding, bytes) in encodings(TEXT).await {
        if matches!(encoding, "gzip" | "zstd") {
            let read = read(&plain(), encoding, &[bytes.clone(), bytes].concat(), 5).await;
            assert_eq!(read.unwrap(), twice, "{encoding}");
        }
    }
}

#[actix_web::test]
async fn broken_data_is_refused() {
    let bad = Err((400, "bad_encoding".to_owned()));
    for (encoding, bytes) in encodings(TEXT).await {
        let cut = &bytes[..bytes.len() - 3];
        assert_eq!(read(&plain(), encoding, cut, 9).await, bad, "{encoding} cut");
        assert_eq!(read(&plain(), encoding, b"plain text, not compressed", 9).await, bad, "{encoding} plain");
        let trailed = [bytes.as_slice(), b"\x01\x02\x03 and more"].concat();
        assert_eq!(read(&plain(), encoding, &trailed, 9).await, bad, "{encoding} trailed");
    }
}

#[actix_web::test]
async fn a_bomb_stops_at_the_limit() {
    let state = plain();
    let zeros = vec![0; 5_000_000];
    for (encoding, bytes) in encodings(&zeros).await {
        let refused = Err((413, "body_too_large".to_owned()));
        assert_eq!(read(&state, encoding, &bytes, 1 << 16).await, refused, "{encoding}");
    }
    assert_eq!(read(&state, "identity", &zeros[..100_000], 999).await.unwrap().len(), 100_000);
    assert_eq!(read(&state, "identity", &zeros[..100_001], 999).await.unwrap_err().0, 413);
}

#[actix_web::test]
async fn a_body_is_bounded_as_it_is_sent_and_as_it_becomes() {
    let mut dense = settings();
    dense.limits.body = 3 << 20;
    dense.limits.in_flight_bytes = 100 << 20;
    dense.limits.compression_ratio = 200;
    let state = state(Fake::default(), &dense);
    let refused = |code: &str| Err((413, code.to_owned()));
    for (encoding, bytes) in encodings(&vec![b' '; 1 << 20]).await {
        assert_eq!(read(&state, encoding, &bytes, 999).await.unwrap().len(), 1 << 20, "{encoding}");
    }
    for (encoding, bytes) in encodings(&vec![b' '; (1 << 20) + 1]).await {
        assert_eq!(read(&state, encoding, &bytes, 999).await, refused("ratio_too_large"), "{encoding}");
    }
    for encoding in ["identity", "gzip", "zstd"] {
        let sent = vec![b' '; (3 << 20) + 1];
        assert_eq!(read(&state, encoding, &sent, 1 << 16).await, refused("body_too_large"), "{encoding}");
    }
    assert_eq!(state.pipeline.budget().bytes_in_flight(), 0);
}

#[actix_web::test]
async fn empty_members_are_bounded() {
    for (encoding, bytes) in encodings(b"").await {
        let most = settings().limits.compressed_members;
        if matches!(encoding, "gzip" | "zstd") {
            assert_eq!(read(&plain(), encoding, &bytes.repeat(most), 9).await.unwrap(), b"", "{encoding}");
            let more = read(&plain(), encoding, &bytes.repeat(most + 1), 9).await;
            assert_eq!(more, Err((413, "body_too_large".to_owned())), "{encoding}");
        }
        let nothing = read(&plain(), encoding, b"", 9).await;
        assert_eq!(nothing, Err((400, "bad_encoding".to_owned())), "{encoding}");
    }
}

#[actix_web::test]
async fn a_compressed_body_holds_what_came_until_it_is_whole() {
    let mut large = settings();
    (large.limits.body, large.limits.in_flight_bytes) = (16 << 20, 256 << 20);
    large.server.body_timeout = Duration::from_mins(1);
    let state = state(Fake::default(), &large);
    for (encoding, bytes) in encodings(&vec![b' '; 1 << 20]).await {
        let all_but_one = Bytes::copy_from_slice(&bytes[..bytes.len() - 1]);
        let stalled = stream::iter([Ok(all_but_one)]).chain(stream::pending());
        let mut reading = Box::pin(read_chunks(&state, encoding, stalled));
        assert!(reading.as_mut().now_or_never().is_none(), "{encoding}");
        assert_eq!(state.pipeline.budget().bytes_in_flight(), bytes.len() - 1, "{encoding}");
    }
}

#[actix_web::test]
async fn a_zstd_window_over_8_mib_is_refused() {
    for (log, accepted) in [(23, true), (24, false)] {
        let params = [CParameter::window_log(log)];
        let encoder = ZstdEncoder::with_quality_and_params(TEXT, Level::Default, &params);
        assert_eq!(read(&plain(), "zstd", &all(encoder).await, 99).await.is_ok(), accepted, "{log}");
    }
}

#[actix_web::test]
async fn more_than_may_be_in_flight_is_refused_at_once() {
    let mut small = settings();
    small.limits.in_flight_bytes = 60;
    let state = state(Fake::default(), &small);
    let over_share = Err((429, "too_many_requests".to_owned()));
    assert_eq!(read(&state, "identity", TEXT, 10).await, over_share);
    for (encoding, bytes) in encodings(TEXT).await {
        assert_eq!(read(&state, encoding, &bytes, 10).await, over_share, "{encoding}");
    }
    assert_eq!(state.pipeline.budget().bytes_in_flight(), 0);
    let mut other =
        state.pipeline.budget().permit("10.0.0.1".parse().map(crate::domain::Address::of).unwrap());
    other.charge_bytes(44).unwrap();
    let overloaded = Err((503, "overloaded".to_owned()));
    assert_eq!(read(&state, "identity", TEXT, 17).await, overloaded, "by another address");
}

#[actix_web::test]
async fn slow_and_broken_connections_end() {
    let mut quick = settings();
    quick.server.body_timeout = Duration::from_millis(20);
    let [quick, patient] = [&quick, &settings()].map(|settings| state(Fake::default(), settings));
    for encoding in ["identity", "gzip"] {
        let slow = read_chunks(&quick, encoding, stream::pending()).await;
        assert_eq!(slow, Err((408, "body_timeout".to_owned())));
        let lost = stream::iter([Ok(Bytes::new()), Err(PayloadError::Incomplete(None))]);
        assert_eq!(read_chunks(&patient, encoding, lost).await, Err((400, "bad_encoding".to_owned())));
    }
}

#[actix_web::test]
async fn after_a_publish_that_is_refused_for_overload_its_connection_rests() {
    let state = state(Fake::default(), &settings());
    let mut everything = state.pipeline.budget().permit(crate::domain::Address::UNKNOWN);
    everything.charge_events(650).unwrap();
    let mut more = state.pipeline.budget().permit(crate::domain::Address::UNKNOWN);
    more.charge_events(350).unwrap_err();
    let large = format!("{}[]", " ".repeat(20_000));
    // So many rest already that one more rests for long.
    let _resting: Vec<_> = (0..1_000).map(|_| state.pauses.after(HttpResponse::Ok().finish())).collect();
    let app = App::new().app_data(Data::from(state.clone())).wrap(from_fn(watch::watch)).configure(routes);
    let request = TestRequest::post().uri("/publish").set_payload(large).to_request();
    let response = test::call_service(&test::init_service(app).await, request).await;
    assert_eq!(response.status(), 429);
    let mut body = Box::pin(response.into_body());
    let mut chunk = || std::future::poll_fn(|context| body.as_mut().poll_next(context)).now_or_never();
    assert!(
        matches!(chunk(), Some(Some(Ok(bytes))) if bytes.starts_with(b"{\"type\"")),
        "the answer is whole"
    );
    assert!(chunk().is_none(), "and its end is not there yet");
}
