//! Reads over HTTP.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use memchr::memmem;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::drive::Answered;
use crate::http::{shown, whole};
use crate::plan::Request;
use crate::wire::{Progress, Protocol};

/// Events of a page.
const PAGE: u64 = 100;

/// Bytes taken from a long answer at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// The longest that a restarted server may take until it is ready.
const READY_MAX: Duration = Duration::from_mins(10);

/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(5);

/// A server of sekali to read from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reads {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Seeds what is read.
    pub(crate) seed: u64,
}

/// Reads a path on a connection of its own; gives the body. As HTTP/1.0, so that an answer of any length comes as
/// it is and ends with the connection.
///
/// # Errors
/// When the answer is not 200.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Vec<u8>> {
    let (mut stream, mut body) = begin(address, path, "*/*").await?;
    stream.read_to_end(&mut body).await?;
    Ok(body)
}

/// Waits until a server says that it is ready.
///
/// # Errors
/// When it does not within [`READY_MAX`].
pub(crate) async fn ready(address: SocketAddr) -> anyhow::Result<()> {
    let started = Instant::now();
    while get(address, "/health/ready").await.is_err() {
        if started.elapsed() > READY_MAX {
            bail!("it is not ready after {READY_MAX:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Reads the head of an answer, which must be 200; gives what came of the body with it.
pub(crate) async fn begin(
    address: SocketAddr,
    path: &str,
    accept: &str,
) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut input = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut input).await? > 0, "{path}: no answer");
        if let Some(end) = memmem::find(&input, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&input[..end]);
            ensure!(head.split(' ').nth(1) == Some("200"), "{path}: {head}");
            let body = input.split_off(end + 4);
            return Ok((stream, body));
        }
    }
}

impl Reads {
    /// Reads a whole topic; gives its events and the time.
    ///
    /// # Errors
    /// When there are not as many as the topic says that it has.
    pub(crate) async fn whole(&self, topic: &str) -> anyhow::Result<(u64, Duration)> {
        let started = Instant::now();
        let path = format!("/events?topic={topic}");
        let (mut stream, mut chunk) = begin(self.address, &path, "application/x-ndjson").await?;
        let mut lines = 0;
        loop {
            lines += memchr::memchr_iter(b'\n', &chunk).count() as u64;
            chunk.clear();
            chunk.reserve(CHUNK_BYTES);
            if stream.read_buf(&mut chunk).await? == 0 {
                break;
            }
        }
        let took = started.elapsed();
        let last = self.last(topic).await?;
        ensure!(lines == last, "{lines} of {last} events of {topic} were read");
        Ok((lines, took))
    }

    /// Events stored.
    pub(crate) async fn stored(&self) -> anyhow::Result<u64> {
        let stats: Value = serde_json::from_slice(&get(self.address, "/stats").await?)?;
        let unique = &stats["persistent"]["total_unique_events_processed"];
        unique.as_u64().context("no count in /stats")
    }

    /// Requests of whole pages that begin anywhere in these topics.
    pub(crate) async fn random_pages(
        &self,
        topics: &[String],
        count: u64,
    ) -> anyhow::Result<Vec<Request<Vec<u8>>>> {
        let mut lasts = Vec::new();
        for topic in topics {
            lasts.push(self.last(topic).await?);
        }
        let mut random = fastrand::Rng::with_seed(self.seed);
        let requests = (0..count).map(|_| {
            let topic = random.usize(..topics.len());
            let after = random.u64(..=lasts[topic].saturating_sub(PAGE));
            let path = format!("/events?topic={}&after={after}&limit={PAGE}", topics[topic]);
            let content = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
            Request { content, new: Vec::new() }
        });
        Ok(requests.collect())
    }

    /// The last seq of a topic.
    async fn last(&self, topic: &str) -> anyhow::Result<u64> {
        let topic: Value = serde_json::from_slice(&get(self.address, &format!("/topics/{topic}")).await?)?;
        topic["last_seq"].as_u64().context("a topic without a last seq")
    }
}

/// Answers with a page of [`PAGE`] events.
#[derive(Debug)]
pub(crate) struct Pages;

impl Protocol for Pages {
    fn take(
        &mut self,
        input: &[u8],
        _new: &[bool],
        _answered: &mut Answered,
        _back: &mut Vec<u8>,
    ) -> anyhow::Result<Progress> {
        let Some((status, body)) = whole(input)? else {
            return Ok(Progress { used: 0, done: false });
        };
        let used = body.end;
        let page = &input[body];
        let count = format!("\"count\":{PAGE}");
        if status != 200 || memmem::find(page, count.as_bytes()).is_none() {
            bail!("no whole page, but {status}: {}", shown(page));
        }
        Ok(Progress { used, done: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(status: &str, body: &str) -> anyhow::Result<Progress> {
        let input = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        Pages.take(input.as_bytes(), &[], &mut Answered::default(), &mut Vec::new())
    }

    #[test]
    fn a_page_that_is_not_whole_ends_the_run() {
        assert!(take("200 OK", r#"{"topic":"t","count":100,"events":[]}"#).unwrap().done);
        assert!(take("200 OK", r#"{"topic":"t","count":99,"events":[]}"#).is_err());
        assert!(take("503 Service Unavailable", r#"{"count":100}"#).is_err());
    }
}
