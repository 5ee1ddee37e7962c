//! What an address may make, with one writer and with several.

use std::convert::Infallible;
use std::thread;

use super::*;

const LIMIT: NewTopics = NewTopics { per_minute: 60.0, writers: 1.0 };

fn topics(names: impl IntoIterator<Item = u32>) -> Vec<Topic> {
    names.into_iter().map(|name| Topic::parse(&name.to_string()).unwrap()).collect()
}

/// What a store says that holds the topics below 1,000.
fn missing(asked: &[&Topic]) -> Vec<bool> {
    asked.iter().map(|topic| topic.as_str().parse::<u32>().unwrap() >= 1_000).collect()
}

fn admit<'a>(limit: NewTopics, group: &'a [(&'a Topic, &'a Made)], now: Instant) -> Admission<'a> {
    let (admission, undecided) = limit.admit(group, now, |asked| Ok::<_, Infallible>(missing(asked)));
    assert_eq!(undecided, None);
    admission
}

/// The places that are refused of batches of these topics from one address, and the longest wait.
/// Nothing is committed.
fn refused(made: &Made, names: &[Topic], now: Instant) -> (Vec<usize>, Option<u32>) {
    let group: Vec<_> = names.iter().map(|name| (name, made)).collect();
    let admission = admit(LIMIT, &group, now);
    let waits = (0..names.len()).filter_map(|place| Some((place, admission.refused(place)?)));
    let (places, waits): (Vec<_>, Vec<_>) = waits.unzip();
    (places, waits.into_iter().max())
}

fn charge(made: &Made, topics: u32, now: Instant) {
    LIMIT.settle(made, 0, topics, now);
}

/// The topics that count for an address.
fn counted(made: &Made, now: Instant) -> String {
    let Account { charged, reserved } = *made.lock();
    (LIMIT.counting(charged, now) + f64::from(reserved)).to_string()
}

#[test]
fn an_address_makes_as_many_as_the_limit_and_topics_that_exist_are_never_refused() {
    let (made, now) = (Made::default(), Instant::now());
    assert_eq!(refused(&made, &topics(1_000..1_060), now), (vec![], None));
    let many = topics((1_000..1_070).chain(0..500));
    assert_eq!(refused(&made, &many, now), ((60..70).collect(), Some(10)));
    charge(&made, 60, now);
    assert_eq!(refused(&made, &topics([7, 1_000, 8]), now), (vec![1], Some(1)));
    assert_eq!(refused(&Made::default(), &topics([1_000]), now), (vec![], None), "another address");
}

#[test]
fn what_was_made_counts_less_and_less() {
    let (made, now) = (Made::default(), Instant::now());
    charge(&made, 60, now);
    let at = |seconds| now + Duration::from_secs(seconds);
    assert_eq!(refused(&made, &topics(1_000..1_010), at(5)).0, [5, 6, 7, 8, 9]);
    charge(&made, 5, at(5));
    assert_eq!(refused(&made, &topics(1_000..2_000), at(5)).1, Some(60), "a minute at most");
    assert_eq!(refused(&made, &topics(1_000..1_060), at(66)), (vec![], None));
    assert!(!made.is_forgotten(at(66)) && made.is_forgotten(at(126)));
    assert!(Made::default().is_forgotten(now));
}

#[test]
fn a_topic_that_is_several_times_in_a_group_counts_once() {
    let (made, now) = (Made::default(), Instant::now());
    charge(&made, 59, now);
    assert_eq!(refused(&made, &topics([1_000, 1_000, 1_001, 1_000]), now).0, [2]);
    // Another address makes it in the same group, and pays.
    let (name, other) = (&topics([1_000])[0], Made::default());
    charge(&made, 1, now);
    let group = [(name, &made), (name, &other)];
    let admission = admit(LIMIT, &group, now);
    assert_eq!([0, 1].map(|place| admission.refused(place)), [None, None]);
    admission.settle(|place| if place == 0 { TopicOutcome::Made } else { TopicOutcome::Unchanged }, now);
    assert_eq!([&made, &other].map(|of| counted(of, now)), ["60", "1"]);
}

#[test]
fn writers_that_commit_at_once_admit_no_more_than_the_limit_together() {
    let (made, now) = (Made::default(), Instant::now());
    let limit = NewTopics { writers: 2.0, ..LIMIT };
    let names = topics(1_000..1_080);
    let group = |places: std::ops::Range<usize>| -> Vec<_> {
        names[places].iter().map(|name| (name, &made)).collect()
    };
    let (first, second, third) = (group(0..30), group(30..65), group(65..66));
    let one = admit(limit, &first, now);
    let two = admit(limit, &second, now);
    let three = admit(limit, &third, now);
    assert_eq!((0..35).filter_map(|place| two.refused(place)).count(), 5, "30 are left");
    assert_eq!(three.refused(0), Some(1));
    one.settle(|_| TopicOutcome::Made, now);
    two.settle(|place| if place < 30 { TopicOutcome::Made } else { TopicOutcome::Unchanged }, now);
    drop(three);
    assert_eq!(counted(&made, now), "60");
}

