//! The dedup index of a file: what memory holds of it, shared with the readers, and how the writer keeps it.

use std::collections::VecDeque;
use std::mem;
use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rusqlite::Connection;

use super::building::{Amount, Building, Output};
use super::connection::Database;
use super::searchers::Searchers;
use super::topics::{LastEvent, TopicId, TopicState};
use super::{Sealing, opening, runs};
use crate::domain::Topic;
use crate::store::StoreError;
use crate::store::index::{Entry, Hasher, Recent, Run, Span, next_merge};

/// Left-over blocks that a transaction deletes for so many events, beside one for itself: twice as many as all levels of
/// merges leave, up to five of them.
const EVENTS_PER_DELETE: usize = 12;

/// Left-over blocks that a transaction deletes that has nothing else to do.
const DELETES_WHEN_IDLE: usize = 2_048;

/// What memory holds of the index: recent keys, and filters and fences of the runs.
#[derive(Default)]
pub(super) struct Memory {
    active: Recent,
    /// Recent keys that are being sealed.
    frozen: Option<Arc<Recent>>,
    /// In the order of the log.
    runs: Arc<Vec<Arc<Run>>>,
    /// How many merges are under way.
    merges: usize,
}

/// The shared memory of the index. The writer alone changes it, and only after a commit.
#[derive(Clone, Default)]
pub(super) struct SharedMemory(Arc<RwLock<Memory>>);

impl SharedMemory {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Memory> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// The entry of a key that is not sealed yet.
    pub(super) fn recent(&self, key: u128) -> Option<Entry> {
        self.active.find(key).or_else(|| self.frozen.as_ref()?.find(key))
    }

    /// The runs, to be searched in a transaction that begins later.
    pub(super) fn runs(&self) -> Arc<Vec<Arc<Run>>> {
        Arc::clone(&self.runs)
    }

    /// Recent keys, runs, and merges under way: how many there are.
    pub(super) fn amounts(&self) -> [usize; 3] {
        let frozen = self.frozen.as_ref().map_or(0, |recent| recent.len());
        [self.active.len() + frozen, self.runs.len(), self.merges]
    }

    pub(super) fn has_runs(&self) -> bool {
        !self.runs.is_empty()
    }

    /// The seqs of a topic that are not sealed yet; they have no gaps.
    pub(super) fn recent_seqs(&self, topic: i64) -> Option<RangeInclusive<u64>> {
        let frozen = self.frozen.as_ref().and_then(|recent| recent.seqs(topic));
        match (frozen, self.active.seqs(topic)) {
            (Some(first), Some(last)) => Some(*first.start()..=*last.end()),
            (first, last) => first.or(last),
        }
    }

    /// Where the last event of a topic is that is not sealed yet.
    pub(super) fn last_event(&self, topic: TopicId) -> Option<LastEvent> {
        let last = *self.recent_seqs(topic.0)?.end();
        self.positions(topic.0, last, last).next().map(|(seq, pos)| LastEvent { seq, pos })
    }

    /// Counts how many events of a topic behind a seq each source sent, those that are not sealed yet, in the order in
    /// which they came first. That is a pass over them: to be done where the lock is not held any more.
    pub(super) fn sources(
        &self,
        topic: TopicId,
        after: u64,
    ) -> impl FnOnce() -> Vec<(Arc<str>, u64)> + use<> {
        let (frozen, active) = (self.frozen.clone(), self.active.sent(topic.0, after));
        move || {
            let frozen = frozen.map(|recent| recent.sources(topic.0, after));
            frozen.into_iter().flatten().chain(active.count()).collect()
        }
    }

    /// The seqs and positions of a topic's events between two seqs that are not sealed yet, in the order of seq.
    pub(super) fn positions(
        &self,
        topic: i64,
        first: u64,
        last: u64,
    ) -> impl DoubleEndedIterator<Item = (u64, u64)> {
        let frozen = self.frozen.iter().flat_map(move |recent| recent.positions(topic, first, last));
        frozen.chain(self.active.positions(topic, first, last))
    }
}

