//! A store that fails as a test tells it to, on top of another one.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use jiff::Timestamp;

use super::read::{Reads, ScriptedReader};
use crate::domain::Topic;
use crate::store::{
    AppendError, Batch, Engine, Finding, MemoryStore, News, Reader, StoreError, Tally, Writer,
};

/// What happens to one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing is stored, and that is known.
    Failed,
    /// It is stored, and that is not known.
    UnknownStored,
    /// It is not stored, and that is not known.
    UnknownLost,
    /// The writer panics before it stores anything.
    Panic,
    /// The writer panics when everything is stored.
    PanicStored,
    /// It is stored, a little later.
    Slow,
}

/// What happens when a writer is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpeningFault {
    /// What must be read then is damaged.
    Damaged,
    /// The disk or the database does not answer.
    Unavailable,
    /// To open it panics.
    Panic,
}

/// An engine with faults in a row, and a gate before every append.
#[derive(Clone)]
pub(super) struct ScriptedStore {
    inner: Arc<dyn Engine>,
    writers: usize,
    script: Arc<Script>,
}

#[derive(Default)]
struct Script {
    faults: Mutex<VecDeque<Fault>>,
    damaged_topic: Mutex<Option<String>>,
    suspects: Mutex<Vec<String>>,
    opening: Mutex<Option<OpeningFault>>,
    is_silent: AtomicBool,
    opened: AtomicUsize,
    flushed: AtomicUsize,
    groups: Mutex<Vec<usize>>,
    topics: Mutex<Vec<(String, ThreadId)>>,
    era: Arc<AtomicU64>,
    reads: Arc<Reads>,
    closed: Mutex<bool>,
    moved: Condvar,
}

impl ScriptedStore {
    /// On the memory engine.
    pub(super) fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new(None)))
    }

    /// On this engine.
    pub(super) fn over(inner: Arc<dyn Engine>) -> Self {
        Self { inner, writers: 1, script: Arc::default() }
    }

    /// With so many writers at once.
    pub(super) fn with_writers(self, writers: usize) -> Self {
        Self { writers, ..self }
    }

    /// What the comparer reads.
    pub(super) fn reads(&self) -> &Reads {
        &self.script.reads
    }

    /// The next appends fail like this, one after the other.
    pub(super) fn fail_next(&self, faults: &[Fault]) {
        self.script.faults.lock().unwrap().extend(faults);
    }

    /// Forgets the faults that nothing has met, and gives how many they are.
    pub(super) fn heal(&self) -> usize {
        std::mem::take(&mut *self.script.faults.lock().unwrap()).len()
    }

    /// Every group with this topic in it fails as damaged, and so does the question whether the topic is new.
    pub(super) fn damage(&self, topic: &str) {
        *self.script.damaged_topic.lock().unwrap() = Some(topic.to_owned());
    }

    /// Every group of several topics with one of these in it fails as locked, and names them; the first one is locked indeed.
    pub(super) fn lock(&self, suspects: &[&str]) {
        *self.script.suspects.lock().unwrap() = suspects.iter().map(|topic| (*topic).to_owned()).collect();
    }

    /// Every writer that is opened from now on fails like this, or none.
    pub(super) fn break_opening(&self, fault: Option<OpeningFault>) {
        *self.script.opening.lock().unwrap() = fault;
    }

    /// Whether the store tells which topics it does not hold.
    pub(super) fn tell_topics(&self, tells: bool) {
        self.script.is_silent.store(!tells, Ordering::SeqCst);
    }

    /// How often a writer was to be opened.
    pub(super) fn opened(&self) -> usize {
        self.script.opened.load(Ordering::SeqCst)
    }

    /// What is reached may be another store from now on.
    pub(super) fn begin_era(&self) {
        self.script.era.fetch_add(1, Ordering::SeqCst);
    }

    /// How often waiting counts were stored and commits synced.
    pub(super) fn flushed(&self) -> usize {
        self.script.flushed.load(Ordering::SeqCst)
    }

    /// The batches of each group that was appended.
    pub(super) fn groups(&self) -> Vec<usize> {
        self.script.groups.lock().unwrap().clone()
    }

    /// The topics of all batches, in the order in which they were appended.
    pub(super) fn topics(&self) -> Vec<String> {
        self.appended().into_iter().map(|(topic, _)| topic).collect()
    }

    /// The same, each with the thread of its writer.
    pub(super) fn appended(&self) -> Vec<(String, ThreadId)> {
        self.script.topics.lock().unwrap().clone()
    }

    /// Lets no append pass until the gate is opened.
    pub(super) fn close_gate(&self) {
        *self.script.closed.lock().unwrap() = true;
    }

    pub(super) fn open_gate(&self) {
        *self.script.closed.lock().unwrap() = false;
        self.script.moved.notify_all();
    }

    /// Waits until so many appends have reached the store.
    pub(super) fn wait_for_groups(&self, count: usize) {
        let mut groups = self.script.groups.lock().unwrap();
        while groups.len() < count {
            groups = self.script.moved.wait(groups).unwrap();
        }
    }
}

