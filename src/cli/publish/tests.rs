//! What is taken for an event, and what for an error.

use std::io::{self, Cursor, Read, Write};
use std::ops::ControlFlow;

use super::input::{EVENT_MAX, InputEvent, InputPlace};
use super::source::Place;
use super::values::read;

pub(in crate::cli) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

pub(in crate::cli) fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 1).unwrap()
}

/// A reader that gives so many bytes at once, as a pipe may.
struct Pieces<R>(R, usize);

impl<R: Read> Read for Pieces<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.1);
        self.0.read(&mut buffer[..most])
    }
}

fn events(input: &str) -> Result<Vec<(InputPlace, String)>, String> {
    let mut found = Vec::new();
    let mut sink = |event: InputEvent| {
        let json = event.json.map_or_else(|fault| fault.code, |json| String::from_utf8(json).unwrap());
        found.push((event.place, json));
        ControlFlow::Continue(())
    };
    // Tiny pieces: formats must not depend on what happens to arrive together.
    read(Pieces(Cursor::new(input.to_owned()), 7), &mut sink).map_err(|error| error.to_string())?;
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
    let more = "{\"events\":[{\"a\":1}],\"x\":[{}],\"events\":[2]}{\"b\":1}";
    assert_eq!(texts(more), ["{\"a\":1}", "unknown_field", "{\"b\":1}"], "another member is no event");
    assert_eq!(texts("{\"events\":1}{\"events\" : {}}").len(), 2, "no list, so events of unknown fields");
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
    for input in ["{\"a\":1}\n{\"a\":2}\n", "[{\"a\":1},{\"a\":2}]", "{\"events\":[{},2]}"] {
        let mut taken = 0;
        let mut sink = |_| {
            taken += 1;
            ControlFlow::Break(())
        };
        read(input.as_bytes(), &mut sink).unwrap();
        assert_eq!(taken, 1, "{input}");
    }
}

fn place(line: u64, column: u64) -> InputPlace {
    InputPlace::Within(Place { line, column })
}

#[test]
fn any_stream_of_values_is_taken_apart() {
    let all = ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"];
    for input in [
        "{\"a\":1}{\"b\":2}{\"c\":3}",
        "{\"a\":1} {\"b\":2}\t{\"c\":3}",
        "{\"a\":1}{\"b\":2}\n{\"c\":3}\n",
        "{\"a\":1}[{\"b\":2},{\"c\":3}]",
        "[{\"a\":1}]\n[{\"b\":2}]\r\n[]\n{\"c\":3}",
        "{\"events\":[{\"a\":1}]}{\"b\":2}{ \"events\" : [ {\"c\":3} ] }",
        "{\"a\":1}\n[\n{\"b\":2},\n{\"c\":3}\n]",
    ] {
        assert_eq!(texts(input), all, "{input}");
    }
    let spread = "{\"a\":1}\n{\n\"b\":2\n}\n{\"c\":3}{\"d\":\n4}";
    assert_eq!(texts(spread), ["{\"a\":1}", "{ \"b\":2 }", "{\"c\":3}", "{\"d\": 4}"]);
}

#[test]
fn every_place_names_one_event() {
    let places: Vec<_> = events("{\"a\":1}{\"b\":2}\n{\"c\":3} oops {\n[{},{}]").unwrap();
    let expected = [
        (InputPlace::Line(1), "{\"a\":1}"),
        (place(1, 8), "{\"b\":2}"),
        (InputPlace::Line(2), "{\"c\":3}"),
        (place(2, 9), "oops {"),
        (InputPlace::Index(4), "{}"),
        (InputPlace::Index(5), "{}"),
    ];
    assert_eq!(places, expected.map(|(at, text)| (at, text.to_owned())));
    assert_eq!(place(1, 8).to_string(), "line 1, column 8");
}

