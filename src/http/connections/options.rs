//! Options of an accepted socket, with which the system itself finds a client that is gone.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long a connection is silent before the system asks whether the client is still there
/// (`TCP_KEEPIDLE`). Less than what routers forget a silent connection after: NAT at home does after
/// a few minutes.
const PROBE_AFTER: Duration = Duration::from_mins(1);

/// The time between two questions (`TCP_KEEPINTVL`).
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// Questions without an answer after which the connection ends (`TCP_KEEPCNT`): a client whose machine
/// is gone holds its connection for two minutes.
const PROBES: u32 = 6;

/// The bytes that the system keeps of an answer for a client that does not take them (`SO_SNDBUF`;
/// it takes twice as much memory for them). Without it a socket grows to `net.ipv4.tcp_wmem`, 4 MiB.
pub(in crate::http) const SEND_BUFFER: usize = 128 << 10;

/// Sets the options of an accepted socket. `unacknowledged` is how long the client may leave bytes
/// unacknowledged that were sent to it (`TCP_USER_TIMEOUT`).
///
/// # Errors
/// When the connection is gone already.
pub(super) fn set(socket: &TcpStream, unacknowledged: Duration) -> io::Result<()> {
    let socket = SockRef::from(socket);
    // Where the system refuses, the socket keeps its own bound.
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    let keepalive =
        TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(unacknowledged))?;
    #[cfg(not(target_os = "linux"))]
    let _ = unacknowledged;
    Ok(())
}