impl Script {
    fn pass_gate(&self, batches: usize) {
        self.groups.lock().unwrap().push(batches);
        self.moved.notify_all();
        let mut closed = self.closed.lock().unwrap();
        while *closed {
            closed = self.moved.wait(closed).unwrap();
        }
    }
}

impl Engine for ScriptedStore {
    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(ScriptedReader { inner: self.inner.reader(), reads: Arc::clone(&self.script.reads) })
    }

    fn writers(&self) -> usize {
        self.writers
    }

    fn open_writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        self.script.opened.fetch_add(1, Ordering::SeqCst);
        let fault = *self.script.opening.lock().unwrap();
        let why = || "on purpose".to_owned();
        match fault {
            None => {}
            Some(OpeningFault::Damaged) => return Err(StoreError::Damaged(why())),
            Some(OpeningFault::Unavailable) => return Err(StoreError::Unavailable(why())),
            Some(OpeningFault::Panic) => panic!("on purpose"),
        }
        let inner = self.inner.open_writer()?;
        Ok(Box::new(ScriptedWriter { inner, script: Arc::clone(&self.script) }))
    }

    fn tally(&self) -> Arc<Tally> {
        self.inner.tally()
    }

    fn news(&self) -> Arc<News> {
        self.inner.news()
    }

    fn era(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.script.era)
    }

    fn durability(&self) -> &'static str {
        self.inner.durability()
    }
}

struct ScriptedWriter {
    inner: Box<dyn Writer>,
    script: Arc<Script>,
}

impl Writer for ScriptedWriter {
    fn missing(&mut self, topics: &[&Topic]) -> Result<Vec<bool>, StoreError> {
        if self.script.is_silent.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("on purpose".to_owned()));
        }
        let damaged = self.script.damaged_topic.lock().unwrap().clone();
        if topics.iter().any(|topic| Some(topic.as_str()) == damaged.as_deref()) {
            return Err(StoreError::Damaged("on purpose".to_owned()));
        }
        self.inner.missing(topics)
    }

    fn append(&mut self, group: &[&Batch], now: Timestamp) -> Result<Vec<Vec<Finding>>, AppendError> {
        let appended = group.iter().map(|batch| (batch.topic.to_string(), thread::current().id()));
        self.script.topics.lock().unwrap().extend(appended);
        self.script.pass_gate(group.len());
        let damaged = self.script.damaged_topic.lock().unwrap().clone();
        if group.iter().any(|batch| Some(batch.topic.as_str()) == damaged.as_deref()) {
            return Err(AppendError::Failed(StoreError::Damaged("on purpose".to_owned())));
        }
        let suspects = self.script.suspects.lock().unwrap().clone();
        let names: BTreeSet<_> = group.iter().map(|batch| &batch.topic).collect();
        let is_named = |topic: &&&Topic| {
            let number = suspects.iter().position(|suspect| suspect == topic.as_str());
            number.is_some_and(|number| number == 0 || names.len() > 1)
        };
        let topics: BTreeSet<_> = names.iter().filter(is_named).copied().cloned().collect();
        if !topics.is_empty() {
            return Err(AppendError::Locked { topics });
        }
        let fault = self.script.faults.lock().unwrap().pop_front();
        let error = || StoreError::Unavailable("on purpose".to_owned());
        match fault {
            None => self.inner.append(group, now),
            Some(Fault::Failed) => Err(AppendError::Failed(error())),
            Some(Fault::UnknownLost) => Err(AppendError::Unknown(error())),
            Some(Fault::UnknownStored) => {
                self.inner.append(group, now)?;
                Err(AppendError::Unknown(error()))
            }
            Some(Fault::Panic) => panic!("on purpose"),
            Some(Fault::PanicStored) => {
                self.inner.append(group, now)?;
                panic!("on purpose");
            }
            Some(Fault::Slow) => {
                thread::sleep(Duration::from_millis(1));
                self.inner.append(group, now)
            }
        }
    }

    fn flush(&mut self, now: Timestamp) -> Result<(), AppendError> {
        self.script.flushed.fetch_add(1, Ordering::SeqCst);
        self.inner.flush(now)
    }

    fn probe(&mut self, now: Timestamp) -> Result<(), AppendError> {
        self.inner.probe(now)
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.inner.close()
    }
}
