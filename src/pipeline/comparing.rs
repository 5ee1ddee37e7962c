//! Which payloads that differ in bytes differ in value: what waits for a comparison, whose turn it is, and the comparison
//! of what was read. No actor.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::budget::Budget;
use super::error::PublishError;
use super::lane::Doubts;
use crate::domain::{Address, PayloadDigest, PayloadHasher};
use crate::metrics::Queued;
use crate::store::{Key, PAGE_BYTES, Reader, StoreError, StoredPayload};
use crate::turns::Turns;

/// The most bytes of one turn, of events that were sent, unless a single one has more. The payloads that are read for it
/// have the same limit.
const TURN_BYTES: usize = PAGE_BYTES;

/// The most stored events that are looked for in one turn.
const TURN_KEYS: usize = 1_000;

/// What waits for a comparison. Addresses take turns, however many requests each of them has, and the
/// requests of an address take turns among themselves, however much each of them has to be compared.
#[derive(Default)]
pub(super) struct Waiting {
    /// By request. Its doubts are of several lanes.
    requests: HashMap<usize, VecDeque<(Doubts, Queued)>, RandomState>,
    /// Each request that waits stands here once.
    turns: Turns<Address, usize>,
}

/// A first part of what one request waits for.
pub(super) struct Turn {
    doubts: Doubts,
    queued: Queued,
    keys: Vec<Key>,
}

/// What a reader gave.
type Payloads = Vec<Result<StoredPayload, StoreError>>;

impl Waiting {
    pub(super) fn push(&mut self, doubts: Doubts, queued: Queued) {
        let (address, request) = (doubts.address(), doubts.request());
        let of_request = self.requests.entry(request).or_default();
        if of_request.is_empty() {
            self.turns.push(address, request);
        }
        of_request.push_back((doubts, queued));
    }

    /// What is compared next.
    pub(super) fn next(&mut self) -> Option<Turn> {
        let request = self.turns.pop()?;
        let of_request = self.requests.get_mut(&request)?;
        let (doubts, queued) = of_request.pop_front()?;
        if of_request.is_empty() {
            self.requests.remove(&request);
        } else {
            self.turns.push(doubts.address(), request);
        }
        let keys = doubts.keys(TURN_KEYS);
        Some(Turn { doubts, queued, keys })
    }
}

impl Turn {
    /// Reads payloads of its keys: of a first part of them.
    pub(super) async fn read(&self, reader: &dyn Reader) -> Result<Payloads, StoreError> {
        match reader.payloads(&self.keys).await {
            // Others are not to fail with the one that is damaged.
            Err(StoreError::Damaged(_)) if self.keys.len() > 1 => {
                Ok(vec![reader.payloads(&self.keys[..1]).await?.pop().unwrap_or_else(|| Err(nothing()))])
            }
            read => read,
        }
    }
}

/// Compares payloads.
pub(super) struct Judge {
    hasher: PayloadHasher,
    budget: Budget,
}

impl Judge {
    /// With a secret of this process. What it takes is counted in the budget.
    pub(super) fn new(budget: Budget) -> Self {
        Self { hasher: PayloadHasher::new(&secret()), budget }
    }

    /// Settles the events of a turn whose payloads were read; gives back what is left.
    pub(super) fn settle(&self, turn: Turn, read: Result<Payloads, StoreError>) -> Option<(Doubts, Queued)> {
        let Turn { mut doubts, queued, keys } = turn;
        let found = match read {
            Ok(found) if !found.is_empty() => found,
            Ok(_) => keys.iter().map(|_| Err(nothing())).collect(),
            // Nothing can be read now, and what is left would not be either.
            Err(error) => {
                let failed = Err(refusal(&error));
                doubts.settle(&vec![failed; doubts.len()]);
                return None;
            }
        };
        let mut memory = self.budget.overdraft();
        memory.take(found.iter().flatten().map(|payload| payload.json.len()).sum());
        let outcomes = self.outcomes(&doubts, &keys, &found);
        doubts.settle(&outcomes);
        (doubts.len() > 0).then_some((doubts, queued))
    }

    /// Whether each of the first events is a conflict: of those whose stored payloads were read.
    fn outcomes(&self, doubts: &Doubts, keys: &[Key], found: &Payloads) -> Vec<Result<bool, PublishError>> {
        let mut events = doubts.events().peekable();
        let (mut outcomes, mut bytes) = (Vec::new(), 0);
        for (key, stored) in keys.iter().zip(found) {
            let first = stored.as_ref().map_err(refusal).and_then(|stored| self.digest_stored(key, stored));
            while let Some((seq, event)) = events.next_if(|(_, event)| event.event_id() == key.event_id) {
                bytes += event.bytes();
                if bytes > TURN_BYTES && !outcomes.is_empty() {
                    return outcomes;
                }
                #[cfg(test)]
                crate::testing::pass(crate::testing::Moment::Compare);
                outcomes.push(match (&first, stored) {
                    (Ok(_), Ok(stored)) if stored.seq != seq => Err(refusal(&moved(key, stored.seq, seq))),
                    (Ok(_), Ok(stored)) if stored.json == event.payload() => Ok(false),
                    (Ok(first), _) => Ok(self.digest(event.payload()) != *first),
                    (Err(error), _) => Err(error.clone()),
                });
            }
        }
        outcomes
    }

    /// The digest of a stored payload, which may be damaged.
    fn digest_stored(&self, key: &Key, stored: &StoredPayload) -> Result<PayloadDigest, PublishError> {
        serde_json::from_str::<IgnoredAny>(&stored.json).map_err(|error| {
            let Key { topic, event_id } = key;
            refusal(&StoreError::Damaged(format!("topic {topic}, id {event_id}: the payload: {error}")))
        })?;
        Ok(self.digest(&stored.json))
    }

    fn digest(&self, payload: &str) -> PayloadDigest {
        let mut memory = self.budget.overdraft();
        self.hasher.digest(payload, |bytes| memory.take(bytes))
    }
}

/// The answer where a payload could not be read.
fn refusal(error: &StoreError) -> PublishError {
    let text = error.to_string();
    if matches!(error, StoreError::Damaged(_)) {
        PublishError::Damaged(text)
    } else {
        PublishError::Unavailable(text)
    }
}

fn nothing() -> StoreError {
    StoreError::Unavailable("a stored payload was asked for, and there was no answer".to_owned())
}

fn moved(Key { topic, event_id }: &Key, found: u64, committed: u64) -> StoreError {
    StoreError::Unavailable(format!(
        "topic {topic}: the event {event_id} has seq {found}, and had {committed} when its duplicate came"
    ))
}

/// 128 random bits. Of a version 4 UUID, 122 are.
fn secret() -> [u8; 16] {
    let (first, second) = (Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes());
    let mut secret = [0; 16];
    // The last seven bytes of each are random as a whole, and so are the first two.
    secret[..7].copy_from_slice(&first[9..]);
    secret[7..14].copy_from_slice(&second[9..]);
    secret[14..].copy_from_slice(&first[..2]);
    secret
}
