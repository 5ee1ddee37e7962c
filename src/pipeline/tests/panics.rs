//! Panics of every actor, and of the store within a commit, in the middle of their work and under load: only requests that
//! were on their way then may fail, everything comes back, nothing is lost, nothing is doubled. Now and then the whole
//! pipeline stops, or just ends, and starts again on the same file.
//!
//! `SEKALI_CRASH_ROUNDS=500` makes as many panics (default 24), `SEKALI_CRASH_SEED` repeats a plan: what is sent and
//! where the panics are. What the threads do between the two is not repeated.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::on_file::{PATIENCE, end, once_free, open, settings_for};
use super::{event, publish};
use crate::config::{Settings, TopicSettings};
use crate::domain::{Topic, Verdict};
use crate::metrics::{ActorLabels, Metrics};
use crate::pipeline::{Pipeline, PublishError};
use crate::store::{Doctor, Engine, Key, Order, PageQuery, Reader};
use crate::testing::history::{self, Attempt, History, Stored};
use crate::testing::plan::{Plan, Pool};
use crate::testing::say::{given, say};
use crate::testing::{Moment, arm};

/// Panics where nothing else is said: a multiple of `MOMENTS`.
const ROUNDS: usize = 24;

/// Panics on one store: its events are read again and again.
const ROUNDS_PER_STORE: usize = 60;

const MOMENTS: [Moment; 8] = [
    Moment::Share,
    Moment::Decide,
    Moment::Commit,
    Moment::Settle,
    Moment::Write,
    Moment::Learn,
    Moment::Compare,
    Moment::Judge,
];

/// Requests that are on their way at once.
const PRODUCERS: usize = 8;

/// Consumers of which one dies: fewer than there are lanes, so that they are retired and waited for all the time, or
/// enough of them, so that it is missed.
const CONSUMERS: [usize; 3] = [2, 8, 100];

/// Caches that forget, groups that leave others waiting, seals
/// and merges.
fn small(home: &TempDir, consumers: usize) -> Settings {
    let mut settings = settings_for(home);
    settings.router.consumers = consumers;
    settings.topics.insert("busy-0".to_owned(), TopicSettings { lanes: Some(3), keys_per_topic: None });
    (settings.cache.keys, settings.cache.keys_per_topic) = (500, 100);
    (settings.store.seal_keys, settings.store.commit_events) = (1_000, 300);
    settings
}

/// A log on a file.
struct Running {
    pipeline: Pipeline,
    metrics: Arc<Metrics>,
}

/// When a panic was on its way: from just before it until whatever died with it is gone.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Instant,
    to: Instant,
}

impl Running {
    fn start(settings: &Settings, engine: Arc<dyn Engine>) -> Self {
        let metrics = Arc::new(Metrics::new());
        let pipeline = Pipeline::start(settings, engine, Arc::clone(&metrics)).unwrap();
        Self { pipeline, metrics }
    }

    /// Lets a thread panic at a moment, after it has passed it so many times.
    async fn strike(&self, at: Moment, shard: usize, passes: usize) -> Window {
        // The threads of the shards come first, then the writer's, then the comparer's.
        let shards = self.pipeline.shards();
        let thread = match at {
            Moment::Share => 0,
            Moment::Decide => shard % shards,
            Moment::Commit | Moment::Settle | Moment::Write | Moment::Learn => shards,
            Moment::Compare | Moment::Judge => shards + 1,
        };
        let (tell, mut told) = mpsc::unbounded_channel();
        assert!(self.pipeline.0.threads.lock().unwrap()[thread].spawn_fn(move || arm(at, passes, tell)));
        Window { from: told.recv().await.unwrap(), to: told.recv().await.unwrap() }
    }

    fn restarts(&self, actor: &'static str) -> u64 {
        self.metrics.actor_restarts.get_or_create(&ActorLabels { actor }).get()
    }
}

/// Producers that run.
struct Load<'a> {
    pipeline: &'a Pipeline,
    stopped: Cell<bool>,
    answered: Cell<usize>,
    moved: Notify,
}

/// A request that was sent, and what became of it.
struct Request {
    sent: Instant,
    answered: Instant,
    error: Option<PublishError>,
    attempts: Vec<Attempt>,
}

impl<'a> Load<'a> {
    fn new(pipeline: &'a Pipeline) -> Self {
        Self { pipeline, stopped: Cell::new(false), answered: Cell::new(0), moved: Notify::new() }
    }

