//! A server that answers with any bytes, and then closes the connection: what a real server would not send.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Method and target, such as `GET /stats`.
    pub(crate) line: String,
    /// The whole request.
    pub(crate) bytes: Vec<u8>,
}

/// A running server.
pub(crate) struct RawServer {
    /// Its address.
    pub(crate) url: String,
    /// What was asked, in order.
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
}

/// How the end of an answer is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Framing {
    Length,
    Chunked,
    Close,
}

impl RawServer {
    /// Starts a server. `answer` is told how many requests of this line came before, and gives the bytes that
    /// are sent before the connection is closed.
    pub(crate) fn start(answer: impl Fn(usize, &Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (all, answer) = (Arc::clone(&seen), Arc::new(answer));
        let counts = Arc::new(Mutex::new(HashMap::<String, usize>::new()));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (all, answer, counts) = (Arc::clone(&all), Arc::clone(&answer), Arc::clone(&counts));
                thread::spawn(move || {
                    let Some((mut socket, request)) = read_request(stream) else { return };
                    all.lock().unwrap().push(request.clone());
                    let before = {
                        let mut known = counts.lock().unwrap();
                        let count = known.entry(request.line.clone()).or_default();
                        *count += 1;
                        *count - 1
                    };
                    // A client that has gone needs no answer.
                    let _ = socket.write_all(&answer(before, &request));
                });
            }
        });
        Self { url, seen }
    }

    /// A server that passes requests on to another one, and cuts answers off: `cut` is told how many requests
    /// of this line came before and how long the answer is, and gives how many bytes of it are sent.
    pub(crate) fn cutting(
        url: &str,
        cut: impl Fn(usize, usize) -> Option<usize> + Send + Sync + 'static,
    ) -> Self {
        let address = url.strip_prefix("http://").unwrap().to_owned();
        Self::start(move |before, request| {
            let mut other = TcpStream::connect(&address).unwrap();
            let end = request.bytes.windows(2).position(|two| two == b"\r\n").unwrap();
            other.write_all(&request.bytes[..end]).unwrap();
            other.write_all(b"\r\nConnection: close").unwrap();
            other.write_all(&request.bytes[end..]).unwrap();
            let mut answer = Vec::new();
            other.read_to_end(&mut answer).unwrap();
            if let Some(kept) = cut(before, answer.len()) {
                answer.truncate(kept);
            }
            answer
        })
    }

    /// How many requests came.
    pub(crate) fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// Reads a request to its end; none where the client closes before.
fn read_request(mut stream: TcpStream) -> Option<(TcpStream, Seen)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head
                .split_once("content-length: ")
                .map_or(0, |(_, rest)| rest.lines().next().unwrap().trim().parse::<usize>().unwrap());
            if bytes.len() >= end + 4 + length {
                let first = String::from_utf8_lossy(&bytes[..end]).lines().next().unwrap().to_owned();
                let line = first.rsplit_once(' ').unwrap().0.to_owned();
                return Some((stream, Seen { line, bytes }));
            }
        }
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
    }
}

/// A 200 with this body.
pub(crate) fn ok(framing: Framing, body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let text = match framing {
        Framing::Length => format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()),
        Framing::Close => format!("{head}Connection: close\r\n\r\n{body}"),
        Framing::Chunked => {
            let chunk = |piece: &[u8]| format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece));
            let chunks: String = body.as_bytes().chunks(50).map(chunk).collect();
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
        }
    };
    text.into_bytes()
}

/// An answer of this status with these headers, each with its line end, and this body.
pub(crate) fn status(code: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {code} Told\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
