//! The input of `publish`: finds out its format and cuts it into events, each one line of JSON.
//!
//! One event a line (NDJSON) when the first line is a whole JSON object; else JSON documents, one behind the
//! other, that may span lines: an event, a list of events, or `{"events":[...]}`. Bytes of events pass
//! unchanged, only line breaks between the tokens of a document become spaces.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;

use serde_json::value::RawValue;
use thiserror::Error;

use super::document;

/// The longest line, in bytes; far over any event.
const LINE_MAX: u64 = 64 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One event of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InputEvent {
    /// Where it stands.
    pub(super) place: InputPlace,
    /// The event as one line of JSON; the server checks it.
    pub(super) json: Vec<u8>,
}

/// Where an event stands in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputPlace {
    /// In NDJSON: the line, from 1.
    Line(u64),
    /// In JSON documents: how many events stand before it.
    Index(u64),
}

/// Why the rest of the input cannot be read.
#[derive(Debug, Error)]
pub(super) enum InputError {
    #[error("cannot read the input")]
    Io(#[from] io::Error),
    #[error("line {line} is longer than {LINE_MAX} bytes")]
    LongLine { line: u64 },
    #[error("the input is not JSON at line {line}, column {column}: {reason}")]
    NotJson { line: u64, column: usize, reason: String },
}

/// Takes events; breaks when it wants no more.
pub(super) type Sink<'a> = &'a mut dyn FnMut(InputEvent) -> ControlFlow<()>;

/// Reads the input to its end, or until the sink breaks. Holds one line, one element of a list or one
/// `{"events":[...]}` in memory.
pub(super) fn read(mut input: impl BufRead, sink: Sink<'_>) -> Result<(), InputError> {
    if input.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
        input.consume(BYTE_ORDER_MARK.len());
    }
    let mut before = 0;
    loop {
        let mut line = Vec::new();
        if !read_line(&mut input, before + 1, &mut line)? {
            return Ok(());
        }
        if line.trim_ascii().is_empty() {
            before += 1;
        } else if is_event_line(&line) {
            return read_lines(input, line, before + 1, sink);
        } else {
            return document::read(io::Cursor::new(line).chain(input), before + 1, sink);
        }
    }
}

/// Whether the first line that is not blank is an event, or at least no beginning of a document.
fn is_event_line(line: &[u8]) -> bool {
    let text = line.trim_ascii();
    if text.starts_with(b"[") {
        return false;
    }
    match serde_json::from_slice::<&RawValue>(text) {
        Ok(_) => !document::is_list_of_events(text),
        Err(error) => !error.is_eof(),
    }
}

fn read_lines(
    mut input: impl BufRead,
    first: Vec<u8>,
    number: u64,
    sink: Sink<'_>,
) -> Result<(), InputError> {
    let (mut line, mut at) = (first, number);
    loop {
        let json = line.trim_ascii();
        let blank = json.is_empty();
        if !blank && sink(InputEvent { place: InputPlace::Line(at), json: json.to_vec() }).is_break() {
            return Ok(());
        }
        line.clear();
        at += 1;
        if !read_line(&mut input, at, &mut line)? {
            return Ok(());
        }
    }
}

/// Reads the line of this number; false at the end of the input.
fn read_line(input: &mut impl BufRead, number: u64, line: &mut Vec<u8>) -> Result<bool, InputError> {
    let read = input.by_ref().take(LINE_MAX).read_until(b'\n', line)?;
    if read as u64 == LINE_MAX && !line.ends_with(b"\n") {
        return Err(InputError::LongLine { line: number });
    }
    Ok(read > 0)
}

