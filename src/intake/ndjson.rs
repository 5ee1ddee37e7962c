//! NDJSON bodies: one event a line. A line that is broken is an invalid event and breaks no other one.

use serde::de::IgnoredAny;

use super::members::Members;
use super::{BodyError, Collector, Item, reason};
use crate::domain::{Fault, FaultCode};

/// Reads the events of the lines that are not empty.
pub(super) fn read<T>(body: &[u8], collector: &mut Collector<T>) -> Result<(), BodyError> {
    for line in body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        match parse(line) {
            Ok(item) => collector.take(item, line.len())?,
            Err(reason) => collector.put(Err(vec![Fault::of_event(FaultCode::NotJson, reason)]))?,
        }
    }
    Ok(())
}

fn parse(line: &[u8]) -> Result<Item<'_>, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("the line is not UTF-8: {error}"))?;
    let parsed = if text.starts_with('{') {
        serde_json::from_str::<Members<'_>>(text).map(Item::Object)
    } else {
        serde_json::from_str::<IgnoredAny>(text).map(Item::Other)
    };
    parsed.map_err(|error| format!("the line is not JSON at column {}: {}", error.column(), reason(&error)))
}
