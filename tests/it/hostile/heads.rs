//! Row 2: heads of requests that begin and never end.

use std::io::Write;
use std::thread;

use super::{STRANGER, Target, connect, endured};

/// Connections that stall at once: few enough for the file limit of a test.
const STALLED: usize = 100;

#[test]
fn first_heads_that_stall_harm_nobody() {
    let _ = endured(
        || Target::limited("", "ulimit -n 1024"),
        |target, lasting| {
            let open = |_| {
                let mut stream = connect(STRANGER, target.process.address()).unwrap();
                stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Half: ").unwrap();
                stream
            };
            let stalled: Vec<_> = (0..STALLED).map(open).collect();
            thread::sleep(lasting);
            stalled
        },
    );
}
