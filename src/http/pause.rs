//! A pause before the next request of a connection whose last one was refused for overload.
//!
//! A refusal costs the reading of a request. Clients that ignore `Retry-After` and send again at once would take the time in
//! which others are served, so the server does not read them at once either: the answer goes out whole, and its connection
//! rests before it is read again. The more connections rest, the longer each does, so that all of them together cost a
//! number of refusals a second that does not grow with theirs.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::rt::time::{Sleep, sleep};
use actix_web::web::Bytes;

/// The rest of a connection for each connection that rests: 1,000 refusals a second, of some 50 microseconds each with the
/// bytes that are read for them.
const EACH: Duration = Duration::from_millis(1);

/// The longest rest, half of what `Retry-After` asks for: a client that waits as it is told never notices one.
const LONGEST: Duration = Duration::from_millis(500);

/// How many connections rest now.
#[derive(Debug, Clone, Default)]
pub(super) struct Pauses(Arc<AtomicU32>);

impl Pauses {
    /// The same answer, after which its connection rests.
    pub(super) fn after(&self, answer: HttpResponse) -> HttpResponse {
        let resting = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let rest = Rest { timer: Box::pin(sleep(rest_of(resting))), resting: Arc::clone(&self.0) };
        answer.map_body(|_, body| BoxBody::new(Unhurried { body, rest }))
    }
}

/// How long each rests where so many do.
fn rest_of(resting: u32) -> Duration {
    EACH.saturating_mul(resting).min(LONGEST)
}

/// A connection that rests, until this is dropped.
struct Rest {
    timer: Pin<Box<Sleep>>,
    resting: Arc<AtomicU32>,
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.resting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that is sent at once and ends late: its client has all of it by its length, and the server reads on after its end.
struct Unhurried {
    body: BoxBody,
    rest: Rest,
}

impl MessageBody for Unhurried {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match ready!(Pin::new(&mut self.body).poll_next(context)) {
            None => self.rest.timer.as_mut().poll(context).map(|()| None),
            some => Poll::Ready(some),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn refused() -> HttpResponse {
        HttpResponse::ServiceUnavailable().body("later")
    }

    #[actix_web::test]
    async fn an_answer_is_sent_at_once_and_ends_after_the_pause() {
        let pauses = Pauses::default();
        let mut body = pauses.after(refused()).into_body();
        assert_eq!(body.size(), BodySize::Sized(5));
        let mut context = Context::from_waker(Waker::noop());
        let first = Pin::new(&mut body).poll_next(&mut context);
        assert!(matches!(first, Poll::Ready(Some(Ok(bytes))) if bytes == "later"));
        assert!(Pin::new(&mut body).poll_next(&mut context).is_pending(), "it rests");
        let end = std::future::poll_fn(|context| Pin::new(&mut body).poll_next(context)).await;
        assert!(end.is_none());
        drop(body);
        assert_eq!(pauses.0.load(Ordering::Relaxed), 0);
    }

    #[actix_web::test]
    async fn many_that_rest_rest_longer_but_not_without_bound() {
        let pauses = Pauses::default();
        let all: Vec<_> = (0..2_000).map(|_| pauses.after(refused())).collect();
        assert_eq!(pauses.0.load(Ordering::Relaxed), 2_000);
        assert_eq!([1, 100, 1_000, u32::MAX].map(rest_of), [EACH, EACH * 100, LONGEST, LONGEST]);
        drop(all);
        assert_eq!(pauses.0.load(Ordering::Relaxed), 0, "a client that hangs up rests no more");
    }
}
