//! When the events around a position were stored, without a look at their rows: duplicates would cost a read each.
//!
//! A commit whose second is another than that of the commit before leaves a mark, in memory and in the file. Old marks
//! are thinned out: the distance between two grows with their age, so that there are a few thousand after years.
//!
//! What was copied from elsewhere may have come topic by topic: time begins anew with each, and marks would be as many as
//! events. Past a number of them the last mark says that the rows have to be asked from there on.

use rusqlite::Connection;

use super::{explain, rows};
use crate::domain::Second;
use crate::store::StoreError;

/// How much of its age a time may be wrong: a 256th, and a second at least.
const PART_OF_AGE: u32 = 256;

/// Marks between two thinnings.
const NEW_MARKS: usize = 1_024;

/// Marks past which what is copied gets none: some 500 KiB, and the marks of half a dozen topics that came one by one.
const MOST_COPIED: usize = if cfg!(test) { 40 } else { 1 << 15 };

/// What a mark has instead of a second from which on only the rows know.
const IN_ROWS: Second = Second(0);

/// From this position on events were stored in this second, or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pos: u64,
    second: Second,
}

/// The marks, by position.
#[derive(Debug, Default)]
pub(super) struct Times {
    marks: Vec<Mark>,
    /// Marks since they were thinned last.
    new: usize,
}

/// What a transaction does to the marks, until it is committed.
#[derive(Debug, Default)]
pub(super) struct Marked {
    added: Option<Mark>,
    /// The marks that are left of the old ones, and the others, where they are thinned.
    thinned: Option<(Vec<Mark>, Vec<Mark>)>,
}

impl Times {
    /// The marks of the file, without those that no commit can have left.
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut statement = connection.prepare("SELECT pos, second FROM times ORDER BY pos")?;
        let mut rows = statement.query([])?;
        let (mut marks, mut skipped) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            match (u64::try_from(row.get::<_, i64>(0)?), u32::try_from(row.get::<_, i64>(1)?)) {
                (Ok(pos), Ok(second)) => marks.push(Mark { pos, second: Second(second) }),
                _ => skipped += 1,
            }
        }
        if skipped > 0 {
            tracing::warn!(rows = skipped, "rows of the table times are damaged; going on without them");
        }
        Ok(Self { new: marks.len(), marks })
    }

    /// When the event at a position was stored, or up to a 256th of its age before. Now where its row would have to say so, and
    /// is damaged: this only explains a duplicate.
    pub(super) fn stored_at(
        &self,
        connection: &Connection,
        pos: u64,
        now: Second,
    ) -> Result<Second, StoreError> {
        if let Some(second) = self.at(pos) {
            return Ok(second);
        }
        match rows::received_at(connection, pos) {
            Ok(moment) => Ok(Second::of(moment)),
            Err(StoreError::Damaged(what)) => {
                tracing::warn!(what, "it is not known when the event of a duplicate was stored");
                Ok(now)
            }
            Err(error) => Err(error),
        }
    }

    /// The same from the marks alone; `None` where only the row knows.
    fn at(&self, pos: u64) -> Option<Second> {
        let behind = self.marks.partition_point(|mark| mark.pos <= pos);
        let mark = self.marks.get(behind.checked_sub(1)?)?;
        (mark.second != IN_ROWS).then_some(mark.second)
    }

    /// A mark for events that are stored from a position on, if it is needed.
    pub(super) fn mark(&self, pos: u64, second: Second) -> Marked {
        if self.marks.last().is_some_and(|last| last.second == second) {
            return Marked::default();
        }
        let thinned = (self.new >= NEW_MARKS).then(|| thinned(&self.marks, second));
        Marked { added: Some(Mark { pos, second }), thinned }
    }

    /// The same for an event of another store.
    pub(super) fn mark_copied(&self, pos: u64, second: Second) -> Marked {
        self.mark(pos, if self.marks.len() < MOST_COPIED { second } else { IN_ROWS })
    }

    /// Takes over what was committed.
    pub(super) fn committed(&mut self, marked: Marked) {
        if let Some((left, _)) = marked.thinned {
            (self.marks, self.new) = (left, 0);
        }
        self.new += usize::from(marked.added.is_some());
        self.marks.extend(marked.added);
    }
}

impl Marked {
    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let Some(Mark { pos, second }) = self.added else { return Ok(()) };
        explain::write(connection, "times", || {
            connection
                .prepare_cached("INSERT OR REPLACE INTO times (pos, second) VALUES (?1, ?2)")?
                .execute([pos.cast_signed(), second.0.into()])?;
            let mut delete = connection.prepare_cached("DELETE FROM times WHERE pos = ?1")?;
            for old in self.thinned.iter().flat_map(|(_, dropped)| dropped) {
                delete.execute([old.pos.cast_signed()])?;
            }
            Ok(())
        })
    }
}

