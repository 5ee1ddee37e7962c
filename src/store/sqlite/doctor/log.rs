//! One pass over the rows of events: what each says of itself, whether it follows the row before, and the sums by
//! which the dedup index is compared with them.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, Row};
use serde::de::IgnoredAny;

use super::report::{Cure, Findings, Part};
use super::{Progress, Tell, name_of};
use crate::domain::{check_name, check_stored_timestamp};
use crate::store::StoreError;
use crate::store::index::{Entry, Hasher, MAX_NUMBER, Span};
use crate::store::sqlite::rows;

/// Rows that cannot be read and are remembered; with more of them, the index is not compared with the rows.
const UNREADABLE_MAX: usize = 100_000;

/// Rows between two reports of progress.
const STEP: u64 = 1 << 14;

/// Numbers of topics that may be unused: sekali gives them from 1 on, and an outsider may have deleted some.
const UNUSED_NUMBERS: usize = 64;

/// What the rows say.
pub(super) struct Log {
    /// Rows that were read.
    pub(super) rows: u64,
    /// By the number of the topic; `None` where no topic has it.
    pub(super) topics: Vec<Option<Seen>>,
    /// Topics whose rows do not follow each other, and the seq of the last one that did not.
    pub(super) odd: HashMap<i64, u64>,
    /// What the entries of each run have to be, in the order of the runs.
    pub(super) runs: Vec<Sum>,
    /// What the index knows of the rows behind the last run, up to as many as may be there.
    pub(super) recent: Vec<Entry>,
    /// Rows behind the last run.
    pub(super) unsealed: u64,
    /// Positions of rows that were changed, or of which no key can be made.
    pub(super) unreadable: BTreeSet<u64>,
    /// Whether every row was read, and every one that cannot be is in `unreadable`.
    pub(super) complete: bool,
}

/// What the rows of one topic say: 24 bytes, and 8 for whether there is one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// The last seq.
    pub(super) last: u64,
    /// The last seq that is sealed.
    pub(super) sealed: u64,
    /// The sum of the hashed places of sealed rows.
    pub(super) places: u64,
}

/// Entries, told from all others by their number and by the sum of their hashes: the order in which they are added
/// does not matter. Two that differ agree by chance once in 2^128.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) entries: u64,
    hashes: u128,
}

impl Sum {
    pub(super) fn add(&mut self, entry: Entry) {
        let hash = xxhash_rust::xxh3::xxh3_128(&entry.to_bytes());
        self.entries += 1;
        self.hashes = self.hashes.wrapping_add(hash);
    }
}

/// The hash of a place, to be summed.
pub(super) fn place(topic: i64, seq: u64, pos: u64) -> u64 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&topic.to_le_bytes());
    bytes[8..16].copy_from_slice(&seq.to_le_bytes());
    bytes[16..].copy_from_slice(&pos.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// Where a row claims to be.
#[derive(Debug, Clone, Copy)]
struct Claim {
    pos: i64,
    topic: i64,
    seq: i64,
}

/// Reads all rows.
pub(super) fn inspect(
    connection: &Connection,
    hasher: &Hasher,
    spans: &[Span],
    recent_max: u64,
    tell: Tell<'_>,
    findings: &mut Findings,
) -> Result<Log, StoreError> {
    let mut pass = Pass {
        connection,
        hasher,
        spans,
        recent_max,
        at: 0,
        sealed: spans.last().map_or(0, |span| span.last_pos),
        findings,
        log: Log {
            rows: 0,
            topics: topics(connection)?,
            odd: HashMap::new(),
            runs: vec![Sum::default(); spans.len()],
            recent: Vec::new(),
            unsealed: 0,
            unreadable: BTreeSet::new(),
            complete: true,
        },
    };
    pass.read(tell)?;
    let log = pass.log;
    findings.checked(Part::Rows, log.rows);
    Ok(log)
}

/// A place for each topic, by number.
fn topics(connection: &Connection) -> Result<Vec<Option<Seen>>, StoreError> {
    let count: i64 = connection.query_row("SELECT count(*) FROM topics", [], |row| row.get(0))?;
    let most = usize::try_from(count).unwrap_or(0) * 2 + UNUSED_NUMBERS;
    let mut topics = Vec::new();
    let mut statement = connection.prepare("SELECT id FROM topics ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Ok(number) = usize::try_from(row.get::<_, i64>(0)?) else { continue };
        if number < most {
            topics.resize(number, None);
            topics.push(Some(Seen::default()));
        }
    }
    Ok(topics)
}

struct Pass<'a> {
    connection: &'a Connection,
    hasher: &'a Hasher,
    spans: &'a [Span],
    recent_max: u64,
    /// The first run that does not end before the row.
    at: usize,
    /// The last position that is in a run.
    sealed: u64,
    findings: &'a mut Findings,
    log: Log,
}

