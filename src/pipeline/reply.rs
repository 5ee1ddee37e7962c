//! One reply for a whole request, filled in by every lane that has a part in it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::budget::Permit;
use super::error::PublishError;
use super::new_topics::Made;
use crate::domain::{Address, Counts, RequestId, Verdict};
use crate::metrics::Metrics;

/// What the waiting request gets.
pub(super) type Outcome = Result<Vec<Verdict>, PublishError>;

/// A handle on the reply of a request. When the last handle is dropped the reply is sent: with all verdicts,
/// or with an error where one is missing, whoever held it and however it went away.
#[derive(Clone)]
pub(super) struct Reply(Arc<Shared>);

struct Shared {
    slots: Mutex<Slots>,
    answer: Option<oneshot::Sender<Outcome>>,
    metrics: Arc<Metrics>,
    /// Given back when the events are decided, also where the caller has hung up.
    permit: Option<Permit>,
}

struct Slots {
    verdicts: Vec<Option<Verdict>>,
    error: Option<PublishError>,
}

impl Reply {
    /// The reply of a request with so many events, and where it arrives.
    pub(super) fn new(
        events: usize,
        permit: Permit,
        metrics: Arc<Metrics>,
    ) -> (Self, oneshot::Receiver<Outcome>) {
        let (answer, receiver) = oneshot::channel();
        let slots = Mutex::new(Slots { verdicts: vec![None; events], error: None });
        (Self(Arc::new(Shared { slots, answer: Some(answer), metrics, permit: Some(permit) })), receiver)
    }

    /// Fills in verdicts by the index of their event.
    pub(super) fn decide(&self, verdicts: impl IntoIterator<Item = (u32, Verdict)>) {
        let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, verdict) in verdicts {
            let slot = &mut slots.verdicts[index as usize];
            debug_assert!(slot.is_none(), "an event is decided once");
            *slot = Some(verdict);
        }
    }

    /// A number that no other reply has as long as this one is not sent.
    pub(super) fn number(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// The address that the request counts for.
    pub(super) fn address(&self) -> Address {
        self.0.permit.as_ref().map_or(Address::UNKNOWN, Permit::address)
    }

    /// The id of the request in the log.
    pub(super) fn request(&self) -> Option<&RequestId> {
        self.0.permit.as_ref()?.request()
    }

    /// The topics that the address of the request made.
    pub(super) fn made(&self) -> Option<&Made> {
        self.0.permit.as_ref().map(Permit::made)
    }

    /// Says why some events will have no verdict.
    pub(super) fn fail(&self, error: &PublishError) {
        let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.error.get_or_insert_with(|| error.clone());
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let slots = self.slots.get_mut().unwrap_or_else(PoisonError::into_inner);
        let decided: Counts = slots.verdicts.iter().flatten().collect();
        // Before the answer, so that who has it finds it in the counts, and room for what it sends next.
        self.metrics.count(decided);
        drop(self.permit.take());
        let all: Option<Vec<Verdict>> = std::mem::take(&mut slots.verdicts).into_iter().collect();
        let outcome = all.ok_or_else(|| slots.error.take().unwrap_or(PublishError::ActorFailed));
        if let Some(answer) = self.answer.take() {
            // Nobody receives it where the caller has hung up.
            let _ = answer.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Budget;

    fn reply(events: usize) -> (Reply, oneshot::Receiver<Outcome>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        let permit = Budget::new(1, 1).permit(Address::UNKNOWN);
        let (reply, receiver) = Reply::new(events, permit, Arc::clone(&metrics));
        (reply, receiver, metrics)
    }

    #[test]
    fn it_is_sent_when_the_last_part_is_decided() {
        let (reply, mut receiver, metrics) = reply(3);
        let other = reply.clone();
        reply.decide([(2, Verdict::Accepted { seq: 3 }), (0, Verdict::Accepted { seq: 1 })]);
        drop(reply);
        assert!(receiver.try_recv().is_err(), "a part is missing");
        other.decide([(1, Verdict::Duplicate { seq: 9, conflict: true })]);
        drop(other);
        let verdicts = receiver.try_recv().unwrap().unwrap();
        assert_eq!(verdicts[1], Verdict::Duplicate { seq: 9, conflict: true });
        assert_eq!(verdicts[2], Verdict::Accepted { seq: 3 });
        assert_eq!(metrics.counts(), Counts { accepted: 2, duplicates: 1, conflicts: 1, rejected: 0 });
    }

    #[test]
    fn a_part_that_was_dropped_undecided_is_an_error_and_not_silence() {
        let (reply, mut receiver, metrics) = reply(2);
        reply.decide([(0, Verdict::Accepted { seq: 1 })]);
        drop(reply);
        assert_eq!(receiver.try_recv().unwrap(), Err(PublishError::ActorFailed));
        assert_eq!(metrics.counts().accepted, 1, "what was stored is counted all the same");
    }

    #[test]
    fn the_first_error_is_told() {
        let (reply, mut receiver, _) = reply(1);
        reply.fail(&PublishError::Unavailable("full".to_owned()));
        reply.fail(&PublishError::Stopping);
        drop(reply);
        assert_eq!(receiver.try_recv().unwrap(), Err(PublishError::Unavailable("full".to_owned())));
    }
}
