//! Rows 5 and 11: new topics without end, in a few kilobytes, with names that sort before all
//! others.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::victim::TOPIC;
use super::{Endured, OTHER, OWN, STRANGER, Target, endured, get, post};
use crate::support::{array, calm, event};

/// New topics of one request of the attacker.
const AT_ONCE: u64 = 1_000;

/// The time between two of them.
const PACE: Duration = Duration::from_millis(200);

/// The new topics that an address may make in a minute.
const LIMIT: u64 = 500;

/// A topic of few events, which has labels because the configuration names it.
const RARE: &str = "rare";

/// Publishes from an address; the answer, as text in lower case.
fn publish(from: IpAddr, to: SocketAddr, body: &str) -> String {
    post(from, to, "/publish", "Prefer: return=minimal\r\n", body.as_bytes()).1.to_ascii_lowercase()
}

fn start() -> Target {
    Target::start(&format!(
        "limits.new_topics_per_minute = {LIMIT}\nmetrics.topics = 5\nmetrics.topic_names = [\"{RARE}\"]\n"
    ))
}

/// The topics of the store.
fn topics(to: SocketAddr) -> u64 {
    let (_, stats) = get(OTHER, to, "/stats");
    let (_, rest) = stats.split_once("\"topics_total\":").unwrap();
    rest.split(',').next().unwrap().parse().unwrap()
}

/// Checks that these topics have labels of their own in `/metrics`, and are in `/stats`.
fn are_shown(to: SocketAddr, names: &[&str]) {
    let [metrics, stats] = ["/metrics", "/stats"].map(|path| get(OTHER, to, path).1);
    for topic in names {
        let label = format!("sekali_topic_events_accepted_total{{topic=\"{topic}\"");
        assert!(metrics.contains(&label), "{topic}: {metrics}");
        assert!(stats.contains(&format!("\"{topic}\"")), "{topic}, {} bytes of stats", stats.len());
    }
}

#[test]
fn new_topics_without_end_that_sort_first_are_refused_and_hide_no_other() {
    let attack = |target: &Target, from: IpAddr, lasting: Duration| {
        let (to, begun) = (target.process.address(), Instant::now());
        assert!(publish(OTHER, to, &array([event(RARE, "1")])).starts_with("http/1.1 200"));
        // The victim has made its topic too.
        while topics(to) < 2 {
            thread::sleep(PACE);
        }
        let mut number = 0;
        while begun.elapsed() < lasting {
            let names = (number..number + AT_ONCE).map(|number| event(&format!("!flood {number}"), "1"));
            let answer = publish(from, to, &array(names));
            assert!(answer.starts_with("http/1.1 429") && answer.contains("too_many_topics"), "{answer}");
            assert!(answer.contains("\r\nretry-after: "), "{answer}");
            number += AT_ONCE;
            thread::sleep(PACE);
        }
        // At once, then over each minute; and those of the victim and of the third client.
        let most = LIMIT + LIMIT * (begun.elapsed().as_secs() + 1) / 60 + 2;
        let made = topics(to);
        assert!((LIMIT..=most).contains(&made), "{made} of {most} topics");
        are_shown(to, &[TOPIC, RARE]);
    };
    for Endured { seen, .. } in endured("5, 11: new topics that sort first", start, attack) {
        // Its topic exists, so it is not throttled, wherever the attack comes from.
        assert_eq!(seen.published.told, 0, "{seen:?}");
    }
}

#[test]
fn thousands_of_topics_that_sort_first_hide_no_busy_topic() {
    let settings = format!("metrics.topics = 5\nmetrics.topic_names = [\"{RARE}\"]\n");
    let target = calm(|| Target::start(&settings));
    let to = target.process.address();
    let publish = |events: String| assert!(publish(STRANGER, to, &events).starts_with("http/1.1 200"));
    // Fewer than one address may make at once.
    publish(array((0..9_000).map(|number| event(&format!("!{number:05}"), "1"))));
    publish(array((0..50).map(|number| event("orders", &number.to_string()))));
    publish(array([event(RARE, "1")]));
    are_shown(to, &["orders", RARE]);
}

#[test]
fn events_of_topics_that_exist_are_stored_and_a_client_that_tries_again_loses_nothing() {
    let target = calm(start);
    let to = target.process.address();
    let names = |first, count, id: &str| {
        let events = (first..first + count).map(|name| event(&format!("topic {name}"), id));
        array(events.collect::<Vec<_>>())
    };
    assert!(publish(STRANGER, to, &names(0, LIMIT, "1")).starts_with("http/1.1 200"));
    // Half of these topics are there. It takes a minute until the address may make the others.
    let mixed = names(LIMIT / 2, LIMIT, "2");
    assert!(publish(STRANGER, to, &mixed).starts_with("http/1.1 429"));
    let held = publish(STRANGER, to, &names(LIMIT / 2, LIMIT / 2, "2"));
    assert!(held.contains(&format!("\"duplicates\":{}", LIMIT / 2)), "what exists was stored: {held}");
    let own = publish(OWN, to, &mixed);
    assert!(own.starts_with("http/1.1 200"), "another address has its own share: {own}");
    let again = publish(STRANGER, to, &mixed);
    assert!(again.contains(&format!("\"duplicates\":{LIMIT}")), "all of them exist now: {again}");
}
