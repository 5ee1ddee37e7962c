//! Requests byte for byte, from any address of the loopback network.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::OTHER;

/// The longest wait for a connection and for each answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The header of a read that follows.
pub(super) const FOLLOWING: &str = "Accept: text/event-stream\r\n";

/// Opens a connection from this address; `None` where the server does not take it within
/// [`PATIENCE`].
pub(super) fn connect(from: IpAddr, to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect_timeout(&to.into(), PATIENCE).ok()?;
    socket.set_tcp_nodelay(true).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    Some(socket.into())
}

/// Opens a connection and sends these bytes; `None` where the server takes neither.
pub(super) fn sent(from: IpAddr, to: SocketAddr, bytes: impl AsRef<[u8]>) -> Option<TcpStream> {
    let mut stream = connect(from, to)?;
    stream.write_all(bytes.as_ref()).ok()?;
    Some(stream)
}

/// The head of a read of this path with these headers more, each with its line end.
pub(super) fn reading(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n")
}

/// The head of a JSON body of this length for this path, with these headers more, each with its line end.
pub(super) fn posting(path: &str, length: usize, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{more}\r\n"
    )
}

/// The status of an answer of which nothing more is read.
pub(super) fn status(stream: &mut TcpStream) -> io::Result<u16> {
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    let text = str::from_utf8(&line).ok().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    text.and_then(|status| status.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The status of an answer, and its head and body as far as they come; 0 where nothing comes.
pub(super) fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|text| text.get(..3)?.parse().ok());
    (status.unwrap_or_default(), text)
}

/// Follows topic t; the status of the answer, and its connection.
pub(super) fn follow(from: IpAddr, to: SocketAddr) -> (u16, TcpStream) {
    let mut stream = sent(from, to, reading("/events?topic=t", FOLLOWING)).expect("the server takes it");
    (status(&mut stream).unwrap_or_default(), stream)
}

/// Reads a path.
pub(super) fn get(from: IpAddr, to: SocketAddr, path: &str) -> (u16, String) {
    answer(sent(from, to, reading(path, "")).expect("the server takes a connection"))
}

/// The value of a metric without labels, from the listener at this address.
pub(super) fn metric(to: SocketAddr, name: &str) -> u64 {
    let metrics = get(OTHER, to, "/metrics").1;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name}: {metrics}")).parse().unwrap()
}

/// Sends a JSON body, with these headers more. A refusal may come before the end of the body.
pub(super) fn post(from: IpAddr, to: SocketAddr, path: &str, more: &str, body: &[u8]) -> (u16, String) {
    let head = posting(path, body.len(), &format!("Connection: close\r\n{more}"));
    let mut stream = sent(from, to, head).expect("the server takes a connection");
    let _ = stream.write_all(body);
    answer(stream)
}
