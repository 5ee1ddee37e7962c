//! The text of an event: a function of the plan's seed and the event's number, the same for every peer.

use super::Step;
use super::ids::{ID_BYTES, shuffle, spread, write_id};

const BEFORE_TOPIC: &[u8] = b"{\"topic\":\"";
const TOPIC_PREFIX: &[u8] = b"topic-";
const TOPIC_DIGITS: usize = 5;
const BEFORE_ID: &[u8] = b"\",\"event_id\":\"";
const BEFORE_TIMESTAMP: &[u8] = b"\",\"timestamp\":\"";
const DAY: &[u8] = b"2026-11-22T";
const BEFORE_SOURCE: &[u8] = b"\",\"source\":\"";
const SOURCE_PREFIX: &[u8] = b"producer-";
const SOURCE_DIGITS: usize = 2;
const BEFORE_PAYLOAD: &[u8] = b"\",\"payload\":";

const TOPIC_AT: usize = BEFORE_TOPIC.len();
const TOPIC_BYTES: usize = TOPIC_PREFIX.len() + TOPIC_DIGITS;
const ID_AT: usize = TOPIC_AT + TOPIC_BYTES + BEFORE_ID.len();
const TIMESTAMP_AT: usize = ID_AT + ID_BYTES + BEFORE_TIMESTAMP.len();
/// `DAY`, then `10:20:30.456Z`.
const TIMESTAMP_BYTES: usize = DAY.len() + 13;
const SOURCE_AT: usize = TIMESTAMP_AT + TIMESTAMP_BYTES + BEFORE_SOURCE.len();
const SOURCE_BYTES: usize = SOURCE_PREFIX.len() + SOURCE_DIGITS;
const PAYLOAD_AT: usize = SOURCE_AT + SOURCE_BYTES + BEFORE_PAYLOAD.len();

/// Bytes of every event as JSON.
pub const EVENT_BYTES: usize = 220;

/// Topics that names of [`TOPIC_DIGITS`] can tell apart.
pub const MAX_TOPICS: u32 = 100_000;

/// What every event of a run has in common.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    seed: u64,
    topics: u32,
}

/// One event as JSON, and its fields as places in it: every field has one width for all events.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a>(&'a str);

impl Plan {
    /// Events of this seed, spread over so many topics, [`MAX_TOPICS`] at most.
    #[must_use]
    pub const fn new(seed: u64, topics: u32) -> Self {
        debug_assert!(1 <= topics && topics <= MAX_TOPICS);
        Self { seed, topics }
    }

    /// Every topic's name.
    pub fn topics(self) -> impl Iterator<Item = String> {
        (0..self.topics).map(|topic| format!("topic-{topic:05}"))
    }

    /// Appends the event of this number as JSON, of [`EVENT_BYTES`].
    pub fn write(self, number: u64, out: &mut Vec<u8>) {
        let shuffled = shuffle(self.seed, number);
        let random = spread(shuffled ^ 1);
        out.extend_from_slice(BEFORE_TOPIC);
        out.extend_from_slice(TOPIC_PREFIX);
        decimal(random % u64::from(self.topics), TOPIC_DIGITS, out);
        out.extend_from_slice(BEFORE_ID);
        write_id(shuffled, out);
        out.extend_from_slice(BEFORE_TIMESTAMP);
        write_timestamp(number, out);
        out.extend_from_slice(BEFORE_SOURCE);
        out.extend_from_slice(SOURCE_PREFIX);
        decimal((random >> 20) % 100, SOURCE_DIGITS, out);
        out.extend_from_slice(BEFORE_PAYLOAD);
        write_payload(number, random, out);
        out.push(b'}');
    }

    /// The events of these steps behind each other, for [`Event::all`].
    ///
    /// # Errors
    /// Never in practice: an event is ASCII.
    pub fn text(self, steps: &[Step]) -> anyhow::Result<String> {
        let mut text = Vec::with_capacity(steps.len() * EVENT_BYTES);
        for step in steps {
            self.write(step.number, &mut text);
        }
        Ok(String::from_utf8(text)?)
    }

    /// Makes the event of this number in a buffer that is used again.
    ///
    /// # Errors
    /// As [`Plan::text`].
    pub fn event(self, number: u64, buffer: &mut Vec<u8>) -> anyhow::Result<Event<'_>> {
        buffer.clear();
        self.write(number, buffer);
        Ok(Event(std::str::from_utf8(buffer)?))
    }
}

