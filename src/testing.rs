//! What the tests of the layers share: ears for the log, moments of a thread's work at which a test lets it panic, and what the tests
//! through a real socket use too. Only tests compile this and what calls it.

use std::cell::RefCell;
use std::io::{self, PipeReader, Read, Write, pipe};
use std::sync::Mutex;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;
use tracing::Level;
use tracing::subscriber::DefaultGuard;

#[path = "../tests/it/crash/history.rs"]
#[expect(
    dead_code,
    reason = "only a power cut makes it forget, only nodes have readers and counts of their own"
)]
pub(crate) mod history;
#[path = "../tests/it/crash/plan.rs"]
pub(crate) mod plan;
#[path = "../tests/it/support/say.rs"]
pub(crate) mod say;

/// What is logged on this thread from now on. It must fit into a pipe, 64 KiB.
pub(crate) struct Heard {
    reading: PipeReader,
    hearing: DefaultGuard,
}

impl Heard {
    /// Begins to hear, at this level and above.
    pub(crate) fn at(level: Level) -> Self {
        let (reading, writing) = pipe().unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(Mutex::new(writing))
            .finish();
        Self { reading, hearing: tracing::subscriber::set_default(subscriber) }
    }

    /// Ends, and gives the lines.
    pub(crate) fn said(mut self) -> String {
        drop(self.hearing);
        let mut said = String::new();
        self.reading.read_to_string(&mut said).unwrap();
        said
    }
}

/// Standard output as the harness of the tests captures it: what a test that passes prints stays
/// unseen.
pub(crate) fn stdout() -> Captured {
    Captured(|text| {
        #[expect(clippy::print_stdout, reason = "the harness captures what macros print, and nothing else")]
        {
            print!("{text}");
        }
    })
}

/// Standard error, likewise.
pub(crate) fn stderr() -> Captured {
    Captured(|text| {
        #[expect(clippy::print_stderr, reason = "the harness captures what macros print, and nothing else")]
        {
            eprint!("{text}");
        }
    })
}

/// What writes text with a macro.
pub(crate) struct Captured(fn(&str));

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

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
    /// The comparer has read a stored payload, and compares it with that of an event.
    Compare,
    /// The comparer settles an event, after it has counted it with others.
    Judge,
}

impl Moment {
    /// The first moment of whatever the same thread takes up next: whoever panicked at this one is gone by then.
    fn next(self) -> Self {
        match self {
            Self::Share | Self::Decide => self,
            Self::Commit | Self::Settle | Self::Write | Self::Learn => Self::Commit,
            Self::Compare | Self::Judge => Self::Compare,
        }
    }
}

/// What a thread is told to do.
struct Order {
    at: Moment,
    passes: usize,
    tell: UnboundedSender<Instant>,
    is_struck: bool,
}

thread_local! {
    static ORDER: RefCell<Option<Order>> = const { RefCell::new(None) };
}

/// Lets this thread panic, once, after it has passed the moment so many times. It tells when: just before, and when it
/// has taken up something else.
pub(crate) fn arm(at: Moment, passes: usize, tell: UnboundedSender<Instant>) {
    ORDER.set(Some(Order { at, passes, tell, is_struck: false }));
}

/// Panics where this thread was told to.
pub(crate) fn pass(moment: Moment) {
    let strikes = ORDER.with_borrow_mut(|slot| {
        let Some(order) = slot.as_mut().filter(|order| order.at == moment) else { return false };
        if order.passes > 0 {
            order.passes -= 1;
            return false;
        }
        order.tell.send(Instant::now()).unwrap();
        if order.is_struck {
            *slot = None;
            return false;
        }
        (order.at, order.is_struck) = (moment.next(), true);
        true
    });
    assert!(!strikes, "on purpose: {moment:?}");
}