impl fmt::Display for InputPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(formatter, "line {line}"),
            Self::Index(index) => write!(formatter, "event {index} (from 0)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(input: &str) -> Result<Vec<(InputPlace, String)>, String> {
        let mut found = Vec::new();
        let mut sink = |event: InputEvent| {
            found.push((event.place, String::from_utf8(event.json).unwrap()));
            ControlFlow::Continue(())
        };
        // A tiny buffer: formats must not depend on what happens to be in it.
        read(io::BufReader::with_capacity(7, input.as_bytes()), &mut sink)
            .map_err(|error| error.to_string())?;
        Ok(found)
    }

    fn texts(input: &str) -> Vec<String> {
        events(input).unwrap().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ndjson_is_one_event_a_line_and_keeps_every_byte() {
        let input = "\n{\"a\": 1.50}\r\n\n  {\"b\":\"\\u00e9\"}  \nnot json";
        let expected = [(2, "{\"a\": 1.50}"), (4, "{\"b\":\"\\u00e9\"}"), (5, "not json")];
        assert_eq!(
            events(input).unwrap(),
            expected.map(|(line, text)| (InputPlace::Line(line), text.to_owned()))
        );
    }

    #[test]
    fn a_bad_first_line_is_a_bad_event_and_not_another_format() {
        assert_eq!(texts("oops\n{\"a\":1}\n"), ["oops", "{\"a\":1}"]);
        assert_eq!(texts("{\"a\":oops}\n{\"a\":1}\n"), ["{\"a\":oops}", "{\"a\":1}"]);
    }

    #[test]
    fn a_list_may_span_lines_or_not() {
        let expected = vec![
            (InputPlace::Index(0), "{\"a\": 1.0}".to_owned()),
            (InputPlace::Index(1), "{ \"b\" :  [1] }".to_owned()),
            (InputPlace::Index(2), "3".to_owned()),
        ];
        assert_eq!(events("[{\"a\": 1.0},{ \"b\" :  [1] },3]").unwrap(), expected);
        assert_eq!(events(" [ {\"a\": 1.0},\n{ \"b\" :\n [1] }\n,3\n]\n\n").unwrap(), expected);
        assert_eq!(events("[]").unwrap(), []);
    }

    #[test]
    fn an_object_with_a_list_of_events_is_taken_apart() {
        assert_eq!(texts("{\"events\":[{\"a\":1},{\"b\":2}]}\n"), ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(texts("{\n\"events\":\n[{\"a\":\n1}]\n}"), ["{\"a\": 1}"]);
        assert_eq!(texts("{\"events\":[]}"), Vec::<String>::new());
        assert_eq!(
            texts("{\"events\":[1],\"x\":1}"),
            ["{\"events\":[1],\"x\":1}"],
            "an event with unknown fields"
        );
    }

    #[test]
    fn one_event_may_span_lines_and_others_may_follow() {
        assert_eq!(texts("{\n  \"a\": 1\n}"), ["{   \"a\": 1 }"]);
        let several = events("{\r\n\"a\":1}\n{\n\"b\":2}[{\"c\":3}]").unwrap();
        let expected = [(0, "{  \"a\":1}"), (1, "{ \"b\":2}"), (2, "{\"c\":3}")];
        assert_eq!(several, expected.map(|(index, text)| (InputPlace::Index(index), text.to_owned())));
    }

    #[test]
    fn a_broken_document_is_an_error_with_its_place_after_the_events_before_it() {
        assert_eq!(
            events("[{\"a\":1},\n\n {\"b\":}]").unwrap_err(),
            "the input is not JSON at line 3, column 7: expected value"
        );
        assert_eq!(
            events("{\n\"a\":1}\n\noops").unwrap_err(),
            "the input is not JSON at line 4, column 1: events are objects or lists of them"
        );
        assert!(events("[{\"a\":1}").unwrap_err().contains("EOF"), "an end that came too early");
    }

    #[test]
    fn nothing_and_a_byte_order_mark_are_fine() {
        assert_eq!(events("").unwrap(), []);
        assert_eq!(events(" \n\n").unwrap(), []);
        assert_eq!(texts("\u{feff}{\"a\":1}\n"), ["{\"a\":1}"]);
    }

    #[test]
    fn a_sink_that_breaks_ends_the_read() {
        for input in ["{\"a\":1}\n{\"a\":2}\n", "[{\"a\":1},{\"a\":2}]", "{\"events\":[1,2]}"] {
            let mut taken = 0;
            let mut sink = |_| {
                taken += 1;
                ControlFlow::Break(())
            };
            read(input.as_bytes(), &mut sink).unwrap();
            assert_eq!(taken, 1, "{input}");
        }
    }
}
