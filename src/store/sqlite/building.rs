//! Building runs on threads of their own: a seal of recent keys, a merge of runs. The writer takes what they
//! built in slices, between its own writes, so that no commit waits for a whole run.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use super::connection::Database;
use super::runs::{self, PART_BYTES};
use super::topics::{self, LastEvent, TopicId};
use super::{Sealing, sources};
use crate::store::StoreError;
use crate::store::index::{Built, Entry, Names, Pace, Recent, Run, RunBuilder, Segment, Span};
use crate::store::sources::SourceCounts;

/// Slices that a thread hands over at once, so that it is woken seldom.
const CHUNK: usize = 32;

/// Chunks between a thread and the writer: 1 MiB of blocks.
const CHUNKS_AHEAD: usize = 8;

/// Segments of one slice. A topic with few events has a segment of its own in each seal, so that there may be as
/// many segments as events; this many a slice keep ahead of the events that a commit brings.
const SEGMENTS_AT_ONCE: usize = 32;

/// Blocks that a merge reads at once.
const BLOCKS_AT_ONCE: u64 = 16;

/// Slices of a transaction that has nothing else to do.
const SLICES_WHEN_IDLE: usize = 2_048;

/// How much of a run a transaction writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    /// What is due with so many events.
    Due { events: usize },
    /// As much as fits into a transaction that has nothing else to do.
    Idle,
    /// All that is left, waiting for it.
    All,
}

/// What a thread hands to the writer.
pub(super) enum Output {
    /// Segments of recent events, each with the numbers of its sources.
    Segments {
        some: Vec<(Segment, Vec<u32>)>,
        of: Arc<Recent>,
    },
    Block(Built),
    Part {
        run: u64,
        number: usize,
        data: Vec<u8>,
    },
    /// The run is whole, and replaces those that it was merged from.
    Done {
        run: Arc<Run>,
        /// Of all its parts together.
        checksum: i64,
    },
    /// It cannot be built.
    Failed(StoreError),
}

/// A run that is being built.
pub(super) struct Building {
    /// The slices and the thread; taken apart when this is dropped, which ends the thread.
    thread: Option<(Receiver<Vec<Output>>, JoinHandle<()>)>,
    /// What the thread handed over and is not committed.
    waiting: VecDeque<Output>,
    pace: Pace,
    /// The first blocks of the runs that the new one replaces.
    pub(super) replaces: Vec<u64>,
    pub(super) span: Span,
    /// Sources of a topic that may have a name.
    sources: usize,
}

/// The thread has gone away because the writer has.
struct Abandoned;

/// The thread's end of what is between it and the writer.
struct Sink {
    sender: SyncSender<Vec<Output>>,
    chunk: Vec<Output>,
}

impl Sink {
    fn send(&mut self, output: Output) -> Result<(), Abandoned> {
        let last = output.is_last();
        self.chunk.push(output);
        if last || self.chunk.len() == CHUNK {
            return self.sender.send(mem::take(&mut self.chunk)).map_err(|_| Abandoned);
        }
        Ok(())
    }
}

impl Building {
    /// Begins to seal, as a run that covers the log from `first_pos` on.
    pub(super) fn seal(
        recent: Arc<Recent>,
        first_pos: u64,
        next_block: &mut u64,
        sealing: Sealing,
    ) -> Result<Self, StoreError> {
        let span = Span {
            level: 0,
            first_pos,
            last_pos: recent.last_pos(),
            entries: recent.len() as u64,
            first_block: *next_block,
        };
        // A run without entries has an id too: all of its rows are damaged.
        *next_block = span.end_block().max(span.first_block + 1);
        let segments = recent.segment_count().div_ceil(SEGMENTS_AT_ONCE) as u64;
        // Long before the next keys have to be sealed: until then memory holds these.
        let pace = Pace::new(segments + span.blocks(), span.entries / 2);
        let mut seal = Self::start("seal", Vec::new(), span, pace, move |to| seal(&recent, span, to))?;
        seal.sources = sealing.sources;
        Ok(seal)
    }

    /// Begins to merge neighbouring runs.
    pub(super) fn merge(database: Database, inputs: Vec<Arc<Run>>, span: Span) -> Result<Self, StoreError> {
        let replaces = inputs.iter().map(|run| run.span.first_block).collect();
        // Before as many runs of this size have come again.
        let pace = Pace::new(span.blocks(), span.entries / 4 * 3);
        Self::start("merge", replaces, span, pace, move |to| merge(&database, &inputs, span, to))
    }