/// A line that is cut off, as a crash leaves it, would swallow the lines behind it.
#[test]
fn a_line_that_lacks_its_end_is_bad_alone() {
    for cut in
        ["{\"a\":1", "{\"a\":[", "{\"a\":[1,", "{\"a\":{\"x\":", "{\"a\":\"x", "{\"a\":1,", "{", "{\"a"]
    {
        let middle = format!("{{\"z\":0}}\n{cut}\n{{\"b\":2}}\n{{\"c\":3}}\n");
        assert_eq!(texts(&middle), ["{\"z\":0}", cut, "{\"b\":2}", "{\"c\":3}"]);
        let first = format!("{cut}\n{{\"b\":2}}\n{{\"c\":3}}\n");
        assert_eq!(texts(&first), [cut, "{\"b\":2}", "{\"c\":3}"]);
        let last = format!("{{\"z\":0}}\n{{\"b\":2}}\n{cut}");
        assert_eq!(texts(&last), ["{\"z\":0}", "{\"b\":2}", cut]);
        let windows = format!("{{\"z\":0}}\r\n{cut}\r\n{{\"b\":2}}\r\n");
        assert_eq!(texts(&windows), ["{\"z\":0}", cut, "{\"b\":2}"]);
    }
    let list = "{\"z\":0}\n[{\"a\":1}\n{\"b\":2}\n[{\"c\":3},{\"d\":4}";
    assert_eq!(
        texts(list),
        ["{\"z\":0}", "{\"a\":1}", "not_json", "{\"b\":2}", "{\"c\":3}", "{\"d\":4}", "not_json"]
    );
    let deep: String = (0..2000).map(|_| "{\"a\":[\n").collect();
    assert_eq!(texts(&format!("{{}}\n{deep}{{}}")).len(), 2002);
}

#[test]
fn an_input_without_events_is_refused_with_one_message() {
    let csv = (0..1000).map(|row| format!("orders,{row},2026-01-01\n")).collect::<Vec<_>>().concat();
    let python = (0..1000).map(|row| format!("{{'event_id': '{row}'}}\n")).collect::<Vec<_>>().concat();
    let messages =
        (0..1000).map(|row| format!("[2026-01-01 00:00:{row}] INFO x\n")).collect::<Vec<_>>().concat();
    let endless_line = "x".repeat(1 << 20);
    for (input, words) in [
        (&*csv, "holds no events: at line 1, column 1 stands \"orders,0,2026-01-01\"; events are"),
        (&python, "stands \"{'event_id': '0'}\""),
        (&messages, "not JSON at line 1, column 13: expected `,` or `]`"),
        (&endless_line, "and more; events are JSON objects"),
        ("\n\n<?xml version=\"1.0\"?>\n<events/>", "at line 3, column 1 stands \"<?xml"),
        ("<html>", "stands \"<html>\""),
        ("\u{1}\u{2}binary\n{", "stands binary data"),
        ("oops", "stands \"oops\""),
        ("{\"a\":oops}\n", "stands \"{\\\"a\\\":oops}\" (expected value at column 6)"),
        ("  {\"a\":1", "stands \"{\\\"a\\\":1\" (EOF while parsing an object at column 8)"),
        ("[1,2,3]", "stands \"1\""),
        ("\"text\"\n5\nnull\n", "stands \"\\\"text\\\"\""),
        ("{\0\"\0a\0", "the input is UTF-16 text, not JSON"),
        ("PK\u{3}\u{4}", "the input is a zip archive, not JSON"),
    ] {
        let mut given = 0;
        let mut sink = |_| {
            given += 1;
            ControlFlow::Continue(())
        };
        let error = read(input.as_bytes(), &mut sink).unwrap_err().to_string();
        assert!(error.contains(words) && given == 0, "{error}");
    }
    let mut given = 0;
    let mut sink = |_| {
        given += 1;
        ControlFlow::Continue(())
    };
    let endless = Endless::new(b"\x01\x02", &[b'x'; 1 << 10], (EVENT_MAX >> 10) + 1, b"");
    let error = read(endless, &mut sink).unwrap_err().to_string();
    assert!(error.contains("stands a line of more than") && given == 0, "{error}");
    let sixteen: Vec<u8> = "\u{feff}{\"a\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let error = read(&*sixteen, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.starts_with("the input is UTF-16 text, not JSON; convert it"), "{error}");
}

