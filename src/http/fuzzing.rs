//! The parsers of what clients send around their events, for the fuzzer (`cfg(fuzzing)`) and the inputs that it found.

use std::pin::Pin;

use actix_web::HttpRequest;
use actix_web::http::Uri;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::test::TestRequest;
use async_compression::Level;
use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use futures_util::FutureExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::headers::{self, Encoding};
use super::inflate::{self, Bounds};
use super::params::{Query, segment};
use super::{accept, events};
use crate::domain::{Address, check_name};
use crate::pipeline::Budget;

/// Reads bytes as a path with a query, as every handler does that takes parameters.
///
/// # Panics
/// Where something is taken for a parameter that is none, or a wrong part of the log is planned to be read.
pub fn read_target(data: &[u8]) {
    let Some(request) = str::from_utf8(data).ok().and_then(request_of) else { return };
    if let Ok(mut query) = Query::of(&request) {
        let known = query.take("flag").is_some();
        assert!(query.take("flag").is_none(), "a parameter is taken once");
        let limit = query.number("limit", 1..=9);
        assert!(
            limit.is_err() || limit.is_ok_and(|limit| limit.is_none_or(|limit| (1..=9).contains(&limit)))
        );
        let _ = query.word("order", &[("asc", known), ("desc", !known)]);
        let _ = query.finish();
    }
    for stored in [0, 1, 1_000, u64::MAX - 1] {
        let Ok(plan) = events::planned(&request, stored) else { break };
        if plan.count > 0 {
            assert!(1 <= plan.first && plan.last <= stored, "{plan:?}");
            assert_eq!(plan.count, plan.last - plan.first + 1, "{plan:?}");
        }
    }
    for place in 0..3 {
        let Ok(name) = segment(&request, place, "name") else { continue };
        assert!(check_name(&name).is_ok(), "{name:?}");
        let encoded = format!("/{}", utf8_percent_encode(&name, NON_ALPHANUMERIC));
        let again = request_of(&encoded).map(|request| segment(&request, 0, "name").ok());
        assert_eq!(again, Some(Some(name)), "a name that is encoded is the same name");
    }
}

/// Reads bytes as lines of headers.
///
/// # Panics
/// Where members of a list mean something else in one line than in several.
pub fn read_headers(data: &[u8]) {
    let (mut lines, mut joined) = (HeaderMap::new(), HeaderMap::new());
    for line in data.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        let (Ok(name), Ok(value)) = (name, value) else { continue };
        let before = joined.get(&name).map_or(&b""[..], HeaderValue::as_bytes);
        let both = HeaderValue::from_bytes(&[before, &b", "[..], value.as_bytes()].concat());
        joined.insert(name.clone(), both.unwrap_or_else(|_| value.clone()));
        lines.append(name, value);
    }
    if let Err(error) = headers::content_format(&lines) {
        assert!(error.to_string().len() < 600, "{error}");
    }
    let _ = headers::content_length(&lines);
    // A line that is no text is one unreadable member, however many it would have.
    if lines.iter().all(|(_, value)| value.to_str().is_ok()) {
        assert_eq!(accept::accepted(&lines).ok(), accept::accepted(&joined).ok());
        assert_eq!(headers::content_encoding(&lines).ok(), headers::content_encoding(&joined).ok());
        assert_eq!(headers::prefers_minimal(&lines), headers::prefers_minimal(&joined));
    }
}

const ENCODINGS: [Encoding; 4] = [Encoding::Gzip, Encoding::Deflate, Encoding::Brotli, Encoding::Zstd];

/// The most bytes of an inflated body here.
const BODY_BYTES: usize = 200_000;

/// What a body may become here.
const BOUNDS: Bounds = Bounds { body: BODY_BYTES, ratio: 0, members: 1_000 };

/// Inflates bytes with each decoder; the first byte is left out, as in earlier inputs.
///
/// # Panics
/// Where a limit is passed, something stays charged, or packed bytes come back as others.
pub fn inflate(data: &[u8]) {
    let Some((_, data)) = data.split_first() else { return };
    for encoding in ENCODINGS {
        let budget = Budget::new(5 * (BODY_BYTES + data.len()), 0);
        let body = inflated(data, encoding, &budget);
        assert!(body.is_none_or(|body| body.len() <= BODY_BYTES), "{encoding:?}: the limit is kept");
        assert_eq!(budget.bytes_in_flight(), 0, "{encoding:?}: all of it is given back");
        let packed = deflated(data, encoding);
        let body = inflated(&packed, encoding, &budget);
        assert_eq!(body.as_deref(), Some(data), "{encoding:?}: what was packed is what is unpacked");
        let twice = inflated(&[&packed[..], &packed].concat(), encoding, &budget);
        assert!(twice.is_none_or(|body| body == data.repeat(2)), "{encoding:?}: members are one body");
    }
}

/// A request for this target, if it is one.
fn request_of(target: &str) -> Option<HttpRequest> {
    Uri::try_from(target).ok()?;
    Some(TestRequest::with_uri(target).to_http_request())
}

/// What these bytes inflate to.
fn inflated(data: &[u8], encoding: Encoding, budget: &Budget) -> Option<Vec<u8>> {
    let mut permit = budget.permit(Address::UNKNOWN);
    permit.charge_bytes(data.len()).ok()?;
    let inflating = inflate::inflate(data.to_vec(), encoding, BOUNDS, &mut permit);
    futures_executor::block_on(inflating).ok()
}

/// These bytes as a client would pack them.
fn deflated(data: &[u8], encoding: Encoding) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut encoder: Pin<Box<dyn AsyncRead + '_>> = match encoding {
        Encoding::Gzip => Box::pin(GzipEncoder::with_quality(data, Level::Fastest)),
        Encoding::Deflate => Box::pin(ZlibEncoder::with_quality(data, Level::Fastest)),
        Encoding::Brotli => Box::pin(BrotliEncoder::with_quality(data, Level::Fastest)),
        Encoding::Zstd => Box::pin(ZstdEncoder::with_quality(data, Level::Fastest)),
    };
    let packing = encoder.read_to_end(&mut packed).now_or_never();
    assert!(packing.is_some_and(|read| read.is_ok()), "bytes in memory never have to be waited for");
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::replay;

    #[test]
    fn targets_that_a_fuzzer_found_are_read_rightly_or_refused() {
        replay("targets", read_target);
    }

    #[test]
    fn headers_that_a_fuzzer_found_mean_the_same_in_one_line() {
        replay("headers", read_headers);
    }

    #[test]
    fn bodies_that_a_fuzzer_found_inflate_alike_in_pieces() {
        replay("inflate", inflate);
    }
}
