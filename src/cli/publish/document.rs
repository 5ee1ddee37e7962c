//! JSON documents that may span lines: events, lists of events, `{"events":[...]}`, one behind the other.

use std::fmt;
use std::io::{self, Read};
use std::ops::ControlFlow;

use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::input::{InputError, InputEvent, InputPlace, Sink};

/// The object form of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Events<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

/// Whether this is the object form of a list.
pub(super) fn is_list_of_events(json: &[u8]) -> bool {
    serde_json::from_slice::<Events<'_>>(json).is_ok()
}

/// Reads documents to the end of the input, or until the sink breaks. The input begins at line `first_line`.
pub(super) fn read(input: impl Read, first_line: u64, sink: Sink<'_>) -> Result<(), InputError> {
    let mut bytes = Bytes { input, next: None, line: first_line, column: 0 };
    let mut documents = Documents { count: 0, stopped: false, sink };
    while !documents.stopped {
        let Some(first) = bytes.skip_white_space()? else { break };
        let (line, column) = (bytes.line, bytes.column);
        let mut reader = serde_json::Deserializer::from_reader(&mut bytes);
        let read = match first {
            b'[' => reader.deserialize_seq(List(&mut documents)),
            b'{' => Box::<RawValue>::deserialize(&mut reader).map(|object| documents.object(&object)),
            _ => Err(serde_json::Error::custom("events are objects or lists of them")),
        };
        if let Err(error) = read
            && !documents.stopped
        {
            return Err(place(error, line, column));
        }
    }
    Ok(())
}

/// The error of a document that begins at this line and column, with its place in the whole input.
fn place(error: serde_json::Error, line: u64, column: usize) -> InputError {
    if error.is_io() {
        return InputError::Io(error.into());
    }
    let column_offset = if error.line() <= 1 { column.saturating_sub(1) } else { 0 };
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    InputError::NotJson {
        line: line + (error.line() as u64).saturating_sub(1),
        column: column_offset + error.column().max(1),
        reason: reason.to_owned(),
    }
}

/// Counts events and hands them on.
struct Documents<'a> {
    count: u64,
    stopped: bool,
    sink: Sink<'a>,
}

impl Documents<'_> {
    fn object(&mut self, object: &RawValue) {
        match serde_json::from_str::<Events<'_>>(object.get()) {
            Ok(list) => {
                let _ = list.events.into_iter().try_for_each(|event| self.event(event));
            }
            Err(_) => {
                let _ = self.event(object);
            }
        }
    }

    fn event(&mut self, event: &RawValue) -> ControlFlow<()> {
        // In valid JSON a raw line break can stand between tokens only.
        let space = |byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte };
        let json = event.get().bytes().map(space).collect();
        let flow = (self.sink)(InputEvent { place: InputPlace::Index(self.count), json });
        self.count += 1;
        self.stopped = flow.is_break();
        flow
    }
}

/// Hands on the elements of a list while it is read.
struct List<'a, 'b>(&'a mut Documents<'b>);

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(event) = list.next_element::<Box<RawValue>>()? {
            if self.0.event(&event).is_break() {
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// Bytes with one that was looked at and the place of the last one given.
struct Bytes<R> {
    input: R,
    next: Option<u8>,
    line: u64,
    column: usize,
}

impl<R: Read> Bytes<R> {
    /// Looks at the next byte that is not white space, and stands at it.
    fn skip_white_space(&mut self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        while self.read(&mut byte)? > 0 {
            if !byte[0].is_ascii_whitespace() {
                self.next = Some(byte[0]);
                return Ok(self.next);
            }
        }
        Ok(None)
    }
}

impl<R: Read> Read for Bytes<R> {
    /// Gives one byte at a time, which is how the JSON parser asks for them.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(first) = buffer.first_mut() else { return Ok(0) };
        if let Some(byte) = self.next.take() {
            *first = byte;
            return Ok(1);
        }
        let count = self.input.read(std::slice::from_mut(first))?;
        if count > 0 && *first == b'\n' {
            self.line += 1;
            self.column = 0;
        } else {
            self.column += count;
        }
        Ok(count)
    }
}
