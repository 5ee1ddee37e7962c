//! A group as the columns of a statement, and its verdicts from the rows that come back. No SQL, no connection.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use serde::de::IgnoredAny;

use crate::domain::{Event, Refusal, Second, Verdict, same_value};
use crate::store::index::Hasher;
use crate::store::{Batch, Decision, StoreError};

/// A group whose repeats within itself are found: each key is sent once.
pub(super) struct Group<'a> {
    batches: &'a [&'a Batch],
    /// The first event of each key.
    pub(super) keys: Vec<&'a Event>,
    /// Of each event of the group, in their order.
    sent: Vec<Sent>,
}

/// An event of a group.
#[derive(Debug, Clone, Copy)]
struct Sent {
    /// Its key, by its place in [`Group::keys`].
    key: usize,
    digest: i64,
}

/// The columns of the keys' events.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) topics: Vec<&'a str>,
    pub(super) ids: Vec<&'a str>,
    pub(super) timestamps: Vec<&'a str>,
    pub(super) sources: Vec<&'a str>,
    pub(super) payloads: Vec<&'a str>,
    pub(super) digests: Vec<i64>,
    /// Whether the group has other payloads of the key too.
    pub(super) varies: Vec<bool>,
}

/// What the store did with the first event of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its topic does not exist and is one too many.
    Refused,
    /// It is stored now, by this group.
    New { seq: u64 },
    /// Its key was stored before.
    Known { seq: u64, digest: i64, stored_at: Second },
}