impl Pass<'_> {
    fn read(&mut self, tell: Tell<'_>) -> Result<(), StoreError> {
        // Only to say how far it is.
        let total = rows::last_pos(self.connection).unwrap_or(0);
        let sql = format!("SELECT {} FROM events ORDER BY pos", rows::COLUMNS);
        let connection = self.connection;
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut pos = 0;
        loop {
            match rows.next().map_err(StoreError::from) {
                Ok(Some(row)) => {
                    pos = row.get(0)?;
                    self.row(pos, row);
                }
                Ok(None) => return Ok(()),
                Err(StoreError::Damaged(error)) => {
                    self.log.complete = false;
                    self.fault(&format!("the rows behind position {pos} cannot be read: {error}"));
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            if self.log.rows.is_multiple_of(STEP) {
                tell(Progress { stage: "events", done: self.log.rows, total });
            }
        }
    }

    fn row(&mut self, pos: i64, row: &Row<'_>) {
        self.log.rows += 1;
        let number = |column| row.get::<_, i64>(column);
        let (Ok(topic), Ok(seq)) = (number(1), number(2)) else {
            self.fault(&format!("the row at position {pos} has no topic or no seq"));
            self.log.unreadable.insert(pos.cast_unsigned());
            return;
        };
        let claim = Claim { pos, topic, seq };
        self.follow(claim);
        if !(1..=MAX_NUMBER.cast_signed()).contains(&pos) {
            let what = format!("{}: a log has no such position", self.describe(claim));
            self.fault(&what);
        }
        let whole = rows::is_whole(row);
        let changed = || Err("it does not match its checksum, it was changed since it was stored".to_owned());
        if let Err(what) = texts(row).and_then(|()| if whole { Ok(()) } else { changed() }) {
            let what = format!("{}: {what}", self.describe(claim));
            self.fault(&what);
        }
        self.index(claim, row, whole);
    }

    /// Checks that a row has the seq that follows in its topic.
    fn follow(&mut self, claim: Claim) {
        let Claim { topic, pos, seq } = claim;
        let seen = usize::try_from(topic).ok().and_then(|number| self.log.topics.get_mut(number)?.as_mut());
        let Some(seen) = seen else {
            return self.fault(&format!("{}: no topic has this number", self.describe(claim)));
        };
        let (next, seq) = (seen.last.saturating_add(1), seq.cast_unsigned());
        let (sealed, mut wrong) = (pos.cast_unsigned() <= self.sealed, false);
        if sealed {
            seen.places = seen.places.wrapping_add(place(topic, seq, pos.cast_unsigned()));
        }
        if seq == next {
            seen.last = seq;
        } else if self.log.odd.insert(topic, seq).is_some_and(|odd| odd.checked_add(1) == Some(seq)) {
            // Two that follow each other are right: it was the rows before them that are missing.
            seen.last = seq;
        } else {
            seen.last = next;
            wrong = true;
        }
        if sealed {
            seen.sealed = seen.last;
        }
        if wrong {
            self.fault(&format!("{}: seq {next} has to follow here", self.describe(claim)));
        }
    }

    /// Adds a row to what the index has to know.
    fn index(&mut self, claim: Claim, row: &Row<'_>, whole: bool) {
        let pos = claim.pos.cast_unsigned();
        let entry = if whole { rows::said(self.hasher, row) } else { None };
        let Some(entry) = entry else {
            self.log.complete &= self.log.unreadable.len() < UNREADABLE_MAX;
            if self.log.complete {
                self.log.unreadable.insert(pos);
            }
            return;
        };
        while self.spans.get(self.at).is_some_and(|span| span.last_pos < pos) {
            self.at += 1;
        }
        if pos > self.sealed {
            self.log.unsealed += 1;
            if self.log.unsealed <= self.recent_max {
                self.log.recent.push(entry);
            }
        } else if self.spans.get(self.at).is_some_and(|span| span.first_pos <= pos) {
            self.log.runs[self.at].add(entry);
        }
    }

    fn fault(&mut self, what: &str) {
        self.findings.add(Part::Rows, Cure::Restore, what);
    }

    fn describe(&self, Claim { pos, topic, seq }: Claim) -> String {
        if self.findings.is_full(Part::Rows) {
            return String::new();
        }
        format!("{}, seq {seq}, position {pos}", name_of(self.connection, topic))
    }
}

/// Checks what an event is made of by the rules of domain.
fn texts(row: &Row<'_>) -> Result<(), String> {
    let text = |column: usize, name: &str| {
        let bytes = rows::bytes(row, column).map_err(|error| format!("the {name} is no text: {error}"))?;
        str::from_utf8(bytes).map_err(|error| format!("the {name} is no text: {error}"))
    };
    for (column, name) in [(4, "event_id"), (6, "source")] {
        check_name(text(column, name)?).map_err(|fault| format!("the {name} is none: {}", fault.as_str()))?;
    }
    check_stored_timestamp(text(5, "timestamp")?).map_err(|rule| format!("the timestamp {rule}"))?;
    let payload = text(7, "payload")?;
    if !payload.trim_start().starts_with('{') {
        return Err("the payload is no JSON object".to_owned());
    }
    serde_json::from_str::<IgnoredAny>(payload)
        .map_err(|error| format!("the payload is no JSON: {error}"))?;
    let received_at = row.get(3).map_err(|error| format!("received_at is no number: {error}"))?;
    rows::time(received_at).map(drop).map_err(|error| error.to_string())
}
