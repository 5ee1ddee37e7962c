//! Counts by source: exact, a bounded number of sources by name and the rest as one.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::AddAssign;

use foldhash::fast::RandomState;
use jiff::Timestamp;

use super::{Batch, Decision, Finding, TopicCounts, TopicSources};
use crate::domain::{Counts, Event, LATE_BUCKETS, Lateness, Second, Verdict};

/// The name under which sources are counted together that are too many to be named; no source is called so.
pub(super) const OTHER: &str = "";

/// The columns in which engines store what was counted of a source: the numbers of [`SourceCounts::numbers`], in their order.
pub(super) const COLUMNS: [&str; 4 + LATE_BUCKETS] = [
    "accepted",
    "duplicates",
    "conflicts",
    "late_seconds",
    "late_1s",
    "late_10s",
    "late_1min",
    "late_5min",
    "late_1h",
    "late_6h",
    "late_1d",
    "late_7d",
    "late_30d",
    "late_more",
];

/// What was counted of one source in one topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Its events that were stored.
    pub accepted: u64,
    /// Its events that repeated a stored key, whoever had sent that.
    pub duplicates: u64,
    /// Duplicates with another payload than the stored one.
    pub conflicts: u64,
    /// How long after their events its duplicates came.
    pub lateness: Lateness,
}

/// One repeat of a stored event.
#[derive(Debug, Clone, Copy)]
pub struct Repeat<'a> {
    /// Who sent it.
    pub source: &'a str,
    /// The seq of the stored event.
    pub seq: u64,
    /// Whether its payload is another one.
    pub conflict: bool,
    /// Seconds since the event was stored.
    pub late: u32,
}

/// Counts by source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sources(HashMap<Box<str>, SourceCounts, RandomState>);

/// The repeats among the events of a batch that are decided.
pub(super) fn repeats<'a>(
    batch: &'a Batch,
    findings: &'a [Finding],
    now: Timestamp,
) -> impl Iterator<Item = Repeat<'a>> {
    let now = Second::of(now);
    let repeat = move |(event, finding): (&'a Event, &Finding)| match *finding {
        Finding::Decided(Decision { verdict: Verdict::Duplicate { seq, conflict }, stored_at }) => {
            Some(Repeat { source: event.source(), seq, conflict, late: stored_at.until(now) })
        }
        Finding::Decided(_) | Finding::Differs { .. } => None,
    };
    batch.events.iter().zip(findings).filter_map(repeat)
}

impl TopicSources {
    /// The rows in which engines store this: each named source, and [`OTHER`] where anything is counted so.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&str, &SourceCounts)> {
        let named = self.named.iter().map(|(name, counts)| (name.as_str(), counts));
        let other = (self.other != SourceCounts::default()).then_some((OTHER, &self.other));
        named.chain(other)
    }

    /// The same with so many names at most, those of the sources that sent most; all others are counted together.
    pub(super) fn with_names(mut self, limit: usize) -> Self {
        if self.named.len() > limit {
            self.named.sort_by_key(|(_, counts)| Reverse(counts.counts().received()));
            for (_, counts) in self.named.split_off(limit) {
                self.other += counts;
            }
            self.named.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        }
        self
    }
}

impl SourceCounts {
    /// So many events that were stored.
    pub(super) fn accepted(accepted: u64) -> Self {
        Self { accepted, ..Self::default() }
    }

    /// The numbers of [`COLUMNS`].
    pub(super) fn numbers(&self) -> [i64; COLUMNS.len()] {
        let Self { accepted, duplicates, conflicts, lateness: Lateness { buckets, seconds } } = *self;
        let mut numbers = [0; COLUMNS.len()];
        let all = [accepted, duplicates, conflicts, seconds].into_iter().chain(buckets);
        numbers.iter_mut().zip(all).for_each(|(number, count)| *number = count.cast_signed());
        numbers
    }

    /// What these numbers say, each asked for by its place in [`COLUMNS`].
    pub(super) fn from_numbers<E>(stored: impl Fn(usize) -> Result<i64, E>) -> Result<Self, E> {
        let number = |at| stored(at).map(i64::cast_unsigned);
        let mut lateness = Lateness { seconds: number(3)?, ..Lateness::default() };
        for (at, bucket) in lateness.buckets.iter_mut().enumerate() {
            *bucket = number(4 + at)?;
        }
        Ok(Self { accepted: number(0)?, duplicates: number(1)?, conflicts: number(2)?, lateness })
    }

    /// Without how late.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Self { accepted, duplicates, conflicts, .. } = *self;
        Counts { accepted, duplicates, conflicts, rejected: 0 }
    }

    fn count(&mut self, repeat: Repeat<'_>) {
        self.duplicates += 1;
        self.conflicts += u64::from(repeat.conflict);
        self.lateness.count(repeat.late);
    }
}

impl AddAssign for SourceCounts {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.lateness += other.lateness;
    }
}

impl Sources {
    /// Adds what was counted of a source; under [`OTHER`] where it is new and so many are named already.
    pub(super) fn add(&mut self, source: &str, counts: SourceCounts, limit: usize) {
        self.update(source, limit, |sum| *sum += counts);
    }

    /// Counts a repeat, as [`Sources::add`].
    pub(super) fn count(&mut self, repeat: Repeat<'_>, limit: usize) {
        self.update(repeat.source, limit, |sum| sum.count(repeat));
    }

    fn update(&mut self, source: &str, limit: usize, update: impl FnOnce(&mut SourceCounts)) {
        if let Some(known) = self.0.get_mut(source) {
            return update(known);
        }
        let name = if self.named() < limit { source } else { OTHER };
        update(self.0.entry(name.into()).or_default());
    }

    /// How many have a name.
    pub(super) fn named(&self) -> usize {
        self.0.len() - usize::from(self.0.contains_key(OTHER))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, SourceCounts)> {
        self.0.iter().map(|(name, counts)| (&**name, *counts))
    }

    /// What was counted in a topic with these sources.
    pub(super) fn explain(self, topic: TopicCounts) -> TopicSources {
        let mut other = SourceCounts::default();
        let mut named = Vec::with_capacity(self.0.len());
        for (name, counts) in self.0 {
            if &*name == OTHER {
                other = counts;
            } else {
                named.push((name.into_string(), counts));
            }
        }
        named.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        TopicSources { topic, named, other }
    }

    /// All of them together.
    pub(super) fn sum(&self) -> Counts {
        let mut sum = Counts::default();
        self.0.values().for_each(|counts| sum += counts.counts());
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_past_the_limit_is_counted_with_the_others_and_never_lost() {
        let mut sources = Sources::default();
        for source in ["a", "b", "c", "a", "d", OTHER] {
            sources.count(Repeat { source, seq: 1, conflict: source == "c", late: 5 }, 2);
        }
        sources.add("b", SourceCounts::accepted(7), 2);
        let mut found: Vec<_> = sources.iter().map(|(name, of)| (name, of.accepted, of.duplicates)).collect();
        found.sort_unstable();
        assert_eq!(found, [(OTHER, 0, 3), ("a", 0, 2), ("b", 7, 1)]);
        assert_eq!(sources.named(), 2);
        assert_eq!(sources.sum(), Counts { accepted: 7, duplicates: 6, conflicts: 1, rejected: 0 });
    }
}