impl<'a> Event<'a> {
    /// The events that stand behind each other in a text.
    pub fn all(text: &'a str) -> impl Iterator<Item = Self> {
        (0..text.len() / EVENT_BYTES).map(|place| Self(&text[place * EVENT_BYTES..][..EVENT_BYTES]))
    }

    /// The whole event as JSON.
    #[must_use]
    pub fn json(self) -> &'a str {
        self.0
    }

    /// The field `topic`.
    #[must_use]
    pub fn topic(self) -> &'a str {
        &self.0[TOPIC_AT..TOPIC_AT + TOPIC_BYTES]
    }

    /// The field `event_id`.
    #[must_use]
    pub fn id(self) -> &'a str {
        &self.0[ID_AT..ID_AT + ID_BYTES]
    }

    /// The field `timestamp`.
    #[must_use]
    pub fn timestamp(self) -> &'a str {
        &self.0[TIMESTAMP_AT..TIMESTAMP_AT + TIMESTAMP_BYTES]
    }

    /// The field `source`.
    #[must_use]
    pub fn source(self) -> &'a str {
        &self.0[SOURCE_AT..SOURCE_AT + SOURCE_BYTES]
    }

    /// The field `payload`, a JSON object.
    #[must_use]
    pub fn payload(self) -> &'a str {
        &self.0[PAYLOAD_AT..self.0.len() - 1]
    }
}

/// A time of one day, a millisecond after that of the number before it.
fn write_timestamp(number: u64, out: &mut Vec<u8>) {
    let (seconds, millis) = (number / 1000 % 86_400, number % 1000);
    out.extend_from_slice(DAY);
    decimal(seconds / 3600, 2, out);
    out.push(b':');
    decimal(seconds / 60 % 60, 2, out);
    out.push(b':');
    decimal(seconds % 60, 2, out);
    out.push(b'.');
    decimal(millis, 3, out);
    out.push(b'Z');
}

fn write_payload(number: u64, random: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"order\":\"");
    decimal(number, 10, out);
    out.extend_from_slice(b"\",\"amount\":");
    // Without a leading zero, which JSON forbids.
    decimal(10_000 + random % 90_000, 5, out);
    out.push(b'.');
    decimal((random >> 17) % 100, 2, out);
    out.extend_from_slice(b",\"currency\":\"EUR\",\"buyer\":\"");
    decimal((random >> 24) % 1_000_000, 6, out);
    out.extend_from_slice(b"\"}");
}

/// Writes the last `width` decimal digits of a number.
fn decimal(mut number: u64, width: usize, out: &mut Vec<u8>) {
    let end = out.len() + width;
    out.resize(end, b'0');
    for digit in out[end - width..].iter_mut().rev() {
        *digit = b"0123456789"[(number % 10) as usize];
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_event_is_json_of_about_220_bytes_whose_fields_are_where_they_are_said_to_be() {
        let (plan, mut buffer) = (Plan::new(7, 4), Vec::new());
        for number in [0, 1, 999, 86_400_000, 49_999_999] {
            let event = plan.event(number, &mut buffer).unwrap();
            assert_eq!(event.json().len(), EVENT_BYTES);
            let parsed: Value = serde_json::from_str(event.json()).unwrap();
            assert_eq!(parsed["topic"], event.topic());
            assert_eq!(parsed["event_id"], event.id());
            assert_eq!(parsed["timestamp"], event.timestamp());
            assert_eq!(parsed["source"], event.source());
            assert_eq!(parsed["payload"], serde_json::from_str::<Value>(event.payload()).unwrap());
        }
    }

    #[test]
    fn events_behind_each_other_are_found_again() {
        let plan = Plan::new(7, 4);
        let steps = [3, 9, 3].map(|number| Step { number, new: true });
        let text = plan.text(&steps).unwrap();
        let mut buffer = Vec::new();
        let found: Vec<_> = Event::all(&text).map(Event::json).collect();
        assert_eq!(found.len(), steps.len());
        for (json, step) in found.into_iter().zip(steps) {
            assert_eq!(json, plan.event(step.number, &mut buffer).unwrap().json());
        }
    }

    #[test]
    fn events_fall_on_all_topics_and_only_on_those() {
        let plan = Plan::new(7, 4);
        let topics: Vec<_> = plan.topics().collect();
        let mut counts = [0; 4];
        let mut buffer = Vec::new();
        for number in 0..10_000 {
            let event = plan.event(number, &mut buffer).unwrap();
            counts[topics.iter().position(|topic| topic == event.topic()).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (2300..2700).contains(count)), "{counts:?}");
    }
}
