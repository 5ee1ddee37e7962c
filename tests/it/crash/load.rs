//! Producers that send, re-send, contradict themselves and hang up, until the log is gone.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;

use super::history::{Attempt, Verdict};
use super::plan::{Plan, Pool, Sent};
use crate::support::{array, event_with};

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Producers that run.
pub(super) struct Load {
    threads: Vec<JoinHandle<Vec<Attempt>>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    /// Starts producers, each with a plan of its own that the seed decides.
    pub(super) fn start(address: SocketAddr, producers: u64, rng: &mut Rng, pool: &Pool) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..producers).map(|_| {
            let mut producer = Producer {
                address,
                plan: Plan::new(rng.fork(), pool),
                answered: Arc::clone(&answered),
                attempts: Vec::new(),
            };
            let stopped = Arc::clone(&stop);
            thread::spawn(move || {
                producer.run(&stopped);
                producer.attempts
            })
        });
        Self { threads: threads.collect(), stop, answered }
    }

    /// Events that were answered.
    pub(super) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends the producers and gives what they sent.
    pub(super) fn finish(self) -> Vec<Attempt> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

struct Producer {
    address: SocketAddr,
    plan: Plan,
    answered: Arc<AtomicUsize>,
    attempts: Vec<Attempt>,
}

impl Producer {
    /// Sends until it is told to stop or nobody listens any more.
    fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let Ok(mut stream) = TcpStream::connect(self.address) else { return };
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let batch = self.plan.batch();
                let verdicts = if self.plan.hangs_up() {
                    let _ = send(&mut stream, &batch);
                    None
                } else {
                    send(&mut stream, &batch).and_then(|()| receive(&mut stream)).ok()
                };
                let broken = verdicts.is_none();
                self.note(batch, verdicts.flatten());
                if broken {
                    break;
                }
            }
        }
    }

    fn note(&mut self, batch: Vec<Sent>, verdicts: Option<Vec<Verdict>>) {
        let at = Instant::now();
        let mut verdicts = verdicts.map(|all| {
            assert_eq!(all.len(), batch.len(), "a verdict for each event");
            self.answered.fetch_add(all.len(), Ordering::Relaxed);
            all.into_iter()
        });
        for (topic, id, payload) in batch {
            let verdict = verdicts.as_mut().and_then(Iterator::next);
            self.attempts.push(Attempt { topic, id, payload, verdict, at });
        }
    }
}

fn send(stream: &mut TcpStream, batch: &[Sent]) -> std::io::Result<()> {
    let body = array(batch.iter().map(|(topic, id, payload)| event_with(topic, id, payload)));
    let length = body.len();
    write!(
        stream,
        "POST /publish HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// The verdicts of a 200; `None` where the answer promises nothing, which only a 503 may.
fn receive(stream: &mut TcpStream) -> std::io::Result<Option<Vec<Verdict>>> {
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let mut bytes = Vec::new();
    let mut some = [0; 16 << 10];
    let (head, length) = loop {
        let count = stream.read(&mut some)?;
        if count == 0 {
            return Err(cut());
        }
        bytes.extend_from_slice(&some[..count]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            break (head, end + 4 + length.unwrap_or(0));
        }
    };
    let already = bytes.len();
    bytes.resize(length.max(already), 0);
    stream.read_exact(&mut bytes[already..])?;
    if !head.starts_with("http/1.1 200") {
        assert!(head.starts_with("http/1.1 503") && head.contains("retry-after"), "{head}");
        return Ok(None);
    }
    let body_at = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |end| end + 4);
    let answer: Value = serde_json::from_slice(&bytes[body_at..]).unwrap();
    Ok(Some(answer["results"].as_array().unwrap().iter().map(verdict).collect()))
}

fn verdict(result: &Value) -> Verdict {
    let seq = result["seq"].as_u64().unwrap();
    match result["status"].as_str().unwrap() {
        "accepted" => Verdict::Accepted { seq },
        "duplicate" => Verdict::Duplicate { seq, conflict: result["conflict"] == true },
        other => panic!("{other} for a valid event"),
    }
}