/// The writer's side of the index.
pub(super) struct Index {
    memory: SharedMemory,
    database: Database,
    searchers: Searchers,
    sealing: Sealing,
    next_block: u64,
    seal: Option<Building>,
    /// One of a level at most, so that memory is bounded.
    merges: Vec<Building>,
    /// Whether events were committed since there was time for more than what is due.
    busy: bool,
    left_overs: VecDeque<Range<u64>>,
    /// Runs that were merged, or not finished, whose parts are left over.
    orphans: Vec<u64>,
}

/// What a transaction did for the index, until it is committed.
#[derive(Default)]
pub(super) struct Slices {
    of_seal: Vec<Output>,
    /// Of each merge, in their order.
    of_merges: Vec<Vec<Output>>,
    deleted: Vec<Range<u64>>,
    orphans: Vec<u64>,
}

impl Index {
    /// Opens the index as the file has it, and brings it up to the last row. An index that is damaged is built
    /// again from the rows.
    pub(super) fn open(
        connection: &mut Connection,
        database: &Database,
        memory: SharedMemory,
        hasher: &Hasher,
        sealing: Sealing,
    ) -> Result<Self, StoreError> {
        // No id is given twice: parts may be left of a run whose blocks are deleted, and readers may hold runs
        // of an index that is cleared here.
        let unused = runs::unused_block(connection)?;
        let mut loaded = match opening::load(connection, hasher) {
            Err(StoreError::Damaged(what)) => {
                tracing::warn!(what, "the dedup index is damaged; building it again from the rows");
                runs::forget(connection)?;
                Vec::new()
            }
            loaded => loaded?,
        };
        let spans: Vec<_> = loaded.iter().map(|run| run.span).collect();
        let left_overs: VecDeque<_> = runs::left_overs(connection, &spans)?.into();
        let orphans = runs::orphaned_parts(connection)?;
        let mut next_block = spans.iter().map(Span::end_block).fold(unused, u64::max);
        let active = opening::catch_up(connection, hasher, sealing, &mut loaded, &mut next_block)?;
        // Readers see the old memory until the new one is whole.
        *memory.write() = Memory { active, frozen: None, runs: Arc::new(loaded), merges: 0 };
        let (database, searchers) = (database.clone(), Searchers::open(database)?);
        let mut index = Self {
            memory,
            database,
            searchers,
            sealing,
            next_block,
            seal: None,
            merges: Vec::new(),
            busy: false,
            left_overs,
            orphans,
        };
        index.start_merges();
        Ok(index)
    }

    /// The entry of each of these keys, seen from inside the writer's transaction.
    pub(super) fn find(
        &mut self,
        connection: &Connection,
        keys: &[u128],
    ) -> Result<Vec<Option<Entry>>, StoreError> {
        self.searchers.find(connection, &self.memory.read(), keys)
    }

    /// The last seq of a topic: of its recent events, or the last one that is sealed. Checks that its row fits.
    pub(super) fn last_seq(
        &self,
        connection: &Connection,
        name: &Topic,
        row: TopicState,
    ) -> Result<u64, StoreError> {
        let recent = self.memory.read().recent_seqs(row.id.0);
        // Segments are written before their run is whole, so that a row may be ahead of the runs.
        let (sealed, last) = if let Some(seqs) = recent {
            (seqs.start() - 1..=*seqs.end(), *seqs.end())
        } else {
            let last = runs::last_seq(connection, row.id.0)?;
            (last..=last, last)
        };
        if sealed.contains(&row.last_seq) {
            return Ok(last);
        }
        let counted = row.last_seq;
        Err(StoreError::Damaged(format!(
            "topic {name} counts {counted} sealed events, the index {}",
            sealed.start()
        )))
    }

