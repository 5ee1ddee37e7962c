//! What stands between a node and its database, and breaks when a test says so.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// The end of a transaction, as a client says it and as a server confirms it.
const COMMIT: &[u8] = b"COMMIT\0";

/// How a client begins to listen.
const LISTEN: &[u8] = b"LISTEN ";

/// What happens to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It passes.
    Open,
    /// The next commit arrives, its confirmation does not, and the connection is lost.
    LoseConfirmation,
    /// The connection is lost before the next commit arrives.
    LoseCommit,
    /// The next commit arrives, and whoever sent it is gone; the database goes on with it.
    LoseNode,
    /// Nothing passes; connections stay.
    Blocked,
    /// The server does not understand who wants to listen.
    Deaf,
}

/// A way to a server.
pub(super) struct Proxy {
    port: u16,
    way: Arc<(Mutex<Way>, Condvar)>,
    sent: Sent,
    /// So many connections, the first that came, are silent for ever.
    silent: Arc<AtomicUsize>,
}

/// What clients sent since somebody asked, by connection.
type Sent = Arc<Mutex<Vec<Vec<u8>>>>;

impl Proxy {
    /// Stands before the server in this URL.
    pub(super) fn to(url: &str) -> Self {
        let server = address_in(url).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = Arc::new((Mutex::new(Way::Open), Condvar::new()));
        let shared = Arc::clone(&way);
        let sent = Sent::default();
        let recorded = Arc::clone(&sent);
        let silent = Arc::<AtomicUsize>::default();
        let silenced = Arc::clone(&silent);
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
                recorded.lock().unwrap().push(Vec::new());
                let recorded = Arc::clone(&recorded);
                let record = move |bytes: &[u8]| recorded.lock().unwrap()[number].extend_from_slice(bytes);
                let silenced = Arc::clone(&silenced);
                let stops = move || number < silenced.load(Ordering::SeqCst);
                pass(&client, &server, (Way::LoseCommit, stops.clone()), &shared, record);
                pass(&server, &client, (Way::LoseConfirmation, stops), &shared, |_| ());
            }
        });
        Self { port, way, sent, silent }
    }

    /// The URL through here.
    pub(super) fn url(&self, url: &str) -> String {
        url.replace(address_in(url), &format!("127.0.0.1:{}", self.port))
    }

    pub(super) fn set(&self, way: Way) {
        *self.way.0.lock().unwrap() = way;
        self.way.1.notify_all();
    }

    /// Nothing passes any more on the connections that there are, which stay; those that come later are answered.
    pub(super) fn silence(&self) {
        self.silent.store(self.sent.lock().unwrap().len(), Ordering::SeqCst);
    }

    /// The messages that each connection sent since this was asked last, while none was on its way: simple statements as they
    /// are, others by their kinds.
    pub(super) fn sent(&self) -> Vec<String> {
        let messages = |sent: &mut Vec<u8>| {
            let sent = std::mem::take(sent);
            let (mut kinds, mut rest) = (Vec::new(), &*sent);
            while let [kind, a, b, c, d, ..] = *rest {
                // What a connection begins with has no kind.
                let bytes = if kind == 0 { [kind, a, b, c] } else { [a, b, c, d] };
                let length = u32::from_be_bytes(bytes) as usize + usize::from(kind != 0);
                let text = String::from_utf8_lossy(rest.get(5..length).unwrap_or_default());
                let text = text.trim_end_matches('\0').to_owned();
                kinds.push(if kind == b'Q' { text } else { char::from(kind).to_string() });
                rest = rest.get(length..).unwrap_or_default();
            }
            kinds.join(", ")
        };
        self.sent.lock().unwrap().iter_mut().map(messages).collect()
    }

    /// Whether what was to be lost was lost.
    pub(super) fn is_open(&self) -> bool {
        *self.way.0.lock().unwrap() == Way::Open
    }
}

/// `HOST:PORT`.
fn address_in(url: &str) -> &str {
    let start = url.find('@').unwrap() + 1;
    url[start..].split('/').next().unwrap()
}

/// Whether a transaction ends here.
fn ends(bytes: &[u8]) -> bool {
    bytes.windows(COMMIT.len()).any(|part| part == COMMIT)
}

/// Passes on what comes, on a thread of its own, until it stops; `losing` is what loses a commit in this direction.
fn pass(
    from: &TcpStream,
    to: &TcpStream,
    (losing, stops): (Way, impl Fn() -> bool + Send + 'static),
    way: &Arc<(Mutex<Way>, Condvar)>,
    record: impl Fn(&[u8]) + Send + 'static,
) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let way = Arc::clone(way);
    thread::spawn(move || {
        let mut bytes = vec![0; 1 << 20];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            record(&bytes[..length]);
            while stops() {
                thread::park();
            }
            let mut now = way.0.lock().unwrap();
            while *now == Way::Blocked {
                now = way.1.wait(now).unwrap();
            }
            if *now == losing && ends(&bytes[..length]) {
                *now = Way::Open;
                break;
            }
            if *now == Way::Deaf
                && let Some(at) = bytes[..length].windows(LISTEN.len()).position(|part| part == LISTEN)
            {
                bytes[at..at + LISTEN.len()].copy_from_slice(b"MUMBLE ");
            }
            let is_last = *now == Way::LoseNode && losing == Way::LoseCommit && ends(&bytes[..length]);
            if is_last {
                *now = Way::Open;
            }
            drop(now);
            // What nobody takes any more is taken from the server all the same.
            let _ = to.write_all(&bytes[..length]);
            if is_last {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}
