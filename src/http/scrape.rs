//! What `/metrics` reads when it is asked: the pipeline, the store, and some topics.

use std::collections::HashMap;
use std::iter;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::activity::Activity;
use super::state::State;
use super::topics::TOPICS_MAX;
use crate::config::Metrics;
use crate::domain::{Address, Counts, Topic};
use crate::metrics::{Sample, TopicSample};
use crate::store::{Reader, StoreError, TopicSources};

/// The time that a topic keeps its labels at least, so that a client that makes other topics busy adds at
/// most `metrics.topics` series and their sources in each of these times.
const KEPT: Duration = Duration::from_hours(1);

/// The longest wait of `/metrics` for a reader of the store. Prometheus gives up after 10 s
/// (`scrape_timeout`), and then has no metrics at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// The topics that have labels of their own, and what is said of all others.
#[derive(Debug)]
pub(super) struct Shown {
    /// `metrics.topic_names`.
    named: Vec<Topic>,
    /// `metrics.topics`: how many there are beside those.
    most: usize,
    state: Mutex<Chosen>,
    activity: Mutex<Activity>,
}

#[derive(Debug, Default)]
struct Chosen {
    /// Since when each of them has labels; those of the configuration are not among them.
    topics: Vec<(Topic, Instant)>,
    said: Option<Said>,
}

/// What was said the last time, which the counters of other topics go on from.
#[derive(Debug)]
struct Said {
    /// The events of all topics.
    all: Counts,
    /// Those of each topic that had labels.
    shown: HashMap<String, Counts>,
    /// Those that were said of all others.
    other: Counts,
}

impl Shown {
    /// Nothing is chosen yet but the topics of the configuration.
    pub(super) fn new(settings: &Metrics) -> Self {
        let named = settings.topic_names.iter().filter_map(|name| Topic::parse(name).ok()).collect();
        let activity = Mutex::new(Activity::new(Instant::now()));
        Self { named, most: settings.topics, state: Mutex::default(), activity }
    }

    /// Notes the events that a request brought, by the topic of each.
    pub(super) fn note<'a>(&self, topics: impl Iterator<Item = &'a str>) {
        if self.most == 0 {
            return;
        }
        let mut topics = topics.peekable();
        let runs = iter::from_fn(|| {
            let (topic, mut events) = (topics.next()?, 1);
            while topics.next_if_eq(&topic).is_some() {
                events += 1;
            }
            Some((topic, events))
        });
        lock(&self.activity).note(runs, Instant::now());
    }

    /// Chooses the topics: those of the configuration, those that had labels before, and the busiest. A
    /// busier topic takes the place of one that had its labels for [`KEPT`]. `listed` are topics for
    /// places that are still free.
    fn choose(&self, listed: impl Iterator<Item = Topic>, now: Instant) -> Vec<Topic> {
        let busiest = lock(&self.activity).busiest(now).into_iter();
        let busiest: Vec<_> = busiest.filter_map(|(name, _)| Topic::parse(&name).ok()).collect();
        let is_named = |topic: &Topic| self.named.contains(topic);
        let place = |topic: &Topic| busiest.iter().position(|other| other == topic);
        let mut chosen = lock(&self.state);
        let topics = &mut chosen.topics;
        let is_kept = |since: &Instant| now.saturating_duration_since(*since) < KEPT;
        // The topics that have to stay first, then the busiest.
        topics.sort_by_key(|(topic, since)| (!is_kept(since), place(topic).unwrap_or(usize::MAX)));
        let fixed = topics.iter().filter(|(_, since)| is_kept(since)).count();
        let mut old: Vec<_> = topics.drain(fixed..).collect();
        for topic in busiest.iter().filter(|topic| !is_named(topic)) {
            if topics.len() < self.most && !topics.iter().any(|(other, _)| other == topic) {
                let before = old.iter().position(|(other, _)| other == topic).map(|at| old.swap_remove(at).1);
                topics.push((topic.clone(), before.unwrap_or(now)));
            }
        }
        // Nothing is busier than those that had labels before; after a start, the rest of the list.
        let rest = old.into_iter().chain(listed.map(|topic| (topic, now)));
        for (topic, since) in rest {
            if topics.len() < self.most
                && !is_named(&topic)
                && !topics.iter().any(|(other, _)| *other == topic)
            {
                topics.push((topic, since));
            }
        }
        self.named.iter().cloned().chain(topics.iter().map(|(topic, _)| topic.clone())).collect()
    }

    /// What is said of all other topics: no less than before, whichever topics have labels now.
    fn others(&self, all: Counts, samples: &[TopicSample]) -> Counts {
        let shown: HashMap<_, _> =
            samples.iter().map(|sample| (sample.topic.clone(), counted(sample))).collect();
        let mut chosen = lock(&self.state);
        // Events of a topic that had labels both times are its own. All others are of others: those of a
        // topic that has labels now for the first time were said so until now.
        let mut own = Counts::default();
        let (before, said) = match &chosen.said {
            None => {
                for counts in shown.values() {
                    own += *counts;
                }
                (Counts::default(), Counts::default())
            }
            Some(Said { all: before, shown: earlier, other }) => {
                for (topic, counts) in &shown {
                    if let Some(earlier) = earlier.get(topic) {
                        own += less(*counts, *earlier);
                    }
                }
                (*before, *other)
            }
        };
        let mut other = less(less(all, before), own);
        other += said;
        chosen.said = Some(Said { all, shown, other });
        other
    }
}

