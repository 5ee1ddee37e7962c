//! What a connection waits for, and since when: a few atomics that its worker writes and the watcher
//! reads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The end of a message whose length is not known: its head came together with an earlier request.
const UNKNOWN: u64 = u64::MAX;

/// The end of a message whose body is chunked: only its last bytes tell.
const CHUNKED: u64 = u64::MAX - 1;

/// The end of a head (RFC 9112, section 2.1).
const HEAD_END: [u8; 4] = *b"\r\n\r\n";

/// The end of a chunked body without trailers, which actix does not take (RFC 9112, section 7.1).
const CHUNKS_END: [u8; 6] = *b"\n0\r\n\r\n";

/// The bits of [`Progress::stage`] that hold the stage; those above hold the time.
const STAGE_BITS: u32 = 3;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The first byte of the first head.
    Fresh = 0,
    /// The rest of a head.
    Head = 1,
    /// The log: a request is read, decided or answered, each within deadlines of its own.
    Serving = 2,
    /// The first byte of the next head.
    Idle = 3,
    /// The next head, of which a part may have come together with earlier requests.
    Between = 4,
    /// The rest of a body that was answered before its end.
    Draining = 5,
    /// Nothing more: the log has ended it.
    Ended = 6,
}

/// How long the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// Bytes; 0 where there is none.
    Length(u64),
    /// Until its last chunk.
    Chunked,
}

/// The progress of one connection. Times are those since the start of the server.
#[derive(Debug)]
pub(super) struct Progress {
    /// The stage, and since when it is, in milliseconds.
    stage: AtomicU64,
    /// Bytes that came.
    received: AtomicU64,
    /// The last eight of them, the last one lowest.
    tail: AtomicU64,
    /// Bytes up to the end of the head that came last.
    head_end: AtomicU64,
    /// Bytes up to the end of the request that is served.
    request_end: AtomicU64,
    /// Bytes that came since the request was answered that they belong to.
    drained: AtomicU64,
    /// Since when the client takes nothing of its answer, in milliseconds and one more; 0 while it
    /// takes all.
    blocked: AtomicU64,
    /// Whether actix may hold bytes of an answer that has ended.
    unsent: AtomicBool,
    /// Whether the answer is that of a follower, which has a deadline of its own.
    follows: AtomicBool,
}

impl Progress {
    /// A connection that was accepted now.
    pub(super) fn new(now: Duration) -> Self {
        let progress = Self {
            stage: AtomicU64::default(),
            received: AtomicU64::default(),
            tail: AtomicU64::default(),
            head_end: AtomicU64::new(UNKNOWN),
            request_end: AtomicU64::new(UNKNOWN),
            drained: AtomicU64::default(),
            blocked: AtomicU64::default(),
            unsent: AtomicBool::default(),
            follows: AtomicBool::default(),
        };
        progress.enter(Stage::Fresh, now);
        progress
    }

    /// The stage, and since when.
    pub(super) fn stage(&self) -> (Stage, Duration) {
        let packed = self.stage.load(Ordering::Acquire);
        let stage = match packed & ((1 << STAGE_BITS) - 1) {
            0 => Stage::Fresh,
            1 => Stage::Head,
            2 => Stage::Serving,
            3 => Stage::Idle,
            4 => Stage::Between,
            5 => Stage::Draining,
            _ => Stage::Ended,
        };
        (stage, Duration::from_millis(packed >> STAGE_BITS))
    }

    /// Notes that the client follows a topic. It does so until the connection ends.
    pub(super) fn follow(&self) {
        self.follows.store(true, Ordering::Relaxed);
    }

    /// Since when the client takes nothing of its answer; `None` also for a follower.
    pub(super) fn blocked(&self) -> Option<Duration> {
        if self.follows.load(Ordering::Relaxed) {
            return None;
        }
        self.blocked.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
    }

    /// Bytes that came since the request was answered that they belong to.
    pub(super) fn drained(&self) -> u64 {
        self.drained.load(Ordering::Relaxed)
    }

    /// Whether nothing more is read: the log has ended the connection, or the rest of a body of known
    /// length has been drained, after which actix closes the connection.
    pub(super) fn is_read(&self) -> bool {
        match self.stage().0 {
            Stage::Ended => true,
            Stage::Draining => {
                let end = self.request_end.load(Ordering::Relaxed);
                end < CHUNKED && self.received.load(Ordering::Relaxed) >= end
            }
            _ => false,
        }
    }

