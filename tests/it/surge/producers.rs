//! Producers that send batch after batch, and send again what was refused.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Process, Raw, array, event};

/// Events of a batch.
pub(super) const BATCH: u64 = 100;

/// What a producer saw.
#[derive(Debug)]
pub(super) struct Seen {
    /// The topic that only this producer sends to.
    pub(super) topic: String,
    /// Events that were acknowledged; every one of them new.
    pub(super) accepted: u64,
    /// The times that accepted requests took.
    pub(super) accepted_in: Vec<Duration>,
    /// The times that refusals took.
    pub(super) refused_in: Vec<Duration>,
}

/// How producers send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// What their topics begin with.
    pub(super) name: &'static str,
    /// Each has one connection.
    pub(super) count: u64,
    /// The time between two requests of one; none where each follows the last answer.
    pub(super) pace: Option<Duration>,
    /// How long they send.
    pub(super) lasting: Duration,
}

/// Starts producers, whose topics are new; joined, they tell what they saw.
pub(super) fn start(address: SocketAddr, plan: Plan) -> Vec<thread::JoinHandle<Seen>> {
    static STARTED: AtomicU64 = AtomicU64::new(0);
    let start = |_| {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        thread::spawn(move || produce(address, plan, number))
    };
    (0..plan.count).map(start).collect()
}

/// Runs producers to their end.
pub(super) fn run(address: SocketAddr, plan: Plan) -> Vec<Seen> {
    start(address, plan).into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn produce(address: SocketAddr, plan: Plan, number: u64) -> Seen {
    let topic = format!("{}-{number}", plan.name);
    let mut seen = Seen { topic, accepted: 0, accepted_in: Vec::new(), refused_in: Vec::new() };
    let (mut raw, begun) = (Raw::open(address), Instant::now());
    let mut request = request(&seen.topic, 0);
    let mut due = begun;
    while begun.elapsed() < plan.lasting {
        if let Some(pace) = plan.pace {
            // What cannot be sent in time is not made up for later.
            due = (due + pace).max(Instant::now());
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let sent = Instant::now();
        raw.send(&request);
        let answer = raw.answer();
        if answer.status == 200 {
            assert!(answer.body.contains(&format!("\"accepted\":{BATCH},")), "all are new: {}", answer.body);
            seen.accepted += BATCH;
            seen.accepted_in.push(sent.elapsed());
            request = self::request(&seen.topic, seen.accepted);
        } else {
            let retry = answer.head.to_ascii_lowercase().contains("retry-after:");
            assert!(matches!(answer.status, 429 | 503) && retry, "{}\n{}", answer.head, answer.body);
            seen.refused_in.push(sent.elapsed());
        }
    }
    seen
}

fn request(topic: &str, first: u64) -> String {
    let body = array((first..first + BATCH).map(|number| event(topic, &number.to_string())));
    let length = body.len();
    format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nPrefer: return=minimal\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Events a second that were accepted.
#[expect(clippy::cast_precision_loss, reason = "there are far fewer than 2^52 events")]
pub(super) fn goodput(seen: &[Seen], plan: Plan) -> f64 {
    seen.iter().map(|seen| seen.accepted).sum::<u64>() as f64 / plan.lasting.as_secs_f64()
}

/// The time in which all but one in a hundred were done.
pub(super) fn p99(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default()
}

/// Everything that was acknowledged is there, once: each producer's topic has as many events as it was told.
pub(super) async fn check(process: &Process, seen: &[Seen]) {
    for Seen { topic, accepted, .. } in seen.iter().filter(|seen| seen.accepted > 0) {
        let found = process.read(&format!("/topics/{topic}")).await;
        assert_eq!(found["last_seq"], *accepted, "{topic}");
    }
}
