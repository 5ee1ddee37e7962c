//! The newest events of a topic, read and rendered once for all who follow it.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::followers::{Followed, Tails};
use super::piece::Piece;
use crate::domain::{Address, HistoryId, Topic};
use crate::http::answers::Answers;
use crate::http::reads::{Reads, Turn};
use crate::http::stream::{ReadError, check_gapless};
use crate::store::{Order, Page, PageQuery};

/// The most events of one piece. Pieces of large events have fewer, by `store::PAGE_BYTES`.
const PIECE_EVENTS: usize = 500;

/// The most bytes of a piece that is kept where a topic has one follower only: it may get another one, but a thousand
/// topics must not keep a thousand large pieces for nobody.
const KEPT_BYTES: usize = 256 << 10;

/// What the followers of one topic share.
pub(super) struct Tail {
    topic: Topic,
    /// Events of another history are never given: the same seqs may name other events there.
    history: HistoryId,
    reads: Reads,
    answers: Arc<Answers>,
    front: Mutex<Front>,
    /// Told when a read at the front has ended, and when a follower no longer asks for a turn.
    read_on: Notify,
    tails: Arc<Tails>,
}

/// How far the foremost follower is.
#[derive(Debug, Default)]
struct Front {
    /// The newest piece that was read.
    newest: Option<Piece>,
    /// Whether someone reads the next one.
    is_read: bool,
    /// The addresses of which a follower asks for a turn to read the next one. One of each: an address
    /// whose other reads wait must not hold up the followers of other addresses.
    asking: HashSet<Address>,
}

/// What a follower does to get its next piece.
enum Step {
    /// Nothing: here it is.
    Given(Piece),
    /// It reads for itself.
    Behind,
    /// It asks for a turn to read for all.
    Ask,
    /// It waits for the one that reads, or for the one of its address that asks for a turn.
    Wait,
}

/// A follower that asks for a turn to read at the front. Its end, also by being dropped, lets another one
/// of its address ask.
struct Asking<'a> {
    tail: &'a Tail,
    address: Address,
}

/// A read at the front. Its end, also by being dropped, lets another one read.
struct Reading<'a>(&'a Tail);

impl Tail {
    pub(super) fn new(
        (topic, history): Followed,
        (reads, answers): (Reads, Arc<Answers>),
        tails: Arc<Tails>,
    ) -> Self {
        Self { topic, history, reads, answers, front: Mutex::default(), read_on: Notify::new(), tails }
    }

    pub(super) fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Some of the events with a greater seq than this one, beginning with the next; `None` where there are none.
    ///
    /// A follower in front reads, and a follower close behind is given the same. A follower far behind
    /// reads for itself alone: it must not hold back those in front. Of those in front, the follower reads
    /// whose address has its turn first.
    /// A page needs room among the answers to the address of its reader.
    pub(super) async fn after(
        self: &Arc<Self>,
        seq: u64,
        address: Address,
    ) -> Result<Option<Piece>, ReadError> {
        loop {
            let read = self.read_on.notified();
            match self.step(seq, address) {
                Step::Given(piece) => return Ok(Some(piece)),
                Step::Behind => {
                    let turn = self.reads.turn_of_stream(address).await;
                    return self.read(seq, address, &turn).await;
                }
                Step::Ask => {
                    let _asking = Asking { tail: self, address };
                    if let Some(turn) = self.turn(seq, address).await
                        && let Some(_reading) = self.begin(seq)
                    {
                        return self.read_for_all(seq, address, &turn).await;
                    }
                }
                // All wait for the one that reads, and go on at once.
                Step::Wait => read.await,
            }
        }
    }

    fn step(&self, seq: u64, address: Address) -> Step {
        let mut front = self.front();
        match &front.newest {
            Some(piece) if piece.first > seq.saturating_add(1) => return Step::Behind,
            Some(piece) if piece.last() > seq => return Step::Given(piece.clone()),
            _ => {}
        }
        if front.is_read || !front.asking.insert(address) { Step::Wait } else { Step::Ask }
    }

    /// Waits for a turn of this address; `None` where another follower has read on meanwhile.
    async fn turn(&self, seq: u64, address: Address) -> Option<Turn> {
        let mut asked = pin!(self.reads.turn_of_stream(address));
        loop {
            let read = self.read_on.notified();
            if self.front().is_beyond(seq) {
                return None;
            }
            tokio::select! {
                biased;
                turn = &mut asked => return Some(turn),
                () = read => {}
            }
        }
    }

