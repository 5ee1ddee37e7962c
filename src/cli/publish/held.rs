//! The bytes of one value while it is read, up to the longest event.

use serde::de::IgnoredAny;

use super::input::EVENT_MAX;
use crate::api::EventFault;

/// The bytes of a value as far as they are held.
#[derive(Default)]
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    /// It grew too long, and its bytes are gone.
    pub(super) too_long: bool,
}

impl Held {
    /// Takes one byte more; past the longest event all of them go.
    pub(super) fn push(&mut self, byte: u8) {
        if self.bytes.len() == EVENT_MAX {
            *self = Self { bytes: Vec::new(), too_long: true };
        }
        if !self.too_long {
            self.bytes.push(byte);
        }
    }

    /// The bytes as one line of JSON; the fault of an event that was too long.
    pub(super) fn into_json(mut self) -> Result<Vec<u8>, EventFault> {
        if self.too_long {
            let detail = format!("must have {EVENT_MAX} bytes at most");
            return Err(EventFault { field: None, code: "event_too_large".to_owned(), detail });
        }
        // In valid JSON a raw line break can stand between tokens only.
        for byte in &mut self.bytes {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        let end = self.bytes.trim_ascii_end().len();
        self.bytes.truncate(end);
        Ok(self.bytes)
    }
}

/// Whether this is one whole JSON object.
pub(super) fn is_object(json: &[u8]) -> bool {
    json.trim_ascii().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(json).is_ok()
}
