//! What the caches of a request's lanes could not decide: gathered, so that a writer gets one message a request,
//! however many topics it has.

use std::sync::{Arc, Mutex, PoisonError};

use super::lane::Part;
use super::reply::Reply;
use super::writers::Writers;
use crate::store::Batch;

/// A handle on what one request passes on. When the last lane drops its handle, everything goes to the writers.
#[derive(Clone)]
pub(super) struct Undecided(Arc<Gathered>);

struct Gathered {
    parts: Mutex<Vec<(Batch, Part)>>,
    reply: Reply,
    writers: Arc<Writers>,
}

impl Undecided {
    /// Nothing yet, of the request with this reply.
    pub(super) fn new(reply: Reply, writers: Arc<Writers>) -> Self {
        Self(Arc::new(Gathered { parts: Mutex::default(), reply, writers }))
    }

    /// The reply of the request.
    pub(super) fn reply(&self) -> &Reply {
        &self.0.reply
    }

    /// Adds what lanes could not decide.
    pub(super) fn add(&self, parts: Vec<(Batch, Part)>) {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner).extend(parts);
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        let parts = std::mem::take(self.parts.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !parts.is_empty() {
            self.writers.append(parts);
        }
    }
}
