//! The way of an event from a request to the disk, and of its verdict back.
//!
//! ```text
//!     Pipeline      publish(events) -> verdicts; one reply for the whole request      reply
//!        | Publish
//!     Router        shares out by topic and lane; starts, finds, retires consumers    router, roster
//!        | Consume
//!     Consumers     one for each lane, spread over the shards' threads; each asks     consumer, lane, hot_cache
//!        |          its hot cache: stored -> duplicate; being committed -> waits;
//!        | Append   unknown -> marked and passed on                                   undecided
//!     Writer        one, on its own thread: group commits; settles lanes and replies  writer, pending, commit
//!        |          (a shared store takes several, each with topics of its own)       writers, opening, health
//!        | Compare  duplicates whose payloads have other bytes
//!     Comparer      one, on its own thread: reads and compares them after the commit   comparer, comparing
//!        |
//!     Store
//! ```
//!
//! An actor that panics takes down what it held, which is answered with an error, and is started again by
//! whoever finds its address closed (`keeper`).

mod budget;
mod commit;
mod comparer;
mod comparing;
mod consumer;
mod error;
mod health;
mod hot_cache;
mod keeper;
mod lane;
mod messages;
mod new_topics;
mod opening;
mod pending;
mod pool;
mod reply;
mod roster;
mod router;
mod shares;
mod space;
mod undecided;
mod writer;
mod writers;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix::prelude::*;

pub use budget::{Budget, Permit};
pub use error::PublishError;

use self::comparer::Comparer;
use self::comparing::Judge;
use self::health::Health;
use self::hot_cache::{Hasher, Room};
use self::keeper::Keeper;
use self::lane::Shared;
use self::messages::{Halt, Publish};
use self::reply::Reply;
use self::router::{Router, Wiring};
use self::space::Room as DiskRoom;
use self::writers::Writers;
use crate::config::Settings;
use crate::domain::{Counts, Event, Verdict};
use crate::metrics::{COMPARER, CONSUMER, Metrics, ROUTER, Sample, SpaceLimits, WRITER};
use crate::store::{Engine, Reader, StoreError, Tally};

/// The one way to write: a cheap handle on the actors.
#[derive(Clone)]
pub struct Pipeline(Arc<Inner>);

struct Inner {
    settings: Arc<Settings>,
    router: Keeper<Router>,
    writers: Arc<Writers>,
    comparer: Arc<Keeper<Comparer>>,
    budget: Budget,
    health: Health,
    tally: Arc<Tally>,
    room: Arc<Room>,
    metrics: Arc<Metrics>,
    durability: &'static str,
    stopping: AtomicBool,
    /// The threads of the actors, until they are stopped.
    threads: Mutex<Vec<Arbiter>>,
}

impl Pipeline {
    /// Starts the actors on an engine. Must be called in an actix system, which it does not outlive.
    ///
    /// # Errors
    /// When the store cannot be opened for writing.
    pub fn start(
        settings: &Settings,
        engine: Arc<dyn Engine>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let settings = Arc::new(settings.clone());
        let (tally, era, durability) = (engine.tally(), engine.era(), engine.durability());
        let health = Health::within(DiskRoom::new(&settings.limits));
        let shards: Vec<Arbiter> = (0..settings.router.shards).map(|_| Arbiter::new()).collect();
        let writer_threads: Vec<Arbiter> = (0..engine.writers()).map(|_| Arbiter::new()).collect();
        let limits = &settings.limits;
        let budget = Budget::new(limits.in_flight_bytes, limits.in_flight_events);
        let comparer_thread = Arbiter::new();
        let comparer = start_comparer(engine.reader(), &budget, &metrics, &comparer_thread);

        let writers = Writers::start(&settings, engine, &health, &metrics, &comparer, &writer_threads)?;
        let writers = Arc::new(writers);
        let room = Arc::new(Room::new(settings.cache.keys));
        let wiring = Wiring {
            settings: Arc::clone(&settings),
            shards: Arc::new(shards.iter().map(Arbiter::handle).collect()),
            room: Arc::clone(&room),
            shared: Shared {
                hasher: Hasher::new(),
                tally: Arc::clone(&tally),
                era,
                metrics: Arc::clone(&metrics),
            },
            writers: Arc::clone(&writers),
        };
        // With the first shard: what the router does with a request is less than waking one more thread.
        let on = wiring.shards[0].clone();
        let start_router = move || {
            let router = Router::new(wiring.clone());
            Router::start_in_arbiter(&on, |_| router)
        };
        let router = Keeper::new(ROUTER, Arc::clone(&metrics), start_router);
        let threads = shards.into_iter().chain(writer_threads).chain([comparer_thread]).collect();
        let threads = Mutex::new(threads);
        let stopping = AtomicBool::new(false);
        Ok(Self(Arc::new(Inner {
            settings,
            router,
            writers,
            comparer,
            budget,
            health,
            tally,
            room,
            metrics,
            durability,
            stopping,
            threads,
        })))
    }

