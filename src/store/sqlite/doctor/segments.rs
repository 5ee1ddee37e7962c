//! The segments, which say where the events of each topic are, against the rows.

use std::collections::HashSet;

use rusqlite::Connection;

use super::log::{Log, place};
use super::report::{Cure, Findings, Part};
use super::{Progress, Tell, name_of};
use crate::store::StoreError;
use crate::store::index::{Segment, Span};
use crate::store::sqlite::{rows, runs};

/// Segments between two reports of progress.
const STEP: u64 = 1 << 10;

/// Checks that the segments give each sealed seq the position of its row, in one pass; names the segments of topics
/// where they do not.
pub(super) fn inspect(
    connection: &Connection,
    directory: &[Span],
    log: &Log,
    tell: Tell<'_>,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let sealed = directory.last().map_or(0, |span| span.last_pos);
    let mut check = Check {
        connection,
        sealed,
        // What the rows say, from which the segments are taken.
        places: log.topics.iter().map(|seen| seen.map_or(0, |seen| seen.places)).collect(),
        topic: 0,
        next_seq: 1,
        left_over: 0,
        named: log.odd.keys().copied().collect(),
        findings,
    };
    let mut count = 0;
    runs::each_segment(connection, &mut |topic, first_seq, segment| {
        count += 1;
        if count % STEP == 0 {
            tell(Progress { stage: "segments", done: count, total: 0 });
        }
        check.segment(topic, first_seq, segment);
    })?;
    check.finish(log)?;
    let left_over = check.left_over;
    findings.checked(Part::Segments, count);
    if left_over > 0 {
        findings.note(format!("{left_over} segments are of events that are not sealed yet: left-overs, which the next seal replaces"));
    }
    Ok(())
}

struct Check<'a> {
    connection: &'a Connection,
    /// The last position that is in a run.
    sealed: u64,
    /// By topic, the sum of the hashed places of rows without those of segments: in the end, nothing.
    places: Vec<u64>,
    topic: i64,
    /// The seq with which the next segment of this topic has to begin.
    next_seq: u64,
    left_over: u64,
    /// Topics of which a fault is named, or whose rows do not follow each other.
    named: HashSet<i64>,
    findings: &'a mut Findings,
}

impl Check<'_> {
    fn segment(&mut self, topic: i64, first_seq: i64, segment: Option<Segment>) {
        if self.topic != topic {
            (self.topic, self.next_seq) = (topic, 1);
        }
        let Some(segment) = segment else {
            self.fault(topic, &format!("the segment from seq {first_seq} cannot be read"));
            return;
        };
        if segment.positions.first().is_some_and(|first| *first > self.sealed) {
            self.left_over += 1;
            return;
        }
        if segment.first_seq != self.next_seq && !self.named.contains(&topic) {
            let next = self.next_seq;
            self.fault(topic, &format!("a segment begins with seq {first_seq}, where seq {next} follows"));
        }
        self.next_seq = segment.first_seq + segment.positions.len() as u64;
        match usize::try_from(topic).ok().and_then(|number| self.places.get_mut(number)) {
            Some(places) => {
                for (seq, pos) in (segment.first_seq..).zip(&segment.positions) {
                    *places = places.wrapping_sub(place(topic, seq, *pos));
                }
            }
            None if !self.named.contains(&topic) => self.fault(topic, "there are segments of no topic"),
            None => {}
        }
    }

    /// Names what differs in topics whose sums do.
    fn finish(&mut self, log: &Log) -> Result<(), StoreError> {
        if !log.complete {
            return Ok(());
        }
        for number in 0..self.places.len() {
            let Ok(topic) = i64::try_from(number) else { break };
            if self.places[number] != 0
                && !self.named.contains(&topic)
                && !self.findings.is_full(Part::Segments)
            {
                self.name(topic)?;
            }
        }
        Ok(())
    }

    /// Names the first seq of a topic that has another position than its row.
    fn name(&mut self, topic: i64) -> Result<(), StoreError> {
        let mut next = 1;
        while let Some((first_seq, positions)) = runs::positions_at(self.connection, topic, next)? {
            for (seq, pos) in (first_seq..).zip(positions) {
                if rows::place_at(self.connection, pos)? != Some((topic, seq)) {
                    let what = format!(
                        "the segment from seq {first_seq} gives seq {seq} position {pos}, which is another event's"
                    );
                    self.fault(topic, &what);
                    return Ok(());
                }
                next = next.max(seq + 1);
            }
        }
        self.fault(topic, &format!("seq {next} and those that follow are in no segment"));
        Ok(())
    }

    fn fault(&mut self, topic: i64, what: &str) {
        self.named.insert(topic);
        let topic = name_of(self.connection, topic);
        self.findings.add(Part::Segments, Cure::RebuildIndex, format!("{topic}: {what}"));
    }
}
