//! What the tests of the layers share: moments of a thread's work at which a test lets it panic, and what the tests
//! through a real socket use too. Only tests compile this and what calls it.

use std::cell::RefCell;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

#[path = "../tests/it/crash/history.rs"]
#[expect(dead_code, reason = "only a power cut makes it forget")]
pub(crate) mod history;
#[path = "../tests/it/crash/plan.rs"]
pub(crate) mod plan;
#[path = "../tests/it/support/say.rs"]
pub(crate) mod say;

/// A place in the code that a thread passes again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The router passes on a part of a request, and has others left.
    Share,
    /// A consumer asks for an event, after others of the same request were marked.
    Decide,
    /// The writer has taken a group out of what waits, and not committed it.
    Commit,
    /// The writer settles an event of a group that is stored, after others were settled.
    Settle,
    /// The store writes an event, within the transaction.
    Write,
    /// The store takes over into memory what it has committed.
    Learn,
}

struct Armed {
    at: Moment,
    passes: usize,
    struck: UnboundedSender<Instant>,
}

thread_local! {
    static ARMED: RefCell<Option<Armed>> = const { RefCell::new(None) };
}

/// Lets this thread panic, once, after it has passed the moment so many times; `struck` is told just before.
pub(crate) fn arm(at: Moment, passes: usize, struck: UnboundedSender<Instant>) {
    ARMED.set(Some(Armed { at, passes, struck }));
}

/// Panics where this thread was told to.
pub(crate) fn pass(moment: Moment) {
    let due = ARMED.with_borrow_mut(|slot| {
        let armed = slot.as_mut().filter(|armed| armed.at == moment)?;
        match armed.passes.checked_sub(1) {
            Some(left) => {
                armed.passes = left;
                None
            }
            None => slot.take(),
        }
    });
    if let Some(Armed { struck, .. }) = due {
        // Nobody may listen any more.
        let _ = struck.send(Instant::now());
        panic!("on purpose: {moment:?}");
    }
}
