//! Producers that send, re-send, contradict themselves and hang up: to one log until that is gone, or to many nodes until
//! every event has its verdict.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;

use super::history::{Attempt, Verdict};
use super::plan::{Plan, Pool, Sent};
use crate::support::{array, event_with};

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_mins(2);

/// The longest wait for one of many nodes: another one is asked then, also where this one still decides.
const NODE_PATIENCE: Duration = Duration::from_secs(3);

/// Between two nodes that are asked for the same.
const PAUSE: Duration = Duration::from_millis(20);

/// The longest until some node has answered.
const ANSWERED_MAX: Duration = Duration::from_mins(3);

/// Producers that run.
pub(crate) struct Load {
    threads: Vec<JoinHandle<Vec<Attempt>>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    slowest: Arc<AtomicU64>,
}

impl Load {
    /// Starts producers, each with a plan of its own that the seed decides, which send until nobody listens.
    pub(super) fn start(address: SocketAddr, producers: u64, rng: &mut Rng, pool: &Pool) -> Self {
        Self::begin(producers, rng, pool, move |producer, _, stop| producer.run(address, stop))
    }

    /// Starts producers that send to any of these nodes, and what is not answered again to another one.
    pub(crate) fn over(nodes: &[SocketAddr], producers: u64, rng: &mut Rng, pool: &Pool) -> Self {
        let nodes = nodes.to_vec();
        Self::begin(producers, rng, pool, move |producer, rng, stop| producer.insist(&nodes, rng, stop))
    }

    fn begin(
        producers: u64,
        rng: &mut Rng,
        pool: &Pool,
        run: impl Fn(&mut Producer, Rng, &AtomicBool) + Clone + Send + 'static,
    ) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let slowest = Arc::<AtomicU64>::default();
        let threads = (0..producers).map(|_| {
            let mut producer = Producer {
                plan: Plan::new(rng.fork(), pool),
                answered: Arc::clone(&answered),
                slowest: Arc::clone(&slowest),
                attempts: Vec::new(),
            };
            let (its_own, stopped, run) = (rng.fork(), Arc::clone(&stop), run.clone());
            thread::spawn(move || {
                run(&mut producer, its_own, &stopped);
                producer.attempts
            })
        });
        Self { threads: threads.collect(), stop, answered, slowest }
    }

    /// Events that were answered.
    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// The longest until a batch had its verdicts from one of many nodes, in milliseconds; it grows.
    pub(crate) fn slowest(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.slowest)
    }

    /// Ends the producers and gives what they sent.
    pub(crate) fn finish(self) -> Vec<Attempt> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

struct Producer {
    plan: Plan,
    answered: Arc<AtomicUsize>,
    slowest: Arc<AtomicU64>,
    attempts: Vec<Attempt>,
}

impl Producer {
    /// Sends until it is told to stop or nobody listens any more.
    fn run(&mut self, address: SocketAddr, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let Ok(mut stream) = TcpStream::connect(address) else { return };
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

    /// Sends to one node after the other, each batch until it is answered, and some to two nodes at once.
    fn insist(&mut self, nodes: &[SocketAddr], mut rng: Rng, stop: &AtomicBool) {
        let mut ways: Vec<_> = nodes.iter().map(|node| Way { node: *node, stream: None }).collect();
        while !stop.load(Ordering::Relaxed) {
            let (batch, begun) = (self.plan.batch(), Instant::now());
            let (mut at, mut twice) = (rng.usize(0..nodes.len()), rng.u8(..) < 32);
            loop {
                let next = (at + 1) % nodes.len();
                let asked = if twice { vec![at, next] } else { vec![at] };
                for node in &asked {
                    ways[*node].send(&batch);
                    if self.plan.hangs_up() {
                        ways[*node].stream = None;
                    }
                }
                let mut is_answered = false;
                // All of them, also where the first has answered.
                for node in asked {
                    let verdicts = ways[node].receive();
                    is_answered |= verdicts.is_some();
                    self.note(batch.clone(), verdicts);
                }
                if is_answered {
                    let took = u64::try_from(begun.elapsed().as_millis()).unwrap();
                    self.slowest.fetch_max(took, Ordering::Relaxed);
                    break;
                }
                assert!(begun.elapsed() < ANSWERED_MAX, "no node answers for {ANSWERED_MAX:?}");
                (at, twice) = (next, false);
                thread::sleep(PAUSE);
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

/// A connection to a node, made where there is none.
struct Way {
    node: SocketAddr,
    stream: Option<TcpStream>,
}

impl Way {
    fn send(&mut self, batch: &[Sent]) {
        if self.stream.is_none() {
            let made = TcpStream::connect_timeout(&self.node, NODE_PATIENCE);
            self.stream = made.ok().inspect(|stream| {
                stream.set_read_timeout(Some(NODE_PATIENCE)).unwrap();
                stream.set_nodelay(true).unwrap();
            });
        }
        self.stream =
            self.stream.take().and_then(|mut stream| send(&mut stream, batch).ok().map(|()| stream));
    }

    /// The verdicts, if they come: not after a connection broke, nor with a 503.
    fn receive(&mut self) -> Option<Vec<Verdict>> {
        let answer = receive(self.stream.as_mut()?);
        if answer.is_err() {
            self.stream = None;
        }
        answer.ok().flatten()
    }
}

fn send(stream: &mut TcpStream, batch: &[Sent]) -> std::io::Result<()> {
    let body = array(batch.iter().map(|(topic, id, payload)| event_with(topic, id, payload)));
    let length = body.len();
    write!(
        stream,
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
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
        let later = head.starts_with("http/1.1 503") || head.starts_with("http/1.1 429");
        assert!(later && head.contains("retry-after"), "{head}");
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
