//! When the events around a position were stored, without a look at their rows: duplicates would cost a read each.
//!
//! A commit whose second is another than that of the commit before leaves a mark, in memory and in the file. Old marks
//! are thinned out: the distance between two grows with their age, so that there are a few thousand after years.

use rusqlite::Connection;

use crate::domain::Second;

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

/// What a transaction did to the marks, until it is committed.
#[derive(Debug, Default)]
pub(super) struct Marked {
    added: Option<Mark>,
    /// The marks that are left, where they were thinned.
    left: Option<Vec<Mark>>,
}

impl Times {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare("SELECT pos, second FROM times ORDER BY pos")?;
        let mark = |row: &rusqlite::Row<'_>| {
            Ok(Mark { pos: row.get::<_, i64>(0)?.cast_unsigned(), second: Second(row.get(1)?) })
        };
        let marks = statement.query_map([], mark)?.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(Self { new: marks.len(), marks })
    }

    /// When the event at a position was stored, or up to a 256th of its age before.
    pub(super) fn at(&self, pos: u64) -> Second {
        let behind = self.marks.partition_point(|mark| mark.pos <= pos);
        behind.checked_sub(1).map_or(Second(0), |at| self.marks[at].second)
    }

    /// Writes a mark for events that are stored from a position on, if it is needed.
    pub(super) fn mark(&self, connection: &Connection, pos: u64, second: Second) -> rusqlite::Result<Marked> {
        if self.marks.last().is_some_and(|last| last.second == second) {
            return Ok(Marked::default());
        }
        let mark = Mark { pos, second };
        connection
            .prepare_cached("INSERT OR REPLACE INTO times (pos, second) VALUES (?1, ?2)")?
            .execute([pos.cast_signed(), second.0.into()])?;
        if self.new < NEW_MARKS {
            return Ok(Marked { added: Some(mark), left: None });
        }
        let (mut left, dropped) = thinned(&self.marks, second);
        let mut delete = connection.prepare_cached("DELETE FROM times WHERE pos = ?1")?;
        for old in dropped {
            delete.execute([old.pos.cast_signed()])?;
        }
        left.push(mark);
        Ok(Marked { added: None, left: Some(left) })
    }

    /// Takes over what was committed.
    pub(super) fn committed(&mut self, marked: Marked) {
        if let Some(left) = marked.left {
            (self.marks, self.new) = (left, 0);
        }
        self.new += usize::from(marked.added.is_some());
        self.marks.extend(marked.added);
    }
}

/// The marks that are needed at this second, and the others.
fn thinned(marks: &[Mark], now: Second) -> (Vec<Mark>, Vec<Mark>) {
    let (mut left, mut dropped): (Vec<Mark>, _) = (Vec::new(), Vec::new());
    for (at, mark) in marks.iter().enumerate() {
        let next = marks.get(at + 1).map_or(now, |next| next.second);
        let needed = match left.last() {
            // An event between the one before and the next would be found this much too old.
            Some(before) => before.second.until(next) > (next.until(now) / PART_OF_AGE).max(1),
            None => true,
        };
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

    /// A log with an event each second for 40 days, of which one in 50 is asked for.
    #[test]
    fn marks_stay_few_and_times_are_wrong_by_a_small_part_of_their_age() {
        const DAYS: u32 = 40;
        let (connection, mut times) = (connection(), Times::default());
        for second in (1..DAYS * 86_400).step_by(7) {
            let marked = times.mark(&connection, second.into(), Second(second)).unwrap();
            times.committed(marked);
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
            let marked = times.mark(&connection, pos, Second(second)).unwrap();
            times.committed(marked);
        }
        let found: Vec<_> = (0..8).map(|pos| times.at(pos).0).collect();
        assert_eq!(found, [0, 100, 100, 100, 100, 50, 100, 100]);
    }
}
