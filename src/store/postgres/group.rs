//! A group as the columns of a statement, and what the rows that come back say of its events. No SQL, no connection.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use crate::domain::{Event, Refusal, Second, Verdict};
use crate::store::index::Hasher;
use crate::store::{Batch, Finding};

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
        Columns {
            topics: keys().map(|parts| parts.topic).collect(),
            ids: keys().map(|parts| parts.event_id).collect(),
            timestamps: keys().map(|parts| parts.timestamp).collect(),
            sources: keys().map(|parts| parts.source).collect(),
            payloads: keys().map(|parts| parts.payload).collect(),
            digests: self.digests(),
        }
    }

    /// The digest of each key's first event.
    fn digests(&self) -> Vec<i64> {
        let mut digests = vec![0; self.keys.len()];
        // Backwards, so that the first event of a key is the one that counts.
        for sent in self.sent.iter().rev() {
            digests[sent.key] = sent.digest;
        }
        digests
    }

    /// What is known of each event. Equal digests mean equal bytes.
    pub(super) fn findings(&self, fates: &[Fate], now: Second) -> Vec<Vec<Finding>> {
        let (mut seen, first_digests) = (vec![false; self.keys.len()], self.digests());
        let mut all = self.sent.iter().map(|sent| {
            let is_first = !std::mem::replace(&mut seen[sent.key], true);
            let (seq, digest, stored_at) = match fates[sent.key] {
                Fate::Refused => return Finding::decided(Verdict::Refused(Refusal::TopicLimit), now),
                Fate::New { seq } if is_first => {
                    return Finding::decided(Verdict::Accepted { seq }, now);
                }
                Fate::New { seq } => (seq, first_digests[sent.key], now),
                Fate::Known { seq, digest, stored_at } => (seq, digest, stored_at),
            };
            if digest == sent.digest {
                Finding::decided(Verdict::Duplicate { seq, conflict: false }, stored_at)
            } else {
                Finding::Differs { seq, stored_at }
            }
        });
        self.batches.iter().map(|batch| all.by_ref().take(batch.events.len()).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::batch;

    const NOW: Second = Second(100);

    fn decided(second: u32, verdict: Verdict) -> Finding {
        Finding::decided(verdict, Second(second))
    }

    fn same(seq: u64) -> Verdict {
        Verdict::Duplicate { seq, conflict: false }
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
        let fates = [
            Fate::New { seq: 4 },
            Fate::Refused,
            Fate::Known { seq: 9, digest: columns.digests[2], stored_at: Second(7) },
        ];
        let differs = Finding::Differs { seq: 4, stored_at: NOW };
        assert_eq!(
            group.findings(&fates, NOW),
            [
                vec![
                    decided(100, Verdict::Accepted { seq: 4 }),
                    differs,
                    decided(100, Verdict::Refused(Refusal::TopicLimit))
                ],
                vec![decided(7, same(9))]
            ]
        );
    }

    #[test]
    fn what_has_not_the_stored_bytes_is_left_to_a_comparison() {
        let a = batch("a", &[("x", "{ }"), ("y", "{}"), ("x", "[1]"), ("x", "{}"), ("y", "{}")]);
        let batches = [&a];
        let group = Group::new(&batches, &Hasher::new(&[0; 16]));
        let digests = group.columns().digests;
        let known = |seq, digest| Fate::Known { seq, digest, stored_at: Second(7) };
        let differs = |seq| Finding::Differs { seq, stored_at: Second(7) };
        let fates = [known(1, digests[0]), known(2, digests[1])];
        assert_eq!(
            group.findings(&fates, NOW),
            [[decided(7, same(1)), decided(7, same(2)), differs(1), differs(1), decided(7, same(2))]]
        );
        let fates = [known(1, digests[1]), known(2, digests[0])];
        assert_eq!(
            group.findings(&fates, NOW),
            [[differs(1), differs(2), differs(1), decided(7, same(1)), differs(2)]]
        );
    }
}
