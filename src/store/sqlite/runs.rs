//! The tables of the dedup index: the directory of runs, their blocks, filters and fences, and the segments of
//! positions.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::store::StoreError;
use crate::store::index::{Block, Entry, MAX_NUMBER, Run, Segment, Span};

/// The bytes of one part of a run's filter and fences.
pub(super) const PART_BYTES: usize = 64 << 10;

/// Parts that are deleted at once: 1 MiB.
const PARTS_PER_DELETE: u16 = 16;

/// The directory: every run that counts, in the order of the log.
pub(super) fn directory(connection: &Connection) -> Result<Vec<Span>, StoreError> {
    let sql = "SELECT first_block, level, first_pos, last_pos, entries FROM runs ORDER BY first_pos";
    let mut statement = connection.prepare(sql)?;
    let spans = statement.query_map([], span)?.collect::<rusqlite::Result<_>>()?;
    Ok(spans)
}

fn span(row: &Row<'_>) -> rusqlite::Result<Span> {
    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    Ok(Span {
        first_block: number(0)?,
        level: row.get(1)?,
        first_pos: number(2)?,
        last_pos: number(3)?,
        entries: number(4)?,
    })
}

/// What memory holds of a run, from its parts.
pub(super) fn load(connection: &Connection, span: Span) -> Result<Run, StoreError> {
    let sql = "SELECT data FROM parts WHERE run = ?1 ORDER BY number";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([span.first_block.cast_signed()])?;
    let mut bytes = Vec::new();
    while let Some(row) = rows.next()? {
        bytes.extend_from_slice(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
    }
    let sum = checksum(&bytes);
    let stored: i64 = connection
        .prepare_cached("SELECT checksum FROM runs WHERE first_block = ?1")?
        .query_row([span.first_block.cast_signed()], |row| row.get(0))?;
    // Not a reason for the doctor: what reads this, which is the opening of a store, builds the index again.
    let damaged = || {
        StoreError::Damaged(format!(
            "the filter or the fences of the index run at block {}",
            span.first_block
        ))
    };
    if sum != stored {
        return Err(damaged());
    }
    Run::load(span, &bytes).ok_or_else(damaged)
}

/// Enters a run into the directory: from now on it counts.
pub(super) fn enter(connection: &Connection, span: Span, checksum: i64) -> rusqlite::Result<()> {
    let Span { level, first_pos, last_pos, entries, first_block } = span;
    connection
        .prepare_cached(
            "INSERT INTO runs (first_block, level, first_pos, last_pos, entries, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            first_block.cast_signed(),
            level,
            first_pos.cast_signed(),
            last_pos.cast_signed(),
            entries.cast_signed(),
            checksum
        ])?;
    Ok(())
}

/// Takes a run out of the directory; its blocks and parts are left-overs now.
pub(super) fn withdraw(connection: &Connection, first_block: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM runs WHERE first_block = ?1")?
        .execute([first_block.cast_signed()])
        .map(drop)
}

/// The checksum of a run's filter and fences.
pub(super) fn checksum(bytes: &[u8]) -> i64 {
    xxhash_rust::xxh3::xxh3_64(bytes).cast_signed()
}

/// Writes a block. A left-over of the same id, from a run that was not finished, is replaced.
pub(super) fn write_block(connection: &Connection, id: u64, bytes: &[u8]) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO blocks (id, data) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![id.cast_signed(), bytes]).map(drop)
}

/// Writes a part of a run's filter and fences.
pub(super) fn write_part(
    connection: &Connection,
    run: u64,
    number: usize,
    data: &[u8],
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO parts (run, number, data) VALUES (?1, ?2, ?3)";
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    connection.prepare_cached(sql)?.execute(params![run.cast_signed(), number, data]).map(drop)
}

/// Writes a segment in place of those that begin within it: left-overs of a run that was not finished, or of an
/// index that was damaged.
pub(super) fn write_segment(connection: &Connection, segment: &Segment) -> rusqlite::Result<()> {
    let end = segment.first_seq + segment.positions.len() as u64;
    connection
        .prepare_cached("DELETE FROM segments WHERE topic = ?1 AND first_seq > ?2 AND first_seq < ?3")?
        .execute(params![segment.topic, segment.first_seq.cast_signed(), end.cast_signed()])?;
    let sql = "INSERT OR REPLACE INTO segments (topic, first_seq, positions) VALUES (?1, ?2, ?3)";
    let values = params![segment.topic, segment.first_seq.cast_signed(), segment.pack()];
    connection.prepare_cached(sql)?.execute(values).map(drop)
}

