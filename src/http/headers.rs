//! What the headers of a request ask for: formats, encodings, preferences.

use actix_web::http::header::{
    ACCEPT, AsHeaderName, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName,
};

use super::failure::Failure;
use super::follow::EVENT_STREAM;
use super::history::Cursor;
use crate::api::Code;
use crate::domain::HistoryId;
use crate::intake::Format;

/// The media type of NDJSON in answers.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// The greatest seq that a client may name: what a signed integer of 64 bits holds, in the store and in OpenAPI's `int64`.
pub(super) const SEQ_MAX: u64 = i64::MAX.cast_unsigned();

/// How events are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// As a list of those that there are.
    Listed(Format),
    /// As those that there are and those that come.
    Followed,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// The format with this media type, parameters aside.
fn format(media_type: &str) -> Option<Format> {
    match essence(media_type).as_str() {
        "application/json" => Some(Format::Json),
        NDJSON | "application/ndjson" | "application/jsonl" => Some(Format::NdJson),
        _ => None,
    }
}

fn essence(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The format of the body; JSON where nothing is said.
pub(super) fn content_format(headers: &HeaderMap) -> Result<Format, Failure> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Format::Json) };
    let name = value.to_str().unwrap_or("unreadable");
    format(name).ok_or_else(|| {
        let rule = format!("the content type \"{name:.64}\" is not known; send application/json or {NDJSON}");
        Failure::new(Code::UnsupportedType, rule)
    })
}

/// The compression of the body; `None` where it has none.
pub(super) fn content_encoding(headers: &HeaderMap) -> Result<Option<Encoding>, Failure> {
    let names: Vec<_> = listed(headers, CONTENT_ENCODING).map(str::to_ascii_lowercase).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    match names[..] {
        [] | ["identity"] => Ok(None),
        ["gzip" | "x-gzip"] => Ok(Some(Encoding::Gzip)),
        ["deflate"] => Ok(Some(Encoding::Deflate)),
        ["br"] => Ok(Some(Encoding::Brotli)),
        ["zstd"] => Ok(Some(Encoding::Zstd)),
        _ => Err(Failure::new(
            Code::UnsupportedEncoding,
            "content encodings are gzip, deflate, br and zstd, one at a time",
        )),
    }
}

/// The bytes that the body is said to have.
pub(super) fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the client prefers an answer without results (RFC 7240).
pub(super) fn prefers_minimal(headers: &HeaderMap) -> bool {
    listed(headers, HeaderName::from_static("prefer"))
        .any(|preference| essence(preference).replace([' ', '"'], "") == "return=minimal")
}

/// The format of events that the client likes best: the greatest quality first, then the most exact range.
pub(super) fn accepted(headers: &HeaderMap) -> Result<Given, Failure> {
    if listed(headers, ACCEPT).next().is_none() {
        return Ok(Given::Listed(Format::Json));
    }
    let mut best: Option<((f32, u8), Given)> = None;
    for range in listed(headers, ACCEPT) {
        let found = match essence(range).as_str() {
            "*/*" => Some((1, Given::Listed(Format::Json))),
            "application/*" => Some((2, Given::Listed(Format::Json))),
            EVENT_STREAM => Some((3, Given::Followed)),
            exact => format(exact).map(|format| (3, Given::Listed(format))),
        };
        let Some((exactness, given)) = found else { continue };
        let rank = (quality(range), exactness);
        if rank.0 > 0.0 && best.is_none_or(|(other, _)| rank > other) {
            best = Some((rank, given));
        }
    }
    best.map(|(_, given)| given).ok_or_else(|| {
        let rule = format!("events are given as application/json, {NDJSON} or {EVENT_STREAM}");
        Failure::new(Code::NotAcceptable, rule)
    })
}

/// The last event that a follower was given, where it says so: its seq, and its history as in `41@k3f9`.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<Cursor>, Failure> {
    let mut values = headers.get_all(HeaderName::from_static("last-event-id"));
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    cursor(text).filter(|_| values.next().is_none()).map(Some).ok_or_else(|| {
        let rule = "header Last-Event-ID must be the id of an event of this topic, such as 41@k3f9 or 41";
        Failure::new(Code::InvalidParameter, rule)
    })
}

/// A cursor from its text.
fn cursor(text: &str) -> Option<Cursor> {
    let (seq, history) = match text.split_once('@') {
        Some((seq, history)) => (seq, Some(HistoryId::parse(history)?)),
        None => (text, None),
    };
    let digits = !seq.is_empty() && seq.bytes().all(|byte| byte.is_ascii_digit());
    let seq = seq.parse().ok().filter(|seq| digits && *seq <= SEQ_MAX)?;
    Some(Cursor { seq, history })
}

