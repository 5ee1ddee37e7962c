//! A topic that is followed: its events as they come, checked to be all of them, each once.

use std::fmt;

use actix_web::web::Bytes;
use serde::Deserialize;

use super::error::ClientError;
use super::lines::{Body, Lines};

/// How far a topic was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The seq of the last event.
    pub seq: u64,
    /// The history in which that event has this seq, where it is known.
    pub history: Option<String>,
}

/// Where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// After this seq, which without a history may be one that does not exist yet; 0 is the beginning.
    After(Cursor),
    /// After the last event that came, which the server has to know.
    Had(Cursor),
}

impl Cursor {
    /// The cursor that the id of a server-sent event is: `41@k3f9`, or `41`.
    fn parse(id: &str) -> Option<Self> {
        let (seq, history) = match id.split_once('@') {
            Some((seq, history)) => (seq, Some(history.to_owned())),
            None => (id, None),
        };
        Some(Self { seq: seq.parse().ok()?, history })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.history {
            Some(history) => write!(formatter, "{}@{history}", self.seq),
            None => write!(formatter, "{}", self.seq),
        }
    }
}

/// The events of one connection.
pub struct Following {
    url: String,
    lines: Lines,
    at: Begin,
    /// The fields of the event that is arriving.
    id: Option<Cursor>,
    data: Bytes,
    kind: Option<Bytes>,
}

impl Following {
    pub(super) fn new(url: String, body: Body, begin: Begin) -> Self {
        let lines = Lines::new(url.clone(), body, 0);
        Self { url, lines, at: begin, id: None, data: Bytes::new(), kind: None }
    }

    /// Where to go on when this connection has ended.
    #[must_use]
    pub fn at(&self) -> &Begin {
        &self.at
    }

    /// The next event, as the server writes it into NDJSON. May be dropped and called again at any time.
    ///
    /// # Errors
    /// When the connection ends, breaks or falls silent: [`ClientError::is_transient`] then, and nothing is lost. Else
    /// when the next event is not the next one.
    pub async fn next(&mut self) -> Result<Bytes, ClientError> {
        loop {
            let line = self.lines.next().await?.ok_or_else(|| self.broken("it ended".to_owned()))?;
            let (field, value) = field(&line);
            match field.as_ref() {
                b"id" => self.id = std::str::from_utf8(&value).ok().and_then(Cursor::parse),
                b"data" => self.data = value,
                b"event" => self.kind = Some(value),
                b"" if line.is_empty() => {
                    if let Some(event) = self.dispatch()? {
                        return Ok(event);
                    }
                }
                // Comments, and what is for browsers.
                _ => {}
            }
        }
    }

    /// What an empty line ends.
    fn dispatch(&mut self) -> Result<Option<Bytes>, ClientError> {
        let (id, data, kind) = (self.id.take(), std::mem::take(&mut self.data), self.kind.take());
        if let Some(kind) = kind {
            return if kind.as_ref() == b"end" { Err(self.ended(&data)) } else { Ok(None) };
        }
        let Some(id) = id else { return Ok(None) };
        if data.is_empty() {
            self.begins(id);
            return Ok(None);
        }
        let (is_next, last) = match &self.at {
            // The first one that there is may be a later one.
            Begin::After(after) => (id.seq > after.seq, after),
            Begin::Had(last) => (id.seq == last.seq.wrapping_add(1), last),
        };
        if !is_next {
            let reason = format!("event {id} came where {last} was the last");
            return Err(ClientError::Unreadable { url: self.url.clone(), reason });
        }
        self.at = Begin::Had(id);
        Ok(Some(data))
    }

    /// The server names the place where it begins, in the history of this connection. Where that is the
    /// place that was asked for, the next connection names the history too, also if no event comes.
    fn begins(&mut self, id: Cursor) {
        match &mut self.at {
            Begin::After(at) | Begin::Had(at) if at.seq == id.seq => *at = id,
            Begin::After(_) | Begin::Had(_) => {}
        }
    }

    fn ended(&self, data: &[u8]) -> ClientError {
        #[derive(Deserialize)]
        struct End {
            detail: String,
        }
        let said = serde_json::from_slice(data).map(|End { detail }| detail);
        self.broken(said.unwrap_or_else(|_| "the server ended it".to_owned()))
    }

    fn broken(&self, reason: String) -> ClientError {
        ClientError::Broken { url: self.url.clone(), reason }
    }
}