    /// Sends by a plan, one request after the other, and again what has failed, until it is told to stop.
    async fn produce(&self, mut plan: Plan) -> Vec<Request> {
        let mut requests = Vec::new();
        let mut failed = None;
        while !self.stopped.get() {
            let batch = failed.take().unwrap_or_else(|| plan.batch());
            let events = batch.iter().map(|(topic, id, payload)| event(topic, id, payload)).collect();
            let sent = Instant::now();
            let outcome = if plan.hangs_up() {
                publish(self.pipeline, events).now_or_never()
            } else {
                Some(publish(self.pipeline, events).await)
            };
            let answered = Instant::now();
            let (mut verdicts, error) = match outcome {
                Some(Ok(verdicts)) => {
                    assert_eq!(verdicts.len(), batch.len(), "a verdict for each event");
                    self.answered.set(self.answered.get() + 1);
                    self.moved.notify_waiters();
                    (Some(verdicts.into_iter()), None)
                }
                Some(Err(error)) => {
                    failed = Some(batch.clone());
                    (None, Some(error))
                }
                None => (None, None),
            };
            let attempt = |(topic, id, payload)| {
                let verdict = verdicts.as_mut().and_then(Iterator::next).map(said);
                Attempt { topic, id, payload, verdict, at: answered }
            };
            let attempts = batch.into_iter().map(attempt).collect();
            requests.push(Request { sent, answered, error, attempts });
            // One that hung up has waited for nothing.
            tokio::task::yield_now().await;
        }
        requests
    }

    /// Waits until so many more requests are answered.
    async fn more(&self, requests: usize) {
        let enough = self.answered.get() + requests;
        while self.answered.get() < enough {
            self.moved.notified().await;
        }
    }
}

fn said(verdict: Verdict) -> history::Verdict {
    match verdict {
        Verdict::Accepted { seq } => history::Verdict::Accepted { seq },
        Verdict::Duplicate { seq, conflict } => history::Verdict::Duplicate { seq, conflict },
        Verdict::Refused(_) => panic!("nothing limits topics"),
    }
}

/// A store under test, and all that is known of it.
struct Case {
    rng: Rng,
    seed: u64,
    home: TempDir,
    history: History,
    pool: Pool,
    seen: Seen,
}

/// What all rounds have seen.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: usize,
    failed: usize,
    /// Requests that were on their way during a panic, and were answered as if there had been none.
    spared: usize,
    restarts: [u64; 4],
}

impl Case {
    fn new(seed: u64) -> Self {
        let (home, history, pool) = (tempfile::tempdir().unwrap(), History::default(), Pool::default());
        Self { rng: Rng::with_seed(seed), seed, home, history, pool, seen: Seen::default() }
    }

    /// A new store.
    fn begin_anew(&mut self) {
        self.seen.acknowledged += std::mem::take(&mut self.history).acknowledged();
        self.pool.lock().unwrap().clear();
        self.home = tempfile::tempdir().unwrap();
    }

