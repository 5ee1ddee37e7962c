//! Events that wait for an actor: counted for as long as their message is on its way, however it ends.

use prometheus_client::metrics::gauge::Gauge;

/// So many events wait; dropped, they do no longer.
#[derive(Debug)]
pub struct Queued {
    waiting: Gauge,
    events: i64,
}

impl Queued {
    pub(super) fn new(waiting: Gauge, events: usize) -> Self {
        let mut queued = Self { waiting, events: 0 };
        queued.add(events);
        queued
    }

    /// So many more wait with them.
    pub fn add(&mut self, events: usize) {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        self.waiting.inc_by(events);
        self.events += events;
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.waiting.dec_by(self.events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_waits_no_longer() {
        let waiting = Gauge::default();
        let mut first = Queued::new(waiting.clone(), 3);
        let second = Queued::new(waiting.clone(), 4);
        first.add(2);
        assert_eq!(waiting.get(), 9);
        drop(first);
        assert_eq!(waiting.get(), 4);
        drop(second);
        assert_eq!(waiting.get(), 0);
    }
}
