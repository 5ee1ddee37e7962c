//! The bytes of an input, with the place of the next one, and the way back to an earlier one.

use std::io::{self, ErrorKind, Read};

/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;

/// A place in the input, both counted from 1; columns are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// An input that is read byte by byte.
pub(super) struct Source<R> {
    input: R,
    buffer: Vec<u8>,
    /// The next byte of the buffer.
    at: usize,
    place: Place,
}

impl<R: Read> Source<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), at: 0, place: Place { line: 1, column: 1 } }
    }

    /// The place of the next byte.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Looks at the next byte.
    pub(super) fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
            self.fill()?;
        }
        Ok(self.buffer.get(self.at).copied())
    }

    /// Goes past a byte that [`Source::peek`] gave.
    pub(super) fn pass(&mut self, byte: u8) {
        self.at += 1;
        self.place.column += 1;
        if byte == b'\n' {
            self.place = Place { line: self.place.line + 1, column: 1 };
        }
    }

    /// Goes past white space; looks at the byte behind it.
    pub(super) fn pass_space(&mut self) -> io::Result<Option<u8>> {
        while let Some(byte) = self.peek()? {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Ok(Some(byte));
            }
            self.pass(byte);
        }
        Ok(None)
    }

    /// Goes past these bytes where they are the next ones; their place counts as none.
    pub(super) fn pass_mark(&mut self, mark: &[u8]) -> io::Result<()> {
        if self.ahead(mark.len())?.starts_with(mark) {
            self.at += mark.len();
        }
        Ok(())
    }

    /// The next bytes, so many unless the input ends before.
    pub(super) fn ahead(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.buffer.len() - self.at < count && self.fill()? {}
        let end = self.buffer.len().min(self.at + count);
        Ok(&self.buffer[self.at..end])
    }

    /// The next line without its end, where it has at most so many bytes.
    pub(super) fn line_ahead(&mut self, most: usize) -> io::Result<Option<&[u8]>> {
        let mut searched = self.at;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                return Ok(Some(&self.buffer[self.at..searched + end]));
            }
            searched = self.buffer.len();
            if searched - self.at > most {
                return Ok(None);
            }
            if !self.fill()? {
                return Ok(Some(&self.buffer[self.at..]));
            }
        }
    }

    /// Goes back: these bytes, of which the first stands at this place, come again.
    pub(super) fn back(&mut self, mut bytes: Vec<u8>, place: Place) {
        bytes.extend_from_slice(&self.buffer[self.at..]);
        self.buffer = bytes;
        self.at = 0;
        self.place = place;
    }

    /// Reads more; false at the end of the input.
    fn fill(&mut self) -> io::Result<bool> {
        let before = self.buffer.len();
        self.buffer.resize(before + READ_BYTES, 0);
        let read = loop {
            match self.input.read(&mut self.buffer[before..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(before + read.as_ref().copied().unwrap_or(0));
        Ok(read? > 0)
    }
}