/// The marks that are needed at this second, and the others.
fn thinned(marks: &[Mark], now: Second) -> (Vec<Mark>, Vec<Mark>) {
    let (mut left, mut dropped): (Vec<Mark>, _) = (Vec::new(), Vec::new());
    for (at, mark) in marks.iter().enumerate() {
        let next = marks.get(at + 1).map_or(now, |next| next.second);
        let needed = left.last().is_none_or(|before| {
            // An event between the one before and the next would be found so much too old; or too young, where the
            // clock was set back. Where it is set back to the next, the latest time between them is not that one.
            let set_back = mark.second.until(before.second).max(next.until(mark.second));
            let wrong = before.second.until(next).max(set_back);
            wrong > (next.until(now) / PART_OF_AGE).max(1)
        });
        if needed { left.push(*mark) } else { dropped.push(*mark) }
    }
    (left, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE times (pos INTEGER PRIMARY KEY, second INTEGER)").unwrap();
        connection
    }

    fn mark(times: &mut Times, connection: &Connection, pos: u64, second: u32) {
        let marked = times.mark(pos, Second(second));
        marked.write(connection).unwrap();
        times.committed(marked);
    }

    /// A log with an event each second for 40 days, of which one in 50 is asked for.
    #[test]
    fn marks_stay_few_and_times_are_wrong_by_a_small_part_of_their_age() {
        const DAYS: u32 = 40;
        let (connection, mut times) = (connection(), Times::default());
        for second in (1..DAYS * 86_400).step_by(7) {
            mark(&mut times, &connection, second.into(), second);
        }
        let now = DAYS * 86_400;
        for second in (1..now).step_by(50) {
            let (late, found) = (now - second, times.at(second.into()).unwrap().until(Second(now)));
            assert!((late..=late + 8 + late / 200).contains(&found), "{late} seconds ago, not {found}");
        }
        assert!(times.marks.len() < 4_000, "{} marks", times.marks.len());
        let stored = Times::load(&connection).unwrap();
        assert_eq!(stored.marks, times.marks);
    }

    #[test]
    fn each_second_has_its_mark_whichever_way_the_clock_goes() {
        let (connection, mut times) = (connection(), Times::default());
        for (pos, second) in [(1, 100), (2, 100), (5, 50), (6, 100)] {
            mark(&mut times, &connection, pos, second);
        }
        let found: Vec<_> = (1..8).map(|pos| times.at(pos).unwrap().0).collect();
        assert_eq!(found, [100, 100, 100, 100, 50, 100, 100]);
        assert_eq!(times.at(0), None, "what has no mark");
    }

    /// Topics with an event every ten seconds each, one after the other, and then commits of this store.
    #[test]
    fn what_was_copied_topic_by_topic_has_its_times_in_its_rows_and_what_comes_then_in_marks() {
        const EACH: u32 = 30;
        let (connection, mut times) = (connection(), Times::default());
        let copied: Vec<_> = (0..10 * EACH).map(|at| (u64::from(at), 1_000 + 10 * (at % EACH))).collect();
        for (pos, second) in &copied {
            let marked = times.mark_copied(*pos, Second(*second));
            marked.write(&connection).unwrap();
            times.committed(marked);
        }
        for pos in 300..3_000 {
            mark(&mut times, &connection, pos, 2_000 + u32::try_from(pos).unwrap());
        }
        let times = Times::load(&connection).unwrap();
        let (few, many) = copied.split_at(40);
        for (pos, second) in few {
            let found = times.at(*pos).unwrap();
            assert!(found <= Second(*second) && found.until(Second(*second)) < 20, "{found:?}, not {second}");
        }
        assert!(many.iter().all(|(pos, _)| times.at(*pos).is_none()));
        assert_eq!(times.at(2_999), Some(Second(4_999)));
        assert!(times.at(300).unwrap().until(Second(2_300)) < 20, "{:?}", times.at(300));
    }

    #[test]
    fn the_last_mark_before_a_clock_that_was_set_back_is_kept() {
        let (connection, mut times) = (connection(), Times::default());
        let day = 86_400;
        for (pos, second) in
            [(1, 1_000), (2, day), (3, 1_001)].into_iter().chain((4..1_500).map(|pos| (pos, 1_000 + pos)))
        {
            mark(&mut times, &connection, pos.into(), second);
        }
        assert_eq!(times.at(2), Some(Second(day)));
    }

    /// A clock that is a day ahead for a while, and then right.
    #[test]
    fn times_are_right_after_a_clock_that_was_ahead() {
        const RIGHT: u32 = 1_000_000;
        let (connection, mut times) = (connection(), Times::default());
        let ahead = (0..3_000).map(|step| RIGHT + 86_400 + 3 * step);
        for (pos, second) in (1..).zip(ahead.chain((0..10_000).map(|step| RIGHT + 3 * step))) {
            mark(&mut times, &connection, pos, second);
        }
        let now = RIGHT + 30_000;
        for step in 0..10_000 {
            let (late, found) =
                (30_000 - 3 * step, times.at(3_001 + u64::from(step)).unwrap().until(Second(now)));
            assert!((late..=late + 8 + late / 200).contains(&found), "{late} seconds ago, not {found}");
        }
        assert!(times.marks.len() < 8_000, "{} marks", times.marks.len());
    }

    #[test]
    fn marks_that_are_damaged_are_left_out() {
        let connection = connection();
        let rows = "INSERT INTO times VALUES (-3, 5), (1, 10), (2, -1), (3, 5000000000), (4, 40)";
        connection.execute_batch(rows).unwrap();
        let times = Times::load(&connection).unwrap();
        assert_eq!(times.marks, [(1, 10), (4, 40)].map(|(pos, second)| Mark { pos, second: Second(second) }));
    }
}
