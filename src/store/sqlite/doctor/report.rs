//! What the doctor found: what was checked, what is damaged, and what to do.

use serde::Serialize;

use crate::store::StoreError;

/// Faults of one part that are named; there may be as many as events. All are counted.
const NAMED: u64 = 20;

/// What the doctor found in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The schema version of the file.
    pub schema_version: i64,
    /// What was checked, in the order in which it was.
    pub checked: Vec<Checked>,
    /// The first faults of each part.
    pub faults: Vec<Fault>,
    /// What is no fault and yet worth knowing.
    pub notes: Vec<String>,
}

/// One part of the store, and how much of it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The part.
    pub part: Part,
    /// How much of it there is, in the part's own unit.
    pub amount: u64,
    /// Faults in it, those included that are not named.
    pub faults: u64,
}

/// A part of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The file as SQLite sees it, in pages.
    File,
    /// The rows of events.
    Rows,
    /// The rows of topics.
    Topics,
    /// The counters of everything: one row.
    Totals,
    /// The runs of the dedup index, in entries.
    Runs,
    /// Where the events of each topic are, in segments.
    Segments,
    /// What explains duplicates: counts by source, and what goes with them.
    Sources,
}

/// Something that is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where.
    pub part: Part,
    /// What, with its place.
    pub what: String,
    /// What to do.
    pub cure: Cure,
}

/// What helps against a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cure {
    /// The dedup index can be built again from the rows.
    RebuildIndex,
    /// Nothing that the file holds says what was there.
    Restore,
    /// Only a counter is wrong.
    Recount,
    /// Only what explains duplicates is wrong, and can begin anew.
    BeginAnew,
}

impl Report {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.faults.is_empty()
    }
}

impl Part {
    /// Every part, in the order of a report.
    pub const ALL: [Self; 7] =
        [Self::File, Self::Rows, Self::Topics, Self::Totals, Self::Runs, Self::Segments, Self::Sources];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Rows => "rows",
            Self::Topics => "topics",
            Self::Totals => "totals",
            Self::Runs => "runs",
            Self::Segments => "segments",
            Self::Sources => "sources",
        }
    }

    /// What its amount counts: one of it, and many.
    #[must_use]
    pub fn units(self) -> [&'static str; 2] {
        match self {
            Self::File => ["page", "pages"],
            Self::Rows => ["event", "events"],
            Self::Topics => ["topic", "topics"],
            Self::Totals => ["row", "rows"],
            Self::Runs => ["entry", "entries"],
            Self::Segments => ["segment", "segments"],
            Self::Sources => ["source", "sources"],
        }
    }
}

impl Cure {
    /// Every cure, the one that this program can do first.
    pub const ALL: [Self; 4] = [Self::RebuildIndex, Self::BeginAnew, Self::Recount, Self::Restore];

    /// What to do, for a person.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RebuildIndex => {
                "`sekali doctor --rebuild-index` builds the dedup index again from the events"
            }
            Self::Restore => {
                "no command can know what was there: keep a copy of the file, and put back a backup from before \
                 the damage; without one, sekali answers for all that is whole, and 500 store_damaged for the rest; if it \
                 does not start, `--rebuild-index` lets it"
            }
            Self::BeginAnew => {
                "no event and no verdict depends on it: `sekali doctor --rebuild-index` lets the counts by source of such a \
                 topic begin anew, with all that was counted before under no name"
            }
            Self::Recount => {
                "where no event is missing, only this counter is wrong: set it to what the rows say with a SQLite shell; the \
                 server does not start before"
            }
        }
    }
}

/// Gathers a report.
#[derive(Default)]
pub(super) struct Findings {
    amounts: [u64; Part::ALL.len()],
    faults: [u64; Part::ALL.len()],
    named: Vec<Fault>,
    notes: Vec<String>,
}

impl Findings {
    /// So much of a part was looked at.
    pub(super) fn checked(&mut self, part: Part, amount: u64) {
        self.amounts[part as usize] = amount;
    }

    /// Counts a fault, and keeps it if it is one of the first of its part.
    pub(super) fn add(&mut self, part: Part, cure: Cure, what: impl Into<String>) {
        let count = &mut self.faults[part as usize];
        *count += 1;
        if *count <= NAMED {
            self.named.push(Fault { part, what: what.into(), cure });
        }
    }

    /// What was read of a part; `None`, and a fault, where it cannot be read to its end.
    ///
    /// # Errors
    /// Where that is not the part's own fault.
    pub(super) fn read<T>(
        &mut self,
        part: Part,
        cure: Cure,
        result: Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        match result {
            Ok(read) => Ok(Some(read)),
            Err(StoreError::Damaged(what)) => {
                self.add(part, cure, format!("they cannot all be read: {what}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether no fault of these parts was found.
    pub(super) fn are_right(&self, parts: &[Part]) -> bool {
        parts.iter().all(|part| self.faults[*part as usize] == 0)
    }

    /// Whether more faults of a part would not be named.
    pub(super) fn is_full(&self, part: Part) -> bool {
        self.faults[part as usize] >= NAMED
    }

    /// Says something that is no fault.
    pub(super) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    pub(super) fn report(self, schema_version: i64) -> Report {
        let checked = |part: Part| Checked {
            part,
            amount: self.amounts[part as usize],
            faults: self.faults[part as usize],
        };
        Report {
            schema_version,
            checked: Part::ALL.map(checked).to_vec(),
            faults: self.named,
            notes: self.notes,
        }
    }
}
