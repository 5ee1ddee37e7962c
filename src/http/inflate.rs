//! Decompression of a body that is there as a whole: bounded in bytes, in ratio, in members, and charged.
//!
//! A body is inflated only after its last byte came: 27 bytes that become 16 MiB and then stall hold 27
//! bytes. Other tasks of the thread run between two pieces.

use std::io;
use std::pin::Pin;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt};
use tokio::task::yield_now;

use super::arrival::too_large;
use super::failure::Failure;
use super::headers::Encoding;
use crate::api::Code;
use crate::config::Limits;
use crate::pipeline::Permit;

/// The bytes that are inflated at once, and so the most that a bomb gets past a limit.
const PIECE_BYTES: usize = 32 << 10;

/// The pieces, or members, between two pauses for other tasks of the thread: less than a millisecond.
const PAUSE_PIECES: usize = 8;

/// The logarithm of the largest zstd window, 8 MiB: what RFC 9659 lets clients of HTTP use.
const ZSTD_WINDOW_LOG: u32 = 23;

/// A body may become this large whatever its ratio is: small events that repeat compress very well.
const RATIO_FROM: usize = 1 << 20;

/// What a compressed body may become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes.
    pub(super) body: usize,
    /// Bytes for each byte that was sent, past [`RATIO_FROM`]; 0 is no bound.
    pub(super) ratio: usize,
    /// Members, at least 1.
    pub(super) members: usize,
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Self {
        Self { body: limits.body, ratio: limits.compression_ratio, members: limits.compressed_members }
    }
}

/// Inflates a body, charged to the permit before and after; what it was sent as is given back.
///
/// # Errors
/// 413 past `limits.body`, `limits.compression_ratio` or `limits.compressed_members`, 400 where the bytes
/// are no such encoding, 429 and 503 where the permit gets no more.
pub(super) async fn inflate(
    encoded: Vec<u8>,
    encoding: Encoding,
    bounds: Bounds,
    permit: &mut Permit,
) -> Result<Vec<u8>, Failure> {
    let (mut rest, mut members, mut steps) = (&encoded[..], 0, 0_usize);
    let mut inflating = Inflating::new(encoded.len(), encoding, bounds, permit);
    let mut buffer = vec![0; PIECE_BYTES];
    while members == 0 || !rest.is_empty() {
        if members == bounds.members {
            return Err(too_many_members(members));
        }
        members += 1;
        let before = rest.len();
        // What the decoder takes is gone from the rest.
        let input = &mut rest;
        let mut reader = decoder(encoding, input);
        loop {
            steps += 1;
            if steps.is_multiple_of(PAUSE_PIECES) {
                yield_now().await;
            }
            let bytes = reader.read(&mut buffer).await.map_err(|error| undecodable(&error, encoding))?;
            if bytes == 0 {
                break;
            }
            inflating.add(&buffer[..bytes])?;
        }
        drop(reader);
        if rest.len() == before {
            return Err(undecodable(&io::ErrorKind::UnexpectedEof.into(), encoding));
        }
    }
    let Inflating { body, window, .. } = inflating;
    permit.release_bytes(window + encoded.len());
    Ok(body)
}

/// What was inflated so far.
struct Inflating<'a> {
    body: Vec<u8>,
    /// The bytes that are charged for the window of the decoder, which holds the last bytes again.
    window: usize,
    window_max: usize,
    bounds: Bounds,
    /// The bytes that its ratio allows.
    ratio_max: usize,
    permit: &'a mut Permit,
}

impl<'a> Inflating<'a> {
    fn new(encoded: usize, encoding: Encoding, bounds: Bounds, permit: &'a mut Permit) -> Self {
        let ratio_max = match bounds.ratio {
            0 => usize::MAX,
            ratio => encoded.saturating_mul(ratio).max(RATIO_FROM),
        };
        Self { body: Vec::new(), window: 0, window_max: window_max(encoding), bounds, ratio_max, permit }
    }

    fn add(&mut self, piece: &[u8]) -> Result<(), Failure> {
        let after = self.body.len() + piece.len();
        if after > self.bounds.body {
            return Err(too_large(self.bounds.body));
        }
        if after > self.ratio_max {
            return Err(too_dense(self.bounds.ratio));
        }
        let window = piece.len().min(self.window_max - self.window);
        self.permit.charge_bytes(piece.len() + window)?;
        self.window += window;
        self.body.extend_from_slice(piece);
        Ok(())
    }
}

/// The largest window of a decoder, in bytes.
fn window_max(encoding: Encoding) -> usize {
    match encoding {
        // RFC 1951, section 2.
        Encoding::Gzip | Encoding::Deflate => 32 << 10,
        // RFC 7932, section 9.1.
        Encoding::Brotli => 16 << 20,
        Encoding::Zstd => 1 << ZSTD_WINDOW_LOG,
    }
}

/// A decoder of one member.
fn decoder<'a>(encoding: Encoding, input: impl AsyncBufRead + 'a) -> Pin<Box<dyn AsyncRead + 'a>> {
    match encoding {
        Encoding::Gzip => Box::pin(GzipDecoder::new(input)),
        Encoding::Deflate => Box::pin(ZlibDecoder::new(input)),
        Encoding::Brotli => Box::pin(BrotliDecoder::new(input)),
        Encoding::Zstd => {
            let params = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
            Box::pin(ZstdDecoder::with_params(input, &params))
        }
    }
}

fn undecodable(error: &io::Error, encoding: Encoding) -> Failure {
    Failure::new(Code::BadEncoding, format!("the body does not decompress as {encoding:?}: {error}"))
}

fn too_dense(ratio: usize) -> Failure {
    let detail = format!(
        "the body has more than {ratio} times the bytes that it was sent as (limits.compression_ratio); \
         send fewer events at once"
    );
    Failure::new(Code::RatioTooLarge, detail)
}

fn too_many_members(most: usize) -> Failure {
    let detail = format!(
        "the body is made of more than {most} compressed members (limits.compressed_members); compress \
         all events of a request together"
    );
    Failure::new(Code::BodyTooLarge, detail)
}
