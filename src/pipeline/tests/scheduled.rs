//! The locks that a consumer and the writer share, as a model can schedule them: the real ones, and before each step a
//! moment at which any other thread of the model may go first. Outside a model they are the real ones and nothing else.

use std::cell::Cell;
use std::hash::{BuildHasher, Hash};
use std::sync::{LockResult, MutexGuard, TryLockError};

use dashmap::Entry;
use dashmap::mapref::one::RefMut;
use shuttle::scheduler::Scheduler;
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::{Config, MaxSteps, Runner};

/// Far more than any model takes: threads that wait for each other for ever take as many.
const STEPS_MAX: usize = 50_000;

thread_local! {
    /// Whether this thread runs a model. All threads of a model take turns on this one.
    static MODELLED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a model once for each schedule that the scheduler makes up.
pub(super) fn explore(scheduler: impl Scheduler + 'static, model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    let _modelled = Modelled::begin();
    Runner::new(scheduler, config).run(model);
}

/// While this lives the thread runs a model.
struct Modelled;

impl Modelled {
    fn begin() -> Self {
        MODELLED.set(true);
        Self
    }
}

impl Drop for Modelled {
    fn drop(&mut self) {
        MODELLED.set(false);
    }
}

/// A moment at which another thread of the model may go first.
pub(super) fn moment() {
    if MODELLED.get() {
        AtomicBool::new(false).load(Ordering::SeqCst);
    }
}

/// In a model, lets other threads go on until a lock is free. Then the real one is taken, at once.
fn wait_until(is_free: impl Fn() -> bool) {
    moment();
    while MODELLED.get() && !is_free() {
        shuttle::thread::yield_now();
    }
}

#[derive(Default)]
pub(in crate::pipeline) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(in crate::pipeline) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        wait_until(|| !matches!(self.0.try_lock(), Err(TryLockError::WouldBlock)));
        self.0.lock()
    }

    pub(in crate::pipeline) fn get_mut(&mut self) -> LockResult<&mut T> {
        self.0.get_mut()
    }
}

pub(in crate::pipeline) struct DashMap<K, V, S>(dashmap::DashMap<K, V, S>);

impl<K: Copy + Eq + Hash, V, S: BuildHasher + Clone> DashMap<K, V, S> {
    pub(in crate::pipeline) fn with_capacity_and_hasher_and_shard_amount(
        capacity: usize,
        hasher: S,
        shards: usize,
    ) -> Self {
        Self(dashmap::DashMap::with_capacity_and_hasher_and_shard_amount(capacity, hasher, shards))
    }

    pub(in crate::pipeline) fn entry(&self, key: K) -> Entry<'_, K, V> {
        self.wait_for(key);
        self.0.entry(key)
    }

    pub(in crate::pipeline) fn get_mut(&self, key: &K) -> Option<RefMut<'_, K, V>> {
        self.wait_for(*key);
        self.0.get_mut(key)
    }

    pub(in crate::pipeline) fn insert(&self, key: K, value: V) -> Option<V> {
        self.wait_for(key);
        self.0.insert(key, value)
    }

    pub(in crate::pipeline) fn remove(&self, key: &K) -> Option<(K, V)> {
        self.wait_for(*key);
        self.0.remove(key)
    }

    pub(in crate::pipeline) fn remove_if(
        &self,
        key: &K,
        condition: impl FnOnce(&K, &V) -> bool,
    ) -> Option<(K, V)> {
        self.wait_for(*key);
        self.0.remove_if(key, condition)
    }

    pub(in crate::pipeline) fn len(&self) -> usize {
        self.0.len()
    }

    /// Waits until the shard of a key is free.
    fn wait_for(&self, key: K) {
        wait_until(|| self.0.try_entry(key).is_some());
    }
}
