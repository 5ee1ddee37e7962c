//! An event that passed every rule, packed into one allocation.

use jiff::Timestamp;

/// The fields of an event, in the order in which they are checked and documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The stream that the event belongs to.
    Topic,
    /// What makes the event the same event when it is sent again.
    EventId,
    /// When it happened, as its producer says.
    Timestamp,
    /// Who produced it.
    Source,
    /// What happened: a JSON object.
    Payload,
}

impl Field {
    /// Every field; an event has them all and no other.
    pub const ALL: [Self; 5] = [Self::Topic, Self::EventId, Self::Timestamp, Self::Source, Self::Payload];

    /// The name of the field in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::EventId => "event_id",
            Self::Timestamp => "timestamp",
            Self::Source => "source",
            Self::Payload => "payload",
        }
    }

    /// The field with this name in JSON.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.as_str() == name)
    }
}

/// The texts of an event, each already unescaped and valid; the payload as raw JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// See [`Field::Topic`].
    pub topic: &'a str,
    /// See [`Field::EventId`].
    pub event_id: &'a str,
    /// See [`Field::Timestamp`].
    pub timestamp: &'a str,
    /// See [`Field::Source`].
    pub source: &'a str,
    /// See [`Field::Payload`].
    pub payload: &'a str,
}

/// A valid event. Its five texts lie one behind the other in one allocation, because events are made by
/// the hundred thousand each second, cross three threads and are freed on another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    text: Box<str>,
    /// Where topic, `event_id`, timestamp and source end in `text`; the payload is the rest.
    ends: [u32; 4],
}

impl Event {
    /// Packs texts that were checked by their rules (see `intake`, or the store that they come from).
    ///
    /// # Panics
    /// When the texts are longer than 4 GiB together; `limits.event` is far below.
    #[must_use]
    #[expect(clippy::expect_used, reason = "limits.event keeps events 4,096 times smaller")]
    pub fn pack(parts: Parts<'_>) -> Self {
        let Parts { topic, event_id, timestamp, source, payload } = parts;
        let total = topic.len() + event_id.len() + timestamp.len() + source.len() + payload.len();
        let mut text = String::with_capacity(total);
        let mut ends = [0; 4];
        for (end, part) in ends.iter_mut().zip([topic, event_id, timestamp, source]) {
            text.push_str(part);
            *end = u32::try_from(text.len()).expect("an event is smaller than 4 GiB");
        }
        text.push_str(payload);
        Self { text: text.into_boxed_str(), ends }
    }

    /// All five texts.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        Parts {
            topic: self.topic(),
            event_id: self.event_id(),
            timestamp: self.between(1, 2),
            source: self.source(),
            payload: self.payload(),
        }
    }

    /// The stream that the event belongs to.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.text[..self.ends[0] as usize]
    }

    /// What makes the event the same event when it is sent again.
    #[must_use]
    pub fn event_id(&self) -> &str {
        self.between(0, 1)
    }

    /// Who produced it.
    #[must_use]
    pub fn source(&self) -> &str {
        self.between(2, 3)
    }

    /// The payload as it was sent, byte for byte.
    #[must_use]
    pub fn payload(&self) -> &str {
        &self.text[self.ends[3] as usize..]
    }

    /// The bytes of all five texts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    fn between(&self, start: usize, end: usize) -> &str {
        &self.text[self.ends[start] as usize..self.ends[end] as usize]
    }
}

/// An event with what the log added to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// The position in its topic: 1, 2, 3, ... in commit order, without gaps.
    pub seq: u64,
    /// When the log stored it, to the microsecond.
    pub received_at: Timestamp,
    /// What the producer sent.
    pub event: Event,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_gives_back_what_was_packed() {
        let parts = Parts {
            topic: "größe",
            event_id: "1",
            timestamp: "2026-01-01T00:00:00Z",
            source: "☃",
            payload: "{ \"n\": 1e400 }",
        };
        let event = Event::pack(parts);
        assert_eq!(event.parts(), parts);
        assert_eq!((event.topic(), event.event_id(), event.payload()), ("größe", "1", parts.payload));
        assert_eq!(event.bytes(), "größe1☃".len() + 20 + 14);
    }

    #[test]
    fn field_names_are_found_again() {
        for field in Field::ALL {
            assert_eq!(Field::from_name(field.as_str()), Some(field));
        }
        assert_eq!(Field::from_name("Topic"), None);
    }
}
