//! What producers send: new events, repeats of what anybody has sent, contradictions.

use std::sync::{Arc, Mutex};

use fastrand::Rng;

/// Topics that get most events, and those that get few each.
const BUSY_TOPICS: usize = 3;
const QUIET_TOPICS: usize = 40;

/// An event: its topic, id and payload.
pub(crate) type Sent = (String, String, String);

/// What all producers of a store have sent, so that they can send it again.
pub(crate) type Pool = Arc<Mutex<Vec<Sent>>>;

/// The plan of one producer, which its seed decides.
pub(crate) struct Plan {
    rng: Rng,
    pool: Pool,
}

impl Plan {
    pub(crate) fn new(rng: Rng, pool: &Pool) -> Self {
        Self { rng, pool: Arc::clone(pool) }
    }

    /// Whether the producer hangs up on its next request: nobody will ever know what became of its events.
    pub(crate) fn hangs_up(&mut self) -> bool {
        self.rng.u8(..) < 8
    }

    /// New events, repeats of what anybody has sent, some with another payload.
    pub(crate) fn batch(&mut self) -> Vec<Sent> {
        let size = if self.rng.bool() { self.rng.usize(1..=8) } else { self.rng.usize(1..=200) };
        let shared = Arc::clone(&self.pool);
        let mut pool = shared.lock().unwrap();
        let mut batch = Vec::with_capacity(size);
        for _ in 0..size {
            if !pool.is_empty() && self.rng.u8(..) < 80 {
                // Half of them recent.
                let oldest = if self.rng.bool() { pool.len().saturating_sub(500) } else { 0 };
                let (topic, id, payload) = pool[self.rng.usize(oldest..pool.len())].clone();
                let other = if self.rng.u8(..) < 32 { self.payload() } else { payload };
                batch.push((topic, id, other));
            } else {
                let topic = self.topic();
                let sent = (topic, format!("{:016x}", self.rng.u64(..)), self.payload());
                pool.push(sent.clone());
                batch.push(sent);
            }
        }
        batch
    }

    fn topic(&mut self) -> String {
        match self.rng.usize(0..BUSY_TOPICS * 4) {
            quiet if quiet >= BUSY_TOPICS * 3 => format!("quiet-{}", self.rng.usize(0..QUIET_TOPICS)),
            busy => format!("busy-{}", busy % BUSY_TOPICS),
        }
    }

    fn payload(&mut self) -> String {
        let text = "x".repeat(self.rng.usize(0..150));
        format!("{{\"n\":{},\"text\":\"{text}\"}}", self.rng.u64(..))
    }
}
