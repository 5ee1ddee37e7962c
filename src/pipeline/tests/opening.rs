//! A writer that cannot be opened again after an unknown outcome: no group is tried, and the store
//! is not ready.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Level;

use super::faults::batch;
use super::scripted::{Fault, OpeningFault, ScriptedStore};
use super::{accepted, duplicate, event, settings, start};
use crate::metrics::Metrics;
use crate::pipeline::PublishError;
use crate::pipeline::commit::{BatchOutcome, Committer};
use crate::pipeline::health::Health;
use crate::store::{Batch, Engine};
use crate::testing::Heard;

const FAULTS: [OpeningFault; 3] = [OpeningFault::Damaged, OpeningFault::Unavailable, OpeningFault::Panic];

/// The shortest time between two tries to open a store.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// A committer with its writer open.
struct Opened {
    committer: Committer,
    store: ScriptedStore,
    health: Health,
    metrics: Arc<Metrics>,
}

fn opened() -> Opened {
    let (store, health, metrics) = (ScriptedStore::new(), Health::good(), Arc::new(Metrics::new()));
    let mut committer = Committer::new(Arc::new(store.clone()), health.clone(), Arc::clone(&metrics));
    committer.open().unwrap();
    Opened { committer, store, health, metrics }
}

impl Opened {
    /// Commits these batches together.
    fn commit(&mut self, batches: &[Batch]) -> Vec<BatchOutcome> {
        self.committer.commit(&batches.iter().collect::<Vec<_>>())
    }

    /// Commits them until that succeeds.
    fn commit_once_open(&mut self, batches: &[Batch]) -> Vec<BatchOutcome> {
        loop {
            let outcomes = self.commit(batches);
            if outcomes.iter().all(Result::is_ok) {
                return outcomes;
            }
            std::thread::yield_now();
        }
    }
}

fn is_unavailable(outcome: &BatchOutcome) -> bool {
    matches!(outcome, Err(PublishError::Unavailable(_)))
}

// invariant 5: a store that cannot be opened decides nothing, also where damage keeps it from being
// opened.
#[test]
fn a_failed_open_refuses_whole_groups_without_a_try_for_each() {
    for fault in FAULTS {
        let heard = Heard::at(Level::INFO);
        let mut log = opened();
        let batches = ["a", "b", "c"].map(|name| batch((name, "1")));
        log.store.fail_next(&[Fault::UnknownStored]);
        log.store.break_opening(Some(fault));
        let begun = Instant::now();
        for _ in 0..1_000 {
            assert!(log.commit(&batches).iter().all(is_unavailable), "{fault:?}");
            log.committer.maintain();
            assert!(!log.health.is_good(), "{fault:?}: nothing was written since");
        }
        // The first writer, and a try for each wait at most: no bound in time, whatever the machine
        // does.
        let waits = begun.elapsed().as_nanos() / SHORTEST_WAIT.as_nanos();
        let tries = log.store.opened() - 1;
        assert!((1..=2 + waits).contains(&(tries as u128)), "{fault:?}: {tries} tries, {waits} waits");
        assert_eq!(log.store.groups(), [3], "{fault:?}: the first one, and no part of another");
        assert_eq!(
            log.metrics.commit_failures.get(),
            2_000,
            "{fault:?}: the first one, and each that was refused"
        );

        log.store.break_opening(None);
        let outcomes = log.commit_once_open(&batches);
        let verdicts: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap()[0].verdict()).collect();
        assert_eq!(verdicts, [Some(duplicate(1)); 3], "{fault:?}: the store says that they were stored");
        assert!(log.health.is_good(), "{fault:?}");
        let said = heard.said();
        for line in [
            "the outcome of a commit is not known",
            "cannot be opened for writing",
            "open for writing again",
            "the store cannot write",
            "can write again",
        ] {
            assert_eq!(said.matches(line).count(), 1, "{fault:?}: {line}: {said}");
        }
    }
}

