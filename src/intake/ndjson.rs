//! NDJSON bodies: one event a line. A line that is broken is an invalid event and breaks no other one.

use serde::de::IgnoredAny;

use super::members::Members;
use super::{BodyError, Collector, Item, mark, reason};
use crate::domain::{Fault, FaultCode};

/// Reads the events of the lines that are not empty.
pub(super) fn read<T>(body: &[u8], collector: &mut Collector<T>) -> Result<(), BodyError> {
    // Checked as a whole, the text costs less than each of its lines does.
    if let Ok(text) = std::str::from_utf8(body) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', body) {
            take(&text[start..end], collector)?;
            start = end + 1;
        }
        return take(&text[start..], collector);
    }
    for line in body.split(|byte| *byte == b'\n') {
        match std::str::from_utf8(line) {
            Ok(text) => take(text, collector)?,
            Err(error) => collector.put(Err(not_json(format!("the line is not UTF-8: {error}"))))?,
        }
    }
    Ok(())
}

fn take<T>(line: &str, collector: &mut Collector<T>) -> Result<(), BodyError> {
    let text = line.trim_ascii();
    if text.is_empty() {
        return Ok(());
    }
    match parse(text) {
        Ok(item) => collector.take(item, text.len()),
        Err(error) => collector.put(Err(not_json(broken(text, &error)))),
    }
}

/// What is wrong with a line.
fn broken(text: &str, error: &serde_json::Error) -> String {
    let (column, reason) = (error.column(), reason(error));
    match mark::is_at(text, column) {
        Some(at) => format!("the line is not JSON: {}", mark::misplaced(&format!("column {}", at + 1))),
        None => format!("the line is not JSON at column {column}: {reason}"),
    }
}

fn parse(text: &str) -> Result<Item<'_>, serde_json::Error> {
    if text.starts_with('{') {
        serde_json::from_str::<Members<'_>>(text).map(Item::Object)
    } else {
        serde_json::from_str::<IgnoredAny>(text).map(Item::Other)
    }
}

fn not_json(detail: String) -> Vec<Fault> {
    vec![Fault::of_event(FaultCode::NotJson, detail)]
}
