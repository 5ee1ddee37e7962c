//! Looking for the keys of a commit on several threads: at fifty million keys that is half of a commit's work, and
//! where the disk has to be asked the writer would wait for one block after the other.

use std::sync::{Mutex, PoisonError};
use std::{iter, slice, thread};

use rusqlite::Connection;

use super::connection::Database;
use super::index::Memory;
use super::runs::{self, Search};
use crate::store::StoreError;
use crate::store::index::Entry;

/// Keys that a thread takes at once, for which each filter is asked in a row: more would not fit into the processor's
/// nearest cache together.
const KEYS_AT_ONCE: usize = 512;

/// Threads beside the writer's: enough to keep a disk busy with questions, whatever number of cores there is.
const HELPERS: usize = 3;

/// Memory for pages of a helper's connection, in KiB. They are good for one commit only.
const CACHE_KIB: i32 = 2 * 1024;

/// The connections of the threads that help the writer.
pub(super) struct Searchers(Vec<Connection>);

/// Keys, each with the place for its entry.
type Slots<'k> = iter::Zip<slice::Chunks<'k, u128>, slice::ChunksMut<'k, Option<Entry>>>;

impl Searchers {
    pub(super) fn open(database: &Database) -> Result<Self, StoreError> {
        let open = |_| {
            let connection = database.open_to_read()?;
            connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
            Ok(connection)
        };
        (0..HELPERS).map(open).collect::<rusqlite::Result<_>>().map(Self).map_err(StoreError::from)
    }

    /// The entry of each of these keys. The runs in memory are those that are committed, so that it is the same whether
    /// the writer looks from inside its transaction or a helper beside it.
    ///
    /// invariant 3: every stored key is in the recent keys, in the frozen ones or in a run, and this looks into all.
    pub(super) fn find(
        &mut self,
        writer: &Connection,
        memory: &Memory,
        keys: &[u128],
    ) -> Result<Vec<Option<Entry>>, StoreError> {
        let mut found = vec![None; keys.len()];
        let work = Mutex::new(keys.chunks(KEYS_AT_ONCE).zip(found.chunks_mut(KEYS_AT_ONCE)));
        // Threads are made for each commit, which takes a hundredth of the time of one that needs them. The last part
        // is the writer's own.
        let helpers = if memory.has_runs() { keys.len().div_ceil(KEYS_AT_ONCE).saturating_sub(1) } else { 0 };
        let outcomes = thread::scope(|scope| {
            let threads: Vec<_> = self
                .0
                .iter_mut()
                .take(helpers)
                .filter_map(|connection| {
                    let help = || help(connection, memory, &work);
                    // Where the system has no thread to give, the writer does it alone.
                    thread::Builder::new().name("search".to_owned()).spawn_scoped(scope, help).ok()
                })
                .collect();
            let own = search(writer, memory, &work);
            // A panic goes on in the writer's thread.
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            iter::once(own).chain(threads.into_iter().map(join)).collect::<Result<(), StoreError>>()
        });
        outcomes.map(|()| found)
    }
}

/// Searches in one read transaction: without one, each look-up would take locks of its own.
fn help(connection: &mut Connection, memory: &Memory, work: &Mutex<Slots<'_>>) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    search(&transaction, memory, work)
}

/// Takes keys as long as there are any, and looks for them.
fn search(connection: &Connection, memory: &Memory, work: &Mutex<Slots<'_>>) -> Result<(), StoreError> {
    let mut unknown = Vec::with_capacity(KEYS_AT_ONCE);
    let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
    while let Some((keys, slots)) = next() {
        for (key, found) in keys.iter().zip(slots) {
            *found = memory.recent(*key);
            if found.is_none() {
                unknown.push((*key, found));
            }
        }
        search_runs(connection, memory, &mut unknown)?;
        unknown.clear();
    }
    Ok(())
}

/// Looks for keys in the runs. What is repeated is mostly recent, so the newest run comes first.
fn search_runs(
    connection: &Connection,
    memory: &Memory,
    unknown: &mut Vec<(u128, &mut Option<Entry>)>,
) -> Result<(), StoreError> {
    let mut probable = Vec::new();
    for run in memory.runs().iter().rev() {
        probable.extend(
            unknown.iter().enumerate().filter(|(_, (key, _))| run.may_contain(*key)).map(|(at, _)| at),
        );
        // From the last one on, so that those before it keep their places.
        for at in probable.drain(..).rev() {
            match runs::search(connection, iter::once(run.as_ref()), unknown[at].0)? {
                Search::Found(entry) => *unknown.swap_remove(at).1 = Some(entry),
                Search::NotThere => {}
                Search::Outdated(block) => return Err(runs::missing_block(block)),
            }
        }
    }
    Ok(())
}