/// Every change under these locks is whole, also where its thread panics afterwards.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The events of a topic.
fn counted(sample: &TopicSample) -> Counts {
    let mut sum = sample.other;
    for (_, counts) in &sample.sources {
        sum += *counts;
    }
    sum
}

/// The difference of counts, and no less than nothing.
fn less(from: Counts, counts: Counts) -> Counts {
    Counts {
        accepted: from.accepted.saturating_sub(counts.accepted),
        duplicates: from.duplicates.saturating_sub(counts.duplicates),
        conflicts: from.conflicts.saturating_sub(counts.conflicts),
        rejected: 0,
    }
}

/// How things are now. What of the store cannot be read is left out: the rest may say why.
pub(super) async fn sample(state: &State, address: Address) -> Sample {
    let mut sample = state.pipeline.sample();
    sample.answer_bytes = (state.answers.bytes() as u64, state.limits.answer_bytes as u64);
    let Some(reader) = state.reads.turn_within(PATIENCE, address).await else {
        tracing::debug!("the metrics lack those of the store and of topics: no reader is free");
        return sample;
    };
    match reader.sample().await {
        Ok(store) => sample.store = Some(store),
        Err(error) => tracing::debug!(%error, "the metrics lack those of the store"),
    }
    match topics(state, &*reader).await {
        Ok((topics, other)) => (sample.topics, sample.other_topics) = (topics, Some(other)),
        Err(error) => tracing::debug!(%error, "the metrics lack those of topics"),
    }
    sample
}

/// The topics with labels of their own, and all others together.
async fn topics(state: &State, reader: &dyn Reader) -> Result<(Vec<TopicSample>, Counts), StoreError> {
    let mut samples = Vec::new();
    for topic in choose(state, reader).await? {
        match reader.sources(topic.clone()).await {
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
    let all = reader.totals().await?.counts;
    let other = state.shown.others(all, &samples);
    Ok((samples, other))
}

/// The topics with labels; free places are filled with the busiest of the first page of names.
async fn choose(state: &State, reader: &dyn Reader) -> Result<Vec<Topic>, StoreError> {
    let has_free = lock(&state.shown.state).topics.len() < state.shown.most;
    let mut listed = if has_free { reader.topics(None, TOPICS_MAX).await? } else { Vec::new() };
    listed.sort_by_key(|found| std::cmp::Reverse(found.counts.received()));
    Ok(state.shown.choose(listed.into_iter().map(|found| found.topic), Instant::now()))
}

/// Puts the topics that have labels into a list of the first names, in place of the last of them, so that
/// topics which sort first hide none of them.
pub(super) async fn add_shown(
    state: &State,
    reader: &dyn Reader,
    names: &mut Vec<String>,
) -> Result<(), StoreError> {
    let mut missing = Vec::new();
    for topic in choose(state, reader).await? {
        let is_listed = names.binary_search_by(|name| name.as_str().cmp(topic.as_str())).is_ok();
        if !is_listed && reader.topic(topic.clone()).await?.is_some() {
            missing.push(topic.to_string());
        }
    }
    names.truncate(TOPICS_MAX.saturating_sub(missing.len()));
    names.append(&mut missing);
    names.sort_unstable();
    Ok(())
}

fn sample_of(found: TopicSources) -> TopicSample {
    TopicSample {
        lateness: found.lateness(),
        topic: found.topic.topic.to_string(),
        sources: found.named.into_iter().map(|(source, counts)| (source, counts.counts())).collect(),
        other: found.other.counts(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::parse(name).unwrap()
    }

    fn names(topics: &[Topic]) -> Vec<&str> {
        topics.iter().map(Topic::as_str).collect()
    }

    fn shown(most: usize) -> Shown {
        Shown::new(&Metrics { topics: most, topic_names: vec!["named".to_owned()] })
    }

    #[test]
    fn named_topics_come_first_then_busy_ones_and_the_list_only_where_places_are_free() {
        let (shown, now) = (shown(2), Instant::now());
        let note = |topic: &str, events| shown.note(iter::repeat_n(topic, events));
        note("zebras", 5);
        note("named", 50);
        let listed = || ["!1", "!2"].map(topic).into_iter();
        assert_eq!(names(&shown.choose(listed(), now)), ["named", "zebras", "!1"]);
        note("orders", 500);
        let soon = shown.choose(listed(), now + KEPT / 2);
        assert_eq!(names(&soon), ["named", "zebras", "!1"], "labels stay for an hour");
        note("orders", 1_000_000);
        let later = shown.choose(listed(), now + KEPT);
        assert_eq!(names(&later)[..2], ["named", "orders"], "a busier one takes its place then");
        assert_eq!(later.len(), 3);
    }

    #[test]
    fn counters_of_other_topics_never_fall_when_topics_come_and_go() {
        let counts = |accepted| Counts { accepted, ..Counts::default() };
        let sample = |name: &str, accepted| TopicSample {
            topic: name.to_owned(),
            other: counts(accepted),
            ..TopicSample::default()
        };
        let shown = shown(2);
        let others = |all, samples: &[TopicSample]| shown.others(counts(all), samples).accepted;
        assert_eq!(others(100, &[sample("a", 60)]), 40);
        assert_eq!(others(110, &[sample("a", 65)]), 45);
        // Another topic takes the place: its own total is shown, and what comes from then on is its own.
        assert_eq!(others(120, &[sample("b", 40)]), 55);
        assert_eq!(others(130, &[sample("b", 50)]), 55);
        assert_eq!(others(140, &[sample("a", 70), sample("b", 52)]), 63);
    }
}
