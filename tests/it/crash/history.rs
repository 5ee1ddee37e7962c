//! What producers were told, against what the store says afterwards: one history must explain both.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use serde_json::Value;

/// An event that was sent, and what its producer was told.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) topic: String,
    pub(crate) id: String,
    pub(crate) payload: String,
    /// `None` where no answer came, or one that promises nothing.
    pub(crate) verdict: Option<Verdict>,
    /// When the answer came, or the attempt was given up.
    pub(crate) at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted { seq: u64 },
    Duplicate { seq: u64, conflict: bool },
}

impl Verdict {
    fn seq(self) -> u64 {
        match self {
            Self::Accepted { seq } | Self::Duplicate { seq, .. } => seq,
        }
    }
}

/// An event as a reader got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
    pub(crate) id: String,
    pub(crate) payload: String,
}

impl Stored {
    /// An event as the API gives it.
    pub(crate) fn of(event: &Value) -> Self {
        Self {
            seq: event["seq"].as_u64().unwrap(),
            id: event["event_id"].as_str().unwrap().to_owned(),
            payload: event["payload"].to_string(),
        }
    }
}

/// Everything that was sent, by topic.
#[derive(Debug, Default)]
pub(crate) struct History {
    topics: HashMap<String, Topic>,
}

#[derive(Debug, Default)]
struct Topic {
    sent: HashMap<String, Vec<Attempt>>,
    /// What was read before.
    read: Vec<Stored>,
}

/// What was lost in a power cut that may lose the last second.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) acknowledged: usize,
    /// When the oldest of them was acknowledged.
    pub(crate) oldest: Option<Instant>,
}

impl History {
    pub(crate) fn add(&mut self, attempts: impl IntoIterator<Item = Attempt>) {
        for attempt in attempts {
            let topic = self.topics.entry(attempt.topic.clone()).or_default();
            topic.sent.entry(attempt.id.clone()).or_default().push(attempt);
        }
    }

    /// The topics to which something was sent.
    pub(crate) fn topics(&self) -> Vec<String> {
        let mut names: Vec<_> = self.topics.keys().cloned().collect();
        names.sort();
        names
    }

    /// Attempts that were answered as accepted or duplicate.
    pub(crate) fn acknowledged(&self) -> usize {
        let sent = self.topics.values().flat_map(|topic| topic.sent.values().flatten());
        sent.filter(|attempt| attempt.verdict.is_some()).count()
    }

    /// The seq of an event, as it was read last.
    pub(crate) fn seq_of(&self, topic: &str, id: &str) -> Option<u64> {
        self.topics.get(topic)?.read.iter().find(|event| event.id == id).map(|event| event.seq)
    }

    /// Attempts of all kinds.
    pub(crate) fn attempts(&self) -> usize {
        self.topics.values().flat_map(|topic| topic.sent.values()).map(Vec::len).sum()
    }

    /// Attempts that were answered as duplicates.
    pub(crate) fn repeats(&self) -> usize {
        let sent = self.topics.values().flat_map(|topic| topic.sent.values().flatten());
        sent.filter(|attempt| matches!(attempt.verdict, Some(Verdict::Duplicate { .. }))).count()
    }

    /// The events of a topic, as they were read last.
    pub(crate) fn read(&self, topic: &str) -> &[Stored] {
        self.topics.get(topic).map_or(&[], |topic| &topic.read)
    }

    /// The last seq of a topic that was read.
    pub(crate) fn end(&self, topic: &str) -> Option<u64> {
        self.topics.get(topic).map(|topic| topic.read.len() as u64)
    }

    /// Forgets what a cut took that may take the newest: promises about seqs behind the end of a topic.
    pub(crate) fn forget_behind(&mut self, name: &str, end: u64) -> Lost {
        let mut lost = Lost::default();
        let Some(topic) = self.topics.get_mut(name) else { return lost };
        topic.read.truncate(usize::try_from(end).unwrap_or(usize::MAX));
        for attempt in topic.sent.values_mut().flatten() {
            if attempt.verdict.is_some_and(|verdict| verdict.seq() > end) {
                attempt.verdict = None;
                lost.acknowledged += 1;
                lost.oldest = Some(lost.oldest.map_or(attempt.at, |oldest| oldest.min(attempt.at)));
            }
        }
        lost
    }

    /// Checks a topic, read from its first event to its last, and remembers it.
    ///
    /// invariants 1 to 3 and 6: what was acknowledged is there, once, under its seq, with its payload.
    pub(crate) fn check(&mut self, name: &str, stored: Vec<Stored>) -> Result<(), String> {
        let topic = self.topics.entry(name.to_owned()).or_default();
        let mut ids = HashSet::new();
        for (event, seq) in stored.iter().zip(1..) {
            if event.seq != seq {
                return Err(format!("{name}: seq {} where {seq} follows", event.seq));
            }
            if !ids.insert(event.id.as_str()) {
                return Err(format!("{name}: {} is stored twice, the second time as seq {seq}", event.id));
            }
            let sent = topic.sent.get(&event.id).map_or(&[][..], Vec::as_slice);
            if !sent.iter().any(|attempt| attempt.payload == event.payload) {
                return Err(format!(
                    "{name}: seq {seq}, {} was never sent like this: {}",
                    event.id, event.payload
                ));
            }
        }
        if let Some(before) = topic.read.iter().zip(&stored).find(|(before, now)| before != now) {
            return Err(format!("{name}: what was read has changed: {before:?}"));
        }
        if stored.len() < topic.read.len() {
            return Err(format!(
                "{name}: {} events were read before, and now {}",
                topic.read.len(),
                stored.len()
            ));
        }
        for attempts in topic.sent.values() {
            explain(attempts, &stored).map_err(|what| format!("{name}: {what}"))?;
        }
        topic.read = stored;
        Ok(())
    }
}