impl<'a> Group<'a> {
    pub(super) fn new(batches: &'a [&'a Batch], hasher: &Hasher) -> Self {
        let events = batches.iter().map(|batch| batch.events.len()).sum();
        let mut places: HashMap<(&str, &str), usize, RandomState> =
            HashMap::with_capacity_and_hasher(events, RandomState::default());
        let (mut keys, mut sent) = (Vec::with_capacity(events), Vec::with_capacity(events));
        for event in batches.iter().flat_map(|batch| &batch.events) {
            let key = *places.entry((event.topic(), event.event_id())).or_insert(keys.len());
            if key == keys.len() {
                keys.push(event);
            }
            sent.push(Sent { key, digest: hasher.digest(event.payload().as_bytes()).cast_signed() });
        }
        Self { batches, keys, sent }
    }

    /// The names of its topics, each once, in the order in which they come.
    pub(super) fn topics(&self) -> Vec<&'a str> {
        let mut seen: HashSet<&str, RandomState> = HashSet::default();
        let names = self.batches.iter().map(|batch| batch.topic.as_str());
        names.filter(|name| seen.insert(name)).collect()
    }

    pub(super) fn columns(&self) -> Columns<'a> {
        let keys = || self.keys.iter().map(|event| event.parts());
        let mut digests = vec![0; self.keys.len()];
        // Backwards, so that the first event of a key is the one that counts.
        for sent in self.sent.iter().rev() {
            digests[sent.key] = sent.digest;
        }
        let mut varies = vec![false; self.keys.len()];
        for sent in &self.sent {
            varies[sent.key] |= sent.digest != digests[sent.key];
        }
        Columns {
            topics: keys().map(|parts| parts.topic).collect(),
            ids: keys().map(|parts| parts.event_id).collect(),
            timestamps: keys().map(|parts| parts.timestamp).collect(),
            sources: keys().map(|parts| parts.source).collect(),
            payloads: keys().map(|parts| parts.payload).collect(),
            digests,
            varies,
        }
    }

    /// The keys whose stored payload must be read, because it is not the same text as one that was sent.
    pub(super) fn doubts(&self, fates: &[Fate]) -> Vec<usize> {
        let differs =
            |sent: &&Sent| matches!(fates[sent.key], Fate::Known { digest, .. } if digest != sent.digest);
        let mut keys: Vec<_> = self.sent.iter().filter(differs).map(|sent| sent.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Which events of a key have another value than the payload that is stored: their places in the group.
    pub(super) fn conflicts(&self, key: usize, stored: &str) -> Result<Vec<usize>, StoreError> {
        // Only valid JSON can be compared.
        serde_json::from_str::<IgnoredAny>(stored).map_err(|error| {
            let event = self.keys[key].parts();
            StoreError::Damaged(format!("topic {}, id {}: the payload: {error}", event.topic, event.event_id))
        })?;
        let same_key = self.events().enumerate().filter(|(_, (sent, _))| sent.key == key);
        let others = same_key.filter(|(_, (_, event))| !same_value(stored, event.payload()));
        Ok(others.map(|(place, _)| place).collect())
    }

    /// What was decided on each event; `conflicts` says which repeats have another value than what was stored before.
    pub(super) fn decisions(&self, fates: &[Fate], conflicts: &[usize], now: Second) -> Vec<Vec<Decision>> {
        let mut seen = vec![false; self.keys.len()];
        let mut all = self.events().enumerate().map(|(place, (sent, event))| {
            let is_first = !std::mem::replace(&mut seen[sent.key], true);
            let verdict = match fates[sent.key] {
                Fate::Refused => Verdict::Refused(Refusal::TopicLimit),
                Fate::New { seq } if is_first => Verdict::Accepted { seq },
                Fate::New { seq } => {
                    let conflict = !same_value(self.keys[sent.key].payload(), event.payload());
                    Verdict::Duplicate { seq, conflict }
                }
                Fate::Known { seq, .. } => {
                    Verdict::Duplicate { seq, conflict: conflicts.binary_search(&place).is_ok() }
                }
            };
            let stored_at = match fates[sent.key] {
                Fate::Known { stored_at, .. } => stored_at,
                Fate::Refused | Fate::New { .. } => now,
            };
            Decision { verdict, stored_at }
        });
        self.batches.iter().map(|batch| all.by_ref().take(batch.events.len()).collect()).collect()
    }

    fn events(&self) -> impl Iterator<Item = (Sent, &'a Event)> {
        self.sent.iter().copied().zip(self.batches.iter().flat_map(|batch| &batch.events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::batch;

    fn accepted(seq: u64) -> Verdict {
        Verdict::Accepted { seq }
    }

    fn duplicate(seq: u64, conflict: bool) -> Verdict {
        Verdict::Duplicate { seq, conflict }
    }

    const NOW: Second = Second(100);

    fn at(second: u32, verdict: Verdict) -> Decision {
        Decision { verdict, stored_at: Second(second) }
    }

    #[test]
    fn each_key_is_sent_once_and_its_first_event_counts() {
        let (b, a) = (batch("b", &[("x", "{}"), ("x", "[1]"), ("y", "{}")]), batch("a", &[("x", "{ }")]));
        let batches = [&b, &a];
        let group = Group::new(&batches, &Hasher::new(&[0; 16]));
        assert_eq!(group.topics(), ["b", "a"]);
        let columns = group.columns();
        assert_eq!((columns.topics, columns.ids), (vec!["b", "b", "a"], vec!["x", "y", "x"]));
        assert_eq!(columns.payloads, ["{}", "{}", "{ }"]);
        assert_eq!(columns.digests[0], columns.digests[1]);
        assert_ne!(columns.digests[0], columns.digests[2]);
        assert_eq!(columns.varies, [true, false, false]);
        let fates = [
            Fate::New { seq: 4 },
            Fate::Refused,
            Fate::Known { seq: 9, digest: columns.digests[2], stored_at: Second(7) },
        ];
        assert_eq!(group.doubts(&fates), [0; 0]);
        let refused = Verdict::Refused(Refusal::TopicLimit);
        assert_eq!(
            group.decisions(&fates, &[], NOW),
            [
                vec![at(100, accepted(4)), at(100, duplicate(4, true)), at(100, refused)],
                vec![at(7, duplicate(9, false))]
            ]
        );
    }

    #[test]
    fn what_is_not_the_same_text_is_compared_as_a_value() {
        let a = batch("a", &[("x", "{ }"), ("y", "{}"), ("x", "[1]"), ("x", "{}")]);
        let batches = [&a];
        let group = Group::new(&batches, &Hasher::new(&[0; 16]));
        let digests = group.columns().digests;
        let known = |seq, digest| Fate::Known { seq, digest, stored_at: Second(7) };
        let fates = [known(1, digests[0]), known(2, digests[1])];
        assert_eq!(group.doubts(&fates), [0]);
        let conflicts = group.conflicts(0, "{ }").unwrap();
        assert_eq!(
            group.decisions(&fates, &conflicts, NOW),
            [[(1, false), (2, false), (1, true), (1, false)]
                .map(|(seq, conflict)| at(7, duplicate(seq, conflict)))]
        );
        assert!(matches!(group.conflicts(0, "{"), Err(StoreError::Damaged(_))));
    }
}
