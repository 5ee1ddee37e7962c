//! A follower: server-sent events as they come.

use std::time::Duration;

use actix_web::rt::time::timeout;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use serde_json::Value;

/// The longest wait for anything that has to come.
const PATIENCE: Duration = Duration::from_mins(2);

/// What a server sends to a follower.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sent {
    /// An event: the seq, which its id and its data agree on, and the data.
    Event(u64, Value),
    /// A sign of life.
    Beat,
    /// The first words: how many milliseconds to wait before a new connection, and the seq after which
    /// this one begins, if it names one.
    Begin(u64, Option<u64>),
    /// The last words.
    End(Value),
}

/// A connection that follows.
pub(crate) struct Sse {
    response: Response<Incoming>,
    text: Vec<u8>,
}

impl Sse {
    pub(super) fn new(response: Response<Incoming>) -> Self {
        Self { response, text: Vec::new() }
    }

    /// The headers of the answer.
    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The next thing sent, whole; `None` at the end, however it came.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
                let rest = self.text.split_off(end + 2);
                let block = std::mem::replace(&mut self.text, rest);
                return Some(parse(std::str::from_utf8(&block).unwrap().trim_end_matches('\n')));
            }
            let chunk = timeout(PATIENCE, self.response.frame()).await.expect("something comes in time");
            self.text.extend_from_slice(&chunk?.ok()?.into_data().unwrap_or_default());
        }
    }

    /// The next event, whatever comes before it; `None` at the end.
    pub(crate) async fn event(&mut self) -> Option<(u64, Value)> {
        loop {
            match self.next().await? {
                Sent::Event(seq, data) => return Some((seq, data)),
                Sent::Beat | Sent::Begin(..) => {}
                Sent::End(_) => return None,
            }
        }
    }

    /// The seqs of so many events.
    pub(crate) async fn seqs(&mut self, count: usize) -> Vec<u64> {
        let mut seqs = Vec::new();
        while seqs.len() < count {
            seqs.push(self.event().await.unwrap_or_else(|| panic!("an end after {seqs:?}")).0);
        }
        seqs
    }

    /// The last words, whatever comes before them.
    pub(crate) async fn end(&mut self) -> Value {
        loop {
            if let Sent::End(words) = self.next().await.expect("last words before the end") {
                return words;
            }
        }
    }
}

/// What a block between two empty lines says.
pub(crate) fn parse(block: &str) -> Sent {
    let fields: Vec<_> = block.lines().map(|line| line.split_once(": ").unwrap_or((line, ""))).collect();
    match fields[..] {
        [("id", id), ("data", data)] => {
            let (seq, history) = id.split_once('@').expect("an id names its history");
            assert!(!history.is_empty());
            let (seq, data) = (seq.parse().unwrap(), serde_json::from_str::<Value>(data).unwrap());
            assert_eq!(data["seq"], seq);
            Sent::Event(seq, data)
        }
        [("event", "end"), ("data", data)] => Sent::End(serde_json::from_str(data).unwrap()),
        [("retry", millis)] => Sent::Begin(millis.parse().unwrap(), None),
        [("retry", millis), ("id", id)] => {
            let (seq, _) = id.split_once('@').expect("an id names its history");
            Sent::Begin(millis.parse().unwrap(), Some(seq.parse().unwrap()))
        }
        [(":", "")] => Sent::Beat,
        _ => panic!("{block:?} is nothing that is sent"),
    }
}
