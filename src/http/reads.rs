//! The queue for readers of the store, in which addresses take turns.
//!
//! A handler gets a reader of the store only with a [`Turn`], so that no read can be without one. As
//! many turns as [`Reads::new`] is told are held at the same time; past that, requests wait. Of those
//! that wait, each address has one turn after the other, so that the reads of one address, however
//! many there are, hold those of another up by one turn. A request waits for at most
//! `server.request_timeout` in all, however many turns it needs; an answer that has begun waits for as
//! long as its client does.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::failure::Failure;
use crate::api::Code;
use crate::config::Settings;
use crate::domain::Address;
use crate::store::Reader;
use crate::throttle::Throttle;
use crate::turns::Turns;

/// Turns for each reader of the store: one page is rendered while the next is read.
const TURNS_EACH: usize = 2;

/// The way to read: a cheap handle.
#[derive(Clone)]
pub(super) struct Reads(Arc<Shared>);

struct Shared {
    reader: Arc<dyn Reader>,
    /// The turns that there are.
    most: usize,
    /// `server.request_timeout`.
    patience: Duration,
    queue: Mutex<Queue>,
    /// Bounds the lines of the log about requests that waited for too long.
    said: Throttle,
}

/// The turns that are free, and the requests that wait for one.
struct Queue {
    free: usize,
    /// Never any while a turn is free.
    waiting: Turns<Address, oneshot::Sender<()>>,
}

/// A turn to read the store. Dropped, it goes to the next request.
///
/// A task that holds one must not wait for another one, nor for a client.
pub(super) struct Turn(Arc<Shared>);

/// A request that waits for its turn. Dropped, it leaves the queue.
struct Waiter {
    shared: Arc<Shared>,
    address: Address,
    ticket: u64,
    told: oneshot::Receiver<()>,
    /// Whether a [`Turn`] was made of the turn that it got.
    has_turn: bool,
}

impl Reads {
    /// The reads of a store with these settings.
    pub(super) fn new(reader: Arc<dyn Reader>, settings: &Settings) -> Self {
        let most = settings.store.readers.max(1) * TURNS_EACH;
        let queue = Mutex::new(Queue { free: most, waiting: Turns::default() });
        let patience = settings.server.request_timeout;
        Self(Arc::new(Shared { reader, most, patience, queue, said: Throttle::default() }))
    }

    /// The time by which a request that begins now has all its turns: after `server.request_timeout`.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.0.patience
    }

    /// Waits for the only turn of a request of this address.
    ///
    /// # Errors
    /// 503 where it has none within `server.request_timeout`.
    pub(super) async fn turn(&self, address: Address) -> Result<Turn, Failure> {
        self.turn_by(self.deadline(), address).await
    }

    /// Waits for one of several turns of a request of this address.
    ///
    /// # Errors
    /// 503 where it has none by the deadline.
    pub(super) async fn turn_by(&self, deadline: Instant, address: Address) -> Result<Turn, Failure> {
        match self.ask(address) {
            Ok(turn) => Ok(turn),
            Err(waiter) => self.by(deadline, address, waiter.turn()).await,
        }
    }

    /// Waits for a read that takes its turns itself, for a request of this address.
    ///
    /// # Errors
    /// 503 where the read is not done by the deadline.
    pub(super) async fn by<T>(
        &self,
        deadline: Instant,
        address: Address,
        read: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        if let Ok(done) = timeout_at(deadline, read).await {
            return Ok(done);
        }
        let Shared { patience, said, .. } = &*self.0;
        if said.admits() {
            tracing::warn!(peer = %address, ?patience, "no reader of the store is free: reads are refused with 503");
        }
        Err(Failure::new(
            Code::StoreUnavailable,
            "no reader of the store was free within server.request_timeout; send the request again later",
        ))
    }

    /// Waits for a turn of this address for so long; `None` where it has none by then.
    pub(super) async fn turn_within(&self, patience: Duration, address: Address) -> Option<Turn> {
        match self.ask(address) {
            Ok(turn) => Some(turn),
            Err(waiter) => timeout(patience, waiter.turn()).await.ok(),
        }
    }

    /// Waits for a turn of this address, however long: for an answer that has begun.
    pub(super) async fn turn_of_stream(&self, address: Address) -> Turn {
        match self.ask(address) {
            Ok(turn) => turn,
            Err(waiter) => waiter.turn().await,
        }
    }

    /// Whether any request waits for its turn.
    #[cfg(test)]
    pub(super) fn are_awaited(&self) -> bool {
        !self.0.lock().waiting.is_empty()
    }

    fn ask(&self, address: Address) -> Result<Turn, Waiter> {
        let shared = Arc::clone(&self.0);
        let mut queue = shared.lock();
        if let Some(free) = queue.free.checked_sub(1) {
            queue.free = free;
            drop(queue);
            return Ok(Turn(shared));
        }
        let (tell, told) = oneshot::channel();
        let ticket = queue.waiting.push(address, tell);
        drop(queue);
        Err(Waiter { shared, address, ticket, told, has_turn: false })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change under the lock is whole, also where its thread panics afterwards.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a turn to the next request.
    fn give(&self, mut queue: MutexGuard<'_, Queue>) {
        if let Some(next) = queue.waiting.pop() {
            drop(queue);
            // A waiter that is being dropped gives the turn on itself.
            let _ = next.send(());
            return;
        }
        queue.free += 1;
        debug_assert!(queue.free <= self.most, "a turn is given back once");
    }
}

