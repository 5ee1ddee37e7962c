//! The rules of one event, or of one key, given its raw fields.

use std::borrow::Cow;

use super::Limits;
use super::members::{Members, text, unknown};
use crate::api::Key;
use crate::domain::{
    Event, Fault, FaultCode, Field, NAME_MAX_BYTES, Parts, check_name, check_payload, check_timestamp,
};

/// The event with these members, or every rule that it breaks.
pub(super) fn event(mut members: Members<'_>, limits: Limits) -> Result<Event, Vec<Fault>> {
    if limits.extra_fields {
        members.ignore_unknown();
    }
    let mut check = Check::new(members);
    let topic = check.name(Field::Topic);
    let event_id = check.name(Field::EventId);
    let timestamp = check.timestamp();
    let source = check.name(Field::Source);
    let payload = check.payload(limits.depth);
    if let (Some(topic), Some(event_id), Some(timestamp), Some(source), Some(payload)) =
        (topic, event_id, timestamp, source, payload)
        && check.faults.is_empty()
    {
        return Ok(Event::pack(Parts {
            topic: &topic,
            event_id: &event_id,
            timestamp: &timestamp,
            source: &source,
            payload,
        }));
    }
    Err(check.faults)
}

/// The key with these members, or every rule that it breaks.
pub(super) fn key(members: Members<'_>) -> Result<Key, Vec<Fault>> {
    let mut check = Check::new(members);
    let topic = check.name(Field::Topic);
    let event_id = check.name(Field::EventId);
    for field in [Field::Timestamp, Field::Source, Field::Payload] {
        if check.members.get(field).is_some() {
            check.faults.push(unknown(field.as_str()));
        }
    }
    if let (Some(topic), Some(event_id)) = (topic, event_id)
        && check.faults.is_empty()
    {
        return Ok(Key { topic: topic.into_owned(), event_id: event_id.into_owned() });
    }
    Err(check.faults)
}

/// Collects the faults; each method gives `None` exactly where it added one.
struct Check<'a> {
    members: Members<'a>,
    faults: Vec<Fault>,
}

impl<'a> Check<'a> {
    fn new(mut members: Members<'a>) -> Self {
        let faults = std::mem::take(&mut members.faults);
        Self { members, faults }
    }

    fn name(&mut self, field: Field) -> Option<Cow<'a, str>> {
        let name = self.string(field)?;
        match check_name(&name) {
            Ok(()) => Some(name),
            Err(code) => self.blame(field, code, &broken_name(code, name.len())),
        }
    }

    fn timestamp(&mut self) -> Option<Cow<'a, str>> {
        let timestamp = self.string(Field::Timestamp)?;
        match check_timestamp(&timestamp) {
            Ok(()) => Some(timestamp),
            Err(rule) => self.blame(Field::Timestamp, FaultCode::BadTimestamp, rule),
        }
    }

    fn payload(&mut self, depth: usize) -> Option<&'a str> {
        let raw = self.raw(Field::Payload)?;
        if !raw.starts_with('{') {
            return self.wrong_type(Field::Payload, "an object", raw);
        }
        match check_payload(raw, depth.saturating_sub(1)) {
            Ok(()) => Some(raw),
            Err(FaultCode::TooDeep) => self.blame(
                Field::Payload,
                FaultCode::TooDeep,
                &format!("makes the event deeper than {depth} levels (limits.depth)"),
            ),
            Err(code) => self.blame(Field::Payload, code, LONE_SURROGATE),
        }
    }

    fn string(&mut self, field: Field) -> Option<Cow<'a, str>> {
        let raw = self.raw(field)?;
        if !raw.starts_with('"') {
            return self.wrong_type(field, "a string", raw);
        }
        let unescaped = text(raw);
        if unescaped.is_none() {
            return self.blame(field, FaultCode::LoneSurrogate, LONE_SURROGATE);
        }
        unescaped
    }

    fn raw(&mut self, field: Field) -> Option<&'a str> {
        let raw = self.members.get(field);
        if raw.is_none() {
            return self.blame(field, FaultCode::MissingField, "is missing");
        }
        raw
    }

    fn wrong_type<T>(&mut self, field: Field, wanted: &str, raw: &str) -> Option<T> {
        self.blame(field, FaultCode::WrongType, &format!("must be {wanted}, not {}", kind(raw)))
    }

    fn blame<T>(&mut self, field: Field, code: FaultCode, rule: &str) -> Option<T> {
        let name = field.as_str();
        self.faults.push(Fault::of_field(name, code, format!("{name} {rule}")));
        None
    }
}

const LONE_SURROGATE: &str = "has half of a surrogate pair, which is no Unicode text";

/// What a name does wrong, as the end of a sentence.
pub(super) fn broken_name(code: FaultCode, bytes: usize) -> String {
    match code {
        FaultCode::Empty => "is empty".to_owned(),
        FaultCode::TooLong => format!("has {bytes} bytes, the limit is {NAME_MAX_BYTES}"),
        _ => "has a control character".to_owned(),
    }
}

/// What kind of JSON value begins like this.
fn kind(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}
