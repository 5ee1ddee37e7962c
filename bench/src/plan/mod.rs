//! The workload: which events there are, and in which order each connection sends them. The same seed makes the
//! same bytes for every peer.

mod event;
mod ids;
mod lane;

pub(crate) use event::{EVENT_BYTES, Event, MAX_TOPICS, Plan};
pub(crate) use lane::{Lane, Step};

use std::time::Duration;

use crate::drive::Request;

/// How events are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Its name in tables.
    pub(crate) name: &'static str,
    /// Connections, with one request in flight on each.
    pub(crate) connections: u32,
    /// Events of one request.
    pub(crate) batch: u32,
    /// Events in all.
    pub(crate) events: u64,
    /// Nothing more is sent after this time.
    pub(crate) limit: Duration,
}

/// What is sent, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// The events.
    pub(crate) plan: Plan,
    /// Seeds the order.
    pub(crate) seed: u64,
    /// The connections and requests.
    pub(crate) shape: Shape,
}

impl Load {
    /// The sequence of each connection.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = Lane> {
        let lanes = u64::from(self.shape.connections);
        let seed = self.seed;
        (0..lanes).map(move |index| Lane::new(seed, index, lanes))
    }

    /// Requests of each connection, rounded up.
    pub(crate) fn requests_each(&self) -> u64 {
        self.shape.events.div_ceil(u64::from(self.shape.connections) * u64::from(self.shape.batch))
    }

    /// The next request of a lane, with a content that `encode` makes of its steps.
    pub(crate) fn request<T>(
        &self,
        lane: &mut Lane,
        encode: impl FnOnce(&Plan, &[Step]) -> anyhow::Result<T>,
    ) -> anyhow::Result<Request<T>> {
        let steps: Vec<_> = lane.take(self.shape.batch as usize).collect();
        let content = encode(&self.plan, &steps)?;
        Ok(Request { content, new: steps.iter().map(|step| step.new).collect() })
    }

    /// All requests of a lane, made before the clock starts.
    pub(crate) fn requests<T>(
        &self,
        mut lane: Lane,
        mut encode: impl FnMut(&Plan, &[Step]) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<Request<T>>> {
        (0..self.requests_each()).map(|_| self.request(&mut lane, &mut encode)).collect()
    }
}
