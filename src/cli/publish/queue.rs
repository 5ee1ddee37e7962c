//! The events between the thread that reads the input and the requests that send it: bounded, and handed over
//! as soon as a request is free, so that a slow producer's events do not wait for a full batch.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::input::{InputError, InputEvent};

/// The size of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchSize {
    /// Events at most.
    pub(super) events: usize,
    /// Bytes at most, unless one event alone is longer.
    pub(super) bytes: usize,
}

/// A bounded queue between a thread and a task.
#[derive(Debug)]
pub(super) struct Queue {
    size: BatchSize,
    state: Mutex<State>,
    room: Condvar,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<InputEvent>,
    bytes: usize,
    /// How the input ended; `None` while it is read.
    ended: Option<Result<(), InputError>>,
    /// Nobody takes any more.
    abandoned: bool,
}

impl Queue {
    /// An empty queue that holds up to one batch.
    pub(super) fn new(size: BatchSize) -> Self {
        Self { size, state: Mutex::default(), room: Condvar::new(), filled: Notify::new() }
    }

    /// Puts an event in; waits for room. Breaks when nobody takes any more.
    pub(super) fn put(&self, event: InputEvent) -> ControlFlow<()> {
        let full = |state: &mut State| {
            !state.abandoned && (state.events.len() >= self.size.events || state.bytes >= self.size.bytes)
        };
        let mut state = self.room.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        if state.abandoned {
            return ControlFlow::Break(());
        }
        state.bytes += event.bytes();
        state.events.push_back(event);
        drop(state);
        self.filled.notify_one();
        ControlFlow::Continue(())
    }

    /// Says how the input ended.
    pub(super) fn end(&self, how: Result<(), InputError>) {
        self.lock().ended = Some(how);
        self.filled.notify_one();
    }

    /// Takes what is there, up to one batch; waits for the first event. `None` at the end.
    ///
    /// # Errors
    /// When the input ended with an error, after all events before it.
    pub(super) async fn take(&self) -> Result<Option<Vec<InputEvent>>, InputError> {
        loop {
            {
                let mut state = self.lock();
                let batch = state.batch(self.size);
                if !batch.is_empty() {
                    self.room.notify_one();
                    return Ok(Some(batch));
                }
                if let Some(how) = state.ended.take() {
                    state.ended = Some(Ok(()));
                    return how.map(|()| None);
                }
            }
            self.filled.notified().await;
        }
    }

    /// Lets the thread that reads the input go.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
        self.room.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn batch(&mut self, size: BatchSize) -> Vec<InputEvent> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(event) = self.events.front() {
            let fits = batch.is_empty() || bytes + event.bytes() <= size.bytes;
            if batch.len() == size.events || !fits {
                break;
            }
            bytes += event.bytes();
            batch.extend(self.events.pop_front());
        }
        self.bytes -= bytes;
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::super::input::InputPlace;
    use super::*;

    fn event(index: u64, bytes: usize) -> InputEvent {
        InputEvent { place: InputPlace::Index(index), json: Ok(vec![b'x'; bytes]) }
    }

    #[actix_web::test]
    async fn batches_keep_the_order_and_their_bounds() {
        let queue = Arc::new(Queue::new(BatchSize { events: 3, bytes: 10 }));
        let writer = Arc::clone(&queue);
        let thread = thread::spawn(move || {
            for index in 0..100 {
                assert!(writer.put(event(index, 1 + usize::try_from(index).unwrap() * 7 % 12)).is_continue());
            }
            writer.end(Ok(()));
        });
        let mut seen = Vec::new();
        while let Some(batch) = queue.take().await.unwrap() {
            let bytes: usize = batch.iter().map(InputEvent::bytes).sum();
            assert!(batch.len() == 1 || (batch.len() <= 3 && bytes <= 10), "{} {bytes}", batch.len());
            seen.extend(batch.into_iter().map(|event| event.place));
        }
        assert_eq!(seen, (0..100).map(InputPlace::Index).collect::<Vec<_>>());
        thread.join().unwrap();
    }

    #[actix_web::test]
    async fn an_error_comes_after_the_events_before_it() {
        let queue = Queue::new(BatchSize { events: 3, bytes: 10 });
        assert!(queue.put(event(0, 1)).is_continue());
        queue.end(Err(InputError::OtherFormat("x")));
        assert_eq!(queue.take().await.unwrap().map(|batch| batch.len()), Some(1));
        assert!(matches!(queue.take().await, Err(InputError::OtherFormat("x"))));
        assert!(queue.take().await.unwrap().is_none());
    }

    #[test]
    fn a_queue_that_nobody_takes_from_lets_the_thread_go() {
        let queue = Arc::new(Queue::new(BatchSize { events: 1, bytes: 10 }));
        let writer = Arc::clone(&queue);
        let thread = thread::spawn(move || while writer.put(event(0, 1)).is_continue() {});
        queue.abandon();
        thread.join().unwrap();
    }
}
