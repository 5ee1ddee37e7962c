//! Stored events as JSON text. The payload is copied as it is, never parsed.

use std::io::{self, Write};

use jiff::Timestamp;

use crate::api;
use crate::domain::{Parts, StoredEvent};
use crate::store::Repeats;

/// How a payload's line breaks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// As they were sent.
    Kept,
    /// As spaces, so that the event stays on one line. In JSON they only stand between tokens.
    Joined,
}

/// A time as it is given to clients: RFC 3339, UTC, microseconds.
pub(super) fn time(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// Appends one event as a JSON object.
///
/// # Errors
/// Never in practice: writing to memory does not fail.
pub(super) fn event(out: &mut Vec<u8>, stored: &StoredEvent, lines: Lines) -> io::Result<()> {
    let Parts { topic, event_id, timestamp, source, payload } = stored.event.parts();
    write!(out, "{{\"seq\":{}", stored.seq)?;
    for (name, text) in [
        (",\"topic\":", topic),
        (",\"event_id\":", event_id),
        (",\"timestamp\":", timestamp),
        (",\"source\":", source),
    ] {
        out.extend_from_slice(name.as_bytes());
        string(out, text)?;
    }
    out.extend_from_slice(b",\"payload\":");
    match lines {
        Lines::Kept => out.extend_from_slice(payload.as_bytes()),
        Lines::Joined => out.extend(payload.bytes().map(|byte| match byte {
            b'\n' | b'\r' => b' ',
            other => other,
        })),
    }
    write!(out, ",\"received_at\":\"{:.6}\"}}", stored.received_at)
}

/// Appends one event with what is known of its repeats.
///
/// # Errors
/// Never in practice: writing to memory does not fail.
pub(super) fn event_with(
    out: &mut Vec<u8>,
    stored: &StoredEvent,
    repeats: Option<Repeats>,
) -> io::Result<()> {
    event(out, stored, Lines::Kept)?;
    let Some(Repeats { duplicates, conflicts, last_at, last_source, last_conflict }) = repeats else {
        return Ok(());
    };
    // In place of the end of the object.
    out.pop();
    out.extend_from_slice(b",\"repeats\":");
    let last_at = time(last_at);
    serde_json::to_writer(
        &mut *out,
        &api::Repeats { duplicates, conflicts, last_at, last_source, last_conflict },
    )?;
    out.push(b'}');
    Ok(())
}

/// Appends a JSON string.
///
/// # Errors
/// Never in practice: writing to memory does not fail.
pub(super) fn string(out: &mut Vec<u8>, text: &str) -> io::Result<()> {
    serde_json::to_writer(out, text).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Event;

    #[test]
    fn an_event_is_valid_json_with_its_payload_untouched() {
        let payload = "{ \"n\":\r\n1.50 }";
        let stored = StoredEvent {
            seq: 7,
            received_at: Timestamp::from_second(1).unwrap(),
            event: Event::pack(Parts {
                topic: "a\"b",
                event_id: "é",
                timestamp: "2026-01-01T00:00:00Z",
                source: "\\",
                payload,
            }),
        };
        let mut kept = Vec::new();
        event(&mut kept, &stored, Lines::Kept).unwrap();
        let read: api::Event<'_> = serde_json::from_slice(&kept).unwrap();
        assert_eq!((read.seq, &*read.topic, &*read.event_id, &*read.source), (7, "a\"b", "é", "\\"));
        assert_eq!(read.payload.get(), payload);
        assert_eq!(read.received_at, "1970-01-01T00:00:01.000000Z");
        assert_eq!(read.received_at, time(stored.received_at));
        let mut joined = Vec::new();
        event(&mut joined, &stored, Lines::Joined).unwrap();
        assert_eq!(
            String::from_utf8(joined).unwrap(),
            String::from_utf8(kept).unwrap().replace("\r\n", "  ")
        );
    }
}