    /// Begins to read what is behind this seq; `None` where another follower reads it or has read it.
    fn begin(&self, seq: u64) -> Option<Reading<'_>> {
        let mut front = self.front();
        if front.is_read || front.is_beyond(seq) {
            return None;
        }
        front.is_read = true;
        Some(Reading(self))
    }

    /// Reads the next piece, and keeps it for all that follow closely.
    async fn read_for_all(
        self: &Arc<Self>,
        seq: u64,
        address: Address,
        turn: &Turn,
    ) -> Result<Option<Piece>, ReadError> {
        let piece = self.read(seq, address, turn).await?;
        let is_shared = Arc::strong_count(self) > 1;
        if let Some(next) = piece.as_ref().filter(|next| is_shared || next.text.len() <= KEPT_BYTES) {
            self.front().newest = Some(next.clone());
        }
        Ok(piece)
    }

    fn front(&self) -> MutexGuard<'_, Front> {
        // Every change under the lock is whole, also where its thread panics afterwards.
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// invariant 1: what a reader sees is durable. invariant 6: it comes in the order of seqs, without a gap.
    async fn read(&self, seq: u64, address: Address, turn: &Turn) -> Result<Option<Piece>, ReadError> {
        let Some(first) = seq.checked_add(1) else { return Ok(None) };
        let query = PageQuery {
            topic: self.topic.clone(),
            first,
            last: u64::MAX,
            limit: PIECE_EVENTS,
            order: Order::Ascending,
        };
        let room = self.answers.page(address).map_err(|refusal| {
            self.tails.shed();
            ReadError::NoRoom(refusal)
        })?;
        let Page { history, events } = turn.page(query).await?;
        if history != self.history {
            return Err(ReadError::HistoryChanged);
        }
        check_gapless(&self.topic, &events, first..)?;
        if events.is_empty() {
            return Ok(None);
        }
        Ok(Some(Piece::of(&events, &history, room)?))
    }

    /// Drops the piece that is only kept for followers that may come.
    pub(super) fn shed(&self) {
        self.front().newest = None;
    }
}

