//! Cuts an input into events, each one line of JSON: any stream of JSON values, with or without white space
//! between them. A value is an event, a list of events, or `{"events":[...]}`; lists are read element by
//! element, so that one of any length takes the memory of one event. Bytes of events pass unchanged, only
//! line breaks between the tokens of an event become spaces.
//!
//! Where each value so far stood on one line, the input is taken for lines: what is no JSON is one bad event
//! up to the end of its line, and the next line is read as if nothing had been. Where values span lines, an
//! error has no such end, and the rest of the input cannot be read.

use std::io::Read;

use serde::de::IgnoredAny;

use super::held::{Held, is_object};
use super::inflate;
use super::input::{EVENT_MAX, InputError, InputEvent, InputPlace, Sink};
use super::scan::{Scanner, Step};
use super::source::{Place, Source};
use crate::api::EventFault;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What `{"events":[...]}` begins with; white space may stand between the tokens.
const EVENTS: &[u8] = b"{\"events\":[";
/// Where the name stands in it, within which white space is none.
const EVENTS_NAME: std::ops::Range<usize> = 2..9;

/// Bad events that may stand before the first good one; more of them are no input of events.
const DOUBTS: usize = 100;
/// Bytes of them.
const DOUBT_BYTES: usize = 1 << 20;

/// Levels of a value that goes on in another line of an input of lines; a server takes fewer. Without a
/// bound each line that lacks its end would be read together with all that follow.
const DEPTH_OVER_LINES: usize = 128;

/// The longest line that is looked at as a whole.
const LINE_AHEAD: usize = 1 << 20;

const EOF_IN_VALUE: &str = "EOF while parsing a value";
const EOF_IN_LIST: &str = "EOF while parsing a list";
const SEPARATOR: &str = "expected `,` or `]`";
const NO_EVENT: &str = "events are objects or lists of them";

/// How the values so far stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// There was none.
    Unknown,
    /// Each on one line.
    Lines,
    /// At least one over several lines.
    Spread,
}

/// Reads an input.
struct Values<'a, R> {
    source: Source<R>,
    sink: Sink<'a>,
    form: Form,
    /// Events so far.
    count: u64,
    /// The line of the last event.
    last_line: u64,
    stopped: bool,
    /// Bad events before the first good one, each with its place; none afterwards.
    doubts: Option<Vec<(Place, InputEvent)>>,
}

/// Reads the input to its end, or until the sink breaks.
pub(super) fn read(input: impl Read, sink: Sink<'_>) -> Result<(), InputError> {
    let mut values = Values {
        source: Source::new(input),
        sink,
        form: Form::Unknown,
        count: 0,
        last_line: 0,
        stopped: false,
        doubts: Some(Vec::new()),
    };
    if let Some(name) = inflate::other_format(values.source.ahead(inflate::HEAD)?) {
        return Err(InputError::OtherFormat(name));
    }
    values.source.pass_mark(BYTE_ORDER_MARK)?;
    values.all()
}

