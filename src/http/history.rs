//! invariant 11: cursors that name a history, and whether their seqs still name the events that the client has read.

use super::failure::Failure;
use crate::api::Code;
use crate::domain::{HistoryId, Kinship, Topic};
use crate::store::{Reader, TopicCounts};

/// How far a client has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The seq of the event that it names.
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

/// Checks that the events up to the cursor are the same in its history and in the current one; gives
/// what is counted of the topic.
///
/// # Errors
/// [`Code::HistoryChanged`] with the last seq that both share.
pub(super) async fn check(
    reader: &dyn Reader,
    topic: &Topic,
    cursor: Option<&Cursor>,
) -> Result<Option<TopicCounts>, Failure> {
    let Some(Cursor { seq, history: Some(history) }) = cursor else {
        return Ok(reader.topic(topic.clone()).await?);
    };
    // Named before anything is compared with it: see `Reader::history`.
    let current = reader.history().await?;
    let kinship = reader.kinship(topic.clone(), history.clone()).await?;
    let counts = reader.topic(topic.clone()).await?;
    let last_seq = counts.as_ref().map_or(0, |counted| counted.last_seq);
    let shared = match kinship {
        Kinship::Same => last_seq,
        Kinship::SharedUpTo(shared) => shared.min(last_seq),
    };
    if *seq <= shared { Ok(counts) } else { Err(Failure::history_changed(&current, (*seq, history), shared)) }
}

/// A follower's events are of another history than its cursor.
pub(super) fn ended() -> Failure {
    let detail = "the store was restored; connect again with Last-Event-ID to learn where to resume";
    Failure::new(Code::HistoryChanged, detail)
}

/// A reader's page is of another history than the answer.
pub(super) fn changed_meanwhile() -> Failure {
    Failure::new(Code::StoreUnavailable, "the store was restored while it was read; send the request again")
}