#[test]
fn bad_events_before_the_first_good_one_are_told_with_it() {
    let bad = "oops\n".repeat(50);
    let found = events(&format!("{bad}{{\"a\":1}}\n")).unwrap();
    assert_eq!(found.len(), 51);
    assert_eq!(found[49].0, InputPlace::Line(50));
    assert_eq!(found[50], (InputPlace::Line(51), "{\"a\":1}".to_owned()));
    assert_eq!(events("[1,{\"a\":1}]").unwrap()[1].0, InputPlace::Index(1));
}

/// Gives a text again and again between a head and a tail, and counts what was taken.
struct Endless {
    parts: Box<dyn Iterator<Item = &'static [u8]>>,
    part: &'static [u8],
    taken: std::rc::Rc<std::cell::Cell<usize>>,
}

impl Endless {
    fn new(head: &'static [u8], again: &'static [u8], times: usize, tail: &'static [u8]) -> Self {
        let parts = [head].into_iter().chain(std::iter::repeat_n(again, times)).chain([tail]);
        Self { parts: Box::new(parts), part: b"", taken: std::rc::Rc::default() }
    }
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.part.is_empty() {
            self.part = self.parts.next().unwrap_or_default();
        }
        let count = self.part.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.part[..count]);
        self.part = &self.part[count..];
        self.taken.set(self.taken.get() + count);
        Ok(count)
    }
}

#[test]
fn a_list_of_any_length_on_one_line_is_handed_on_while_it_is_read() {
    const EVENT: &[u8] = br#"{"topic":"orders","event_id":"a","payload":{"n":[1,2]}},"#;
    for (head, tail) in
        [(&b"["[..], &b"{}]"[..]), (b"{\"events\":[", b"{}]}"), (b"{}[{\"events\":[1]},", b"{}]")]
    {
        let input = Endless::new(head, EVENT, 300_000, tail);
        let taken = std::rc::Rc::clone(&input.taken);
        let (mut given, mut bytes) = (0_usize, 0_usize);
        let mut sink = |event: InputEvent| {
            given += 1;
            bytes += event.bytes();
            // The reader takes 256 KiB at once, and holds no more than that.
            assert!(taken.get() <= bytes + head.len() + (256 << 10), "event {given} after {}", taken.get());
            ControlFlow::Continue(())
        };
        read(input, &mut sink).unwrap();
        assert!(given > 300_000, "{given}");
    }
}

#[test]
fn an_event_that_is_too_long_is_rejected_alone_and_not_held() {
    const PART: &[u8] = &[b'x'; 1 << 10];
    const TIMES: usize = (EVENT_MAX >> 10) + 1;
    let bytes = |text: &'static str| text.as_bytes();
    let cases = [
        (
            bytes("{\"a\":1}\n{\"b\":\""),
            bytes("\"}\n{\"c\":3}\n"),
            InputPlace::Line(2),
            vec!["{\"a\":1}", "{\"c\":3}"],
        ),
        (
            bytes("[{\"a\":1},{\"b\":\""),
            bytes("\"},{\"c\":3}]"),
            InputPlace::Index(1),
            vec!["{\"a\":1}", "{\"c\":3}"],
        ),
        (bytes("{\"events\":[\""), bytes("\",{\"c\":3}]}"), InputPlace::Index(0), vec!["{\"c\":3}"]),
        (bytes("{\n\"b\":\""), bytes("\"}{\"c\":3}"), InputPlace::Index(0), vec!["{\"c\":3}"]),
        (bytes("{\"a\":1}\n"), bytes("\n{\"c\":3}\n"), InputPlace::Line(2), vec!["{\"a\":1}", "{\"c\":3}"]),
    ];
    for (head, tail, at, others) in cases {
        let mut found = Vec::new();
        let mut rejected = Vec::new();
        let mut sink = |event: InputEvent| {
            match event.json {
                Ok(json) => found.push(String::from_utf8(json).unwrap()),
                Err(fault) => rejected.push((event.place, fault.code)),
            }
            ControlFlow::Continue(())
        };
        read(Endless::new(head, PART, TIMES, tail), &mut sink).unwrap();
        assert_eq!(found, others);
        assert_eq!(rejected, [(at, "event_too_large".to_owned())]);
    }
}
