//! The limit of the log: at most so many lines a second of each kind, then a count of those that were left out.
//!
//! A kind is a place in the code. So every line that a client can cause is bounded, whoever writes it, and one kind never
//! hides another. Lines of a target that `log.level` sets to debug or trace are not bounded: each of them was asked for.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Filter};

use crate::throttle::Throttle;

/// Lines of one kind in a period.
const LINES_MAX: u32 = 100;

/// How long that is, and how often it is said what was left out.
const PERIOD: Duration = Duration::from_secs(1);

/// The longest text that names a kind, in bytes.
const NAME_MAX: usize = 200;

/// A filter that lets through what another one does, up to the limit.
pub(super) struct Limited<F> {
    inner: F,
    /// Which targets were asked for at debug.
    verbose: Targets,
    kinds: Arc<Kinds>,
}

/// What was written of each kind. There are as many as places in the code.
pub(super) struct Kinds {
    all: RwLock<HashMap<Identifier, Arc<Kind>>>,
    most: u32,
    period: Duration,
}

struct Kind {
    throttle: Throttle,
    level: Level,
    /// The text of the first line that was left out.
    name: OnceLock<String>,
}

/// What was left out of one kind.
#[derive(Debug, PartialEq, Eq)]
struct Omitted {
    level: Level,
    lines: String,
    count: u64,
}

impl<F> Limited<F> {
    /// Limits a filter that was made of this text.
    pub(super) fn new(inner: F, level: &str) -> Self {
        Self::with(inner, level, Kinds { all: RwLock::default(), most: LINES_MAX, period: PERIOD })
    }

    fn with(inner: F, level: &str, kinds: Kinds) -> Self {
        // A filter with more than targets and levels names no target here, and so bounds all lines.
        Self { inner, verbose: level.parse().unwrap_or_default(), kinds: Arc::new(kinds) }
    }

    /// What it has counted.
    pub(super) fn kinds(&self) -> Arc<Kinds> {
        Arc::clone(&self.kinds)
    }
}

impl Kinds {
    fn admits(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        let kind = self.of(metadata);
        let admitted = kind.throttle.admits();
        if !admitted {
            kind.name.get_or_init(|| name(event));
        }
        admitted
    }

    fn of(&self, metadata: &'static Metadata<'static>) -> Arc<Kind> {
        let place = metadata.callsite();
        if let Some(kind) = self.all.read().unwrap_or_else(PoisonError::into_inner).get(&place) {
            return Arc::clone(kind);
        }
        let throttle = Throttle::new(self.most, self.period);
        let kind = Arc::new(Kind { throttle, level: *metadata.level(), name: OnceLock::new() });
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(place).or_insert(kind))
    }

    /// What was left out since this was asked last.
    fn take_omitted(&self) -> Vec<Omitted> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let omitted = all.values().filter_map(|kind| {
            let count = kind.throttle.take_omitted();
            let lines = || kind.name.get().cloned().unwrap_or_default();
            (count > 0).then(|| Omitted { level: kind.level, lines: lines(), count })
        });
        omitted.collect()
    }

    /// Says what was left out. These lines pass the limit: there is one a kind at most in a period.
    fn report(&self) {
        for Omitted { level, lines, count: omitted } in self.take_omitted() {
            match level {
                Level::ERROR => tracing::error!(target: REPORTS, lines, omitted, "{TOO_MANY}"),
                Level::WARN => tracing::warn!(target: REPORTS, lines, omitted, "{TOO_MANY}"),
                _ => tracing::info!(target: REPORTS, lines, omitted, "{TOO_MANY}"),
            }
        }
    }
}

/// What the lines about lines are written as.
const REPORTS: &str = "sekali::log";

const TOO_MANY: &str = "lines were left out of the log: more than 100 of one kind in a second";

