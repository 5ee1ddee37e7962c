//! What every handler may hold: the way to read, the way into the pipeline, limits and counters. Nothing that writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::answers::{Answers, Room};
use super::failure::Failure;
use super::follow::Followers;
use super::pause::Pauses;
use super::reads::Reads;
use super::scrape::Shown;
use crate::config::{Limits, Server, Settings};
use crate::domain::Address;
use crate::intake;
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::store::{News, Reader};
use crate::throttle::Throttle;

/// Shared by all workers.
pub struct State {
    pub(super) reads: Reads,
    pub(super) news: Arc<News>,
    pub(super) followers: Followers,
    pub(super) answers: Arc<Answers>,
    pub(super) pauses: Pauses,
    pub(super) pipeline: Pipeline,
    pub(super) metrics: Arc<Metrics>,
    pub(super) server: Server,
    pub(super) limits: Limits,
    pub(super) shown: Shown,
    /// Whether the log is told that the store cannot be read.
    pub(super) unread: Throttle,
    /// Whether clients of the first version are served.
    pub(super) first_version: bool,
    stopping: AtomicBool,
}

impl State {
    /// The state of a server that starts now.
    #[must_use]
    pub fn new(
        settings: &Settings,
        reader: Arc<dyn Reader>,
        news: Arc<News>,
        pipeline: Pipeline,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            reads: Reads::new(reader, settings),
            news,
            followers: Followers::new(settings.limits.followers, settings.limits.followers_per_address),
            answers: Arc::new(Answers::new(settings, Arc::clone(&metrics))),
            pauses: Pauses::default(),
            pipeline,
            metrics,
            server: settings.server.clone(),
            limits: settings.limits.clone(),
            shown: Shown::new(&settings.metrics),
            unread: Throttle::default(),
            first_version: settings.compat.first_version,
            stopping: AtomicBool::new(false),
        }
    }

    /// From now on every new request is answered 503 and its connection closed, and who follows a topic is told the end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.followers.stop();
    }

    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Room for a page of an answer to this address. Where there is none, pages that followers only keep
    /// for others are dropped first.
    ///
    /// # Errors
    /// As [`Answers::page`].
    pub(super) fn room_of_page(&self, address: Address) -> Result<Room, Failure> {
        self.answers.page(address).or_else(|_| {
            self.followers.shed();
            self.answers.page(address)
        })
    }

    pub(super) fn intake_limits(&self) -> intake::Limits {
        intake::Limits {
            items: self.limits.batch_events,
            item_bytes: self.limits.event,
            depth: self.limits.depth,
            extra_fields: self.first_version,
        }
    }
}
