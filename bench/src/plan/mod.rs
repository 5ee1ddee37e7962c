//! The workload: which events there are, and in which order each connection sends them. The same seed makes the
//! same bytes for every peer.

mod event;
mod ids;
mod lane;

pub use event::{EVENT_BYTES, Event, MAX_TOPICS, Plan};
pub use lane::{Lane, Step};

use std::time::Duration;

/// One request.
#[derive(Debug)]
pub struct Request<T> {
    /// What is sent.
    pub content: T,
    /// For each of its events, whether it is new: the verdict that it must get.
    pub new: Vec<bool>,
}

/// How events are sent.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Its name in tables.
    pub name: &'static str,
    /// Connections, with one request in flight on each.
    pub connections: u32,
    /// Events of one request.
    pub batch: u32,
    /// Events in all.
    pub events: u64,
    /// Nothing more is sent after this time.
    pub limit: Duration,
}

/// What is sent, and how.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// The events.
    pub plan: Plan,
    /// Seeds the order.
    pub seed: u64,
    /// The connections and requests.
    pub shape: Shape,
}

impl Load {
    /// The sequence of each connection.
    pub fn lanes(&self) -> impl Iterator<Item = Lane> {
        let lanes = u64::from(self.shape.connections);
        let seed = self.seed;
        (0..lanes).map(move |index| Lane::new(seed, index, lanes))
    }

    /// Requests of each connection, rounded up.
    #[must_use]
    pub fn requests_each(&self) -> u64 {
        self.shape.events.div_ceil(u64::from(self.shape.connections) * u64::from(self.shape.batch))
    }

    /// The next request of a lane, with a content that `encode` makes of its steps.
    ///
    /// # Errors
    /// Those of `encode`.
    pub fn request<T>(
        &self,
        lane: &mut Lane,
        encode: impl FnOnce(&Plan, &[Step]) -> anyhow::Result<T>,
    ) -> anyhow::Result<Request<T>> {
        let steps: Vec<_> = lane.take(self.shape.batch as usize).collect();
        let content = encode(&self.plan, &steps)?;
        Ok(Request { content, new: steps.iter().map(|step| step.new).collect() })
    }

    /// All requests of a lane, made before the clock starts.
    ///
    /// # Errors
    /// Those of `encode`.
    pub fn requests<T>(
        &self,
        mut lane: Lane,
        mut encode: impl FnMut(&Plan, &[Step]) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<Request<T>>> {
        (0..self.requests_each()).map(|_| self.request(&mut lane, &mut encode)).collect()
    }
}
