//! What `/metrics` reads when it is asked: the pipeline, the store, and some topics.

use std::sync::{Mutex, PoisonError};

use super::state::State;
use super::topics::TOPICS_MAX;
use crate::domain::{Counts, Topic};
use crate::metrics::{Sample, TopicSample};
use crate::store::{StoreError, TopicSources};

/// The topics that have labels of their own: chosen when they are first seen, and then for as long as the process runs,
/// so that no counter goes back.
#[derive(Debug)]
pub(super) struct Shown {
    most: usize,
    state: Mutex<Chosen>,
}

#[derive(Debug, Default)]
struct Chosen {
    topics: Vec<Topic>,
    /// What was said of all others.
    other: Counts,
}

impl Shown {
    /// At most so many.
    pub(super) fn new(most: usize) -> Self {
        Self { most, state: Mutex::default() }
    }
}

/// How things are now. What of the store cannot be read is left out: the rest may say why.
pub(super) async fn sample(state: &State) -> Sample {
    let mut sample = state.pipeline.sample();
    match state.reader.sample().await {
        Ok(store) => sample.store = Some(store),
        Err(error) => tracing::debug!(%error, "the metrics lack those of the store"),
    }
    match topics(state).await {
        Ok((topics, other)) => (sample.topics, sample.other_topics) = (topics, Some(other)),
        Err(error) => tracing::debug!(%error, "the metrics lack those of topics"),
    }
    sample
}

/// The topics with labels of their own, and all others together.
async fn topics(state: &State) -> Result<(Vec<TopicSample>, Counts), StoreError> {
    let mut samples = Vec::new();
    for topic in choose(state).await? {
        match state.reader.sources(topic.clone()).await {
            Ok(found) => samples.extend(found.map(sample_of)),
            // The others are as good as before.
            Err(StoreError::Damaged(cause)) => {
                tracing::warn!(
                    topic = topic.as_str(),
                    cause,
                    "the metrics lack a topic: stored data is damaged"
                );
            }
            Err(error) => return Err(error),
        }
    }
    // After the topics, so that what came meanwhile is no less than nothing.
    let all = state.reader.totals().await?.counts;
    let mut shown = Counts::default();
    for TopicSample { sources, other, .. } in &samples {
        sources.iter().map(|(_, counts)| *counts).chain([*other]).for_each(|counts| shown += counts);
    }
    let mut chosen = state.shown.state.lock().unwrap_or_else(PoisonError::into_inner);
    // What came meanwhile is said to be of others, once; a counter does not take that back.
    chosen.other = Counts {
        accepted: rest(all.accepted, shown.accepted, chosen.other.accepted),
        duplicates: rest(all.duplicates, shown.duplicates, chosen.other.duplicates),
        conflicts: rest(all.conflicts, shown.conflicts, chosen.other.conflicts),
        rejected: 0,
    };
    Ok((samples, chosen.other))
}

/// What is not shown of all, and no less than before.
fn rest(all: u64, shown: u64, before: u64) -> u64 {
    all.saturating_sub(shown).max(before)
}

/// Fills free places with the busiest of the topics that a list begins with.
async fn choose(state: &State) -> Result<Vec<Topic>, StoreError> {
    let before = state.shown.state.lock().unwrap_or_else(PoisonError::into_inner).topics.clone();
    if before.len() >= state.shown.most {
        return Ok(before);
    }
    let mut listed = state.reader.topics(None, TOPICS_MAX).await?;
    listed.sort_by_key(|found| std::cmp::Reverse(found.counts.received()));
    let mut chosen = state.shown.state.lock().unwrap_or_else(PoisonError::into_inner);
    for found in listed {
        if chosen.topics.len() < state.shown.most && !chosen.topics.contains(&found.topic) {
            chosen.topics.push(found.topic);
        }
    }
    Ok(chosen.topics.clone())
}

fn sample_of(found: TopicSources) -> TopicSample {
    TopicSample {
        lateness: found.lateness(),
        topic: found.topic.topic.to_string(),
        sources: found.named.into_iter().map(|(source, counts)| (source, counts.counts())).collect(),
        other: found.other.counts(),
    }
}
