//! What the headers of a request ask for: formats, encodings, preferences.

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName};

use super::failure::Failure;
use super::fields::{self, essence};
use super::history::Cursor;
use crate::api::Code;
use crate::domain::HistoryId;
use crate::intake::Format;

/// The media type of NDJSON in answers.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// The greatest seq that a client may name: what a signed integer of 64 bits holds, in the store and in OpenAPI's `int64`.
pub(super) const SEQ_MAX: u64 = i64::MAX.cast_unsigned();

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

/// The format of the body; JSON where nothing is said.
pub(super) fn content_format(headers: &HeaderMap) -> Result<Format, Failure> {
    let mut lines = headers.get_all(CONTENT_TYPE);
    let Some(value) = lines.next() else { return Ok(Format::Json) };
    if lines.next().is_some() {
        let rule = format!("Content-Type is there more than once; send application/json or {NDJSON}");
        return Err(Failure::new(Code::UnsupportedType, rule));
    }
    let name = fields::text(value);
    format(&name).ok_or_else(|| {
        let rule = format!("the content type \"{name:.64}\" is not known; send application/json or {NDJSON}");
        Failure::new(Code::UnsupportedType, rule)
    })
}

/// The compression of the body; `None` where it has none.
pub(super) fn content_encoding(headers: &HeaderMap) -> Result<Option<Encoding>, Failure> {
    let listed = fields::members(headers, CONTENT_ENCODING).join(",").to_ascii_lowercase();
    let names: Vec<_> = listed.split(',').filter(|name| !matches!(*name, "" | "identity")).collect();
    match names[..] {
        [] => Ok(None),
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

/// Whether the client prefers an answer without results (RFC 7240). Of a preference that is there
/// more than once the first counts.
pub(super) fn prefers_minimal(headers: &HeaderMap) -> bool {
    let preferences = fields::members(headers, HeaderName::from_static("prefer"));
    let named = preferences.iter().filter_map(|member| fields::outside_quotes(member, ';').next());
    let wanted = named.map(fields::pair).find(|(name, _)| name == "return");
    wanted.is_some_and(|(_, value)| value.eq_ignore_ascii_case("minimal"))
}

/// The last event that a follower was given, where it says so: its seq, and its history as in `41@k3f9`.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<Cursor>, Failure> {
    let lines = headers.get_all(HeaderName::from_static("last-event-id"));
    // An empty one names no event: it is what a client sends that was given none.
    let mut values =
        lines.map(|line| line.to_str().unwrap_or("unreadable").trim()).filter(|id| !id.is_empty());
    let Some(text) = values.next() else { return Ok(None) };
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
        assert_eq!(read("application/json ; x=\"a;b, c\""), Some(Format::Json));
        let lines = headers(&CONTENT_TYPE, &["application/json", "application/x-ndjson"]);
        assert!(content_format(&lines).unwrap_err().to_string().contains("more than once"));
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
        assert_eq!(read(&["", " , "]), Some(None));
        assert_eq!(read(&["Identity, X-Gzip,"]), Some(Some(Encoding::Gzip)));
        assert_eq!(read(&["GZIP"]), Some(Some(Encoding::Gzip)));
        assert_eq!(read(&["zstd"]), Some(Some(Encoding::Zstd)));
        assert_eq!(read(&["gzip, br"]), None);
        assert_eq!(read(&["gzip", "br"]), None);
        assert_eq!(read(&["compress"]), None);
    }

    #[test]
    fn the_last_event_is_a_whole_number_given_once() {
        let read = |values: &[&str]| {
            last_event_id(&headers(&HeaderName::from_static("last-event-id"), values)).map_err(drop)
        };
        assert_eq!(read(&[]), Ok(None));
        for empty in [&[""][..], &[" \t "], &["", ""]] {
            assert_eq!(read(empty), Ok(None), "{empty:?}");
        }
        let cursor = |seq, history: Option<&str>| {
            Ok(Some(Cursor { seq, history: history.map(|id| HistoryId::parse(id).unwrap()) }))
        };
        assert_eq!(read(&["0"]), cursor(0, None));
        assert_eq!(read(&["", "7"]), cursor(7, None));
        assert_eq!(read(&["41@k3f9"]), cursor(41, Some("k3f9")));
        assert_eq!(read(&["9223372036854775807"]), cursor(SEQ_MAX, None));
        for wrong in ["41@", "@k3f9", "41@K3F9", "41@a@b", "41 @k3f9", "41@ k3f9"] {
            assert_eq!(read(&[wrong]), Err(()), "{wrong:?}");
        }
        for wrong in [&["-1"][..], &["+1"], &["1.0"], &["one"], &["9223372036854775808"], &["1", "1"]] {
            assert_eq!(read(wrong), Err(()), "{wrong:?}");
        }
    }

    #[test]
    fn a_preference_is_found_among_others() {
        let read = |values: &[&str]| prefers_minimal(&headers(&HeaderName::from_static("prefer"), values));
        assert!(read(&["return=minimal"]));
        assert!(read(&["respond-async, wait=10", "return = \"minimal\"; foo"]));
        assert!(read(&["Return=Minimal", "return=representation"]));
        assert!(!read(&["return=representation, return=minimal"]), "the first counts");
        assert!(!read(&["note=\"a, return=minimal\""]), "within quotes it is a text");
        assert!(!read(&["return=\"mini mal\"", "x; return=minimal"]));
        assert!(!read(&["return=representation"]));
        assert!(!read(&[]));
    }
}
