//! A flood of new connections from several addresses, which fills all places with connections that are
//! too new to be closed for others.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tempfile::tempdir;

use crate::support::{Process, Raw, until};

/// Places for all connections.
const ALL: f64 = 60.0;

const CONFIG: &str = "[server]\nworkers = 1\n[limits]\nconnections = 60\nconnections_per_address = 30\n";

/// The attacker's addresses.
const FROM: [[u8; 4]; 3] = [[127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 4]];

/// The most connections that the attacker keeps, so that it has files for more.
const KEPT: usize = 200;

/// The longest wait of the attacker.
const PATIENCE: Duration = Duration::from_mins(2);

fn connect(from: IpAddr, to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect_timeout(&to.into(), PATIENCE).ok()?;
    Some(socket.into())
}

/// Opens new connections, each with half a head, until `is_over`. Returns what the log said to those
/// that it closed.
fn flood(to: SocketAddr, is_over: impl Fn() -> bool) -> Vec<String> {
    let (mut kept, mut said) = (Vec::new(), Vec::new());
    for from in FROM.map(IpAddr::from).into_iter().cycle() {
        if is_over() {
            break;
        }
        if let Some(mut stream) = connect(from, to) {
            // A connection that is refused at once need not take it.
            let _ = stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: loc");
            kept.push(stream);
        }
        if kept.len() > KEPT {
            said.extend(heard(&mut kept.remove(0)));
        }
    }
    said.extend(kept.iter_mut().filter_map(heard));
    said
}

/// What has come on a connection so far, if anything.
fn heard(stream: &mut TcpStream) -> Option<String> {
    stream.set_nonblocking(true).unwrap();
    let mut bytes = [0; 4_096];
    match stream.read(&mut bytes) {
        Ok(length) => {
            Some(String::from_utf8_lossy(&bytes[..length]).into_owned()).filter(|said| !said.is_empty())
        }
        Err(error) => {
            let is_expected = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset);
            assert!(is_expected, "{error}");
            None
        }
    }
}

/// The answer to a request on a connection of its own.
fn ask(address: SocketAddr, path: &str) -> (u16, String) {
    let mut raw = Raw::open(address);
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    let answer = raw.answer();
    (answer.status, answer.body)
}

#[actix_web::test]
async fn a_flood_of_new_connections_takes_places_from_itself_alone() {
    const REQUESTS: usize = 100;
    let home = tempdir().unwrap();
    let process = Process::configured(home.path(), CONFIG);
    let address = process.address();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let flooding = thread::spawn(move || {
        flood(address, || ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected))
    });
    let metric = |name: &str| {
        let (status, text) = ask(address, "/metrics");
        assert_eq!(status, 200);
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("{name} in {text}"))
    };
    until("all places are taken", async || metric("sekali_connections ") >= ALL).await;
    for number in 0..REQUESTS {
        let (status, answer) = ask(address, "/health/live");
        assert_eq!(status, 200, "request {number}: {answer}");
    }
    let displaced = || metric("sekali_connections_ended_total{reason=\"share\"} ");
    until("places were taken from the flood", async || displaced() > 0.0).await;
    drop(end);
    let said = flooding.join().unwrap();
    let told = said.iter().find(|said| said.contains("holds by far the most")).expect("one is told why");
    assert!(told.starts_with("HTTP/1.1 429 ") && told.contains("\"too_many_requests\""), "{told}");
    assert!(told.contains("limits.connections") && told.contains("Retry-After: 1\r\n"), "{told}");
}
