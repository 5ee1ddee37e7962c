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
    // The last bytes of an answer do not wait until the client has acknowledged those before them, for
    // which it takes its time (40 ms on Linux).
    socket.set_tcp_nodelay(true)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn an_accepted_socket_has_its_options() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        set(&accepted, Duration::from_mins(1)).unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap(), "an answer of several segments is not held back");
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBE_AFTER);
        #[cfg(target_os = "linux")]
        {
            // The system tells the memory, which is twice the bytes.
            assert_eq!(socket.send_buffer_size().unwrap(), 2 * SEND_BUFFER);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_mins(1)));
        }
    }
}
