//! The progress bar of `publish`, on a terminal only, and what is said beside it.

use std::cell::Cell;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::input::InputPlace;
use super::sender::{CONFLICTS_NAMED, Conflict, Listener};
use crate::api::EventFault;
use crate::cli::output::{self, thousands};
use crate::client::ClientError;

const REDRAW: Duration = Duration::from_millis(200);

/// So many rejected events are named on a terminal: a file that holds something else has one on each line.
const NAMED: u64 = 20;

/// A bar of the bytes sent, or of an unknown whole.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Rejected events so far.
    rejected: Cell<u64>,
    /// How many of them are named.
    named: u64,
    /// Conflicts so far.
    conflicts: Cell<usize>,
    /// The user knows what happens while there is no server.
    advised: Cell<bool>,
}

impl Progress {
    /// A bar for an input of so many bytes. It stays away where standard error is no terminal.
    pub(super) fn new(size: Option<u64>) -> Self {
        let (bar, template) = match size {
            Some(bytes) => {
                (ProgressBar::new(bytes), "[{elapsed}] {wide_bar} {bytes}/{total_bytes} {msg} events")
            }
            None => (ProgressBar::new_spinner(), "[{elapsed}] {spinner} {bytes} {msg} events"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(REDRAW);
        let named = if stderr().is_terminal() { NAMED } else { u64::MAX };
        Self { bar, rejected: Cell::new(0), named, conflicts: Cell::new(0), advised: Cell::new(false) }
    }

    /// So many bytes more are sent, and so many events in all.
    pub(super) fn sent(&self, bytes: usize, events: u64) {
        self.bar.inc(bytes as u64);
        self.bar.set_message(thousands(events));
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn talk(&self, text: &str) {
        self.bar.suspend(|| output::talk(text));
    }
}

impl Listener for Progress {
    fn rejected(&self, place: InputPlace, fault: &EventFault) {
        let before = self.rejected.replace(self.rejected.get() + 1);
        if before >= self.named {
            if before == self.named {
                self.talk(
                    "further rejected events are counted, and named where standard error is a file (2> FILE)",
                );
            }
            return;
        }
        let field = fault.field.as_deref().unwrap_or("the event");
        self.talk(&format!("rejected: {place}: {field}: {} ({})", fault.detail, fault.code));
    }

    fn conflicts(&self, conflict: &Conflict) {
        let before = self.conflicts.replace(self.conflicts.get() + 1);
        if before >= CONFLICTS_NAMED {
            if before == CONFLICTS_NAMED {
                self.talk("further conflicts are counted");
            }
            return;
        }
        let Conflict { place, topic, event_id, seq } = conflict;
        self.talk(&format!(
            "conflict: {place}: topic {topic}, event_id {event_id}: stored before with another payload (seq {seq})"
        ));
    }

    fn halved(&self, error: &ClientError, events: usize) {
        self.talk(&format!("{error}; sending the {} events in two requests", thousands(events as u64)));
    }

    fn again(&self, error: &ClientError, delay: Duration) {
        self.talk(&format!("{error}; trying again in {:.1} s", delay.as_secs_f64()));
        if matches!(error, ClientError::Unreachable { .. }) && !self.advised.replace(true) {
            self.talk("it waits for a server as long as --give-up-after says; --url or SEKALI_URL names another one");
        }
    }
}
