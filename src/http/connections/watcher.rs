//! The task that ends late connections, and the rule that says which are late.

use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_web::rt;
use tokio::time::{MissedTickBehavior, interval};

use super::connection::Connection;
use super::progress::Stage;
use super::registry::{Connections, Deadlines, Reason};

/// The time between two looks, and so the most that a connection is open past its deadline. One look
/// at 10,000 connections takes well under a millisecond.
const PAUSE: Duration = Duration::from_millis(250);

/// Ends late connections from now on, until the server that has them is gone.
pub(in crate::http) fn watch(connections: &Arc<Connections>) {
    let connections = Arc::downgrade(connections);
    rt::spawn(async move {
        let mut ticks = interval(PAUSE);
        // A task that was held up looks once, not once for each look that it missed.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while let Some(connections) = Weak::upgrade(&connections) {
            connections.end_late();
            drop(connections);
            ticks.tick().await;
        }
    });
}

impl Deadlines {
    /// The deadline that a connection has missed.
    pub(super) fn missed(&self, connection: &Connection, now: Duration) -> Option<Reason> {
        let progress = &connection.progress;
        let is_past = |since: Duration, most: Duration| now.saturating_sub(since) >= most;
        let (stage, since) = progress.stage();
        if stage == Stage::Ended {
            return None;
        }
        if progress.blocked().is_some_and(|blocked| is_past(blocked, self.write)) {
            return Some(Reason::UnreadAnswer);
        }
        let (most, reason) = match stage {
            Stage::Fresh | Stage::Head | Stage::Between => (self.head, Reason::Head),
            Stage::Idle => (self.idle, Reason::Idle),
            Stage::Draining => (self.drain, Reason::UnreadBody),
            Stage::Serving | Stage::Ended => return None,
        };
        is_past(since, most).then_some(reason)
    }
}
