//! What is sent to a follower, as the HTML standard's server-sent events.

use std::io::{self, Write};

use actix_web::web::Bytes;
use serde::Serialize;

use crate::api::Code;
use crate::domain::{HistoryId, StoredEvent};
use crate::http::render::{self, Lines};

/// Milliseconds after which a client whose connection broke connects again.
const RETRY: u32 = 1_000;

/// The first words: the time to wait before another connection, and the `place` at which the stream
/// begins, as an id without data. A client that is cut off before its first event sends the id back, so
/// that a restore meanwhile is noticed.
pub(super) fn hello(place: Option<(u64, &HistoryId)>) -> Bytes {
    Bytes::from(match place {
        Some((seq, history)) => format!("retry: {RETRY}\nid: {seq}@{history}\n\n"),
        None => format!("retry: {RETRY}\n\n"),
    })
}

/// A comment, so that both sides and everything between them know that the connection lives.
pub(super) const BEAT: Bytes = Bytes::from_static(b":\n\n");

/// Appends a stored event. Its id is its seq in this history, `41@k3f9`; the client sends it back as `Last-Event-ID`.
pub(super) fn event(out: &mut Vec<u8>, stored: &StoredEvent, history: &HistoryId) -> io::Result<()> {
    write!(out, "id: {}@{history}\ndata: ", stored.seq)?;
    render::event(out, stored, Lines::Joined)?;
    out.extend_from_slice(b"\n\n");
    Ok(())
}

/// The last words: why the server ends, and the last event that it gave.
pub(super) fn end(code: Code, detail: &str, last_seq: u64) -> Bytes {
    #[derive(Serialize)]
    struct End<'a> {
        code: &'a str,
        detail: &'a str,
        last_seq: u64,
    }
    let data = serde_json::to_string(&End { code: code.as_str(), detail, last_seq }).unwrap_or_default();
    Bytes::from(format!("event: end\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::{Event, Parts};

    #[test]
    fn an_event_is_one_line_of_data_whatever_its_payload_has() {
        let payload = "{\r\n\"n\":\n1.50\r}";
        let parts = Parts { topic: "t", event_id: "\u{2028}", timestamp: "x", source: "s", payload };
        let stored = StoredEvent { seq: 7, received_at: Timestamp::UNIX_EPOCH, event: Event::pack(parts) };
        let mut out = Vec::new();
        event(&mut out, &stored, &HistoryId::parse("k3f9").unwrap()).unwrap();
        let text = String::from_utf8(out).unwrap();
        let (id, data) = text.strip_suffix("\n\n").unwrap().split_once('\n').unwrap();
        assert_eq!(id, "id: 7@k3f9");
        assert!(data.starts_with("data: {\"seq\":7,") && !data.contains(['\n', '\r']), "{data}");
        assert!(data.contains("{  \"n\": 1.50 }"), "{data}");
    }

    #[test]
    fn the_last_words_name_the_reason_and_the_last_event() {
        let text = end(Code::ShuttingDown, "the log is stopping", 41);
        let expected = "event: end\ndata: {\"code\":\"shutting_down\",\"detail\":\"the log is stopping\",\"last_seq\":41}\n\n";
        assert_eq!(text, expected);
    }
}