/// The text of a line, as far as it is kept.
fn name(event: &Event<'_>) -> String {
    let mut message = Message(String::new());
    event.record(&mut message);
    let Message(mut text) = message;
    text.truncate(text.floor_char_boundary(NAME_MAX));
    text
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

impl<S: Subscriber, F: Filter<S>> Filter<S> for Limited<F> {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        self.inner.enabled(metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let interest = self.inner.callsite_enabled(metadata);
        // A place that is always enabled is never asked for again, and then the subscriber does not expect that one of its
        // lines is left out.
        if interest.is_always() { Interest::sometimes() } else { interest }
    }

    fn event_enabled(&self, event: &Event<'_>, context: &Context<'_, S>) -> bool {
        let target = event.metadata().target();
        self.inner.event_enabled(event, context)
            && (target == REPORTS
                || self.verbose.would_enable(target, &Level::DEBUG)
                || self.kinds.admits(event))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.inner.max_level_hint()
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.inner.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.inner.on_record(id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.inner.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.inner.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.inner.on_close(id, context);
    }
}

/// Says once a second what was left out, and for the last time when it is dropped.
pub(super) struct Reporter {
    /// Dropped, it ends the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    /// Begins to report of these kinds. Where the system has no thread to give, nothing is reported.
    pub(super) fn start(kinds: Arc<Kinds>) -> Self {
        let (stop, stopped) = channel();
        let thread = thread::Builder::new().name("sekali-log".to_owned());
        let spawned = thread.spawn(move || run(&kinds, &stopped));
        Self { stop: Some(stop), thread: spawned.ok() }
    }
}

fn run(kinds: &Kinds, stopped: &Receiver<()>) {
    while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
        kinds.report();
    }
    kinds.report();
}

impl Drop for Reporter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It can only have panicked, and said so.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read, pipe};
    use std::sync::Mutex;

    use tracing::subscriber::{DefaultGuard, set_default};
    use tracing_subscriber::layer::{Layer, SubscriberExt};
    use tracing_subscriber::{EnvFilter, fmt, registry};

    use super::*;

    /// A log of this thread whose period does not end.
    fn log(level: &str, most: u32) -> (Arc<Kinds>, DefaultGuard, PipeReader) {
        let (reading, writing) = pipe().unwrap();
        let kinds = Kinds { all: RwLock::default(), most, period: Duration::MAX };
        let limited = Limited::with(EnvFilter::try_new(level).unwrap(), level, kinds);
        let counted = limited.kinds();
        let lines = fmt::layer().with_ansi(false).with_writer(Mutex::new(writing)).with_filter(limited);
        (counted, set_default(registry().with(lines)), reading)
    }

    fn said((guard, mut reading): (DefaultGuard, PipeReader)) -> String {
        drop(guard);
        let mut text = String::new();
        reading.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn each_kind_has_its_own_limit_and_what_is_left_out_is_counted_exactly() {
        let (kinds, guard, reading) = log("info", 10);
        for number in 0..25 {
            tracing::warn!(number, "one kind");
            if number < 12 {
                tracing::info!(number, "another kind");
            }
            tracing::debug!("not asked for");
        }
        tracing::error!("a rare one");
        let mut omitted = kinds.take_omitted();
        omitted.sort_by_key(|of| of.count);
        let of = |level, lines: &str, count| Omitted { level, lines: lines.to_owned(), count };
        assert_eq!(omitted, [of(Level::INFO, "another kind", 2), of(Level::WARN, "one kind", 15)]);
        assert_eq!(kinds.take_omitted(), [], "said once");
        tracing::warn!("one kind, at another place");
        kinds.report();
        let text = said((guard, reading));
        let count = |words| text.lines().filter(|line| line.contains(words)).count();
        assert_eq!(
            [count("one kind number="), count("another kind"), count("a rare one")],
            [10, 10, 1],
            "{text}"
        );
        assert_eq!([count("at another place"), count("left out"), count("not asked")], [1, 0, 0], "{text}");
    }

    #[test]
    fn a_report_passes_the_limit_and_names_the_lines() {
        let (kinds, guard, reading) = log("warn", 1);
        for round in 0..3 {
            for _ in 0..=round {
                tracing::warn!("a kind of line");
            }
            kinds.report();
        }
        let text = said((guard, reading));
        let reports: Vec<_> = text.lines().filter(|line| line.contains("left out")).collect();
        assert_eq!(reports.len(), 2, "{text}");
        for (report, omitted) in reports.into_iter().zip(["omitted=2", "omitted=3"]) {
            let whole = [" WARN sekali::log:", "lines=\"a kind of line\"", omitted];
            assert!(whole.iter().all(|part| report.contains(part)), "{report}");
        }
    }

    #[test]
    fn lines_of_a_target_that_was_asked_for_at_debug_are_not_limited() {
        let (kinds, guard, reading) = log("info,asked=debug", 1);
        for _ in 0..5 {
            tracing::info!(target: "asked", "asked for");
            tracing::info!(target: "other", "not so");
        }
        assert_eq!(kinds.take_omitted().len(), 1);
        let text = said((guard, reading));
        assert_eq!((text.matches("asked for").count(), text.matches("not so").count()), (5, 1));
    }
}