/// Checks what was said about one event against what is stored.
fn explain(attempts: &[Attempt], stored: &[Stored]) -> Result<(), String> {
    let mut accepted = 0;
    for attempt in attempts {
        let Some(verdict) = attempt.verdict else { continue };
        let at = usize::try_from(verdict.seq()).unwrap_or(usize::MAX).checked_sub(1);
        let found = at.and_then(|at| stored.get(at)).filter(|event| event.id == attempt.id);
        let Some(event) = found else {
            return Err(format!("LOST: {} was answered {verdict:?}, and is not there", attempt.id));
        };
        let same = event.payload == attempt.payload;
        let right = match verdict {
            Verdict::Accepted { .. } => same,
            Verdict::Duplicate { conflict, .. } => conflict != same,
        };
        if !right {
            return Err(format!(
                "{} was sent as {} and answered {verdict:?}: {event:?}",
                attempt.id, attempt.payload
            ));
        }
        accepted += usize::from(matches!(verdict, Verdict::Accepted { .. }));
    }
    let first = &attempts[0].id;
    if accepted > 1 {
        return Err(format!("{first} was accepted {accepted} times"));
    }
    if accepted == 0 && attempts.iter().all(|attempt| attempt.verdict.is_some()) {
        return Err(format!("{first} was never accepted, and everyone who sent it was told of a duplicate"));
    }
    Ok(())
}

fn attempt(id: &str, payload: &str, verdict: Option<Verdict>) -> Attempt {
    Attempt {
        topic: "t".to_owned(),
        id: id.to_owned(),
        payload: payload.to_owned(),
        verdict,
        at: Instant::now(),
    }
}

fn stored(events: &[(&str, &str)]) -> Vec<Stored> {
    let event = |(seq, (id, payload)): (u64, &(&str, &str))| Stored {
        seq,
        id: (*id).into(),
        payload: (*payload).into(),
    };
    (1..).zip(events).map(event).collect()
}

/// What a history of these attempts says to this store.
fn verdict_on(attempts: &[Attempt], events: Vec<Stored>) -> Result<(), String> {
    let mut history = History::default();
    history.add(attempts.iter().cloned());
    history.check("t", events)
}

#[test]
fn what_one_history_explains_is_right() {
    let attempts = [
        attempt("1", "{}", None),
        attempt("1", "{}", Some(Verdict::Duplicate { seq: 2, conflict: false })),
        attempt("2", "{}", Some(Verdict::Accepted { seq: 1 })),
        attempt("2", "[1]", Some(Verdict::Duplicate { seq: 1, conflict: true })),
        attempt("3", "{}", None),
    ];
    assert_eq!(verdict_on(&attempts, stored(&[("2", "{}"), ("1", "{}")])), Ok(()));
    assert_eq!(verdict_on(&attempts, stored(&[("2", "{}"), ("1", "{}"), ("3", "{}")])), Ok(()));
}

#[test]
fn every_broken_promise_is_found() {
    let accepted = |id, seq| attempt(id, "{}", Some(Verdict::Accepted { seq }));
    let repeat = |id, seq, conflict| attempt(id, "{}", Some(Verdict::Duplicate { seq, conflict }));
    for (attempts, events, words) in [
        (vec![accepted("1", 1)], stored(&[]), "LOST"),
        (vec![repeat("1", 1, false)], stored(&[]), "LOST"),
        (vec![accepted("1", 2), accepted("2", 1)], stored(&[("1", "{}"), ("2", "{}")]), "LOST"),
        (vec![accepted("1", 1), accepted("1", 1)], stored(&[("1", "{}")]), "accepted 2 times"),
        (vec![repeat("1", 1, false)], stored(&[("1", "{}")]), "never accepted"),
        (vec![attempt("1", "{}", None)], stored(&[("1", "{}"), ("1", "{}")]), "stored twice"),
        (vec![attempt("1", "[1]", None), accepted("1", 1)], stored(&[("1", "[1]")]), "answered"),
        (vec![repeat("1", 1, true)], stored(&[("1", "{}")]), "answered"),
        (vec![attempt("1", "{}", None)], stored(&[("1", "[1]")]), "never sent"),
        (vec![], stored(&[("1", "{}")]), "never sent"),
    ] {
        let found = verdict_on(&attempts, events.clone()).unwrap_err();
        assert!(found.contains(words), "{words} in {found}");
    }
    let mut gap = stored(&[("1", "{}"), ("2", "{}")]);
    gap[1].seq = 3;
    assert!(
        verdict_on(&[attempt("1", "{}", None), attempt("2", "{}", None)], gap)
            .unwrap_err()
            .contains("follows")
    );
}

#[test]
fn what_was_read_once_must_stay() {
    let mut history = History::default();
    history.add([attempt("1", "{}", None), attempt("2", "{}", None)]);
    history.check("t", stored(&[("1", "{}"), ("2", "{}")])).unwrap();
    assert!(history.check("t", stored(&[("2", "{}"), ("1", "{}")])).unwrap_err().contains("has changed"));
    assert!(history.check("t", stored(&[("1", "{}")])).unwrap_err().contains("read before"));
    assert_eq!(history.forget_behind("t", 1), Lost::default());
    history.check("t", stored(&[("1", "{}")])).unwrap();
}
