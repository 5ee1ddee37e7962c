//! The arrival of a body: its bytes, charged as they come, within a limit, in time and at a rate.
//!
//! A body that stalls, or comes by drops, holds memory that others need. So at least
//! `server.body_min_rate` bytes for each second of `server.body_grace` must come within each such
//! period: the deadline moves on whenever a period's bytes are there, and never past
//! `server.body_timeout`.

use std::mem;
use std::pin::pin;
use std::time::{Duration, Instant};

use actix_web::error::PayloadError;
use actix_web::web::Payload;
use futures_util::StreamExt;
use tokio::time::sleep_until;

use super::failure::Failure;
use crate::api::Code;
use crate::config::Server;
use crate::pipeline::Permit;

/// The bytes of a segment of a body, and the most memory that is taken on the word of a Content-Length.
const SEGMENT_BYTES: usize = 32 << 10;

/// How many bytes of it are taken at most for each that came first: a client that sends one byte a second must not get
/// memory for more.
const RESERVE_TIMES: usize = 16;

/// The bytes between two looks at the clock where no rate is set.
const LOOK_BYTES: usize = 64 << 10;

/// The bytes of a body as they are sent.
pub(super) struct Arrival {
    pub(super) payload: Payload,
    /// The bytes that the client says there are, 0 where it does not.
    pub(super) length: usize,
    /// The most bytes that are taken.
    pub(super) limit: usize,
}

impl Arrival {
    /// Takes all of them. They are charged to the permit.
    ///
    /// # Errors
    /// 413 past the limit, 408 where they come too slowly, 400 where the connection breaks, 429 and 503
    /// where the permit gets no more.
    pub(super) async fn read(mut self, server: &Server, permit: &mut Permit) -> Result<Vec<u8>, Failure> {
        let mut body = Segments::default();
        let mut pace = Pace::new(server, Instant::now());
        // It rings when the bytes of a period are due, or before, where that moved on meanwhile: a timer
        // is set when a client is slow, and not for each period.
        let mut timer = pin!(sleep_until(pace.due.into()));
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = self.payload.next() => chunk,
                () = &mut timer => {
                    pace.check(Instant::now())?;
                    timer.as_mut().reset(pace.due.into());
                    continue;
                }
            };
            let Some(chunk) = chunk else { return Ok(body.joined()) };
            let chunk = chunk.map_err(|error| broken(&error))?;
            if body.bytes + chunk.len() > self.limit {
                return Err(too_large(self.limit));
            }
            permit.charge_bytes(chunk.len())?;
            pace.came(chunk.len(), Instant::now)?;
            if body.bytes == 0 {
                body.last.reserve(self.length.min(SEGMENT_BYTES).min(chunk.len() * RESERVE_TIMES));
            }
            body.extend(&chunk);
        }
    }
}

/// The bytes of a body that arrives. One buffer that doubles would hold up to three times the bytes that
/// are charged: its free half, and the buffers before it, which the allocator keeps for a while. Of
/// segments only the last one has free room.
#[derive(Default)]
struct Segments {
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
    /// The bytes of all of them.
    bytes: usize,
}

impl Segments {
    fn extend(&mut self, mut chunk: &[u8]) {
        self.bytes += chunk.len();
        while let Some((fits, rest)) = chunk.split_at_checked(SEGMENT_BYTES - self.last.len()) {
            self.append(fits);
            self.full.push(mem::replace(&mut self.last, Vec::with_capacity(SEGMENT_BYTES)));
            chunk = rest;
        }
        self.append(chunk);
        debug_assert!(self.last.len() < SEGMENT_BYTES, "a full segment is no longer the last one");
    }

    /// Adds bytes for which the last segment has room. Its capacity doubles, and ends at that of a segment.
    fn append(&mut self, bytes: &[u8]) {
        let length = self.last.len();
        if length + bytes.len() > self.last.capacity() {
            let doubled = (2 * self.last.capacity()).clamp(length + bytes.len(), SEGMENT_BYTES);
            self.last.reserve_exact(doubled - length);
        }
        self.last.extend_from_slice(bytes);
    }

    /// The whole body. For the time of the copy it is there twice, once a thread.
    fn joined(self) -> Vec<u8> {
        let Self { full, last, bytes } = self;
        if full.is_empty() {
            return last;
        }
        let mut body = Vec::with_capacity(bytes);
        full.into_iter().chain([last]).for_each(|segment| body.extend_from_slice(&segment));
        body
    }
}

/// How fast a body comes.
struct Pace {
    timeout: Duration,
    grace: Duration,
    rate: usize,
    /// When all of it must be there.
    end: Instant,
    /// When the bytes of this period must be there.
    due: Instant,
    /// The bytes that are left of this period.
    left: usize,
}

impl Pace {
    fn new(server: &Server, now: Instant) -> Self {
        let (timeout, grace, rate) = (server.body_timeout, server.body_grace, server.body_min_rate);
        let mut pace = Self { timeout, grace, rate, end: now + timeout, due: now, left: 0 };
        pace.begin_period(now);
        pace
    }

