//! Random histories: whatever the caches, lanes and faults, the answers are those of the simplest store.

use std::collections::HashMap;

use futures_util::future::join_all;
use proptest::prelude::*;

use super::on_file::{end, open, settings_for};
use super::scripted::{Fault, ScriptedStore};
use super::{Started, event, settings, start, start_on};
use crate::config::Settings;
use crate::domain::{Event, StoredEvent, Topic, Verdict};
use crate::store::contract::append_and_compare;
use crate::store::{Batch, Engine, MemoryStore, Order, PageQuery};

const PAYLOADS: [&str; 3] = [r#"{"n":1}"#, r#"{"n":1.0}"#, r#"{"n":2}"#];

type Sent = Vec<(u8, u8, u8)>;

fn request() -> impl Strategy<Value = Sent> {
    prop::collection::vec((0..3_u8, 0..9_u8, 0..3_u8), 1..9)
}

fn events(sent: &Sent) -> Vec<Event> {
    let make = |(topic, id, payload): &(u8, u8, u8)| {
        event(&format!("topic {topic}"), &id.to_string(), PAYLOADS[*payload as usize])
    };
    sent.iter().map(make).collect()
}

/// What the memory engine alone says to the same events, one by one.
fn expected(oracle: &MemoryStore, sent: &Sent) -> Vec<Verdict> {
    let mut writer = oracle.open_writer().unwrap();
    let mut append = |event: Event| {
        let batch = Batch { topic: Topic::parse(event.topic()).unwrap(), events: vec![event] };
        append_and_compare(oracle, &mut *writer, (&batch, 0))
    };
    events(sent).into_iter().flat_map(&mut append).collect()
}

fn run<F: Future>(work: F) -> F::Output {
    actix::System::new().block_on(work)
}

async fn one_after_the_other(log: &Started, requests: &[Sent]) -> Result<(), TestCaseError> {
    let oracle = MemoryStore::new(None);
    for sent in requests {
        let verdicts = log.publish(events(sent)).await;
        prop_assert_eq!(verdicts, Ok(expected(&oracle, sent)));
        let totals = log.store.reader().totals().await.unwrap();
        prop_assert_eq!(totals, oracle.reader().totals().await.unwrap(), "read your writes");
    }
    Ok(())
}

/// All at once and with faults: each key is accepted at most once for all who were answered, everyone who was
/// answered names the same seq, and what was answered is stored.
async fn all_at_once(log: &Started, requests: &[Sent]) -> Result<(), TestCaseError> {
    let answers = join_all(requests.iter().map(|sent| log.publish(events(sent)))).await;
    let mut seqs: HashMap<(u8, u8), u64> = HashMap::new();
    let mut accepted: HashMap<(u8, u8), usize> = HashMap::new();
    for (sent, verdicts) in requests.iter().zip(answers) {
        for ((topic, id, _), verdict) in sent.iter().zip(verdicts.into_iter().flatten()) {
            let (seq, new) = match verdict {
                Verdict::Accepted { seq } => (seq, 1),
                Verdict::Duplicate { seq, .. } => (seq, 0),
                Verdict::Refused(_) => return Err(TestCaseError::fail("nothing limits topics")),
            };
            prop_assert_eq!(*seqs.entry((*topic, *id)).or_insert(seq), seq);
            *accepted.entry((*topic, *id)).or_default() += new;
        }
    }
    prop_assert!(accepted.values().all(|times| *times <= 1), "{:?}", accepted);
    for ((topic, id), seq) in seqs {
        let topic = Topic::parse(&format!("topic {topic}")).unwrap();
        let stored =
            log.store.reader().event(crate::store::Key { topic, event_id: id.to_string() }).await.unwrap();
        prop_assert_eq!(stored.map(|stored| stored.seq), Some(seq));
    }
    Ok(())
}

fn fault() -> impl Strategy<Value = Fault> {
    let faults = [Fault::Failed, Fault::UnknownStored, Fault::UnknownLost, Fault::Panic, Fault::PanicStored];
    prop::sample::select(faults.to_vec())
}

/// What happens to a log on a file.
#[derive(Debug, Clone)]
enum Step {
    /// A request, of which the commit, if it needs one, may fail.
    Publish(Sent, Option<Fault>),
    /// A clean stop and a start.
    Restart,
    /// An end without a stop, and a start.
    End,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let publish = (request(), prop::option::weighted(0.3, fault()))
        .prop_map(|(sent, fault)| Step::Publish(sent, fault));
    prop::collection::vec(prop_oneof![6 => publish, 1 => Just(Step::Restart), 1 => Just(Step::End)], 1..16)
}

/// Takes every step, and compares each answer and all that is stored with what the memory engine says.
async fn on_a_file(settings: &Settings, steps: &[Step]) -> Result<(), TestCaseError> {
    let oracle = MemoryStore::new(None);
    let mut log = start_on(settings, ScriptedStore::over(open(settings).await));
    let mut was_unknown = false;
    for step in steps {
        match step {
            Step::Publish(sent, fault) => {
                // After two unknown outcomes in a row the store rests before it is opened again:
                // `opening` tries that.
                let fault = fault.filter(|fault| !was_unknown || *fault == Fault::Failed);
                log.store.fail_next(fault.as_slice());
                let verdicts = log.publish(events(sent)).await;
                let is_met = log.store.heal() < fault.as_slice().len();
                prop_assert_eq!(verdicts.is_err(), is_met, "{:?} {:?}", step, verdicts);
                was_unknown = is_met && fault != Some(Fault::Failed) || was_unknown && verdicts.is_err();
                let is_stored = matches!(fault, Some(Fault::UnknownStored | Fault::PanicStored));
                if !is_met {
                    prop_assert_eq!(verdicts, Ok(expected(&oracle, sent)));
                } else if is_stored {
                    expected(&oracle, sent);
                }
            }
            Step::Restart | Step::End => {
                match step {
                    Step::Restart => log.pipeline.stop().await,
                    _ => end(&log.pipeline).await,
                }
                drop(log);
                log = start_on(settings, ScriptedStore::over(open(settings).await));
            }
        }
        for topic in 0..3 {
            let (found, right) = (stored(&log.store, topic).await, stored(&oracle, topic).await);
            prop_assert_eq!(found, right, "after {:?}", step);
        }
    }
    log.pipeline.stop().await;
    Ok(())
}

/// The seqs, ids and payloads of a topic.
async fn stored(engine: &dyn Engine, topic: u8) -> Vec<(u64, String, String)> {
    let topic = Topic::parse(&format!("topic {topic}")).unwrap();
    let query = PageQuery { topic, first: 1, last: u64::MAX, limit: 99, order: Order::Ascending };
    let page = engine.reader().page(query).await.unwrap().events;
    let parts = |at: &StoredEvent| (at.seq, at.event.event_id().to_owned(), at.event.payload().to_owned());
    page.iter().map(parts).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    // invariant 7: with any cache, or none, the answers are those of the store.
    #[test]
    fn caches_and_consumers_change_no_answer(
        requests in prop::collection::vec(request(), 1..20), keys in 0..6_usize, consumers in 1..4_usize,
    ) {
        let mut settings = settings();
        settings.cache.keys = keys;
        settings.cache.keys_per_topic = 3;
        settings.router.consumers = consumers;
        run(async move {
            let log = start(&settings);
            let result = one_after_the_other(&log, &requests).await;
            log.pipeline.stop().await;
            result
        })?;
    }

    // invariant 3: whatever fails, a key is accepted once.
    #[test]
    fn lanes_and_faults_and_concurrency_never_accept_twice(
        requests in prop::collection::vec(request(), 1..20), faults in prop::collection::vec(fault(), 0..4),
        lanes in 1..4_usize,
    ) {
        let mut settings = settings();
        settings.router.lanes = lanes;
        run(async move {
            let log = start(&settings);
            log.store.fail_next(&faults);
            let result = all_at_once(&log, &requests).await;
            log.pipeline.stop().await;
            result
        })?;
    }

    // invariant 3: and invariant 5: over faults, stops and ends, with caches that forget and an index that is sealed all
    // the time.
    #[test]
    fn any_history_on_a_file_is_that_of_the_simplest_store(
        steps in steps(), keys in 0..6_usize, consumers in 1..4_usize,
    ) {
        let home = tempfile::tempdir().unwrap();
        let mut settings = settings_for(&home);
        (settings.cache.keys, settings.cache.keys_per_topic) = (keys, 3);
        (settings.router.consumers, settings.store.seal_keys) = (consumers, 10);
        run(on_a_file(&settings, &steps))?;
    }
}