/// The segment of a topic that holds a seq: the seq of its first position, and its positions.
pub(super) fn positions_at(
    connection: &Connection,
    topic: i64,
    seq: u64,
) -> Result<Option<(u64, Vec<u64>)>, StoreError> {
    let segment = segment_up_to(connection, topic, seq)?;
    Ok(segment.filter(|(first_seq, positions)| seq < first_seq + positions.len() as u64))
}

/// The last seq of a topic that is sealed; 0 where none is.
pub(super) fn last_seq(connection: &Connection, topic: i64) -> Result<u64, StoreError> {
    let segment = segment_up_to(connection, topic, u64::MAX)?;
    Ok(segment.map_or(0, |(first_seq, positions)| first_seq + positions.len() as u64 - 1))
}

/// The last segment of a topic that does not begin behind a seq.
fn segment_up_to(
    connection: &Connection,
    topic: i64,
    seq: u64,
) -> Result<Option<(u64, Vec<u64>)>, StoreError> {
    let sql = "SELECT first_seq, positions FROM segments WHERE topic = ?1 AND first_seq <= ?2
               ORDER BY first_seq DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![topic, seq.min(i64::MAX as u64).cast_signed()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let segment = segment(topic, row.get(0)?, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
    Ok(Some((segment.first_seq, segment.positions)))
}

/// A segment as it is stored. It is damaged where its positions cannot be read, where it has none, or where its
/// seqs are none that a log can give: whoever reads it counts on from its first seq.
fn segment(topic: i64, first_seq: i64, bytes: &[u8]) -> Result<Segment, StoreError> {
    let positions = Segment::unpack(bytes).unwrap_or_default();
    if positions.is_empty() || !(1..=MAX_NUMBER.cast_signed()).contains(&first_seq) {
        return Err(damaged(&format!("the segment of topic number {topic} from seq {first_seq}")));
    }
    Ok(Segment { topic, first_seq: first_seq.cast_unsigned(), positions })
}

/// Damage that the rows can mend.
fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!(
        "{what} of the dedup index: stop the server and run `sekali doctor --rebuild-index`, which builds it again \
         from the events"
    ))
}

/// Does something with a block; `None` where there is no block of this id.
pub(super) fn with_block<T>(
    connection: &Connection,
    id: u64,
    then: impl FnOnce(Block<'_>) -> T,
) -> Result<Option<T>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT data FROM blocks WHERE id = ?1")?;
    let mut rows = statement.query([id.cast_signed()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let bytes = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
    let block = Block::check(id, bytes).ok_or_else(|| damaged(&format!("block {id}")))?;
    Ok(Some(then(block)))
}

/// Does something with the entries of every block that can be read.
pub(super) fn each_block(
    connection: &Connection,
    then: &mut dyn FnMut(&mut dyn Iterator<Item = Entry>),
) -> Result<(), StoreError> {
    let mut statement = connection.prepare("SELECT id, data FROM blocks")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = row.get::<_, i64>(0)?.cast_unsigned();
        let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        if let Some(block) = Block::check(id, bytes) {
            then(&mut block.entries());
        }
    }
    Ok(())
}

/// Does something with every segment, by topic and seq: the topic's number, the first seq, and the segment where it
/// can be read.
pub(super) fn each_segment(
    connection: &Connection,
    then: &mut dyn FnMut(i64, i64, Option<Segment>),
) -> Result<(), StoreError> {
    let sql = "SELECT topic, first_seq, positions FROM segments ORDER BY topic, first_seq";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (topic, first_seq) = (row.get(0)?, row.get(1)?);
        let bytes = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        then(topic, first_seq, segment(topic, first_seq, bytes).ok());
    }
    Ok(())
}