impl<R: Read> Values<'_, R> {
    fn all(&mut self) -> Result<(), InputError> {
        while !self.stopped {
            let Some(first) = self.source.pass_space()? else { break };
            let start = self.source.place();
            match first {
                b'{' => self.object(start)?,
                b'[' => {
                    self.source.pass(first);
                    self.list(start)?;
                }
                _ => self.bad_line(start, Held::default(), (start, NO_EVENT))?,
            }
        }
        match self.doubts.take() {
            Some(doubts) if !self.stopped => refuse(doubts),
            _ => Ok(()),
        }
    }

    /// An event, or `{"events":[...]}`.
    fn object(&mut self, start: Place) -> Result<(), InputError> {
        let (mut scanner, mut held, mut alike) = (Scanner::new(), Held::default(), Some(0));
        loop {
            let at = self.source.place();
            let Some(byte) = self.source.peek()? else {
                return self.broken_object(start, held, (at, EOF_IN_VALUE));
            };
            let mut step = scanner.step(byte);
            if self.form == Form::Lines && at.line > start.line && scanner.depth() > DEPTH_OVER_LINES {
                step = Step::Wrong("nested too deep");
            }
            if let Step::Wrong(reason) = step {
                return self.broken_object(start, held, (at, reason));
            }
            self.source.pass(byte);
            held.push(byte);
            alike = alike.and_then(|matched| like_events(matched, byte));
            if alike == Some(EVENTS.len()) {
                return self.list_of_object(start);
            }
            if step == Step::Last {
                return self.whole(start, held);
            }
        }
    }

    /// A value that stands at the top and is an event.
    fn whole(&mut self, start: Place, held: Held) -> Result<(), InputError> {
        self.ended(start);
        let place =
            if self.form == Form::Spread { InputPlace::Index(self.count) } else { self.place_in_line(start) };
        self.event(start, place, held, true)
    }

    /// Takes note of how a value stood that has ended here.
    fn ended(&mut self, start: Place) {
        if self.source.place().line != start.line {
            self.form = Form::Spread;
        } else if self.form == Form::Unknown {
            self.form = Form::Lines;
        }
    }

    fn place_in_line(&mut self, start: Place) -> InputPlace {
        let is_first = self.last_line != start.line;
        self.last_line = start.line;
        if is_first { InputPlace::Line(start.line) } else { InputPlace::Within(start) }
    }

    /// What to do with an object that is none, or has no end.
    fn broken_object(
        &mut self,
        start: Place,
        held: Held,
        (at, reason): (Place, &'static str),
    ) -> Result<(), InputError> {
        if at.line == start.line || held.too_long {
            return self.bad_line(start, held, (at, reason));
        }
        if self.form == Form::Spread {
            return Err(InputError::NotJson { at, reason });
        }
        // The line may lack its end: it alone is bad then, and the lines behind it are read again.
        let mut line = held;
        let end =
            line.bytes.iter().position(|byte| *byte == b'\n').map_or(line.bytes.len(), |length| length + 1);
        let rest = line.bytes.split_off(end);
        self.source.back(rest, Place { line: start.line + 1, column: 1 });
        if self.form == Form::Unknown && !self.is_object_ahead()? {
            return Err(InputError::NotJson { at, reason });
        }
        let place = self.place_in_line(start);
        self.event(start, place, line, false)
    }

    /// Whether the next line is a whole JSON object.
    fn is_object_ahead(&mut self) -> Result<bool, InputError> {
        let line = self.source.line_ahead(LINE_AHEAD)?;
        Ok(line.is_some_and(is_object))
    }

    /// What stands from here to the end of the line is one bad event.
    fn bad_line(
        &mut self,
        start: Place,
        mut held: Held,
        (at, reason): (Place, &'static str),
    ) -> Result<(), InputError> {
        if self.form == Form::Spread {
            return Err(InputError::NotJson { at, reason });
        }
        while let Some(byte) = self.source.peek()? {
            self.source.pass(byte);
            if byte == b'\n' {
                break;
            }
            held.push(byte);
        }
        let place = self.place_in_line(start);
        self.event(start, place, held, false)
    }

    /// The elements of a list whose first bracket has been passed, and its end.
    fn list(&mut self, start: Place) -> Result<(), InputError> {
        match self.elements() {
            Err(InputError::NotJson { at, reason }) if self.form == Form::Lines => {
                if at.line == start.line && self.source.peek()?.is_some() {
                    return self.bad_line(at, Held::default(), (at, reason));
                }
                if reason != SEPARATOR && reason != EOF_IN_LIST {
                    return Err(InputError::NotJson { at, reason });
                }
                // A line that lacks its end; its events were whole, and the next line is.
                let place = self.place_in_line(start);
                let detail = "the list has no end; its events are sent".to_owned();
                let fault = EventFault { field: None, code: "not_json".to_owned(), detail };
                self.give(InputEvent { place, json: Err(fault) });
                Ok(())
            }
            Err(error) => Err(error),
            Ok(()) => {
                self.ended(start);
                Ok(())
            }
        }
    }

    fn elements(&mut self) -> Result<(), InputError> {
        let mut is_first = true;
        while !self.stopped {
            let first = self.next_in_list()?;
            match first {
                b']' if is_first => {
                    self.source.pass(first);
                    return Ok(());
                }
                _ => self.element()?,
            }
            is_first = false;
            if self.stopped {
                break;
            }
            match self.next_in_list()? {
                b',' => self.source.pass(b','),
                b']' => {
                    self.source.pass(b']');
                    return Ok(());
                }
                _ => {
                    let at = self.source.place();
                    return Err(InputError::NotJson { at, reason: SEPARATOR });
                }
            }
        }
        Ok(())
    }

    /// Looks at the next byte of a list that is no white space.
    fn next_in_list(&mut self) -> Result<u8, InputError> {
        let next = self.source.pass_space()?;
        next.ok_or_else(|| InputError::NotJson { at: self.source.place(), reason: EOF_IN_LIST })
    }

    fn element(&mut self) -> Result<(), InputError> {
        let (start, mut scanner, mut held) = (self.source.place(), Scanner::new(), Held::default());
        loop {
            let at = self.source.place();
            let Some(byte) = self.source.peek()? else {
                return Err(InputError::NotJson { at, reason: EOF_IN_LIST });
            };
            let step = scanner.step(byte);
            match step {
                Step::Wrong(reason) => return Err(InputError::NotJson { at, reason }),
                Step::After => break,
                Step::More | Step::Last => {
                    self.source.pass(byte);
                    held.push(byte);
                }
            }
            if step == Step::Last {
                break;
            }
        }
        self.event(start, InputPlace::Index(self.count), held, true)
    }

    /// The rest of `{"events":[...]}` behind its first bracket.
    fn list_of_object(&mut self, start: Place) -> Result<(), InputError> {
        self.elements()?;
        if self.stopped {
            return Ok(());
        }
        let next = self.source.pass_space()?;
        let at = self.source.place();
        let Some(byte @ (b'}' | b',')) = next else {
            let reason = if next.is_some() { "expected `,` or `}`" } else { EOF_IN_VALUE };
            return Err(InputError::NotJson { at, reason });
        };
        self.source.pass(byte);
        if byte == b'}' {
            self.ended(start);
            return Ok(());
        }
        self.other_members()?;
        self.ended(start);
        let detail = "an object with a list of events must have no other member; its events are sent";
        self.give(InputEvent {
            place: InputPlace::Index(self.count),
            json: Err(EventFault {
                field: None,
                code: "unknown_field".to_owned(),
                detail: detail.to_owned(),
            }),
        });
        Ok(())
    }

    /// Goes past the members of an object, of which the first begins here.
    fn other_members(&mut self) -> Result<(), InputError> {
        let mut scanner = Scanner::within_object();
        loop {
            let at = self.source.place();
            let byte = self.source.peek()?.ok_or(InputError::NotJson { at, reason: EOF_IN_VALUE })?;
            let step = scanner.step(byte);
            if let Step::Wrong(reason) = step {
                return Err(InputError::NotJson { at, reason });
            }
            self.source.pass(byte);
            if step == Step::Last {
                return Ok(());
            }
        }
    }

    /// Hands an event on, or holds it back until it is known that the input has events at all.
    fn event(
        &mut self,
        start: Place,
        place: InputPlace,
        held: Held,
        is_value: bool,
    ) -> Result<(), InputError> {
        let event = InputEvent { place, json: held.into_json() };
        let Some(doubts) = &mut self.doubts else {
            self.give(event);
            return Ok(());
        };
        let is_good = match &event.json {
            Ok(json) => is_object(json),
            // A value that was passed over to its end, and not a line of anything.
            Err(_) => is_value,
        };
        if !is_good {
            doubts.push((start, event));
            let bytes: usize = doubts.iter().map(|(_, doubtful)| doubtful.bytes()).sum();
            return if doubts.len() > DOUBTS || bytes > DOUBT_BYTES {
                refuse(std::mem::take(doubts))
            } else {
                self.count += 1;
                Ok(())
            };
        }
        let held_back = self.doubts.take().unwrap_or_default();
        self.count -= held_back.len() as u64;
        for (_, doubtful) in held_back {
            self.give(doubtful);
        }
        self.give(event);
        Ok(())
    }

    fn give(&mut self, event: InputEvent) {
        if !self.stopped {
            self.stopped = (self.sink)(event).is_break();
            self.count += 1;
        }
    }
}

/// How much of [`EVENTS`] is matched with one byte more; none where it is something else.
fn like_events(matched: usize, byte: u8) -> Option<usize> {
    match EVENTS.get(matched) {
        Some(next) if *next == byte => Some(matched + 1),
        Some(_) if byte.is_ascii_whitespace() && !EVENTS_NAME.contains(&matched) => Some(matched),
        _ => None,
    }
}

/// Says that an input with nothing but these has no events; an empty one is fine.
fn refuse(doubts: Vec<(Place, InputEvent)>) -> Result<(), InputError> {
    const SHOWN: usize = 60;
    let Some((at, event)) = doubts.into_iter().next() else { return Ok(()) };
    let Ok(json) = event.json else {
        return Err(InputError::NoEvents { at, found: format!("a line of more than {EVENT_MAX} bytes") });
    };
    let text = std::str::from_utf8(&json).ok();
    let mut found = match text.filter(|text| !text.contains(|byte: char| byte.is_control() && byte != '\t')) {
        None => "binary data".to_owned(),
        Some(text) if text.chars().count() <= SHOWN => format!("{text:?}"),
        Some(text) => format!("{:?} and more", text.chars().take(SHOWN).collect::<String>()),
    };
    // What begins like an event was meant for one: its error is worth more than its text.
    if json.starts_with(b"{")
        && let Err(error) = serde_json::from_slice::<IgnoredAny>(&json)
    {
        let told = error.to_string();
        let reason = told.rsplit_once(" at line ").map_or(&*told, |(reason, _)| reason);
        let column = at.column + (error.column() as u64).saturating_sub(1);
        found = format!("{found} ({reason} at column {column})");
    }
    Err(InputError::NoEvents { at, found })
}
