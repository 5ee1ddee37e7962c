//! Bodies to events: each wire format is split into values, each value checked by every rule.
//!
//! A request can carry ten thousand events, so an event is read in one pass, its texts stay borrowed from the
//! body, and the only allocation of a valid one is the packed [`Event`].

mod check;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod json;
mod mark;
mod members;
mod ndjson;

#[cfg(test)]
mod tests;

use serde::de::IgnoredAny;
use thiserror::Error;

use crate::api::Key;
use crate::domain::{Event, Fault, FaultCode};
use members::Members;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One event, an array of events, or `{"events":[...]}`.
    Json,
    /// One event a line.
    NdJson,
}

/// Bounds of what a body may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Events, or keys, of a body.
    pub items: usize,
    /// Bytes of one of them as JSON.
    pub item_bytes: usize,
    /// Levels of JSON in an event; the event itself is level 1.
    pub depth: usize,
    /// Whether fields that events do not have are ignored, instead of faults of the event.
    pub extra_fields: bool,
}

/// What a body holds: valid items and invalid ones, together as many as the body has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<T> {
    /// The valid items, in the order of the body.
    pub valid: Vec<T>,
    /// The others, by ascending index.
    pub invalid: Vec<Invalid>,
}

/// An item that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Its place in the body, from 0; in NDJSON, lines that are not empty are counted.
    pub index: usize,
    /// Every rule that it breaks; never none.
    pub faults: Vec<Fault>,
}

/// Why a body as a whole cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BodyError {
    /// It is not JSON.
    #[error("{0}")]
    NotJson(String),
    /// It is JSON, but no list of what it should be.
    #[error("{0}")]
    NotAList(String),
    /// It holds more items than the limit.
    #[error(
        "the body holds more than {0} items, the limit (limits.batch_events; limits.lookup_keys of a look-up)"
    )]
    TooMany(usize),
}

impl Invalid {
    /// Whether it is invalid because of its size.
    #[must_use]
    pub fn too_large(&self) -> bool {
        self.faults.iter().any(|fault| fault.code == FaultCode::EventTooLarge)
    }
}

/// Reads the events of a body.
///
/// # Errors
/// When the body as a whole cannot be read; an invalid event is no error here.
pub fn events(body: &[u8], format: Format, limits: Limits) -> Result<Parsed<Event>, BodyError> {
    let body = mark::skipped(body)?;
    let mut collector = Collector::new(limits, check::event);
    match format {
        Format::Json => json::read_events(body, limits.extra_fields, &mut collector)?,
        Format::NdJson => ndjson::read(body, &mut collector)?,
    }
    Ok(collector.parsed)
}

/// Reads a JSON array of keys.
///
/// # Errors
/// When the body as a whole cannot be read; an invalid key is no error here.
pub fn keys(body: &[u8], limits: Limits) -> Result<Parsed<Key>, BodyError> {
    let body = mark::skipped(body)?;
    let mut collector = Collector::new(limits, |members, _| check::key(members));
    json::read_array(body, &mut collector)?;
    Ok(collector.parsed)
}

/// What a JSON error says, without the place: it counts from where a value begins, which is no place in the body.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason).to_owned()
}

/// Past so many faults of one body only the first fault of each invalid item is kept, so that the answer to a
/// hostile body stays within a few MB. Every invalid item is still named.
const FAULTS_MAX: usize = 20_000;

/// Checks one value after the other and keeps what comes out.
struct Collector<T> {
    limits: Limits,
    check: fn(Members<'_>, Limits) -> Result<T, Vec<Fault>>,
    parsed: Parsed<T>,
    /// The faults kept so far.
    faults: usize,
}

/// A JSON value where an event or a key should be.
enum Item<'a> {
    /// An object, with its members.
    Object(Members<'a>),
    /// Any other value.
    Other(IgnoredAny),
}

impl<T> Collector<T> {
    fn new(limits: Limits, check: fn(Members<'_>, Limits) -> Result<T, Vec<Fault>>) -> Self {
        Self { limits, check, parsed: Parsed { valid: Vec::new(), invalid: Vec::new() }, faults: 0 }
    }

    /// Takes the next value, of so many bytes as JSON.
    fn take(&mut self, item: Item<'_>, bytes: usize) -> Result<(), BodyError> {
        let checked = match item {
            _ if bytes > self.limits.item_bytes => Err(vec![self.too_large(bytes)]),
            Item::Object(members) => (self.check)(members, self.limits),
            Item::Other(_) => Err(vec![Fault::of_event(FaultCode::NotAnObject, "it must be a JSON object")]),
        };
        self.put(checked)
    }

    /// Takes the verdict on the next value.
    fn put(&mut self, checked: Result<T, Vec<Fault>>) -> Result<(), BodyError> {
        let index = self.parsed.valid.len() + self.parsed.invalid.len();
        if index == self.limits.items {
            return Err(BodyError::TooMany(index));
        }
        match checked {
            Ok(item) => self.parsed.valid.push(item),
            Err(mut faults) => {
                debug_assert!(!faults.is_empty(), "an invalid item breaks a rule");
                if self.faults >= FAULTS_MAX {
                    faults.truncate(1);
                }
                self.faults += faults.len();
                self.parsed.invalid.push(Invalid { index, faults });
            }
        }
        Ok(())
    }

    fn too_large(&self, bytes: usize) -> Fault {
        let limit = self.limits.item_bytes;
        Fault::of_event(
            FaultCode::EventTooLarge,
            format!("it has {bytes} bytes, the limit is {limit} (limits.event)"),
        )
    }
}
