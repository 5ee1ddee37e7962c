//! Every open connection: how many there may be, what each waits for, and until when.
//!
//! ```text
//!     Places      which new connection is served, and which one is closed for it     places, crowd, wait
//!       | admits
//!     Connection  a socket and its progress: the stage of its request, and since when connection, progress
//!       | is read and written through
//!     Stream      the socket as actix sees it; notes each byte that comes or goes    stream
//!
//!     Watcher     looks at the progress of all connections and ends the late ones    watcher
//! ```
//!
//! actix has a timer for the first head of a connection and one for an idle connection. It has none
//! for the head of a later request, for the rest of a chunked body after a refusal, and for an answer
//! that nobody reads. So its timers are off. A connection says in a few atomics what it waits for;
//! one task compares them with the deadlines and shuts down the socket of a late connection, which
//! actix sees as its end in every state. That costs no timer for a request.

mod answered;
mod connection;
mod crowd;
mod options;
mod places;
mod progress;
mod refusal;
mod registry;
mod stream;
mod wait;
mod watcher;

pub(super) use answered::Answered;
pub(super) use connection::Connection;
pub(super) use places::Bounds;
pub(super) use registry::Connections;
pub(super) use stream::Stream;
pub(super) use watcher::watch;
