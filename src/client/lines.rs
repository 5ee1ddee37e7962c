//! The lines of an answer, one at a time: a read of any length takes the memory of one line.

use std::time::Duration;

use actix_web::web::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::LocalBoxStream;

use super::error::ClientError;

/// The longest line, in bytes; far over any event.
const LINE_MAX: usize = 256 << 20;
/// The longest silence in the middle of an answer.
const SILENCE: Duration = Duration::from_mins(1);

/// A body that arrives in pieces, or the reason why the rest of it does not.
pub(super) type Body = LocalBoxStream<'static, Result<Bytes, String>>;

/// An NDJSON answer with a known number of lines. The number is needed: an answer without a length ends
/// where its connection does, so only a missing line shows that it was cut off.
pub struct Lines {
    url: String,
    body: Body,
    /// Lines that are still to come.
    missing: u64,
    buffer: BytesMut,
    /// So many bytes of the buffer hold no line end.
    searched: usize,
}

impl Lines {
    /// The lines of this body, `count` of them at least.
    pub(super) fn new(url: String, body: Body, count: u64) -> Self {
        Self { url, body, missing: count, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line, without its end; `None` after the last.
    ///
    /// # Errors
    /// When the answer ends before its last line, breaks or falls silent; a part of a line is never given.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                self.missing = self.missing.saturating_sub(1);
                return Ok(Some(line.slice(..line.len() - 1)));
            }
            self.searched = self.buffer.len();
            if self.searched > LINE_MAX {
                return Err(self.unreadable(format!("a line is longer than {LINE_MAX} bytes")));
            }
            if !self.fill().await? {
                return self.check_end().map(|()| None);
            }
        }
    }

    fn check_end(&self) -> Result<(), ClientError> {
        if self.missing == 0 && self.buffer.is_empty() {
            return Ok(());
        }
        let reason = format!("the answer ended {} events too early", self.missing);
        Err(ClientError::Broken { url: self.url.clone(), reason })
    }

    /// Waits for more; false at the end.
    async fn fill(&mut self) -> Result<bool, ClientError> {
        match tokio::time::timeout(SILENCE, self.body.next()).await {
            Err(_) => Err(ClientError::Timeout { url: self.url.clone(), waited: SILENCE }),
            Ok(None) => Ok(false),
            Ok(Some(Ok(chunk))) => {
                self.buffer.extend_from_slice(&chunk);
                Ok(true)
            }
            Ok(Some(Err(reason))) => Err(ClientError::Broken { url: self.url.clone(), reason }),
        }
    }

    fn unreadable(&self, reason: String) -> ClientError {
        ClientError::Unreadable { url: self.url.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    async fn read(chunks: Vec<Result<Bytes, String>>, count: u64) -> (Vec<String>, bool) {
        let mut lines = Lines::new("http://h".to_owned(), stream::iter(chunks).boxed_local(), count);
        let mut found = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => found.push(String::from_utf8(line.to_vec()).unwrap()),
                Ok(None) => return (found, true),
                Err(_) => return (found, false),
            }
        }
    }

    fn chunks(texts: &[&'static str]) -> Vec<Result<Bytes, String>> {
        texts.iter().map(|text| Ok(Bytes::from_static(text.as_bytes()))).collect()
    }

    #[actix_web::test]
    async fn lines_come_whole_however_they_are_cut() {
        let (lines, whole) = read(chunks(&["a", "b\n\ncd", "\n"]), 3).await;
        assert_eq!((lines, whole), (vec!["ab".to_owned(), String::new(), "cd".into()], true));
    }

    #[actix_web::test]
    async fn an_end_before_the_last_line_is_an_error() {
        for (texts, count) in [(&["a\n"][..], 2), (&["a\n", "b"], 1), (&["a\n", "b"], 2), (&[], 1)] {
            let (lines, whole) = read(chunks(texts), count).await;
            assert_eq!((lines.len(), whole), (texts.len().min(1), false), "{texts:?}");
        }
    }

    #[actix_web::test]
    async fn a_part_of_a_line_before_a_break_is_not_given() {
        let mut broken = chunks(&["a\nb"]);
        broken.push(Err("cut".to_owned()));
        let (lines, whole) = read(broken, 2).await;
        assert_eq!((lines, whole), (vec!["a".to_owned()], false));
    }
}