/// The `q` of a media range; 1 where nothing readable is said.
fn quality(range: &str) -> f32 {
    let quality = range.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q="));
    quality.and_then(|text| text.trim().parse().ok()).unwrap_or(1.0)
}

/// The members of a comma-separated header, which may stand in several lines.
fn listed(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .map(|value| value.to_str().unwrap_or("unreadable"))
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn content_types_may_have_parameters() {
        let read = |value: &str| content_format(&headers(&CONTENT_TYPE, &[value])).ok();
        assert_eq!(content_format(&HeaderMap::new()).unwrap(), Format::Json);
        assert_eq!(read("Application/JSON; charset=utf-8"), Some(Format::Json));
        for ndjson in ["application/x-ndjson", "application/ndjson", "application/jsonl;charset=UTF-8"] {
            assert_eq!(read(ndjson), Some(Format::NdJson));
        }
        assert_eq!(read("text/plain"), None);
        assert_eq!(read(""), None);
        // What `curl -d` sends: the answer says so, and repeats no more than a name's length of it.
        let form =
            headers(&CONTENT_TYPE, &[&format!("application/x-www-form-urlencoded;{}", "x".repeat(999))]);
        let error = content_format(&form).unwrap_err().to_string();
        assert!(error.contains("application/x-www-form-urlencoded") && error.len() < 250, "{error}");
    }

    #[test]
    fn one_encoding_at_a_time() {
        let read = |values: &[&str]| content_encoding(&headers(&CONTENT_ENCODING, values)).ok();
        assert_eq!(read(&[]), Some(None));
        assert_eq!(read(&["identity"]), Some(None));
        assert_eq!(read(&["GZIP"]), Some(Some(Encoding::Gzip)));
        assert_eq!(read(&["zstd"]), Some(Some(Encoding::Zstd)));
        assert_eq!(read(&["gzip, br"]), None);
        assert_eq!(read(&["gzip", "br"]), None);
        assert_eq!(read(&["compress"]), None);
    }

    #[test]
    fn the_best_acceptable_format_is_chosen() {
        let read = |value: &str| accepted(&headers(&ACCEPT, &[value])).ok();
        assert_eq!(accepted(&HeaderMap::new()).unwrap(), Given::Listed(Format::Json));
        for json in [
            "",
            " , ",
            "*/*",
            "text/html, */*;q=0.1",
            "application/json",
            "text/event-stream;q=0, application/*",
        ] {
            assert_eq!(read(json), Some(Given::Listed(Format::Json)), "{json}");
        }
        for ndjson in
            ["application/x-ndjson", "*/*, application/ndjson", "application/json;q=0.5, application/jsonl"]
        {
            assert_eq!(read(ndjson), Some(Given::Listed(Format::NdJson)), "{ndjson}");
        }
        for follow in
            ["text/event-stream", "text/event-stream, application/*", "*/*, Text/Event-Stream; charset=utf-8"]
        {
            assert_eq!(read(follow), Some(Given::Followed), "{follow}");
        }
        for none in ["text/*", "application/json;q=0", "text/html"] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn the_last_event_is_a_whole_number_given_once() {
        let read = |values: &[&str]| {
            last_event_id(&headers(&HeaderName::from_static("last-event-id"), values)).map_err(drop)
        };
        assert_eq!(read(&[]), Ok(None));
        let cursor = |seq, history: Option<&str>| {
            Ok(Some(Cursor { seq, history: history.map(|id| HistoryId::parse(id).unwrap()) }))
        };
        assert_eq!(read(&["0"]), cursor(0, None));
        assert_eq!(read(&["41@k3f9"]), cursor(41, Some("k3f9")));
        assert_eq!(read(&["9223372036854775807"]), cursor(SEQ_MAX, None));
        for wrong in ["41@", "@k3f9", "41@K3F9", "41@a@b", "41 @k3f9", "41@ k3f9"] {
            assert_eq!(read(&[wrong]), Err(()), "{wrong:?}");
        }
        for wrong in [&[""][..], &["-1"], &["+1"], &["1.0"], &["one"], &["9223372036854775808"], &["1", "1"]]
        {
            assert_eq!(read(wrong), Err(()), "{wrong:?}");
        }
    }

    #[test]
    fn a_preference_is_found_among_others() {
        let read = |values: &[&str]| prefers_minimal(&headers(&HeaderName::from_static("prefer"), values));
        assert!(read(&["return=minimal"]));
        assert!(read(&["respond-async, wait=10", "return = \"minimal\"; foo"]));
        assert!(!read(&["return=representation"]));
        assert!(!read(&[]));
    }
}
