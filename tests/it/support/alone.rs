//! Turns of tests that share the machine: attacks and floods run alone, tests with short deadlines
//! beside each other.
//!
//! `cargo test` runs the tests of one program on several threads. An attack loads every core, so
//! that a victim, a rate or a deadline that another test measures beside it says nothing.

use std::ops::Deref;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::new(());

/// A turn without any other test that takes a turn; it lasts until it is dropped.
#[must_use]
pub(crate) struct Alone {
    _turn: RwLockWriteGuard<'static, ()>,
}

/// Something that is used while no test is [`alone`].
pub(crate) struct Calm<T> {
    inner: T,
    _turn: RwLockReadGuard<'static, ()>,
}

/// Waits for a turn of its own. A thread that already holds a turn never gets another one.
pub(crate) fn alone() -> Alone {
    // A test that failed in its turn leaves nothing behind that another one could see.
    Alone { _turn: MACHINE.write().unwrap_or_else(PoisonError::into_inner) }
}

/// Waits until no test is [`alone`], and makes something to be used while that is so. A thread that
/// already holds a turn may never get another one.
pub(crate) fn calm<T>(make: impl FnOnce() -> T) -> Calm<T> {
    let turn = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    Calm { inner: make(), _turn: turn }
}

impl<T> Deref for Calm<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}
