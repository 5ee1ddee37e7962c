//! `follow`: how long after the answer to its producer an event reaches those who follow its topic.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use futures_util::future::{join, try_join_all};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::whole;
use crate::output;
use crate::peers::Sekali;
use crate::process::Meter;
use crate::reads::begin;
use crate::results::median;
use crate::table::{self, Style};

/// What is published, and followed.
const TOPIC: &str = "followed";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sekali: Sekali,
    /// Followers, each number in turn
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "0,1,1000")]
    followers: Vec<u16>,
    /// Events, one a request
    #[arg(long, value_name = "N", default_value_t = 500)]
    events: u16,
    /// Milliseconds from one answer to the next request
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pause: u64,
    /// Where the store is while it is measured: on the disk that counts
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

/// What came out for one number of followers.
struct Measured {
    followers: u16,
    /// From a request to its answer, in microseconds.
    answers: Vec<f64>,
    /// From an answer to each follower's event; 0 where the event came first.
    pushes: Vec<f64>,
    /// The same for the follower that was last.
    lasts: Vec<f64>,
    /// Of the server, for each follower, in KiB.
    memory: f64,
    /// Of the server, for each event, in microseconds.
    cpu: f64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for followers in &args.followers {
        let directory = tempfile::tempdir_in(args.directory.clone().unwrap_or_else(std::env::temp_dir))?;
        let (server, address) = args.sekali.serve(directory.path())?;
        let measured = args.measure(address, Meter::of(&server), *followers).await?;
        server.stop()?;
        rows.push(measured.row());
    }
    let header = [
        "followers",
        "answer p50 µs",
        "p99",
        "push p50 µs",
        "p99",
        "last p50 µs",
        "p99",
        "KiB each",
        "CPU µs/event",
    ];
    output::result(&table::draw(Style::Plain, &header, 0, rows))?;
    Ok(())
}

impl Args {
    async fn measure(&self, address: SocketAddr, meter: Meter, followers: u16) -> anyhow::Result<Measured> {
        // One event first, so that what is measured is not how a topic begins.
        let mut producer = TcpStream::connect(address).await?;
        publish(&mut producer, 0).await?;
        let before = meter.memory()?;
        let mut streams = Vec::new();
        for _ in 0..followers {
            let path = format!("/events?topic={TOPIC}&after=1");
            streams.push(begin(address, &path, "text/event-stream").await?);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let memory = meter.memory()?.saturating_sub(before);
        let arrived = RefCell::new(vec![Vec::with_capacity(followers.into()); self.events.into()]);
        let following =
            try_join_all(streams.into_iter().map(|(stream, text)| follow(stream, text, &arrived)));
        let used = meter.read()?;
        let publishing = async {
            let mut answered = Vec::with_capacity(self.events.into());
            for number in 1..=self.events {
                let sent = Instant::now();
                publish(&mut producer, number).await?;
                answered.push((sent, Instant::now()));
                tokio::time::sleep(Duration::from_millis(self.pause)).await;
            }
            anyhow::Ok(answered)
        };
        let (followed, answered) = join(following, publishing).await;
        followed?;
        let cpu = meter.read()?.since(used).server * 1e6 / f64::from(self.events);
        let (mut answers, mut pushes, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
        for ((sent, answer), arrivals) in answered?.into_iter().zip(arrived.into_inner()) {
            ensure!(
                arrivals.len() == usize::from(followers),
                "an event reached {} followers",
                arrivals.len()
            );
            let late = |at: &Instant| micros(at.saturating_duration_since(answer));
            answers.push(micros(answer - sent));
            lasts.extend(arrivals.iter().max().map(late));
            pushes.extend(arrivals.iter().map(late));
        }
        let memory = f64::from(u32::try_from(memory >> 10)?) / f64::from(followers.max(1));
        Ok(Measured { followers, answers, pushes, lasts, memory, cpu })
    }
}

impl Measured {
    fn row(self) -> Vec<String> {
        let shown = |value: Option<f64>| table::shown(value, 0);
        let mut row = vec![self.followers.to_string()];
        for times in [self.answers, self.pushes, self.lasts] {
            row.extend([shown(median(times.clone())), shown(p99(times))]);
        }
        row.extend([shown(Some(self.memory)), shown(Some(self.cpu))]);
        row
    }
}

/// Notes when each event arrives, until all have.
async fn follow(
    mut stream: TcpStream,
    mut text: Vec<u8>,
    arrived: &RefCell<Vec<Vec<Instant>>>,
) -> anyhow::Result<()> {
    let (mut next, end) = (0, arrived.borrow().len());
    while next < end {
        ensure!(stream.read_buf(&mut text).await? > 0, "a follower was cut off after {next} events");
        let now = Instant::now();
        while let Some(at) = memmem::find(&text, b"\n\nid: ") {
            // The first event is that of seq 2.
            let id = format!("{}\n", next + 2);
            ensure!(text[at + 6..].starts_with(id.as_bytes()), "not event {id} but another one");
            let Some(length) = memmem::find(&text[at + 2..], b"\n\n") else { break };
            arrived.borrow_mut()[next].push(now);
            next += 1;
            text.drain(..at + 2 + length);
        }
    }
    Ok(())
}

/// Publishes one event and waits for its answer.
async fn publish(stream: &mut TcpStream, number: u16) -> anyhow::Result<()> {
    let body = format!(
        r#"{{"topic":"{TOPIC}","event_id":"{number}","timestamp":"2026-01-01T00:00:00Z","source":"bench","payload":{{"n":{number}}}}}"#
    );
    let head = format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut answer).await? > 0, "no answer to event {number}");
        match whole(&answer)? {
            Some((200, _)) => return Ok(()),
            Some((status, _)) => bail!("event {number} is answered {status}"),
            None => {}
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn p99(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * 99 / 100).copied()
}
