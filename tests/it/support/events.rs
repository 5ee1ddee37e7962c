//! Bodies: events as JSON text, so that tests say byte for byte what is sent.

use std::ops::Range;

/// When every event of the tests happened.
pub(crate) const TIMESTAMP: &str = "2026-11-22T10:00:00Z";

/// An event with an empty payload.
pub(crate) fn event(topic: &str, event_id: &str) -> String {
    event_with(topic, event_id, "{}")
}

/// An event with this payload, byte for byte.
pub(crate) fn event_with(topic: &str, event_id: &str, payload: &str) -> String {
    format!(
        r#"{{"topic":{},"event_id":{},"timestamp":"{TIMESTAMP}","source":"test","payload":{payload}}}"#,
        quoted(topic),
        quoted(event_id)
    )
}

/// An event whose fields are the valid ones but for this one, given as JSON.
pub(crate) fn event_but(field: &str, value: &str) -> String {
    let fields = [
        ("topic", "\"orders\""),
        ("event_id", "\"1\""),
        ("timestamp", "\"2026-11-22T10:00:00Z\""),
        ("source", "\"test\""),
        ("payload", "{}"),
    ];
    let others = fields.iter().filter(|(name, _)| *name != field);
    let members: Vec<_> = others
        .chain([(&(field, value))])
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| format!("\"{name}\":{text}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// Events of one topic, one for each number, whose ids are the numbers.
pub(crate) fn ids(topic: &str, numbers: Range<usize>) -> Vec<String> {
    numbers.map(|number| event_with(topic, &number.to_string(), &format!("{{\"n\":{number}}}"))).collect()
}

/// A JSON array of events.
pub(crate) fn array<T: AsRef<str>>(events: impl IntoIterator<Item = T>) -> String {
    let events: Vec<_> = events.into_iter().map(|event| event.as_ref().to_owned()).collect();
    format!("[{}]", events.join(","))
}

/// Events as NDJSON.
pub(crate) fn lines<T: AsRef<str>>(events: impl IntoIterator<Item = T>) -> String {
    let mut lines = String::new();
    for event in events {
        lines.push_str(event.as_ref());
        lines.push('\n');
    }
    lines
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