impl Front {
    /// Whether the newest piece has events behind this seq.
    fn is_beyond(&self, seq: u64) -> bool {
        self.newest.as_ref().is_some_and(|piece| piece.last() > seq)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.tail.front().asking.remove(&self.address);
        self.tail.read_on.notify_waiters();
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.front().is_read = false;
        self.0.read_on.notify_waiters();
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.tails.forget(&(self.topic.clone(), self.history.clone()));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::http::tests::{Fake, settings};
    use crate::metrics::Metrics;

    const ANY: Address = Address::UNKNOWN;

    fn tail(fake: Fake) -> Arc<Tail> {
        let followed = (Topic::parse("t").unwrap(), HistoryId::parse("fake0").unwrap());
        let answers = Answers::new(&settings(), Arc::new(Metrics::new()));
        Arc::new(Tail::new(
            followed,
            (Reads::new(Arc::new(fake), &settings()), Arc::new(answers)),
            Arc::default(),
        ))
    }

    fn with(events: u64) -> Arc<Tail> {
        tail(Fake { events, ..Fake::default() })
    }

    async fn piece(tail: &Arc<Tail>, seq: u64) -> Piece {
        tail.after(seq, ANY).await.unwrap().unwrap()
    }

    /// The ids that are sent to one who has the events up to a seq, and the last one as the chunks say.
    fn ids(piece: Piece, seq: u64) -> (Vec<u64>, u64) {
        let (mut ids, mut said) = (Vec::new(), seq);
        for (last, text) in piece.chunks(seq) {
            let text = String::from_utf8(text.text.to_vec()).unwrap();
            assert!(text.starts_with("id: ") && text.ends_with("\n\n"), "events are whole: {text}");
            ids.extend(
                text.lines().filter_map(|line| {
                    line.strip_prefix("id: ")?.strip_suffix("@fake0")?.parse::<u64>().ok()
                }),
            );
            said = last;
        }
        (ids, said)
    }

    #[actix_web::test]
    async fn who_follows_closely_is_given_what_the_foremost_has_read() {
        let tail = with(1_200);
        let first = piece(&tail, 0).await;
        assert_eq!(ids(first.clone(), 0), ((1..=500).collect(), 500));
        let close = piece(&tail, 20).await;
        assert_eq!(close.text.as_ptr(), first.text.as_ptr(), "it was not read again");
        assert_eq!(ids(close, 20), ((21..=500).collect(), 500));
        let next = piece(&tail, 500).await;
        assert_eq!(ids(next.clone(), 500), ((501..=1_000).collect(), 1_000));
        let behind = piece(&tail, 3).await;
        assert_eq!(ids(behind, 3), ((4..=503).collect(), 503));
        let same = piece(&tail, 999).await;
        assert_eq!(same.text.as_ptr(), next.text.as_ptr(), "who is behind does not take it away");
        assert_eq!(ids(same, 999), (vec![1_000], 1_000));
    }

    #[actix_web::test]
    async fn who_waits_goes_on_when_a_read_ends_and_when_it_is_given_up() {
        let tail = with(3);
        let reading = tail.begin(0).unwrap();
        let mut waiting = pin!(tail.after(0, ANY));
        assert!((&mut waiting).now_or_never().is_none(), "one reads");
        drop(reading);
        assert_eq!(ids(waiting.await.unwrap().unwrap(), 0), (vec![1, 2, 3], 3));
    }

    #[actix_web::test]
    async fn followers_do_not_wait_for_other_reads_of_the_address_of_one_of_them() {
        let [greedy, other] = [1, 2].map(|last| Address::of([192, 0, 2, last].into()));
        let tail = with(3);
        let busy = || tail.reads.turn_of_stream(ANY).now_or_never();
        let mut held: Vec<_> = std::iter::from_fn(busy).collect();
        let mut reads: Vec<_> = (0..9).map(|_| Box::pin(tail.reads.turn_of_stream(greedy))).collect();
        assert!(reads.iter_mut().all(|read| read.now_or_never().is_none()));
        let [mut first, mut same, mut follower] =
            [greedy, greedy, other].map(|address| Box::pin(tail.after(0, address)));
        for waiting in [&mut first, &mut same, &mut follower] {
            assert!(waiting.now_or_never().is_none(), "there is no turn");
        }
        drop(held.pop());
        let next = (&mut reads[0]).now_or_never();
        assert!(next.is_some(), "the first read has the first turn");
        assert!((&mut first).now_or_never().is_none());
        drop(next);
        let given = (&mut follower).now_or_never().expect("the next turn").unwrap().unwrap();
        assert_eq!(ids(given, 0), (vec![1, 2, 3], 3));
        for waiting in [first, same] {
            let given = waiting.now_or_never().expect("it was read for all").unwrap().unwrap();
            assert_eq!(ids(given, 0), (vec![1, 2, 3], 3));
        }
        assert!(tail.front().asking.is_empty());
        // The turn went to the next read, and nobody else waits for one.
        let all =
            reads.split_off(1).into_iter().map(|read| read.now_or_never().is_some()).collect::<Vec<_>>();
        assert!(all.iter().all(|had| *had), "{all:?}");
    }

    #[actix_web::test]
    async fn a_follower_whose_turn_comes_with_that_of_another_does_not_read_again() {
        let tail = with(3);
        let held: Vec<_> = std::iter::from_fn(|| tail.reads.turn_of_stream(ANY).now_or_never()).collect();
        let [mut first, mut second] =
            [1, 2].map(|last| Box::pin(tail.after(0, Address::of([192, 0, 2, last].into()))));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(held);
        let [first, second] =
            [first, second].map(|follower| follower.now_or_never().unwrap().unwrap().unwrap());
        assert_eq!(first.text.as_ptr(), second.text.as_ptr());
    }

    #[actix_web::test]
    async fn a_follower_whose_turn_comes_while_another_one_reads_gives_it_back() {
        let tail = with(3);
        let free =
            || std::iter::from_fn(|| tail.reads.turn_of_stream(ANY).now_or_never()).collect::<Vec<_>>();
        let held = free();
        let all = held.len();
        let mut follower = Box::pin(tail.after(0, ANY));
        assert!((&mut follower).now_or_never().is_none(), "there is no turn");
        let reading = tail.begin(0).unwrap();
        drop(held);
        assert!((&mut follower).now_or_never().is_none(), "another one reads");
        assert_eq!(free().len(), all);
        drop(reading);
        assert_eq!(ids(follower.await.unwrap().unwrap(), 0), (vec![1, 2, 3], 3));
    }

    #[actix_web::test]
    async fn a_follower_that_goes_while_it_asks_lets_another_one_of_its_address_ask() {
        let tail = with(3);
        let held: Vec<_> = std::iter::from_fn(|| tail.reads.turn_of_stream(ANY).now_or_never()).collect();
        let [mut asks, mut waits] = [0; 2].map(|seq| Box::pin(tail.after(seq, ANY)));
        assert!((&mut asks).now_or_never().is_none() && (&mut waits).now_or_never().is_none());
        drop(asks);
        assert!((&mut waits).now_or_never().is_none());
        drop(held);
        assert_eq!(ids(waits.await.unwrap().unwrap(), 0), (vec![1, 2, 3], 3));
        assert!(tail.front().asking.is_empty());
    }

    #[actix_web::test]
    async fn after_the_last_event_there_is_nothing() {
        let tail = with(3);
        for seq in [3, 4, u64::MAX] {
            assert!(tail.after(seq, ANY).await.unwrap().is_none(), "{seq}");
        }
        assert_eq!(ids(piece(&tail, 2).await, 2), (vec![3], 3));
        assert!(with(0).after(0, ANY).await.unwrap().is_none());
    }

    #[actix_web::test]
    async fn a_gap_is_an_error() {
        // invariant 6: a reader never skips an event.
        let tail = tail(Fake { events: 9, missing: Some(4), ..Fake::default() });
        assert!(tail.after(0, ANY).await.is_err() && tail.after(3, ANY).await.is_err());
        assert!(tail.after(4, ANY).await.is_ok());
    }

    #[actix_web::test]
    async fn events_of_another_history_are_not_given() {
        let fake = Fake { events: 600, ..Fake::default() };
        let restores = Arc::clone(&fake.restores);
        let tail = tail(fake);
        piece(&tail, 0).await;
        restores.store(1, std::sync::atomic::Ordering::Relaxed);
        let ended = tail.after(500, ANY).await;
        assert!(matches!(ended, Err(ReadError::HistoryChanged)), "{ended:?}");
        let waiting = tail.after(600, ANY).await;
        assert!(matches!(waiting, Err(ReadError::HistoryChanged)), "also where there is nothing to give");
    }
}
