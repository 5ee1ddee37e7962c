//! The words of the HTTP contract as types: what the server writes and the client reads. No behaviour.

mod first_version;
mod problem;
mod publish;
mod read;
mod stats;

pub use first_version::{FirstVersionAnswer, FirstVersionStats};
pub use problem::{Code, EventError, EventFault, PROBLEM_JSON, Problem};
pub use publish::{EventInput, EventResult, PublishAnswer};
pub use read::{
    Event, Found, HISTORY_HEADER, Key, Page, Repeats, Source, SourceStats, TopicDetail, TopicPage, TopicStats,
};
pub use stats::{Health, Stats, Totals};
