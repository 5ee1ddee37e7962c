//! JSON bodies: one event, an array of events, or an object with an `events` member.
//!
//! Only what lies around the events is read by hand, so that each event is parsed once, straight from the
//! body, its bytes are known, and reading stops at the first event past the limit.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::members::{Members, quoted, unescaped};
use super::{BodyError, Collector, Item, mark, reason};

/// The member whose presence makes an object a batch.
const EVENTS: &str = "events";

/// Reads the events of a body in any of the three forms. With `extra_fields` an event may have a
/// field `events`, too.
pub(super) fn read_events<T>(
    body: &[u8],
    extra_fields: bool,
    collector: &mut Collector<T>,
) -> Result<(), BodyError> {
    let mut cursor = Cursor::over(body)?;
    let start = cursor.at;
    match cursor.peek() {
        Some(b'[') => cursor.array(collector)?,
        Some(b'{') if cursor.enters_batch() => {
            let behind = std::mem::replace(&mut cursor.at, start);
            if extra_fields && cursor.value::<Members<'_>>()?.0.has_known() {
                cursor.at = start;
                cursor.single(extra_fields, collector)?;
            } else {
                cursor.at = behind;
                cursor.batch(collector)?;
            }
        }
        _ => cursor.single(extra_fields, collector)?,
    }
    cursor.end()
}

/// Reads a body that must be an array.
pub(super) fn read_array<T>(body: &[u8], collector: &mut Collector<T>) -> Result<(), BodyError> {
    let mut cursor = Cursor::over(body)?;
    if cursor.peek() != Some(b'[') {
        cursor.value::<IgnoredAny>()?;
        cursor.end()?;
        return Err(BodyError::NotAList("the body must be an array".to_owned()));
    }
    cursor.array(collector)?;
    cursor.end()
}

/// A place in a body, always between two tokens.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn over(body: &'a [u8]) -> Result<Self, BodyError> {
        match std::str::from_utf8(body) {
            Ok(text) => Ok(Self { text, at: 0 }),
            Err(error) => Err(BodyError::NotJson(format!("the body is not UTF-8: {error}"))),
        }
    }

    /// Steps behind `{"events":` if the body begins so; stays where it is if not.
    fn enters_batch(&mut self) -> bool {
        let start = self.at;
        let named = self.eat(b'{')
            && self.peek() == Some(b'"')
            && self.value::<&RawValue>().is_ok_and(|(name, _)| unescaped(name.get()) == EVENTS)
            && self.eat(b':');
        if !named {
            self.at = start;
        }
        named
    }

    /// Reads the rest of a batch, from behind `{"events":`.
    fn batch<T>(&mut self, collector: &mut Collector<T>) -> Result<(), BodyError> {
        if self.peek() != Some(b'[') {
            self.value::<IgnoredAny>()?;
            return Err(BodyError::NotAList("events must be an array".to_owned()));
        }
        self.array(collector)?;
        if self.eat(b'}') {
            return Ok(());
        }
        self.expect(b',', "`,` or `}`")?;
        let (name, _) = self.value::<&RawValue>()?;
        Err(beside_events(&unescaped(name.get())))
    }

    /// Reads `[event, event, ...]`.
    fn array<T>(&mut self, collector: &mut Collector<T>) -> Result<(), BodyError> {
        self.expect(b'[', "`[`")?;
        if self.eat(b']') {
            return Ok(());
        }
        loop {
            let (item, bytes) = self.item()?;
            collector.take(item, bytes)?;
            if !self.eat(b',') {
                return self.expect(b']', "`,` or `]`");
            }
        }
    }

    /// Reads a body that is one event, or should be.
    fn single<T>(&mut self, extra_fields: bool, collector: &mut Collector<T>) -> Result<(), BodyError> {
        let (item, bytes) = self.item()?;
        if let Item::Object(members) = &item
            && members.has_unknown(EVENTS)
            && !(extra_fields && members.has_known())
        {
            return Err(beside_events(members.beside(EVENTS).unwrap_or(EVENTS)));
        }
        collector.take(item, bytes)
    }

    fn item(&mut self) -> Result<(Item<'a>, usize), BodyError> {
        if self.peek() == Some(b'{') {
            let (members, bytes) = self.value()?;
            return Ok((Item::Object(members), bytes));
        }
        let (ignored, bytes) = self.value()?;
        Ok((Item::Other(ignored), bytes))
    }

    /// Reads one JSON value; gives its length in bytes, too.
    fn value<V: Deserialize<'a>>(&mut self) -> Result<(V, usize), BodyError> {
        self.peek();
        let mut values = serde_json::Deserializer::from_str(&self.text[self.at..]).into_iter();
        match values.next() {
            Some(Ok(value)) => {
                let bytes = values.byte_offset();
                self.at += bytes;
                Ok((value, bytes))
            }
            Some(Err(error)) => Err(self.unreadable(&error)),
            None => Err(self.broken("it ends where a value should be")),
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let space = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
        self.at += space;
        rest.get(space).copied()
    }

    fn eat(&mut self, mark: u8) -> bool {
        let found = self.peek() == Some(mark);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: u8, wanted: &str) -> Result<(), BodyError> {
        if self.eat(mark) {
            return Ok(());
        }
        Err(self.broken(&format!("expected {wanted}")))
    }

    fn end(&mut self) -> Result<(), BodyError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => {
                Err(self.broken("something follows where the body should end; one event a line is NDJSON"))
            }
        }
    }

    fn broken(&self, what: &str) -> BodyError {
        let (line, column) = self.place();
        self.not_json(what, line, column)
    }

    /// The error of a value that begins here, which counts lines and columns from there.
    fn unreadable(&self, error: &serde_json::Error) -> BodyError {
        let (line, column) = self.place();
        match error.line() {
            0 | 1 => self.not_json(&reason(error), line, column + error.column().saturating_sub(1)),
            later => self.not_json(&reason(error), line + later - 1, error.column()),
        }
    }

    fn not_json(&self, what: &str, line: usize, column: usize) -> BodyError {
        let text = self.text.split('\n').nth(line - 1).unwrap_or_default();
        BodyError::NotJson(match mark::is_at(text, column) {
            Some(at) => {
                let misplaced = mark::misplaced(&format!("line {line}, column {}", at + 1));
                format!("the body is not JSON: {misplaced}")
            }
            None => format!("the body is not JSON at line {line}, column {column}: {what}"),
        })
    }

    /// Line and column of the next byte, from 1.
    fn place(&self) -> (usize, usize) {
        let before = &self.text[..self.at];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        (before.matches('\n').count() + 1, self.at - line_start + 1)
    }
}

fn beside_events(name: &str) -> BodyError {
    let name = quoted(name);
    BodyError::NotAList(format!("a body with `events` has no other member, but there is {name:?}"))
}