    /// Lets producers send while something happens; gives what they sent, and what the happening gave.
    async fn send<T>(
        &mut self,
        log: &Running,
        happening: impl AsyncFnOnce(&Load<'_>) -> T,
    ) -> (Vec<Request>, T) {
        let load = Load::new(&log.pipeline);
        let plans: Vec<_> = (0..PRODUCERS).map(|_| Plan::new(self.rng.fork(), &self.pool)).collect();
        let producers = join_all(plans.into_iter().map(|plan| load.produce(plan)));
        let happens = async {
            let given = happening(&load).await;
            load.stopped.set(true);
            given
        };
        let both = async { tokio::join!(producers, happens) };
        let (requests, given) = timeout(PATIENCE, both).await.expect("everyone is answered in time");
        (requests.into_iter().flatten().collect(), given)
    }

    /// One panic under load.
    ///
    /// invariant 5: a request fails only if it was on its way while something died.
    async fn panic(&mut self, log: &Running, at: Moment) {
        let (before, shard) = (self.rng.usize(1..10), self.rng.usize(..8));
        // Of some moments there is one an event, of others one a request or a group.
        let passes = match at {
            Moment::Decide | Moment::Settle | Moment::Write => self.rng.usize(..200),
            Moment::Share | Moment::Commit | Moment::Learn => self.rng.usize(..6),
            // A few of a hundred events.
            Moment::Compare | Moment::Judge => self.rng.usize(..20),
        };
        let (requests, window) = self
            .send(log, async |load| {
                load.more(before).await;
                let window = log.strike(at, shard, passes).await;
                // It comes back.
                load.more(PRODUCERS).await;
                window
            })
            .await;
        let of_store = matches!(at, Moment::Write | Moment::Learn);
        for request in requests {
            let met = request.sent <= window.to && request.answered >= window.from;
            match &request.error {
                Some(error) => {
                    let right = match error {
                        PublishError::Unavailable(_) => of_store,
                        PublishError::ActorFailed => !of_store,
                        _ => false,
                    };
                    assert!(met && right, "SEKALI_CRASH_SEED={}: {at:?}: {error:?}, met: {met}", self.seed);
                    self.seen.failed += 1;
                }
                None => self.seen.spared += usize::from(met),
            }
            self.history.add(request.attempts);
        }
    }

    /// A panic at each moment, then the end of the pipeline: a clean one, or one under load.
    async fn cycle(&mut self, moments: &[Moment], is_clean: bool) {
        let consumers = CONSUMERS[self.rng.usize(..CONSUMERS.len())];
        let settings = small(&self.home, consumers);
        let engine = open(&settings).await;
        self.check(&*engine.reader()).await;
        let log = Running::start(&settings, engine);
        for at in moments {
            self.panic(&log, *at).await;
        }
        let count = |of: &[Moment]| moments.iter().filter(|at| of.contains(at)).count() as u64;
        assert_eq!(log.restarts("router"), count(&[Moment::Share]));
        assert_eq!(log.restarts("writer"), count(&[Moment::Commit, Moment::Settle]));
        assert_eq!(log.restarts("comparer"), count(&[Moment::Compare, Moment::Judge]));
        assert_eq!(log.metrics.commit_failures.get(), count(&[Moment::Write, Moment::Learn]));
        // One that would have been retired before it is missed is not started again.
        let (missed, died) = (log.restarts("consumer"), count(&[Moment::Decide]));
        assert!(missed == died || consumers < 100 && missed < died, "{missed} of {died}");
        for (sum, actor) in self.seen.restarts.iter_mut().zip(["router", "consumer", "writer", "comparer"]) {
            *sum += log.restarts(actor);
        }
        if is_clean {
            log.pipeline.stop().await;
            assert_eq!(log.pipeline.budget().events_in_flight(), 0);
        } else {
            let (requests, ()) = self
                .send(&log, async |load| {
                    load.more(PRODUCERS).await;
                    end(&log.pipeline).await;
                })
                .await;
            self.history.add(requests.into_iter().flat_map(|request| request.attempts));
        }
    }

    /// Checks everything that a reader can see.
    async fn check(&mut self, reader: &dyn Reader) {
        let mut total = 0;
        for topic in self.history.topics() {
            let events = read(reader, &topic).await;
            total += events.len() as u64;
            let seed = self.seed;
            self.history
                .check(&topic, events)
                .unwrap_or_else(|what| panic!("SEKALI_CRASH_SEED={seed}: {what}"));
        }
        assert_eq!(reader.totals().await.unwrap().counts.accepted, total);
        let pool = self.pool.lock().unwrap().clone();
        for (topic, event_id, _) in (0..20).filter_map(|_| self.rng.choice(&pool)) {
            let key = Key { topic: Topic::parse(topic).unwrap(), event_id: event_id.clone() };
            let found = reader.lookup(vec![key]).await.unwrap()[0].map(|found| found.seq);
            assert_eq!(found, self.history.seq_of(topic, event_id), "{topic} {event_id}");
        }
    }

    /// Checks a store that is stopped, from the outside.
    async fn examine(&mut self) {
        let settings = small(&self.home, 1);
        let engine = open(&settings).await;
        self.check(&*engine.reader()).await;
        drop(engine);
        let doctor = once_free(|| Doctor::open(&settings)).await;
        let report = doctor.inspect(&|_| {}).unwrap();
        assert!(report.is_healthy(), "SEKALI_CRASH_SEED={}: {report:?}", self.seed);
    }
}

/// All events of a topic.
async fn read(reader: &dyn Reader, topic: &str) -> Vec<Stored> {
    let mut events: Vec<Stored> = Vec::new();
    loop {
        let topic = Topic::parse(topic).unwrap();
        let first = events.len() as u64 + 1;
        let query = PageQuery { topic, first, last: u64::MAX, limit: 10_000, order: Order::Ascending };
        let page = reader.page(query).await.unwrap().events;
        if page.is_empty() {
            return events;
        }
        let stored =
            |seq: u64, id: &str, payload: &str| Stored { seq, id: id.into(), payload: payload.into() };
        events.extend(page.iter().map(|at| stored(at.seq, at.event.event_id(), at.event.payload())));
    }
}

// invariants 1 to 6: whatever dies, and wherever it stands.
#[actix::test]
async fn panics_under_load_fail_only_who_was_on_the_way_and_lose_nothing() {
    let seed = given("SEKALI_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = given("SEKALI_CRASH_ROUNDS").unwrap_or(ROUNDS);
    say(&format!("panics: {rounds} rounds, SEKALI_CRASH_SEED={seed}"));
    let mut case = Case::new(seed);
    let mut left = rounds;
    while left > 0 {
        let mut on_this_store = left.min(ROUNDS_PER_STORE);
        left -= on_this_store;
        while on_this_store > 0 {
            let count = on_this_store.min(MOMENTS.len());
            let is_clean = case.rng.bool();
            case.cycle(&MOMENTS[..count], is_clean).await;
            on_this_store -= count;
        }
        case.examine().await;
        case.begin_anew();
    }
    let Seen { acknowledged, failed, spared, restarts: [router, consumer, writer, comparer] } = case.seen;
    say(&format!(
        "panics: {rounds} rounds, {acknowledged} acknowledged events, none lost, none stored twice; of the requests that \
         met a panic {failed} failed and {spared} did not; started again: router {router}, consumer {consumer}, \
         writer {writer}, comparer {comparer}"
    ));
    assert!(rounds < ROUNDS || (spared > 0 && failed > 0), "the panics met nobody");
}
