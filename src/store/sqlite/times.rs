//! When the events around a position were stored, without a look at their rows: duplicates would cost a read each.
//!
//! A commit whose second is another than that of the commit before leaves a mark, in memory and in the file. Old marks
//! are thinned out: the distance between two grows with their age, so that there are a few thousand after years.

use rusqlite::Connection;

use super::explain;
use crate::domain::Second;
use crate::store::StoreError;

/// How much of its age a time may be wrong: a 256th, and a second at least.
const PART_OF_AGE: u32 = 256;

/// Marks between two thinnings.
const NEW_MARKS: usize = 1_024;

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

    /// When the event at a position was stored, or up to a 256th of its age before.
    pub(super) fn at(&self, pos: u64) -> Second {
        let behind = self.marks.partition_point(|mark| mark.pos <= pos);
        behind.checked_sub(1).map_or(Second(0), |at| self.marks[at].second)
    }

    /// A mark for events that are stored from a position on, if it is needed.
    pub(super) fn mark(&self, pos: u64, second: Second) -> Marked {
        if self.marks.last().is_some_and(|last| last.second == second) {
            return Marked::default();
        }
        let thinned = (self.new >= NEW_MARKS).then(|| thinned(&self.marks, second));
        Marked { added: Some(Mark { pos, second }), thinned }
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
            // clock was set back.
            let wrong = before.second.until(next).max(mark.second.until(before.second));
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
            let (late, found) = (now - second, times.at(second.into()).until(Second(now)));
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
        let found: Vec<_> = (0..8).map(|pos| times.at(pos).0).collect();
        assert_eq!(found, [0, 100, 100, 100, 100, 50, 100, 100]);
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
            let (late, found) = (30_000 - 3 * step, times.at(3_001 + u64::from(step)).until(Second(now)));
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