/// A segment that holds a sealed seq and that is gone.
pub(super) fn missing_segment(topic: i64, seq: u64) -> StoreError {
    damaged(&format!("the missing segment of seq {seq} of topic number {topic}"))
}

/// A block that a run of the directory owns and that is gone.
pub(super) fn missing_block(id: u64) -> StoreError {
    damaged(&format!("the missing block {id}"))
}

/// Where a search through the runs ended.
pub(super) enum Search {
    Found(Entry),
    NotThere,
    /// The block of this id is gone: its run was merged into another one meanwhile.
    Outdated(u64),
}

/// Looks for a key in runs, the newest first: what is repeated is mostly recent.
pub(super) fn search<'r>(
    connection: &Connection,
    runs: impl DoubleEndedIterator<Item = &'r Run>,
    key: u128,
) -> Result<Search, StoreError> {
    for run in runs.rev() {
        for id in run.blocks_of(key) {
            match with_block(connection, id, |block| block.find(key))? {
                Some(Some(entry)) => return Ok(Search::Found(entry)),
                Some(None) => {}
                None => return Ok(Search::Outdated(id)),
            }
        }
    }
    Ok(Search::NotThere)
}

/// Deletes blocks.
pub(super) fn delete_blocks(connection: &Connection, ids: &Range<u64>) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM blocks WHERE id >= ?1 AND id < ?2")?
        .execute([ids.start.cast_signed(), ids.end.cast_signed()])
        .map(drop)
}

/// Deletes some parts of a run, and says whether none is left: those of a large run are tens of megabytes, too
/// many for one commit.
pub(super) fn delete_parts(connection: &Connection, run: u64) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM parts WHERE rowid IN (SELECT rowid FROM parts WHERE run = ?1 LIMIT ?2)";
    let deleted = connection.prepare_cached(sql)?.execute(params![run.cast_signed(), PARTS_PER_DELETE])?;
    Ok(deleted < usize::from(PARTS_PER_DELETE))
}

/// What no run of the directory owns: the left-overs of runs that were merged, or not finished.
pub(super) fn left_overs(connection: &Connection, runs: &[Span]) -> Result<Vec<Range<u64>>, StoreError> {
    let last: Option<i64> = connection.query_row("SELECT max(id) FROM blocks", [], |row| row.get(0))?;
    let end = last.map_or(0, |id| id.cast_unsigned() + 1);
    let mut owned: Vec<_> = runs.iter().map(|run| run.first_block..run.end_block()).collect();
    owned.push(end..end);
    owned.sort_unstable_by_key(|blocks| blocks.start);
    let mut gaps = Vec::new();
    let mut at = 0;
    for blocks in owned {
        if at < blocks.start && has_blocks(connection, &(at..blocks.start))? {
            gaps.push(at..blocks.start);
        }
        at = at.max(blocks.end);
    }
    Ok(gaps)
}

/// An id behind those of all blocks, and of all runs that have parts.
pub(super) fn unused_block(connection: &Connection) -> rusqlite::Result<u64> {
    let sql =
        "SELECT max(ifnull((SELECT max(id) FROM blocks), 0), ifnull((SELECT max(run) FROM parts), 0)) + 1";
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

fn has_blocks(connection: &Connection, ids: &Range<u64>) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM blocks WHERE id >= ?1 AND id < ?2 LIMIT 1")?
        .query_row([ids.start.cast_signed(), ids.end.cast_signed()], |_| Ok(()))
        .optional()
        .map(|found| found.is_some())
}

/// Parts that belong to no run of the directory, by the run that was not finished.
pub(super) fn orphaned_parts(connection: &Connection) -> rusqlite::Result<Vec<u64>> {
    let sql = "SELECT DISTINCT run FROM parts WHERE run NOT IN (SELECT first_block FROM runs)";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut orphans = Vec::new();
    while let Some(row) = rows.next()? {
        orphans.push(row.get::<_, i64>(0)?.cast_unsigned());
    }
    Ok(orphans)
}

/// Empties the directory, so that the index is built again from the rows. The blocks stay, left over, until that is
/// done: they may be all that is known of the keys of rows that cannot be read.
pub(super) fn forget(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("DELETE FROM runs; DELETE FROM segments")
}
