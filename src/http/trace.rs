//! Which request it is, in the log and for the client: an id that came with it, or a new one.
//!
//! An id that a client sends ends in logs and in an answer, so only one that can harm neither is taken.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::{Counts, RequestId};

/// The header that the id is taken from and given back in.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header of the W3C's trace context: version, trace id, parent id and flags in hexadecimal.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest id that is taken from a client, in bytes. A UUID has 36, a trace id 32.
const ID_MAX: usize = 128;

/// The id of a request, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// What names the request in every line about it.
    pub(super) id: RequestId,
    /// The caller's span, where the id is that of a trace.
    pub(super) parent: Option<Parent>,
}

/// The span of a trace that a request belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parent {
    /// 16 hexadecimal digits.
    pub(super) span: Arc<str>,
    /// Whether the caller records the trace.
    pub(super) sampled: bool,
}

impl Origin {
    /// The id of a request with these headers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self::of_trace(headers)
            .or_else(|| Self::of_id(headers))
            .unwrap_or_else(|| Self { id: RequestId::Made(fastrand::u128(1..)), parent: None })
    }

    fn of_id(headers: &HeaderMap) -> Option<Self> {
        let id = only(headers, &X_REQUEST_ID).filter(|id| is_harmless(id))?;
        Some(Self { id: RequestId::Given(id.into()), parent: None })
    }

    /// As <https://www.w3.org/TR/trace-context/#traceparent-header> says; later versions may add fields at the end.
    fn of_trace(headers: &HeaderMap) -> Option<Self> {
        let mut parts = only(headers, &TRACEPARENT)?.split('-');
        let mut part = |length: usize| parts.next().filter(|part| is_hexadecimal(part, length));
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let known = version == "00" && parts.next().is_none();
        let usable = known || !matches!(version, "00" | "ff");
        let present = |id: &str| id.bytes().any(|digit| digit != b'0');
        if !(usable && present(trace) && present(span)) {
            return None;
        }
        let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        Some(Self { id: RequestId::Given(trace.into()), parent: Some(Parent { span: span.into(), sampled }) })
    }

    /// The id as a header of the answer.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        match &self.id {
            RequestId::Given(id) => HeaderValue::from_str(id).ok(),
            RequestId::Made(bits) => HeaderValue::from_bytes(&hexadecimal(*bits)).ok(),
        }
    }
}

/// The digits of a number, as its `Display` has them, without the cost of a formatter.
fn hexadecimal(bits: u128) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bits.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    digits
}

/// The header where it is there once, and text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name);
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

fn is_harmless(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    (1..=ID_MAX).contains(&id.len()) && id.bytes().all(allowed)
}

fn is_hexadecimal(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What a publish was, for the line about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published {
    pub(super) topics: usize,
    pub(super) counts: Counts,
    /// Of the body, after decompression.
    pub(super) bytes: usize,
    /// From the parsed body to the last verdict.
    pub(super) deciding: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn of(headers: &[(HeaderName, &[u8])]) -> Origin {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.clone(), HeaderValue::from_bytes(value).unwrap());
        }
        Origin::of(&map)
    }

    fn is_new(origin: &Origin) -> bool {
        matches!(origin.id, RequestId::Made(_))
            && origin.header().unwrap().to_str().unwrap() == origin.id.to_string()
    }

    #[test]
    fn a_trace_names_the_request_before_an_id_does() {
        for (traceparent, sampled) in [
            (format!("00-{TRACE}-00f067aa0ba902b7-01"), true),
            (format!("00-{TRACE}-00f067aa0ba902b7-00"), false),
            (format!("01-{TRACE}-00f067aa0ba902b7-03-later"), true),
        ] {
            let headers = [(TRACEPARENT, traceparent.as_bytes()), (X_REQUEST_ID, &b"mine"[..])];
            let parent = Parent { span: "00f067aa0ba902b7".into(), sampled };
            assert_eq!(of(&headers), Origin { id: RequestId::Given(TRACE.into()), parent: Some(parent) });
        }
    }

    #[test]
    fn what_is_no_trace_is_passed_over() {
        let zeros = "0".repeat(32);
        for traceparent in [
            String::new(),
            TRACE.to_owned(),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{zeros}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{TRACE}0-00f067aa0ba902b7-01"),
        ] {
            let headers = [(TRACEPARENT, traceparent.as_bytes()), (X_REQUEST_ID, &b"mine"[..])];
            assert_eq!(of(&headers).id, RequestId::Given("mine".into()), "{traceparent}");
        }
    }

    #[test]
    fn an_id_that_could_harm_is_replaced() {
        let longest = "x".repeat(ID_MAX);
        for harmless in ["7", "a-B_c.d:e/f+g=h@i", longest.as_str()] {
            assert_eq!(of(&[(X_REQUEST_ID, harmless.as_bytes())]).header().unwrap(), harmless);
        }
        let too_long = "x".repeat(ID_MAX + 1);
        let harmful: [&[u8]; 7] =
            [b"", too_long.as_bytes(), b"a b", b"a\tb", b"<b>", "\u{e9}".as_bytes(), b"\"},{\""];
        for harmful in harmful {
            assert!(is_new(&of(&[(X_REQUEST_ID, harmful)])), "{harmful:?}");
        }
        assert!(is_new(&of(&[(X_REQUEST_ID, b"one"), (X_REQUEST_ID, b"two")])));
        assert!(is_new(&of(&[])) && of(&[]) != of(&[]));
    }
}