    /// The sources of a topic's recent events, in the order in which they came first.
    pub(super) fn sources(&self, topic: TopicId) -> Vec<Arc<str>> {
        let count = self.memory.read().sources(topic, 0);
        count().into_iter().map(|(name, _)| name).collect()
    }

    /// Whether there is something to write where no event comes.
    pub(super) fn has_work(&self) -> bool {
        self.seal.is_some()
            || !self.merges.is_empty()
            || !self.left_overs.is_empty()
            || !self.orphans.is_empty()
    }

    /// Writes some slices of what is being built, in a transaction with so many events.
    pub(super) fn write_slices(
        &mut self,
        connection: &Connection,
        events: usize,
        slices: &mut Slices,
    ) -> Result<(), StoreError> {
        let idle = events == 0 && !self.busy;
        let amount = if idle { Amount::Idle } else { Amount::Due { events } };
        if let Some(seal) = &mut self.seal {
            // A seal must end before the next one is due, or memory would grow with the log.
            let late = self.memory.read().active.len() >= 2 * self.sealing.keys;
            seal.write_some(connection, if late { Amount::All } else { amount }, &mut slices.of_seal)?;
        }
        for merge in &mut self.merges {
            let mut taken = Vec::new();
            let written = merge.write_some(connection, amount, &mut taken);
            slices.of_merges.push(taken);
            written?;
        }
        self.delete_some(
            connection,
            if idle { DELETES_WHEN_IDLE } else { 1 + events / EVENTS_PER_DELETE },
            slices,
        )?;
        Ok(())
    }

    /// Deletes as many left-over blocks as may be written, so that they never become more and more.
    fn delete_some(
        &mut self,
        connection: &Connection,
        budget: usize,
        slices: &mut Slices,
    ) -> rusqlite::Result<()> {
        if let Some(orphan) = self.orphans.last()
            && runs::delete_parts(connection, *orphan)?
        {
            slices.orphans.extend(self.orphans.pop());
        }
        let Some(ids) = self.left_overs.front_mut() else { return Ok(()) };
        let some = ids.start..ids.end.min(ids.start + budget as u64);
        ids.start = some.end;
        if ids.is_empty() {
            self.left_overs.pop_front();
        }
        slices.deleted.push(some.clone());
        runs::delete_blocks(connection, &some)
    }

    /// Takes back what a transaction did that is known not to be committed.
    pub(super) fn put_back(&mut self, slices: Slices) {
        if let Some(seal) = &mut self.seal {
            seal.put_back(slices.of_seal);
        }
        for (merge, taken) in self.merges.iter_mut().zip(slices.of_merges) {
            merge.put_back(taken);
        }
        self.left_overs.extend(slices.deleted);
        self.orphans.extend(slices.orphans);
    }