#[test]
fn a_store_whose_every_commit_is_unknown_is_not_opened_for_each() {
    let mut log = opened();
    log.store.fail_next(&[Fault::UnknownLost; 1_000]);
    let begun = Instant::now();
    for _ in 0..500 {
        assert!(log.commit(&[batch(("a", "1"))]).iter().all(is_unavailable));
    }
    let waits = begun.elapsed().as_nanos() / SHORTEST_WAIT.as_nanos();
    // The first writer, the one after it at once, then one for each wait.
    assert!(log.store.opened() as u128 <= 3 + waits, "{} writers, {waits} waits", log.store.opened());
    assert!(log.store.heal() > 0, "most of them have met no commit");
    let outcome = log.commit_once_open(&[batch(("a", "1"))]).remove(0);
    assert_eq!(outcome.unwrap()[0].verdict(), Some(accepted(1)));
    // That it worked once makes the next fault one that is met for the first time.
    let opened = log.store.opened();
    log.store.fail_next(&[Fault::UnknownLost]);
    assert!(log.commit(&[batch(("a", "2"))]).iter().all(is_unavailable));
    let outcome = log.commit(&[batch(("a", "2"))]).remove(0);
    assert_eq!(outcome.unwrap()[0].verdict(), Some(accepted(2)));
    assert_eq!(log.store.opened(), opened + 1);
}

// What meets damage proves nothing: the next commit may fail as the last one did.
#[test]
fn damage_under_a_batch_does_not_make_a_failed_store_healthy() {
    let mut log = opened();
    log.store.damage("bad");
    log.store.fail_next(&[Fault::Failed]);
    assert!(log.commit(&[batch(("a", "1"))]).iter().all(is_unavailable));
    let outcome = log.commit(&[batch(("bad", "1"))]).remove(0);
    assert!(matches!(outcome, Err(PublishError::Damaged(_))), "{outcome:?}");
    assert!(!log.health.is_good());
    log.committer.maintain();
    assert!(log.health.is_good(), "a probe was stored");
}

#[test]
fn a_close_tries_once_more_to_open_the_store() {
    for (fault, is_mended) in FAULTS.into_iter().flat_map(|fault| [(fault, false), (fault, true)]) {
        let mut log = opened();
        log.store.fail_next(&[Fault::UnknownLost]);
        log.store.break_opening(Some(fault));
        for _ in 0..3 {
            assert!(log.commit(&[batch(("a", "1"))]).iter().all(is_unavailable), "{fault:?}");
        }
        log.store.tally().reject(7);
        if is_mended {
            log.store.break_opening(None);
        }
        let tries = log.store.opened();
        assert_eq!(
            log.committer.close().is_ok(),
            is_mended,
            "{fault:?}: it says that it is not closed cleanly"
        );
        assert_eq!(log.store.opened(), tries + 1, "{fault:?}");
        assert_eq!(log.store.tally().waiting().rejected, if is_mended { 0 } else { 7 }, "{fault:?}");
    }
}

#[actix::test]
async fn readiness_and_writes_come_back_when_the_store_can_be_opened() {
    for fault in FAULTS {
        let log = start(&settings());
        assert_eq!(log.publish_one("a", "1").await, Ok(accepted(1)));
        log.store.break_opening(Some(fault));
        log.store.fail_next(&[Fault::UnknownLost]);
        let events = || vec![event("a", "2", "{}"), event("b", "1", "{}")];
        for _ in 0..3 {
            let refused = log.publish(events()).await;
            assert!(matches!(refused, Err(PublishError::Unavailable(_))), "{fault:?}: {refused:?}");
            assert!(!log.pipeline.ready(), "{fault:?}");
        }
        assert_eq!(log.publish_one("a", "1").await, Ok(duplicate(1)), "{fault:?}: a cache knows it");
        log.store.break_opening(None);
        log.until(|log| log.pipeline.ready()).await;
        assert_eq!(log.publish(events()).await, Ok(vec![accepted(2), accepted(1)]), "{fault:?}");
        log.pipeline.stop().await;
    }
}

#[actix::test]
async fn a_stop_of_a_store_that_cannot_be_opened_says_which_counts_are_lost() {
    let log = start(&settings());
    assert_eq!(log.publish_one("a", "1").await, Ok(accepted(1)));
    log.store.break_opening(Some(OpeningFault::Damaged));
    log.store.fail_next(&[Fault::UnknownLost]);
    assert!(log.publish_one("a", "2").await.is_err());
    log.pipeline.reject(5);
    let heard = Heard::at(Level::WARN);
    log.pipeline.stop().await;
    let said = heard.said();
    assert!(said.contains("not closed cleanly") && said.contains("on purpose"), "{said}");
    assert!(said.contains("rejected=5"), "{said}");
}
