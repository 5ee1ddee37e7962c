//! invariant 11: cursors that name a history, and the check that their seqs still name the events that
//! the client has read.

use super::failure::Failure;
use crate::api::Code;
use crate::domain::{HistoryId, Kinship, Topic};
use crate::store::{HISTORIES_MAX, Reader, TopicCounts};

/// How far a client has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The seq of the last event that the client has read.
    pub(super) seq: u64,
    /// The history in which that event has this seq; `None` where the client does not say.
    pub(super) history: Option<HistoryId>,
}

/// Parses the id of a history that came as `name`.
pub(super) fn parse(name: &str, text: &str) -> Result<HistoryId, Failure> {
    HistoryId::parse(text).ok_or_else(|| {
        Failure::parameter(name, "must be the `history` of an earlier answer: letters a to z and digits")
    })
}

/// Checks that the events up to the cursor are the same in its history and in the `current` one, which
/// was read before (see [`Reader::history`]); gives the counts of the topic.
///
/// # Errors
/// [`Code::HistoryChanged`] with the last seq that both share.
pub(super) async fn check(
    reader: &dyn Reader,
    topic: &Topic,
    current: &HistoryId,
    cursor: Option<&Cursor>,
) -> Result<Option<TopicCounts>, Failure> {
    let Some(Cursor { seq, history: Some(history) }) = cursor else {
        return Ok(reader.topic(topic.clone()).await?);
    };
    let kinship = reader.kinship(topic.clone(), history.clone()).await?;
    let counts = reader.topic(topic.clone()).await?;
    let last_seq = counts.as_ref().map_or(0, |counted| counted.last_seq);
    let common_seq = match kinship {
        Kinship::Same => last_seq,
        Kinship::SharedUpTo(shared) => shared.min(last_seq),
        Kinship::Unknown => 0,
    };
    if *seq <= common_seq {
        return Ok(counts);
    }
    let cause = match kinship {
        Kinship::Same => format!(
            "event {seq} of topic {topic} is not in the store: the last event of the topic is {common_seq}"
        ),
        Kinship::SharedUpTo(_) => format!(
            "the history of the store changed: event {seq} of history {history} is not in the current \
             history {current}, which has the same events of topic {topic} up to seq {common_seq}"
        ),
        Kinship::Unknown => format!(
            "the store does not know history {history}: it is the history of another store, or older than \
             the {HISTORIES_MAX} that a store remembers; the current history is {current}"
        ),
    };
    Err(Failure::history_changed(&cause, current, common_seq))
}

/// A follower's events are of another history than its cursor.
pub(super) fn ended() -> Failure {
    let detail = "the history of the store changed; connect again with the last id as Last-Event-ID, and the \
                  answer names the seq to resume after";
    Failure::new(Code::HistoryChanged, detail)
}

/// A reader's page is of another history than the answer.
pub(super) fn changed_meanwhile() -> Failure {
    let detail = "the history of the store changed during the read; send the request again";
    Failure::new(Code::StoreUnavailable, detail)
}