    /// Takes over what a transaction committed: its events, whose sources come in the same order, and what it wrote of
    /// the index.
    pub(super) fn committed<'a>(
        &mut self,
        slices: Slices,
        events: &[(TopicId, Entry)],
        sources: impl Iterator<Item = &'a str>,
    ) {
        if let Some(seal) = &mut self.seal {
            seal.committed(events.len(), slices.of_seal.len());
        }
        for (merge, taken) in self.merges.iter_mut().zip(&slices.of_merges) {
            merge.committed(events.len(), taken.len());
        }
        self.busy = !events.is_empty();
        self.install(slices);
        let memory = &mut *self.memory.write();
        memory.merges = self.merges.len();
        for ((topic, entry), source) in events.iter().zip(sources) {
            memory.active.push(topic.0, *entry, source);
        }
        if self.seal.is_none() && memory.active.len() >= self.sealing.keys {
            self.seal = start_seal(memory, &mut self.next_block, self.sealing);
        }
    }

    /// Makes finished runs visible.
    fn install(&mut self, slices: Slices) {
        match slices.of_seal.into_iter().next_back() {
            Some(Output::Done { run, .. }) => self.install_sealed(run),
            Some(Output::Failed(error)) => {
                tracing::error!(%error, "recent keys cannot be sealed");
                if let Some(seal) = self.seal.take() {
                    self.abandon(seal.span);
                }
            }
            _ => {}
        }
        // From the last one on, so that those before it keep their places.
        for (at, taken) in slices.of_merges.into_iter().enumerate().rev() {
            match taken.into_iter().next_back() {
                Some(Output::Done { run, .. }) => {
                    let merge = self.merges.remove(at);
                    self.install_merged(&merge, run);
                }
                Some(Output::Failed(error)) => {
                    // Tried again when the next run is installed: what is damaged now is damaged at the next commit.
                    tracing::error!(%error, "runs of the dedup index cannot be merged");
                    let failed = self.merges.remove(at).span;
                    self.abandon(failed);
                }
                _ => {}
            }
        }
    }

    /// Leaves what was written of a run that will not be whole to be deleted.
    fn abandon(&mut self, span: Span) {
        self.left_overs.push_back(span.first_block..span.end_block());
        self.orphans.push(span.first_block);
    }

    fn install_sealed(&mut self, run: Arc<Run>) {
        self.seal = None;
        let mut memory = self.memory.write();
        let sealed = memory.frozen.take();
        Arc::make_mut(&mut memory.runs).push(run);
        drop(memory);
        // Freed behind the lock: it may be a list for each of very many topics.
        drop(sealed);
        self.start_merges();
    }

    fn install_merged(&mut self, merge: &Building, run: Arc<Run>) {
        let mut memory = self.memory.write();
        let runs = Arc::make_mut(&mut memory.runs);
        let replaced = |old: &Arc<Run>| merge.replaces.contains(&old.span.first_block);
        let at = runs.iter().position(replaced).unwrap_or(0);
        self.left_overs.extend(
            runs.iter().filter(|old| replaced(old)).map(|old| old.span.first_block..old.span.end_block()),
        );
        self.orphans.extend(&merge.replaces);
        runs.retain(|old| !replaced(old));
        runs.insert(at, run);
        drop(memory);
        self.start_merges();
    }

    /// Begins every merge that is due.
    fn start_merges(&mut self) {
        let runs = self.memory.read().runs();
        loop {
            // A level of which some are being merged waits.
            let merging = |level| self.merges.iter().any(|merge| merge.span.level == level + 1);
            let free = |run: &Arc<Run>| Some(run.span.level).filter(|level| !merging(*level));
            let levels: Vec<_> = runs.iter().map(free).collect();
            let Some(range) = next_merge(&levels) else { return };
            match self.start_merge(runs[range].to_vec()) {
                Ok(merge) => self.merges.push(merge),
                Err(error) => return tracing::error!(%error, "runs of the dedup index cannot be merged"),
            }
        }
    }

    fn start_merge(&mut self, inputs: Vec<Arc<Run>>) -> Result<Building, StoreError> {
        let (first, last) = (inputs[0].span, inputs[inputs.len() - 1].span);
        let span = Span {
            level: first.level + 1,
            first_pos: first.first_pos,
            last_pos: last.last_pos,
            entries: inputs.iter().map(|run| run.span.entries).sum(),
            first_block: self.next_block,
        };
        self.next_block = span.end_block();
        Building::merge(self.database.clone(), inputs, span)
    }
}

/// Freezes the recent keys and begins to seal them.
fn start_seal(memory: &mut Memory, next_block: &mut u64, sealing: Sealing) -> Option<Building> {
    // What could not be sealed before comes first.
    let recent = memory.frozen.take().unwrap_or_else(|| {
        let next = Recent::with_capacity(memory.active.len());
        Arc::new(mem::replace(&mut memory.active, next))
    });
    memory.frozen = Some(Arc::clone(&recent));
    let first_pos = memory.runs.last().map_or(0, |run| run.span.last_pos) + 1;
    Building::seal(recent, first_pos, next_block, sealing)
        .inspect_err(|error| tracing::error!(%error, "recent keys cannot be sealed"))
        .ok()
}
