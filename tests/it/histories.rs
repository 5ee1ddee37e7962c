//! Random histories of requests, decided by the log and by a store in memory alike.

use std::collections::HashMap;

use actix_web::rt::System;
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use sekali::domain::{Event, Parts, Topic, Verdict};
use sekali::store::{Batch, Decision, Engine, Finding, MemoryStore, Order, PageQuery, Repeat, Writer};

use crate::support::events::TIMESTAMP;
use crate::support::{Answer, Log, array, event_with, everything, lines};

const TOPICS: [&str; 3] = ["orders", "größe/%", "c"];

/// The first three mean the same, and so do the next two.
const PAYLOADS: [&str; 6] = [
    r#"{"n":1,"m":[]}"#,
    r#"{"m":[],"n":1.0}"#,
    "{ \"n\" : 10e-1, \"m\" : [ ] }",
    "{}",
    "{ }",
    r#"{"n":"1"}"#,
];

const BROKEN: [&str; 4] = ["7", "{}", r#"{"topic":"orders"}"#, r#"["an","array"]"#];

#[derive(Debug, Clone)]
enum Step {
    Publish { events: Vec<Candidate>, format: Format, skip: bool },
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum Candidate {
    Valid { topic: &'static str, id: u8, payload: &'static str },
    Broken(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Json,
    NdJson,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let valid = (prop::sample::select(&TOPICS[..]), 0..8_u8, prop::sample::select(&PAYLOADS[..]))
        .prop_map(|(topic, id, payload)| Candidate::Valid { topic, id, payload });
    let broken = prop::sample::select(&BROKEN[..]).prop_map(Candidate::Broken);
    let format = prop_oneof![Just(Format::Json), Just(Format::NdJson)];
    let publish = (vec(prop_oneof![12 => valid, 1 => broken], 0..12), format, any::<bool>())
        .prop_map(|(events, format, skip)| Step::Publish { events, format, skip });
    vec(prop_oneof![8 => publish, 1 => Just(Step::Restart)], 1..12)
}

/// Which of the values a payload is.
fn value(payload: &str) -> usize {
    let number = PAYLOADS.iter().position(|known| *known == payload).unwrap();
    [0, 0, 0, 1, 1, 2][number]
}

/// The store in memory, and what it decided.
struct Oracle {
    store: MemoryStore,
    writer: Box<dyn Writer>,
    /// The value that is stored under each topic and id.
    values: HashMap<(&'static str, u8), usize>,
}

impl Oracle {
    fn new() -> Self {
        let store = MemoryStore::new(None);
        let writer = store.open_writer().unwrap();
        Self { store, writer, values: HashMap::new() }
    }

    /// The fate of each event, or how many are invalid where the request is refused.
    fn decide(&mut self, events: &[Candidate], skip: bool) -> Result<Vec<String>, usize> {
        let broken = events.iter().filter(|event| matches!(event, Candidate::Broken(_))).count();
        self.store.tally().reject(broken as u64);
        if broken > 0 && !skip {
            return Err(broken);
        }
        Ok(events.iter().map(|event| self.fate(*event)).collect())
    }

    fn fate(&mut self, candidate: Candidate) -> String {
        let Candidate::Valid { topic, id, payload } = candidate else { return "rejected".to_owned() };
        let event_id = id.to_string();
        let parts = Parts { topic, event_id: &event_id, timestamp: TIMESTAMP, source: "test", payload };
        let batch = Batch { topic: Topic::parse(topic).unwrap(), events: vec![Event::pack(parts)] };
        let now = Timestamp::now();
        let verdict = match self.writer.append(&[&batch], now).unwrap()[0][0] {
            Finding::Decided(Decision { verdict, .. }) => verdict,
            Finding::Differs { seq, .. } => {
                let conflict = self.values[&(topic, id)] != value(payload);
                let repeat = Repeat { source: "test", seq, conflict, late: 0 };
                self.store.tally().count(&batch.topic, now, [repeat].into_iter());
                Verdict::Duplicate { seq, conflict }
            }
        };
        self.values.entry((topic, id)).or_insert_with(|| value(payload));
        match verdict {
            Verdict::Accepted { seq } => format!("accepted {seq}"),
            Verdict::Duplicate { seq, conflict: false } => format!("duplicate {seq}"),
            Verdict::Duplicate { seq, conflict: true } => format!("conflict {seq}"),
            Verdict::Refused(refusal) => panic!("{refusal:?} without a limit"),
        }
    }

    /// Ids and payloads of a topic, in the order of their seqs.
    async fn events(&self, topic: &str) -> Vec<(String, String)> {
        let topic = Topic::parse(topic).unwrap();
        let query = PageQuery { topic, first: 1, last: u64::MAX, limit: 1_000, order: Order::Ascending };
        let page = self.store.reader().page(query).await.unwrap().events;
        page.iter().map(|at| (at.event.event_id().to_owned(), at.event.payload().to_owned())).collect()
    }

    async fn totals(&self) -> [u64; 5] {
        let counts = self.store.reader().totals().await.unwrap().counts;
        [counts.received(), counts.accepted, counts.duplicates, counts.conflicts, counts.rejected]
    }
}

fn text(candidate: &Candidate) -> String {
    match candidate {
        Candidate::Valid { topic, id, payload } => event_with(topic, &id.to_string(), payload),
        Candidate::Broken(text) => (*text).to_owned(),
    }
}

async fn publish(log: &Log, events: &[Candidate], format: Format, skip: bool) -> Answer {
    let path = if skip { "/publish?invalid=skip" } else { "/publish" };
    let texts = events.iter().map(text);
    let (content_type, body) = match format {
        Format::Json => ("application/json", array(texts)),
        Format::NdJson => ("application/x-ndjson", lines(texts)),
    };
    log.send(log.post(path).content_type(content_type), body).await
}

/// Takes every step with the log and with the oracle.
async fn check(config: &str, steps: &[Step]) {
    let (mut log, mut oracle) = (Log::configured(config), Oracle::new());
    for step in steps {
        match step {
            Step::Restart => log = log.restarted_with(config),
            Step::Publish { events, format, skip } => {
                let answer = publish(&log, events, *format, *skip).await;
                compare(&answer, oracle.decide(events, *skip));
            }
        }
        assert_eq!(log.totals("persistent").await, oracle.totals().await, "after {step:?}");
    }
    for topic in TOPICS {
        let encoded = topic.replace('%', "%25").replace('ö', "%C3%B6").replace('ß', "%C3%9F");
        let events = everything(&log, &encoded).await;
        let stored: Vec<_> = oracle.events(topic).await;
        assert_eq!(events.len(), stored.len());
        for (event, (id, payload)) in events.iter().zip(&stored) {
            assert_eq!(event["event_id"], **id);
            assert_eq!(event["payload"], serde_json::from_str::<serde_json::Value>(payload).unwrap());
        }
    }
}

fn compare(answer: &Answer, expected: Result<Vec<String>, usize>) {
    match expected {
        Ok(fates) => {
            let mut found = answer.fates();
            for fate in &mut found {
                if fate.starts_with("rejected ") {
                    "rejected".clone_into(fate);
                }
            }
            assert_eq!(found, fates);
        }
        Err(broken) => {
            let problem = answer.problem(sekali::api::Code::InvalidEvents);
            let mut indexes: Vec<_> = problem.errors.iter().map(|error| error.index).collect();
            indexes.dedup();
            assert_eq!(indexes.len(), broken);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    // invariant 3: whatever the history, a key is stored once.
    #[test]
    fn any_history_is_decided_as_the_store_in_memory_decides_it(steps in steps()) {
        System::new().block_on(check("", &steps));
    }

    // invariant 7: with every cache off, all answers are the same.
    #[test]
    fn any_history_is_decided_alike_without_caches(steps in steps()) {
        System::new().block_on(check("[cache]\nkeys = 0\n[store]\ncommit_events = 3\n", &steps));
    }
}