    /// Notes bytes that came.
    pub(super) fn received(&self, bytes: &[u8], now: Duration) {
        let before = self.received.load(Ordering::Relaxed);
        let (stage, _) = self.stage();
        match stage {
            // The deadline of the first head counts from the accept.
            Stage::Fresh => self.enter(Stage::Head, self.stage().1),
            Stage::Idle | Stage::Between => self.enter(Stage::Head, now),
            Stage::Head | Stage::Serving | Stage::Draining | Stage::Ended => {}
        }
        if !matches!(stage, Stage::Serving | Stage::Draining)
            && self.head_end.load(Ordering::Relaxed) == UNKNOWN
        {
            let end = self.end_of_head(bytes).map_or(UNKNOWN, |end| before + end as u64);
            self.head_end.store(end, Ordering::Relaxed);
        }
        self.received.store(before + bytes.len() as u64, Ordering::Relaxed);
        self.note_tail(bytes);
        if stage == Stage::Draining {
            self.drained.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if self.request_end.load(Ordering::Relaxed) == CHUNKED && self.ends_with(&CHUNKS_END) {
                self.enter(Stage::Idle, now);
            }
        }
    }

    /// Notes that the head of a request is whole and that the request is served from now on.
    pub(super) fn begin(&self, body: Body, now: Duration) {
        let head_end = self.head_end.swap(UNKNOWN, Ordering::Relaxed);
        let end = match (head_end, body) {
            (UNKNOWN, _) => UNKNOWN,
            (_, Body::Chunked) => CHUNKED,
            (end, Body::Length(length)) => end.saturating_add(length).min(CHUNKED - 1),
        };
        self.request_end.store(end, Ordering::Relaxed);
        self.drained.store(0, Ordering::Relaxed);
        self.enter(Stage::Serving, now);
    }

    /// Notes that the answer has ended. actix writes the last bytes of it after that.
    pub(super) fn answered(&self, now: Duration) {
        self.unsent.store(true, Ordering::Relaxed);
        let received = self.received.load(Ordering::Relaxed);
        let stage = match self.request_end.load(Ordering::Relaxed) {
            UNKNOWN => Stage::Between,
            CHUNKED if self.ends_with(&CHUNKS_END) => Stage::Idle,
            CHUNKED => Stage::Draining,
            end if received < end => Stage::Draining,
            end if received == end => Stage::Idle,
            _ => Stage::Head,
        };
        self.enter(stage, now);
    }

    /// Notes that the system has taken all bytes that actix had to send.
    pub(super) fn flushed(&self) {
        self.unsent.store(false, Ordering::Relaxed);
    }

    /// Whether actix may hold bytes of an answer that has ended.
    pub(super) fn is_unsent(&self) -> bool {
        self.unsent.load(Ordering::Relaxed)
    }

    /// Notes that the client takes nothing more of its answer now.
    pub(super) fn stalled(&self, now: Duration) {
        if self.blocked.load(Ordering::Relaxed) == 0 {
            self.blocked.store(millis(now) + 1, Ordering::Relaxed);
        }
    }

    /// Notes that the client took something of its answer.
    pub(super) fn sent(&self) {
        if self.blocked.load(Ordering::Relaxed) != 0 {
            self.blocked.store(0, Ordering::Relaxed);
        }
    }

    /// Notes that the log ends the connection; returns the stage in which it does, the first time.
    pub(super) fn end(&self) -> Option<Stage> {
        let (stage, _) = self.stage();
        let ended = self.stage.swap(Stage::Ended as u64, Ordering::Relaxed);
        (ended != Stage::Ended as u64).then_some(stage)
    }

    fn enter(&self, stage: Stage, now: Duration) {
        let is_ended = self.stage.load(Ordering::Relaxed) == Stage::Ended as u64;
        if !is_ended {
            self.stage.store(millis(now) << STAGE_BITS | stage as u64, Ordering::Release);
        }
    }

    /// The bytes of these up to the end of a head, which may have begun in earlier ones.
    fn end_of_head(&self, bytes: &[u8]) -> Option<usize> {
        let earlier = self.tail.load(Ordering::Relaxed).to_be_bytes();
        let byte_before = |at: usize, back: usize| match at.checked_sub(back) {
            Some(at) => bytes[at],
            None => earlier[earlier.len() + at - back],
        };
        let ends = |at: usize| (1..HEAD_END.len()).all(|back| byte_before(at, back) == HEAD_END[3 - back]);
        memchr::memchr_iter(b'\n', bytes).find(|at| ends(*at)).map(|at| at + 1)
    }

    fn note_tail(&self, bytes: &[u8]) {
        let last = &bytes[bytes.len().saturating_sub(size_of::<u64>())..];
        let before = if last.len() == size_of::<u64>() { 0 } else { self.tail.load(Ordering::Relaxed) };
        let tail = last.iter().fold(before, |tail, byte| tail << 8 | u64::from(*byte));
        self.tail.store(tail, Ordering::Relaxed);
    }