impl Waiter {
    async fn turn(mut self) -> Turn {
        // The sender is in the queue until it tells, and the queue is held here.
        let told = (&mut self.told).await;
        debug_assert!(told.is_ok(), "a request leaves the queue by its turn or by its end");
        self.has_turn = true;
        Turn(Arc::clone(&self.shared))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.has_turn {
            return;
        }
        let mut queue = self.shared.lock();
        if queue.waiting.remove(self.address, self.ticket).is_none() {
            // It was told, or is about to be.
            self.shared.give(queue);
        }
    }
}

impl Deref for Turn {
    type Target = dyn Reader;

    fn deref(&self) -> &Self::Target {
        &*self.0.reader
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.give(self.0.lock());
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;
    use crate::http::tests::{Fake, settings};

    fn address(last: u8) -> Address {
        Address::of([192, 0, 2, last].into())
    }

    fn reads() -> Reads {
        Reads::new(Arc::new(Fake::default()), &settings())
    }

    type Asked = Pin<Box<dyn Future<Output = Turn>>>;

    /// A request that waits for its turn.
    fn waits(reads: &Reads, last: u8) -> Asked {
        let reads = reads.clone();
        let mut asked: Asked = Box::pin(async move { reads.turn_of_stream(address(last)).await });
        assert!((&mut asked).now_or_never().is_none(), "it has a turn already");
        asked
    }

    fn free(reads: &Reads) -> usize {
        reads.0.lock().free
    }

    /// Takes all turns.
    fn busy(reads: &Reads) -> [Turn; TURNS_EACH] {
        std::array::from_fn(|_| reads.turn_of_stream(address(9)).now_or_never().unwrap())
    }

    #[test]
    fn a_turn_that_is_free_is_had_at_once_and_given_back() {
        let reads = reads();
        let held = busy(&reads);
        assert_eq!(free(&reads), 0);
        drop(held);
        assert_eq!(free(&reads), TURNS_EACH);
    }

    #[test]
    fn addresses_take_turns_however_many_requests_of_each_wait() {
        let reads = reads();
        let mut held = busy(&reads).into_iter();
        let mut waiting: Vec<_> = [1, 1, 1, 1, 1, 2, 2, 3].map(|last| (last, waits(&reads, last))).into();
        let mut order = Vec::new();
        let mut turn = held.next();
        while !waiting.is_empty() {
            drop(turn.take());
            let is_told = |(_, asked): &mut (u8, Asked)| asked.now_or_never();
            let at = waiting.iter_mut().enumerate().find_map(|(at, one)| Some((at, is_told(one)?)));
            let (at, next) = at.expect("one request has the turn that was given back");
            order.push(waiting.remove(at).0);
            turn = Some(next);
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1, 1, 1]);
    }

    #[test]
    fn a_request_that_is_dropped_leaves_nothing_behind() {
        let reads = reads();
        let mut held = busy(&reads).into_iter();
        let [first, told, next] = [1, 2, 3].map(|last| waits(&reads, last));
        drop(first);
        // The turn goes to the second one, which is dropped before it has looked.
        drop(held.next());
        drop(told);
        assert!(reads.0.lock().waiting.is_empty());
        let turn = next.now_or_never().expect("the turn went on");
        assert_eq!(free(&reads), 0);
        drop((held, turn));
        assert_eq!((free(&reads), reads.0.lock().waiting.is_empty()), (TURNS_EACH, true));
    }

    #[actix_web::test]
    async fn a_request_waits_for_its_turn_no_longer_than_it_may() {
        let mut hasty = settings();
        hasty.server.request_timeout = Duration::from_millis(1);
        let reads = Reads::new(Arc::new(Fake::default()), &hasty);
        let held = busy(&reads);
        let refused = reads.turn(address(1)).await.err().unwrap();
        assert_eq!(refused.code(), Code::StoreUnavailable);
        assert!(refused.detail().contains("server.request_timeout"), "{refused}");
        assert!(reads.0.lock().waiting.is_empty(), "it waits no more");
        drop(held);
        assert!(reads.turn(address(1)).await.is_ok());
    }

    #[actix_web::test]
    async fn a_request_with_several_turns_has_one_deadline_for_all() {
        let mut patient = settings();
        patient.server.request_timeout = Duration::from_hours(1);
        let reads = Reads::new(Arc::new(Fake::default()), &patient);
        let past = Instant::now();
        assert!(reads.turn_by(past, address(1)).await.is_ok(), "a turn is free");
        let held = busy(&reads);
        let read = async { drop(reads.turn_of_stream(address(1)).await) };
        for refused in
            [reads.turn_by(past, address(1)).await.err(), reads.by(past, address(1), read).await.err()]
        {
            assert_eq!(refused.unwrap().code(), Code::StoreUnavailable);
        }
        assert!(reads.0.lock().waiting.is_empty(), "they wait no more");
        drop(held);
        assert_eq!(free(&reads), TURNS_EACH);
    }

    /// Asks for turns, again and again, and leaves the queue every third time while it waits.
    async fn comes_and_goes(reads: &Reads, number: u8) {
        for round in 0..50 {
            let asked = reads.turn_of_stream(address(number % 7));
            if (number ^ round).is_multiple_of(3) {
                tokio::select! {
                    biased;
                    turn = asked => drop(turn),
                    () = tokio::task::yield_now() => {}
                }
            } else {
                let turn = asked.await;
                assert!(free(reads) < TURNS_EACH, "this one has a turn");
                tokio::task::yield_now().await;
                drop(turn);
            }
        }
    }

    #[test]
    fn no_turn_is_lost_or_made_while_requests_come_and_go() {
        let reads = reads();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let all = (0..50).map(|number| comes_and_goes(&reads, number));
                scope.spawn(|| actix_web::rt::System::new().block_on(join_all(all)));
            }
        });
        assert_eq!((free(&reads), reads.0.lock().waiting.is_empty()), (TURNS_EACH, true));
    }
}
