//! Reading a body: in time, within its limits, decompressed, and charged byte by byte as it arrives.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::web::{Bytes, Payload};
use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::failure::Failure;
use super::headers::{self, Encoding};
use super::peer::Peer;
use super::state::State;
use crate::api::Code;
use crate::pipeline::{Permit, PublishError};

/// The bytes that are inflated at once, and so the most that a bomb gets past a limit.
const INFLATE_BYTES: usize = 32 << 10;

/// The most memory that is taken on the word of a Content-Length.
const RESERVE_BYTES: usize = 64 << 10;

/// How many bytes of it are taken at most for each that came first: a client that sends one byte a second must not get
/// memory for more.
const RESERVE_TIMES: usize = 16;

/// The logarithm of the largest zstd window, 8 MiB: what RFC 9659 lets clients of HTTP use.
const ZSTD_WINDOW_LOG: u32 = 23;

/// The most bytes that are read of a body that is refused unread, so that its connection can be used again.
const DISCARD_BYTES: usize = 256 << 10;

/// How long they may take to arrive: the answer waits for them.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(20);

/// Reads the whole body and the permit that it is charged to.
pub(super) async fn read(
    state: &State,
    request: &HttpRequest,
    payload: Payload,
) -> Result<(Vec<u8>, Permit), Failure> {
    let encoding = headers::content_encoding(request.headers())?;
    let length = headers::content_length(request.headers()).unwrap_or(0);
    let limit = state.limits.body;
    if encoding.is_none() && length > limit {
        return Err(too_large(limit));
    }
    let budget = state.pipeline.budget();
    if let Err(refused) = budget.look_for_bytes(length) {
        discard(payload).await;
        return Err(refused.into());
    }
    let permit = budget.permit(Peer::of(request).address());
    let reading = async {
        match encoding {
            None => plain(payload, length, limit, permit).await,
            Some(encoding) => inflated(payload, encoding, limit, permit).await,
        }
    };
    let timeout = state.server.body_timeout;
    tokio::time::timeout(timeout, reading).await.unwrap_or_else(|_| {
        Err(Failure::new(Code::BodyTimeout, format!("the body took longer than {timeout:?} to arrive")))
    })
}

/// Passes over a body that is not wanted, if it comes soon and is not large; otherwise its connection is closed after
/// the answer.
pub(super) async fn discard(mut payload: Payload) {
    let reading = async {
        let mut bytes = 0;
        while let Some(Ok(chunk)) = payload.next().await {
            bytes += chunk.len();
            if bytes > DISCARD_BYTES {
                return;
            }
        }
    };
    // Whether it was read to its end is seen by the server, which closes the connection if it was not.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, reading).await;
}

async fn plain(
    mut payload: Payload,
    length: usize,
    limit: usize,
    mut permit: Permit,
) -> Result<(Vec<u8>, Permit), Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| broken(&error))?;
        if body.len() + chunk.len() > limit {
            return Err(too_large(limit));
        }
        permit.charge_bytes(chunk.len())?;
        if body.is_empty() {
            body.reserve(length.min(RESERVE_BYTES).min(chunk.len() * RESERVE_TIMES));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, permit))
}

/// Reads a compressed body of at most `limit` bytes, charging them to the permit both as they arrive and as they are
/// inflated.
pub(super) async fn inflated(
    payload: Payload,
    encoding: Encoding,
    limit: usize,
    permit: Permit,
) -> Result<(Vec<u8>, Permit), Failure> {
    let permit = RefCell::new(permit);
    let body = {
        let mut reader = decoder(encoding, StreamReader::new(Box::pin(charged(payload, &permit))));
        let (mut body, mut buffer) = (Vec::new(), vec![0; INFLATE_BYTES]);
        loop {
            let bytes = reader.read(&mut buffer).await.map_err(|error| undecodable(&error, encoding))?;
            if bytes == 0 {
                break body;
            }
            if body.len() + bytes > limit {
                return Err(too_large(limit));
            }
            permit.borrow_mut().charge_bytes(bytes)?;
            body.extend_from_slice(&buffer[..bytes]);
        }
    };
    Ok((body, permit.into_inner()))
}

/// The compressed chunks, each charged as it arrives.
fn charged(payload: Payload, permit: &RefCell<Permit>) -> impl Stream<Item = io::Result<Bytes>> {
    payload.map(|chunk| {
        let chunk = chunk.map_err(io::Error::other)?;
        permit.borrow_mut().charge_bytes(chunk.len()).map_err(io::Error::other)?;
        Ok(chunk)
    })
}

/// A decoder that reads all members of a body, so that nothing behind the first one is dropped in silence.
fn decoder<'a>(encoding: Encoding, input: impl AsyncBufRead + 'a) -> Pin<Box<dyn AsyncRead + 'a>> {
    match encoding {
        Encoding::Gzip => {
            let mut decoder = GzipDecoder::new(input);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
        Encoding::Deflate => {
            let mut decoder = ZlibDecoder::new(input);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
        Encoding::Brotli => {
            let mut decoder = BrotliDecoder::new(input);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
        Encoding::Zstd => {
            let params = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
            let mut decoder = ZstdDecoder::with_params(input, &params);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
    }
}

fn undecodable(error: &io::Error, encoding: Encoding) -> Failure {
    let inner = error.get_ref();
    if let Some(refused) = inner.and_then(|inner| inner.downcast_ref::<PublishError>()) {
        return Failure::from(refused.clone());
    }
    if let Some(lost) = inner.and_then(|inner| inner.downcast_ref::<PayloadError>()) {
        return broken(lost);
    }
    Failure::new(Code::BadEncoding, format!("the body does not decompress as {encoding:?}: {error}"))
}

fn broken(error: &PayloadError) -> Failure {
    let detail = match error {
        PayloadError::Incomplete(_) => "the body broke off, or its chunks are no HTTP".to_owned(),
        other => format!("the body cannot be read: {other}"),
    };
    Failure::new(Code::BadEncoding, detail)
}

fn too_large(limit: usize) -> Failure {
    Failure::new(Code::BodyTooLarge, format!("the body has more than {limit} bytes (limits.body)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_broke_off_is_said_in_words() {
        let detail = broken(&PayloadError::Incomplete(None)).to_string();
        assert_eq!(detail, "bad_encoding: the body broke off, or its chunks are no HTTP");
    }
}