    fn start(
        name: &str,
        replaces: Vec<u64>,
        span: Span,
        pace: Pace,
        build: impl FnOnce(&mut Sink) -> Result<(), Abandoned> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (sender, receiver) = mpsc::sync_channel(CHUNKS_AHEAD);
        let mut sink = Sink { sender, chunk: Vec::new() };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            // It ends by itself where nobody takes what it built.
            .spawn(move || drop(build(&mut sink)))
            .map_err(|error| StoreError::Unavailable(format!("no thread for a {name}: {error}")))?;
        let thread = Some((receiver, thread));
        Ok(Self { thread, waiting: VecDeque::new(), pace, replaces, span, sources: 0 })
    }

    /// The next slice, if it is there.
    fn next(&mut self) -> Option<Output> {
        if self.waiting.is_empty() {
            match self.thread.as_ref()?.0.try_recv() {
                Ok(chunk) => self.waiting.extend(chunk),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => self.waiting.push_back(died()),
            }
        }
        self.waiting.pop_front()
    }

    /// The next slice, waiting for it.
    fn wait(&mut self) -> Option<Output> {
        if self.waiting.is_empty() {
            self.waiting.extend(self.thread.as_ref()?.0.recv().unwrap_or_else(|_| vec![died()]));
        }
        self.waiting.pop_front()
    }

    /// Writes as many slices as this says, those that are there or, where it is late, all of them.
    pub(super) fn write_some(
        &mut self,
        connection: &Connection,
        amount: Amount,
        taken: &mut Vec<Output>,
    ) -> Result<(), StoreError> {
        let budget = match amount {
            Amount::Due { events } => self.pace.due(events),
            Amount::Idle => SLICES_WHEN_IDLE,
            Amount::All => usize::MAX,
        };
        while taken.len() < budget {
            let Some(output) = (if amount == Amount::All { self.wait() } else { self.next() }) else { break };
            let last = output.is_last();
            taken.push(output);
            if let Some(slice) = taken.last() {
                slice.write(connection, &self.replaces, self.sources)?;
            }
            if last {
                break;
            }
        }
        Ok(())
    }

    /// So many events and slices were committed.
    pub(super) fn committed(&mut self, events: usize, slices: usize) {
        self.pace.committed(events, slices);
    }

    /// Gives slices back that were not committed, in their order.
    pub(super) fn put_back(&mut self, slices: Vec<Output>) {
        for slice in slices.into_iter().rev() {
            self.waiting.push_front(slice);
        }
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        if let Some((receiver, thread)) = self.thread.take() {
            drop(receiver);
            // Joined, so that no connection outlives the store. A panic was logged when it happened.
            let _ = thread.join();
        }
    }
}

impl Output {
    /// Whether nothing follows.
    fn is_last(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed(_))
    }

    fn write(&self, connection: &Connection, replaces: &[u64], sources: usize) -> rusqlite::Result<()> {
        match self {
            Self::Segments { some, of } => write_segments(connection, some, of.names(), sources),
            Self::Block(built) => runs::write_block(connection, built.id, &built.bytes),
            Self::Part { run, number, data } => runs::write_part(connection, *run, *number, data),
            Self::Done { run, checksum } => {
                runs::enter(connection, run.span, *checksum)?;
                replaces.iter().try_for_each(|old| runs::withdraw(connection, *old))
            }
            Self::Failed(_) => Ok(()),
        }
    }
}

/// Writes segments, up to where the topics in them are sealed, and what that adds to their sources. Events that were
/// sealed before, for an index that is built again, are counted already.
fn write_segments(
    connection: &Connection,
    some: &[(Segment, Vec<u32>)],
    names: &Names,
    sources: usize,
) -> rusqlite::Result<()> {
    for of_topic in some.chunk_by(|(left, _), (right, _)| left.topic == right.topic) {
        let topic = TopicId(of_topic[0].0.topic);
        let sealed = topics::sealed_seq(connection, topic)?;
        let mut new = Vec::new();
        for (segment, numbers) in of_topic {
            runs::write_segment(connection, segment)?;
            let known = (sealed + 1).saturating_sub(segment.first_seq);
            let known = usize::try_from(known).unwrap_or(usize::MAX);
            new.extend_from_slice(numbers.get(known..).unwrap_or_default());
        }
        let Some((Segment { first_seq, positions, .. }, _)) = of_topic.last() else { continue };
        let Some(pos) = positions.last().copied() else { continue };
        let seq = first_seq + positions.len() as u64 - 1;
        topics::sealed(connection, topic, LastEvent { seq, pos })?;
        let counts = names.count(&new);
        let counts = counts.iter().map(|(name, accepted)| (&**name, SourceCounts::accepted(*accepted)));
        // They come in the order of the log, as do all seals.
        sources::add(connection, topic, counts, Vec::new, sources)?;
    }
    Ok(())
}

