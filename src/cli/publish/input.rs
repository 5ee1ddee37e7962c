//! The events of an input of `publish`: what they are, where they stand, and why the rest cannot be read.

use std::fmt;
use std::io;
use std::ops::ControlFlow;

use serde::{Serialize, Serializer};
use thiserror::Error;

use super::source::Place;
use crate::api::EventFault;

/// The longest event, in bytes; far over what a server takes. A longer one is passed over and not held.
pub(super) const EVENT_MAX: usize = if cfg!(test) { 1 << 20 } else { 64 << 20 };

/// One event of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InputEvent {
    /// Where it stands.
    pub(super) place: InputPlace,
    /// The event as one line of JSON, which the server checks; or why it cannot be sent.
    pub(super) json: Result<Vec<u8>, EventFault>,
}

/// Where an event stands in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputPlace {
    /// The first one of a line, from 1.
    Line(u64),
    /// A later one of a line.
    Within(Place),
    /// In a list, or where values span lines: how many events stand before it.
    Index(u64),
}

/// Why the rest of the input cannot be read.
#[derive(Debug, Error)]
pub(super) enum InputError {
    #[error("cannot read the input")]
    Io(#[from] io::Error),
    #[error("the input is not JSON at line {}, column {}: {reason}", at.line, at.column)]
    NotJson { at: Place, reason: &'static str },
    #[error(
        "the input is {0}, not JSON; convert it to JSON in UTF-8 first, one event a line or a list of them"
    )]
    OtherFormat(&'static str),
    #[error(
        "the input holds no events: at line {}, column {} stands {found}; events are JSON objects, one a line \
         or in a list", at.line, at.column
    )]
    NoEvents { at: Place, found: String },
}

/// Takes events; breaks when it wants no more.
pub(super) type Sink<'a> = &'a mut dyn FnMut(InputEvent) -> ControlFlow<()>;

impl InputEvent {
    /// How many bytes of a request it takes.
    pub(super) fn bytes(&self) -> usize {
        self.json.as_ref().map_or(0, |json| json.len() + 1)
    }
}

impl InputError {
    /// Whether it was found before anything was sent.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::OtherFormat(_) | Self::NoEvents { .. })
    }
}

impl fmt::Display for InputPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(formatter, "line {line}"),
            Self::Within(Place { line, column }) => write!(formatter, "line {line}, column {column}"),
            Self::Index(index) => write!(formatter, "event {index} (from 0)"),
        }
    }
}

impl Serialize for InputPlace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