    fn ends_with(&self, end: &[u8]) -> bool {
        self.tail.load(Ordering::Relaxed).to_be_bytes().ends_with(end)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX) & (u64::MAX >> STAGE_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    /// A connection that got these bytes at second 1, whose request is served since second 2.
    fn serving(bytes: &[u8], body: Body) -> Progress {
        let progress = Progress::new(at(0));
        progress.received(bytes, at(1));
        progress.begin(body, at(2));
        progress
    }

    #[test]
    fn the_first_head_counts_from_the_accept_and_a_later_one_from_its_first_byte() {
        let progress = Progress::new(at(0));
        assert_eq!(progress.stage(), (Stage::Fresh, at(0)));
        progress.received(b"GET / HT", at(3));
        assert_eq!(progress.stage(), (Stage::Head, at(0)));
        progress.received(b"TP/1.1\r\nHost: localhost\r\n\r\n", at(4));
        progress.begin(Body::Length(0), at(4));
        progress.answered(at(5));
        assert_eq!(progress.stage(), (Stage::Idle, at(5)));
        progress.received(b"\r", at(6));
        progress.received(b"\n", at(7));
        assert_eq!(progress.stage(), (Stage::Head, at(6)), "an empty line begins a head");
    }

    #[test]
    fn a_body_that_is_whole_leaves_an_idle_connection() {
        let whole = [GET, b"12345"].concat();
        let progress = serving(&whole, Body::Length(5));
        progress.answered(at(3));
        assert_eq!(progress.stage(), (Stage::Idle, at(3)));
        let later = serving(GET, Body::Length(5));
        later.received(b"123", at(3));
        later.received(b"45", at(3));
        assert_eq!(later.stage(), (Stage::Serving, at(2)));
        later.answered(at(4));
        assert_eq!(later.stage(), (Stage::Idle, at(4)));
    }

    #[test]
    fn a_body_that_is_answered_early_is_drained() {
        let progress = serving(&[GET, b"123"].concat(), Body::Length(5));
        progress.answered(at(3));
        progress.received(b"4", at(4));
        assert_eq!((progress.stage(), progress.drained()), ((Stage::Draining, at(3)), 1));
        assert!(!progress.is_read());
        progress.received(b"5", at(4));
        assert!(progress.is_read(), "the body is whole");
    }

    #[test]
    fn a_chunked_body_is_drained_until_its_last_chunk() {
        let progress = serving(&[GET, b"1\r\n[\r\n"].concat(), Body::Chunked);
        progress.answered(at(3));
        progress.received(b"1\r\n]\r\n0\r", at(4));
        assert_eq!(progress.stage(), (Stage::Draining, at(3)));
        progress.received(b"\n\r\n", at(5));
        assert_eq!(progress.stage(), (Stage::Idle, at(5)));
        let whole = serving(&[GET, b"0\r\n\r\n"].concat(), Body::Chunked);
        whole.answered(at(3));
        assert_eq!(whole.stage(), (Stage::Idle, at(3)));
    }

    #[test]
    fn a_part_of_the_next_head_that_came_early_has_the_deadline_of_a_head() {
        let progress = serving(&[GET, b"GET / HT"].concat(), Body::Length(0));
        progress.answered(at(3));
        assert_eq!(progress.stage(), (Stage::Head, at(3)));
        let piped = serving(&[GET, GET].concat(), Body::Length(0));
        piped.answered(at(3));
        piped.begin(Body::Length(0), at(3));
        piped.answered(at(4));
        assert_eq!(piped.stage(), (Stage::Between, at(4)), "nobody knows what came behind it");
        piped.received(GET, at(5));
        piped.begin(Body::Length(0), at(5));
        piped.answered(at(6));
        assert_eq!(piped.stage(), (Stage::Idle, at(6)));
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_is_cut() {
        for cut in 1..GET.len() {
            let progress = Progress::new(at(0));
            progress.received(&GET[..cut], at(1));
            progress.received(&[&GET[cut..], b"12"].concat(), at(1));
            progress.begin(Body::Length(2), at(2));
            progress.answered(at(3));
            assert_eq!(progress.stage(), (Stage::Idle, at(3)), "cut at {cut}");
        }
    }

    #[test]
    fn an_answer_is_unsent_until_its_last_bytes_are_flushed() {
        let progress = serving(GET, Body::Length(0));
        progress.flushed();
        progress.answered(at(3));
        assert_eq!((progress.stage(), progress.is_unsent()), ((Stage::Idle, at(3)), true));
        progress.flushed();
        assert!(!progress.is_unsent());
    }

    #[test]
    fn a_client_that_takes_nothing_is_seen_since_the_first_time() {
        let progress = Progress::new(at(0));
        progress.stalled(at(1));
        progress.stalled(at(2));
        assert_eq!(progress.blocked(), Some(at(1)));
        progress.sent();
        assert_eq!(progress.blocked(), None);
    }
}
