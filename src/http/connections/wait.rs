//! How a connection waits for its client, and when it may be closed for a new one.

use std::time::Duration;

/// How long a client may take for a head or the rest of a body before its connection can be closed for a
/// new one; for the first head it counts from the accept. Honest clients send a head at once; a second
/// is time for a packet that was lost on the way, which is sent again after 200 ms to 1 s (RFC 6298).
const GRACE: Duration = Duration::from_secs(1);

/// A connection that may wait for its client.
pub(super) trait Waits {
    /// How it waits; `None` while it is served, up to the last byte of the answer.
    fn wait(&self) -> Option<Wait>;
}

/// A wait of a connection for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wait {
    pub(super) since: Duration,
    /// Whether it is between two requests.
    pub(super) was_served: bool,
}

/// The order in which waiting connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// It owes a head or the rest of a body for longer than [`GRACE`].
    Slow,
    /// It is idle between two requests.
    Idle,
    /// It owes a head or the rest of a body for less than that. It is closed only where its address
    /// holds far more connections than the address of the new one.
    Young,
}

impl Wait {
    /// The rank of the connection at this time.
    pub(super) fn rank(self, now: Duration) -> Rank {
        if self.was_served {
            Rank::Idle
        } else if now.saturating_sub(self.since) >= GRACE {
            Rank::Slow
        } else {
            Rank::Young
        }
    }
}
