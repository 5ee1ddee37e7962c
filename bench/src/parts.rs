//! The parts of sekali in this process: bodies, batches and stores made of the workload.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{anyhow, ensure};
use jiff::Timestamp;
use sekali::config::{Durability, Overrides, Settings, load};
use sekali::domain::{Event as StoreEvent, Topic, Verdict};
use sekali::intake::{self, Format};
use sekali::store::{Batch, Finding, SqliteStore, Writer};
use tempfile::TempDir;

use crate::plan::{Event, Lane, Plan, Step};

/// Events of a request and of a commit, as in the comparison.
pub const EVENTS: usize = 1000;

/// Seeds the events and their order.
pub const SEED: u64 = 1;

/// When events are stored: any moment will do, and one that does not change costs nothing to find out.
pub const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

/// Events of one commit while a store is filled: the default of `store.commit_events`.
const FILL_EVENTS: usize = 10_000;

/// How a body holds its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `[...]`
    Array,
    /// `{"events":[...]}`
    Object,
    /// NDJSON.
    Lines,
}

/// Which events requests hold, after a lane of the workload has filled the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// New ones only.
    New,
    /// Only such as are stored.
    Repeats,
    /// The lane goes on: one in five is a repeat.
    Mix,
}

/// An empty store in a temporary directory, with the default configuration but for its durability. What was opened
/// of it has to be dropped before it.
pub struct OwnStore {
    /// What it was opened with.
    pub settings: Settings,
    /// The store.
    pub engine: Arc<SqliteStore>,
    _directory: TempDir,
}

/// The events of one commit.
#[derive(Debug)]
pub struct Group {
    /// By topic, as the pipeline shares them out.
    pub batches: Vec<Batch>,
    /// How many of them are new, by the plan.
    pub new: usize,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 3] = [Self::Array, Self::Object, Self::Lines];

    /// What the server is told about a body of this form.
    #[must_use]
    pub fn format(self) -> Format {
        match self {
            Self::Array | Self::Object => Format::Json,
            Self::Lines => Format::NdJson,
        }
    }

    /// A body with the events of these steps.
    ///
    /// # Errors
    /// As [`Plan::text`].
    pub fn body(self, plan: Plan, steps: &[Step]) -> anyhow::Result<String> {
        let text = plan.text(steps)?;
        let events: Vec<_> = Event::all(&text).map(Event::json).collect();
        Ok(match self {
            Self::Array => format!("[{}]", events.join(",")),
            Self::Object => format!("{{\"events\":[{}]}}", events.join(",")),
            Self::Lines => events.join("\n"),
        })
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::New, Self::Repeats, Self::Mix];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Repeats => "repeats",
            Self::Mix => "mix",
        }
    }

    /// What is sent to a store that this lane, the only one of its plan, has filled: as much as is asked for.
    #[must_use]
    pub fn steps(self, lane: Lane) -> Box<dyn Iterator<Item = Step>> {
        match self {
            Self::New => Box::new(lane.filter(|step| step.new)),
            Self::Repeats => {
                // The one lane of a plan numbers its new events without gaps.
                let stored = lane.clone().find(|step| step.new).map_or(0, |next| next.number);
                Box::new((0..stored).cycle().map(|number| Step { number, new: false }))
            }
            Self::Mix => Box::new(lane),
        }
    }
}

impl OwnStore {
    /// Makes one.
    ///
    /// # Errors
    /// When the temporary directory cannot hold one.
    pub fn make(durability: Durability) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("sekali-parts-")?;
        let url = format!("sqlite:{}", directory.path().join("log.db").display());
        let mut settings = load(None, &Overrides { store: Some(url), ..Overrides::default() })?;
        settings.store.durability = durability;
        let engine = Arc::new(SqliteStore::open(&settings)?);
        Ok(Self { settings, engine, _directory: directory })
    }
}

impl Group {
    /// The events of these steps, as they come out of a body.
    ///
    /// # Errors
    /// When one of them is not valid.
    pub fn of(plan: Plan, steps: &[Step], settings: &Settings) -> anyhow::Result<Self> {
        let body = Form::Lines.body(plan, steps)?;
        Self::of_events(parse(&body, Form::Lines, limits(settings))?, steps)
    }

    /// The events that were made of these steps.
    ///
    /// # Errors
    /// When a topic's name is not valid.
    pub fn of_events(events: Vec<StoreEvent>, steps: &[Step]) -> anyhow::Result<Self> {
        Ok(Self { batches: batches(events)?, new: steps.iter().filter(|step| step.new).count() })
    }