    fn begin_period(&mut self, now: Instant) {
        let wanted = self.grace.as_millis().saturating_mul(self.rate as u128) / 1_000;
        (self.left, self.due) = match usize::try_from(wanted).unwrap_or(usize::MAX) {
            0 => (LOOK_BYTES, self.end),
            wanted => (wanted, self.end.min(now + self.grace)),
        };
    }

    /// Counts bytes that came. The clock is looked at once a period.
    fn came(&mut self, bytes: usize, clock: impl FnOnce() -> Instant) -> Result<(), Failure> {
        self.left = self.left.saturating_sub(bytes);
        if self.left == 0 {
            let now = clock();
            if now >= self.end {
                return Err(self.too_slow());
            }
            self.begin_period(now);
        }
        Ok(())
    }

    /// Fails where the bytes of this period are late.
    fn check(&self, now: Instant) -> Result<(), Failure> {
        if now >= self.due { Err(self.too_slow()) } else { Ok(()) }
    }

    fn too_slow(&self) -> Failure {
        let Self { timeout, grace, rate, .. } = self;
        let detail = if self.due < self.end {
            format!(
                "fewer than {rate} bytes a second of the body came for {grace:?} (server.body_min_rate, \
                 server.body_grace); send it again in one go"
            )
        } else {
            format!(
                "the body took longer than {timeout:?} to arrive (server.body_timeout); send less at once"
            )
        };
        Failure::new(Code::BodyTimeout, detail)
    }
}

/// The refusal of a body over `limits.body`, as it is sent or after decompression.
pub(super) fn too_large(limit: usize) -> Failure {
    Failure::new(Code::BodyTooLarge, format!("the body has more than {limit} bytes (limits.body)"))
}

fn broken(error: &PayloadError) -> Failure {
    let detail = match error {
        PayloadError::Incomplete(_) => "the body broke off, or its chunks are no HTTP".to_owned(),
        other => format!("the body cannot be read: {other}"),
    };
    Failure::new(Code::BadEncoding, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_broke_off_is_said_in_words() {
        let detail = broken(&PayloadError::Incomplete(None)).to_string();
        assert_eq!(detail, "bad_encoding: the body broke off, or its chunks are no HTTP");
    }

    #[test]
    fn a_body_in_segments_is_the_body_that_came() {
        let body: Vec<u8> =
            (0..3 * SEGMENT_BYTES + 7).map(|place| u8::try_from(place % 251).unwrap()).collect();
        for total in [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, body.len()] {
            for size in [1_000, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, body.len()] {
                let mut segments = Segments::default();
                body[..total].chunks(size).for_each(|chunk| segments.extend(chunk));
                let room: usize = segments.full.iter().chain([&segments.last]).map(Vec::capacity).sum();
                assert!(room <= total + SEGMENT_BYTES, "{room} bytes for {total} in chunks of {size}");
                assert_eq!(segments.bytes, total);
                assert!(segments.joined() == body[..total], "{total} in chunks of {size}");
            }
        }
    }

    /// What becomes of a body of which so many bytes come at each of these milliseconds.
    fn paced(rate: usize, comes: &[(u64, usize)]) -> Result<(), String> {
        let mut server = crate::http::tests::settings().server;
        (server.body_grace, server.body_timeout) = (Duration::from_secs(5), Duration::from_secs(30));
        server.body_min_rate = rate;
        let begun = Instant::now();
        let mut pace = Pace::new(&server, begun);
        for (at, bytes) in comes {
            let now = begun + Duration::from_millis(*at);
            // The timer rings before they come.
            if now >= pace.due {
                pace.check(now).map_err(|late| late.to_string())?;
            }
            pace.came(*bytes, || now).map_err(|late| late.to_string())?;
        }
        Ok(())
    }

    #[test]
    fn a_body_that_keeps_its_rate_may_take_as_long_as_the_timeout() {
        let each_second = |seconds| (1..=seconds).map(|second| (second * 990, 1_000)).collect::<Vec<_>>();
        assert_eq!(paced(1_000, &each_second(30)), Ok(()));
        let late = paced(1_000, &each_second(31)).unwrap_err();
        assert!(late.contains("longer than 30s"), "{late}");
        // A client that is never waited for is seen by its bytes.
        let fast: Vec<_> = (1..=40_000).map(|millisecond| (millisecond, 100_000)).collect();
        assert!(paced(0, &fast).unwrap_err().contains("longer than 30s"));
    }

    #[test]
    fn a_body_that_stalls_or_dribbles_ends_after_the_grace_period() {
        assert_eq!(paced(1_000, &[(4_900, 1)]), Ok(()), "the grace period");
        let stalled = paced(1_000, &[(100, 1_000_000), (5_200, 1)]).unwrap_err();
        assert!(stalled.contains("fewer than 1000 bytes a second"), "{stalled}");
        let drops: Vec<_> = (1..=60).map(|half| (half * 500, 400)).collect();
        assert!(paced(1_000, &drops).unwrap_err().contains("server.body_min_rate"));
        assert_eq!(paced(0, &drops[..50]), Ok(()), "a rate of 0 is none");
    }
}