/// What a thread hands over that ended before its run was whole: it panicked.
fn died() -> Output {
    Output::Failed(StoreError::Unavailable("the thread that built it died".to_owned()))
}

fn seal(recent: &Arc<Recent>, span: Span, to: &mut Sink) -> Result<(), Abandoned> {
    let mut segments: Vec<_> = recent.segments().collect();
    segments.sort_unstable_by_key(|(segment, _)| (segment.topic, segment.first_seq));
    for some in segments.chunks(SEGMENTS_AT_ONCE) {
        let some = some.iter().map(|(segment, sources)| (segment.clone(), sources.to_vec())).collect();
        to.send(Output::Segments { some, of: Arc::clone(recent) })?;
    }
    let mut builder = RunBuilder::new(span);
    for entry in recent.sorted() {
        push(&mut builder, entry, to)?;
    }
    finish(builder, to)
}

fn push(builder: &mut RunBuilder, entry: Entry, to: &mut Sink) -> Result<(), Abandoned> {
    match builder.push(entry) {
        Some(built) => to.send(Output::Block(built)),
        None => Ok(()),
    }
}

fn finish(builder: RunBuilder, to: &mut Sink) -> Result<(), Abandoned> {
    let (run, last) = builder.finish();
    if let Some(built) = last {
        to.send(Output::Block(built))?;
    }
    let bytes = run.to_bytes();
    for (number, part) in bytes.chunks(PART_BYTES).enumerate() {
        to.send(Output::Part { run: run.span.first_block, number, data: part.to_vec() })?;
    }
    to.send(Output::Done { run: Arc::new(run), checksum: runs::checksum(&bytes) })
}

fn merge(database: &Database, inputs: &[Arc<Run>], span: Span, to: &mut Sink) -> Result<(), Abandoned> {
    let outcome = database.open_to_read().map_err(StoreError::from).and_then(|connection| {
        let mut cursors = Vec::with_capacity(inputs.len());
        for run in inputs {
            cursors.push(Cursor::open(&connection, run.span)?);
        }
        let mut builder = RunBuilder::new(span);
        while let Some(entry) = pop_least(&connection, &mut cursors)? {
            if push(&mut builder, entry, to).is_err() {
                return Ok(None);
            }
        }
        Ok(Some(builder))
    });
    match outcome {
        Ok(Some(builder)) => finish(builder, to),
        Ok(None) => Err(Abandoned),
        Err(error) => to.send(Output::Failed(error)),
    }
}

/// Takes the least entry of all cursors. A key is in one run only.
pub(super) fn pop_least(
    connection: &Connection,
    cursors: &mut [Cursor],
) -> Result<Option<Entry>, StoreError> {
    let heads =
        cursors.iter().enumerate().filter_map(|(at, cursor)| cursor.head().map(|entry| (entry.key, at)));
    match heads.min() {
        Some((_, at)) => cursors[at].pop(connection),
        None => Ok(None),
    }
}

/// Reads a run in the order of its keys, a few blocks at a time.
pub(super) struct Cursor {
    blocks: Range<u64>,
    /// The entries that were read, the next one last.
    entries: Vec<Entry>,
}

impl Cursor {
    pub(super) fn open(connection: &Connection, span: Span) -> Result<Self, StoreError> {
        let mut cursor = Self { blocks: span.first_block..span.end_block(), entries: Vec::new() };
        cursor.fill(connection)?;
        Ok(cursor)
    }

    /// Reads sorted entries that are in no run.
    pub(super) fn of(mut sorted: Vec<Entry>) -> Self {
        sorted.reverse();
        Self { blocks: 0..0, entries: sorted }
    }

    fn head(&self) -> Option<&Entry> {
        self.entries.last()
    }

    fn pop(&mut self, connection: &Connection) -> Result<Option<Entry>, StoreError> {
        let entry = self.entries.pop();
        if self.entries.is_empty() {
            self.fill(connection)?;
        }
        Ok(entry)
    }

    fn fill(&mut self, connection: &Connection) -> Result<(), StoreError> {
        for id in self.blocks.by_ref().take(usize::try_from(BLOCKS_AT_ONCE).unwrap_or(1)) {
            runs::with_block(connection, id, |block| self.entries.extend(block.entries()))?
                .ok_or_else(|| runs::missing_block(id))?;
        }
        self.entries.reverse();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_dies_is_a_failure_and_not_slow_for_ever() {
        let span = Span { level: 0, first_pos: 1, last_pos: 1, entries: 1, first_block: 1 };
        let mut building =
            Building::start("seal", Vec::new(), span, Pace::new(1, 1), |_| Err(Abandoned)).unwrap();
        assert!(matches!(building.wait(), Some(Output::Failed(_))));
        assert!(matches!(building.next(), Some(Output::Failed(_))));
    }
}