    /// Appends the events in one commit.
    ///
    /// # Errors
    /// When the store does not take them, or takes another number of them for new than the plan does.
    pub fn append(&self, writer: &mut dyn Writer) -> anyhow::Result<()> {
        let findings = writer.append(&self.batches.iter().collect::<Vec<_>>(), NOW)?;
        self.check(&findings)
    }

    /// Compares findings with the plan.
    ///
    /// # Errors
    /// When another number of events is new.
    pub fn check(&self, findings: &[Vec<Finding>]) -> anyhow::Result<()> {
        let verdicts: Vec<_> = findings.iter().flatten().filter_map(Finding::verdict).collect();
        let accepted = accepted(&verdicts);
        ensure!(accepted == self.new, "{accepted} events were new, and by the plan {}", self.new);
        Ok(())
    }
}

/// Stores so many of the next events of a lane.
///
/// # Errors
/// As [`Group::of`] and [`Group::append`].
pub fn fill(
    writer: &mut dyn Writer,
    plan: Plan,
    lane: &mut Lane,
    events: usize,
    settings: &Settings,
) -> anyhow::Result<()> {
    let steps: Vec<_> = lane.take(events).collect();
    steps.chunks(FILL_EVENTS).try_for_each(|steps| Group::of(plan, steps, settings)?.append(writer))
}

/// How many of these verdicts say that their event is new.
pub fn accepted<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> usize {
    verdicts.into_iter().filter(|verdict| matches!(verdict, Verdict::Accepted { .. })).count()
}

/// Reads the events of a body of the workload.
///
/// # Errors
/// When one of them is not valid.
pub fn parse(body: &str, form: Form, limits: intake::Limits) -> anyhow::Result<Vec<StoreEvent>> {
    let parsed = intake::events(body.as_bytes(), form.format(), limits)?;
    ensure!(parsed.invalid.is_empty(), "the workload has invalid events: {:?}", parsed.invalid[0]);
    Ok(parsed.valid)
}

/// The bounds of a body, as the server takes them from its settings.
#[must_use]
pub fn limits(settings: &Settings) -> intake::Limits {
    let limits = &settings.limits;
    intake::Limits {
        items: limits.batch_events,
        item_bytes: limits.event,
        depth: limits.depth,
        extra_fields: false,
    }
}

/// Shares events out by topic, each topic's in their order.
fn batches(events: Vec<StoreEvent>) -> anyhow::Result<Vec<Batch>> {
    let mut topics: BTreeMap<Topic, Vec<StoreEvent>> = BTreeMap::new();
    for event in events {
        if let Some(of_topic) = topics.get_mut(event.topic()) {
            of_topic.push(event);
        } else {
            let topic = Topic::parse(event.topic()).map_err(|fault| anyhow!("{}", fault.as_str()))?;
            topics.insert(topic, vec![event]);
        }
    }
    Ok(topics.into_iter().map(|(topic, of_topic)| Batch { topic, events: of_topic }).collect())
}

#[cfg(test)]
mod tests {
    use sekali::store::Engine;

    use super::*;

    const PLAN: Plan = Plan::new(SEED, 4);

    #[test]
    fn every_form_holds_the_same_events() {
        let steps: Vec<_> = Lane::new(SEED, 0, 1).take(50).collect();
        let limits = limits(&load(None, &Overrides::default()).unwrap());
        let read = |form: Form| parse(&form.body(PLAN, &steps).unwrap(), form, limits).unwrap();
        let [array, object, lines] = Form::ALL.map(read);
        assert_eq!(array.len(), 50);
        assert!(array == object && array == lines);
    }

    #[test]
    fn each_kind_of_request_gets_the_verdicts_that_it_says() {
        for (kind, new) in [(Kind::New, EVENTS), (Kind::Repeats, 0), (Kind::Mix, EVENTS * 4 / 5)] {
            let store = OwnStore::make(Durability::Relaxed).unwrap();
            let mut writer = store.engine.open_writer().unwrap();
            let mut lane = Lane::new(SEED, 0, 1);
            fill(writer.as_mut(), PLAN, &mut lane, 5000, &store.settings).unwrap();
            let steps: Vec<_> = kind.steps(lane).take(EVENTS).collect();
            let mut group = Group::of(PLAN, &steps, &store.settings).unwrap();
            assert_eq!(group.new, new, "{kind:?}");
            assert_eq!(group.batches.iter().map(|batch| batch.events.len()).sum::<usize>(), EVENTS);
            group.append(writer.as_mut()).unwrap();
            // What was new is stored now.
            assert_eq!(group.append(writer.as_mut()).is_err(), new > 0, "{kind:?}");
            group.new = 0;
            group.append(writer.as_mut()).unwrap();
        }
    }
}
