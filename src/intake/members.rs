//! One JSON object, split into the raw values of the fields that an event has.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::{Fault, FaultCode, Field, has_escape};

/// The most unknown fields, and the most fields that are there twice, that are named for one event:
/// the answer to a hostile event is bounded.
const NAMED_MAX: usize = 16;

/// The most characters of a producer's text that a message repeats.
const QUOTED_MAX: usize = 64;

/// The fields of one object as raw JSON, and its members that events do not have.
#[derive(Debug, Default)]
pub(super) struct Members<'a> {
    fields: [Option<&'a str>; Field::ALL.len()],
    /// Fields that are unknown or there twice.
    pub(super) faults: Vec<Fault>,
}

impl<'a> Members<'a> {
    /// The raw JSON value of a field.
    pub(super) fn get(&self, field: Field) -> Option<&'a str> {
        self.fields[field as usize]
    }

    /// Whether a field that events have is there.
    pub(super) fn has_known(&self) -> bool {
        self.fields.iter().any(Option::is_some)
    }

    /// Takes fields that events do not have for none at all.
    pub(super) fn ignore_unknown(&mut self) {
        self.faults.retain(|fault| fault.code != FaultCode::UnknownField);
    }

    /// The name of a member that has another name than this.
    pub(super) fn beside(&self, name: &str) -> Option<&str> {
        let known = Field::ALL.into_iter().find(|field| self.get(*field).is_some());
        let unknown = || self.faults.iter().filter_map(|fault| fault.field.as_deref());
        known.map(Field::as_str).or_else(|| unknown().find(|other| *other != name))
    }

    /// Whether a field that events do not have goes by this name.
    pub(super) fn has_unknown(&self, name: &str) -> bool {
        self.faults
            .iter()
            .any(|fault| fault.code == FaultCode::UnknownField && fault.field.as_deref() == Some(name))
    }

    fn insert(&mut self, literal: &'a str, value: &'a str) {
        // Nearly all names are those of fields as they stand, and no escape is looked for in them.
        let field = within(literal).and_then(Field::from_name);
        match field.or_else(|| Field::from_name(&unescaped(literal))) {
            Some(field) if self.fields[field as usize].is_none() => {
                self.fields[field as usize] = Some(value);
            }
            Some(field) => self.blame(Fault::of_field(
                field.as_str(),
                FaultCode::DuplicateField,
                format!("{} is there more than once", field.as_str()),
            )),
            None => self.blame(unknown(&quoted(&unescaped(literal)))),
        }
    }

    fn blame(&mut self, fault: Fault) {
        // By code: a field that is there twice must be a fault also behind many that may be
        // ignored.
        if self.faults.iter().filter(|other| other.code == fault.code).count() < NAMED_MAX {
            self.faults.push(fault);
        }
    }
}

/// The fault of a field that should not be there.
pub(super) fn unknown(name: &str) -> Fault {
    Fault::of_field(name.to_owned(), FaultCode::UnknownField, format!("there is no field {name:?}"))
}

/// The text of a JSON string literal; of one that is no Unicode text, what stands between its quotes.
pub(super) fn unescaped(literal: &str) -> Cow<'_, str> {
    text(literal).unwrap_or_else(|| Cow::Borrowed(literal.trim_matches('"')))
}

/// The text of a JSON string literal, without a copy where nothing is escaped; `None` where it has a lone
/// surrogate, the one thing that valid JSON strings can have and Unicode text cannot.
pub(super) fn text(literal: &str) -> Option<Cow<'_, str>> {
    if has_escape(literal) {
        return serde_json::from_str::<String>(literal).ok().map(Cow::Owned);
    }
    within(literal).map(Cow::Borrowed)
}

/// What stands between the quotes of a JSON string literal.
fn within(literal: &str) -> Option<&str> {
    literal.strip_prefix('"')?.strip_suffix('"')
}

/// A producer's text, cut where a message would become too long.
pub(super) fn quoted(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            members.insert(name.get(), value.get());
        }
        Ok(members)
    }
}