#[test]
fn a_writer_that_asks_no_store_leaves_something_to_the_others() {
    let (made, now) = (Made::default(), Instant::now());
    let limit = NewTopics { writers: 4.0, ..LIMIT };
    // These exist, and the writer does not know it.
    let (old, new) = (topics(0..15), topics(1_000..1_045));
    let existing: Vec<_> = old.iter().map(|name| (name, &made)).collect();
    let others: Vec<_> = new.iter().map(|name| (name, &made)).collect();
    let busy = admit(limit, &existing, now);
    assert_eq!(counted(&made, now), "15");
    let admission = admit(limit, &others, now);
    assert!((0..45).all(|place| admission.refused(place).is_none()));
    drop(admission);
    busy.settle(|_| TopicOutcome::Unchanged, now);
    assert_eq!(counted(&made, now), "0");
    // A group that would take more than its part asks, and reserves nothing for topics that exist.
    let old = topics(0..16);
    let existing: Vec<_> = old.iter().map(|name| (name, &made)).collect();
    let _busy = admit(limit, &existing, now);
    assert_eq!(counted(&made, now), "0");
}

#[test]
fn only_a_topic_that_was_made_or_may_have_been_is_charged() {
    let (made, now) = (Made::default(), Instant::now());
    let names = topics([1_000, 1_001, 1_001, 1_002]);
    let group: Vec<_> = names.iter().map(|name| (name, &made)).collect();
    drop(admit(LIMIT, &group, now));
    assert_eq!(counted(&made, now), "0", "a writer that panicked");
    for (outcome, charged) in
        [(TopicOutcome::Unchanged, "0"), (TopicOutcome::Unknown, "3"), (TopicOutcome::Made, "7")]
    {
        admit(LIMIT, &group, now).settle(|_| outcome, now);
        assert_eq!(counted(&made, now), charged, "{outcome:?}");
    }
}

#[test]
fn batches_of_a_store_that_cannot_tell_are_not_decided() {
    let (made, other, now) = (Made::default(), Made::default(), Instant::now());
    charge(&made, 60, now);
    let names = topics([1, 2, 1_000]);
    let group = [(&names[0], &made), (&names[1], &other), (&names[2], &made)];
    let (admission, undecided) = LIMIT.admit(&group, now, |_| Err("no answer"));
    assert_eq!(undecided, Some(("no answer", vec![0, 2])));
    assert_eq!((admission.refused(0), counted(&other, now)), (None, "1".to_owned()));
    admission.settle(|_| TopicOutcome::Unchanged, now);
    assert_eq!((counted(&made, now), counted(&other, now)), ("60".to_owned(), "0".to_owned()));
}

#[test]
fn a_writer_that_looked_at_the_clock_earlier_turns_back_no_time() {
    let (made, now) = (Made::default(), Instant::now());
    charge(&made, 60, now + Duration::from_secs(30));
    charge(&made, 0, now);
    charge(&made, 1, now);
    assert_eq!(counted(&made, now + Duration::from_secs(30)), "61");
}

#[test]
fn many_threads_make_exactly_the_limit() {
    let (made, now) = (Made::default(), Instant::now());
    let limit = NewTopics { per_minute: 1_000.0, writers: 8.0 };
    let fill = |writer: u32| {
        let mut all = 0;
        for round in 0..100 {
            // Groups of 1 to 40 batches, every third of a topic that exists.
            let first = 1_000 + (writer * 100 + round) * 40;
            let name = |number| if number % 3 == 0 { number % 999 } else { first + number };
            let names = topics((0..=(round * 7 + writer) % 40).map(name));
            let group: Vec<_> = names.iter().map(|name| (name, &made)).collect();
            let admission = admit(limit, &group, now);
            let is_new = missing(&names.iter().collect::<Vec<_>>());
            let is_made = |place: usize| is_new[place] && admission.refused(place).is_none();
            let outcomes: Vec<_> = (0..names.len()).map(is_made).collect();
            all += outcomes.iter().filter(|is_made| **is_made).count();
            let outcome =
                |place: usize| if outcomes[place] { TopicOutcome::Made } else { TopicOutcome::Unchanged };
            // Every fifth commit fails.
            if round % 5 == 0 {
                all -= outcomes.iter().filter(|is_made| **is_made).count();
                drop(admission);
            } else {
                admission.settle(outcome, now);
            }
        }
        all
    };
    let made_in_all: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|writer| scope.spawn(move || fill(writer))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(made_in_all, 1_000);
    assert_eq!(counted(&made, now), "1000");
}