/// The name of a line's field, and its value.
fn field(line: &Bytes) -> (Bytes, Bytes) {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    let mut start = (colon + 1).min(line.len());
    if line.get(start) == Some(&b' ') {
        start += 1;
    }
    (line.slice(..colon), line.slice(start..))
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;

    fn cursor(seq: u64) -> Cursor {
        Cursor { seq, history: None }
    }

    fn after(seq: u64) -> Begin {
        Begin::After(cursor(seq))
    }

    fn had(seq: u64) -> Begin {
        Begin::Had(cursor(seq))
    }

    #[actix_web::test]
    async fn the_history_of_the_last_event_is_kept_for_the_next_connection() {
        let text = "id: 4@k3f9\ndata: {}\n\nid: 5@k3f9\ndata: {}\n\n";
        let (events, _, at) = read(text, after(2)).await;
        assert_eq!(events.len(), 2);
        assert_eq!(at, Begin::Had(Cursor { seq: 5, history: Some("k3f9".to_owned()) }));
        assert_eq!(Cursor::parse("5@k3f9").unwrap().to_string(), "5@k3f9");
        assert_eq!(Cursor::parse("5").unwrap(), cursor(5));
    }

    /// The events of these bytes, and the error that ends them.
    async fn read(text: &'static str, begin: Begin) -> (Vec<String>, ClientError, Begin) {
        // Cut anywhere, as a network does.
        let chunks =
            text.as_bytes().chunks(3).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect::<Vec<_>>();
        let mut following = Following::new("http://h".to_owned(), stream::iter(chunks).boxed_local(), begin);
        let mut events = Vec::new();
        loop {
            match following.next().await {
                Ok(event) => events.push(String::from_utf8(event.to_vec()).unwrap()),
                Err(error) => return (events, error, following.at().clone()),
            }
        }
    }

    #[actix_web::test]
    async fn events_come_without_what_is_around_them() {
        let text = "retry: 1000\n\n:\n\nid: 4\ndata: {\"a\":1}\n\n:beat\n\nid: 5\ndata: {}\n\nid: 6\ndata: {";
        let (events, error, at) = read(text, after(2)).await;
        assert_eq!(events, ["{\"a\":1}", "{}"]);
        assert!(error.is_transient(), "a part of an event is none: {error}");
        assert_eq!(at, had(5));
    }

    #[actix_web::test]
    async fn the_history_at_the_beginning_is_kept_also_if_no_event_comes() {
        let named = |seq| Cursor { seq, history: Some("k3f9".to_owned()) };
        for (text, begin, expected) in [
            ("retry: 1000\nid: 2@k3f9\n\n:\n\n", after(2), Begin::After(named(2))),
            ("retry: 1000\nid: 2@k3f9\n\n:\n\n", had(2), Begin::Had(named(2))),
            // Only the place that was asked for: a client must not skip what it did not get.
            ("retry: 1000\nid: 3@k3f9\n\n:\n\n", after(2), after(2)),
            ("retry: 1000\n\n:\n\n", after(2), after(2)),
        ] {
            let (events, _, at) = read(text, begin).await;
            assert_eq!((events.len(), at), (0, expected), "{text:?}");
        }
    }

    #[actix_web::test]
    async fn the_last_words_are_an_end_that_may_be_followed_by_another_beginning() {
        let text = "event: end\ndata: {\"code\":\"shutting_down\",\"detail\":\"the log is stopping\",\"last_seq\":0}\n\n";
        let (events, error, at) = read(text, after(0)).await;
        assert!(events.is_empty() && error.is_transient());
        assert!(error.to_string().ends_with("broke: the log is stopping"), "{error}");
        assert_eq!(at, after(0));
    }

    #[actix_web::test]
    async fn a_gap_or_a_repeat_is_an_error_and_not_passed_on() {
        for (text, begin) in [
            ("id: 1\ndata: {}\n\nid: 3\ndata: {}\n\n", after(0)),
            ("id: 1\ndata: {}\n\nid: 1\ndata: {}\n\n", after(0)),
            ("id: 8\ndata: {}\n\nid: 10\ndata: {}\n\n", had(7)),
        ] {
            let (events, error, _) = read(text, begin).await;
            assert_eq!((events.len(), error.is_transient()), (1, false), "{error}");
        }
        let (events, error, _) = read("id: 9\ndata: {}\n\n", had(7)).await;
        assert!(events.is_empty() && !error.is_transient());
    }
}