    /// Publishes events and waits until each is decided and durable. Verdicts come in the order of the events.
    /// The events are processed to the end also when the returned future is dropped.
    ///
    /// # Errors
    /// When one of the events is not known to be decided; then any of them may be stored or not.
    pub async fn publish(&self, events: Vec<Event>, permit: Permit) -> Result<Vec<Verdict>, PublishError> {
        if self.0.stopping.load(Ordering::Acquire) {
            return Err(PublishError::Stopping);
        }
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, verdicts) = Reply::new(events.len(), permit, Arc::clone(&self.0.metrics));
        let queued = self.0.metrics.queue(ROUTER, events.len());
        self.0.router.address().do_send(Publish { events, reply, queued });
        verdicts.await.unwrap_or(Err(PublishError::ActorFailed))
    }

    /// Counts invalid events, which never come further than this.
    pub fn reject(&self, events: u64) {
        if events > 0 {
            self.0.tally.reject(events);
            self.0.metrics.count(Counts { rejected: events, ..Counts::default() });
        }
    }

    /// What may be in flight at once.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// How the pipeline is, for the metrics.
    #[must_use]
    pub fn sample(&self) -> Sample {
        let Inner { settings, budget, room, router, writers, comparer, health, metrics, .. } = &*self.0;
        let (limits, keys) = (&settings.limits, settings.cache.keys);
        let consumers = u64::try_from(metrics.consumers.get()).unwrap_or(0);
        Sample {
            in_flight_bytes: (budget.bytes_in_flight() as u64, limits.in_flight_bytes as u64),
            in_flight_events: (budget.events_in_flight() as u64, limits.in_flight_events as u64),
            cache_keys: (keys.saturating_sub(room.left()) as u64, keys as u64),
            actors: vec![
                (ROUTER, router.lives().into()),
                (CONSUMER, consumers),
                (WRITER, writers.alive()),
                (COMPARER, comparer.lives().into()),
            ],
            writable: health.is_good(),
            space: SpaceLimits { free_disk: limits.free_disk, store_bytes: limits.store_bytes.unwrap_or(0) },
            ..Sample::default()
        }
    }

    /// Whether events would find room in the store.
    ///
    /// # Errors
    /// [`PublishError::DiskLow`] and [`PublishError::StoreFull`].
    pub fn look_for_room(&self) -> Result<(), PublishError> {
        self.0.health.room().check()
    }

    /// The lanes of a topic, by the configuration.
    #[must_use]
    pub fn lanes(&self, topic: &str) -> usize {
        self.0.settings.lanes(topic)
    }

    /// The threads that run consumer actors.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.0.settings.router.shards
    }

    /// The durability of the store: `full` or `relaxed`.
    #[must_use]
    pub fn durability(&self) -> &'static str {
        self.0.durability
    }

    /// Whether the store could write when it last tried, and nothing is stopping.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.0.health.is_good() && !self.0.stopping.load(Ordering::Acquire)
    }

    /// Stops: what was published is committed and answered, later publishes fail with
    /// [`PublishError::Stopping`], the store is left with nothing to recover. Waits for what is in flight at
    /// most `server.shutdown_timeout`. A second call does nothing.
    pub async fn stop(&self) {
        if self.0.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        if tokio::time::timeout(self.0.settings.server.shutdown_timeout, self.0.budget.empty()).await.is_err()
        {
            tracing::warn!("stopping with events in flight, whose requests get no answer");
        }
        // First, so that what it counts is stored. Where nothing is in flight, nothing waits there.
        if self.0.comparer.address().send(Halt).await.is_err() {
            tracing::error!("the comparer failed while it was stopped");
        }
        self.0.writers.close().await;
        self.0.comparer.close();
        self.report_lost_counts();
        // From here on nothing holds the engine but the threads, which end now.
        self.0.router.close();
        let threads = std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in &threads {
            thread.stop();
        }
        // Joined, so that the writer is gone when this returns, and with it the last hold on the engine.
        let joined = tokio::task::spawn_blocking(|| threads.into_iter().all(|thread| thread.join().is_ok()));
        if !matches!(joined.await, Ok(true)) {
            tracing::error!("a thread of the pipeline ended with a panic");
        }
    }

    /// Says what is lost where the store did not take the last counts. Nothing of it is in memory for a next start.
    fn report_lost_counts(&self) {
        let lost = self.0.tally.waiting();
        if lost != Counts::default() {
            let Counts { duplicates, conflicts, rejected, .. } = lost;
            tracing::warn!(
                duplicates,
                conflicts,
                rejected,
                "the last counts of duplicates and of rejected events are not known to be stored, and lost where they are not"
            );
        }
    }
}

/// Starts the comparer on a thread.
fn start_comparer(
    reader: Arc<dyn Reader>,
    budget: &Budget,
    metrics: &Arc<Metrics>,
    thread: &Arbiter,
) -> Arc<Keeper<Comparer>> {
    let (of_all, on, for_next) = (budget.clone(), thread.handle(), Arc::clone(metrics));
    let start = move || {
        let judge = Judge::new(of_all.clone());
        let comparer = Comparer::new(judge, Arc::clone(&reader), Arc::clone(&for_next));
        Comparer::start_in_arbiter(&on, |_| comparer)
    };
    Arc::new(Keeper::new(COMPARER, Arc::clone(metrics), start))
}
