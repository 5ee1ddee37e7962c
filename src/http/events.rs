//! `GET /events`: which events of a topic are wanted, in which order and format.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::accept::{self, Given};
use super::failure::Failure;
use super::follow;
use super::headers::{self, SEQ_MAX};
use super::history::{self, Cursor};
use super::openapi::EventsProblems;
use super::params::{Query, topic};
use super::peer::Peer;
use super::state::State;
use super::stream::{self, Plan};
use crate::api::Page;
use crate::domain::{HistoryId, Topic};
use crate::store::{Order, TopicCounts};

/// The greatest `limit`; without one there is none, and the answer is streamed.
const LIMIT_MAX: u64 = 10_000;

/// The parameters, for the document.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query, which is read by hand so that errors name the parameter")]
struct EventsQuery {
    /// The topic: 1 to 255 bytes of UTF-8, no control characters.
    #[param(
        min_length = 1,
        max_length = 255,
        example = "orders",
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
    )]
    topic: String,
    /// Only events with a greater seq.
    #[param(maximum = 9_223_372_036_854_775_807_u64)]
    after: Option<u64>,
    /// Only events with a smaller seq.
    #[param(maximum = 9_223_372_036_854_775_807_u64)]
    before: Option<u64>,
    /// The history that `after` or `before` belongs to: the `history` of an earlier answer.
    #[param(min_length = 1, max_length = 32, pattern = "^[a-z0-9]+$")]
    history: Option<String>,
    /// The most events; without it everything is streamed.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<u64>,
    /// `asc` from the smallest seq (the default), `desc` from the greatest.
    #[param(pattern = "^(asc|desc)$")]
    order: Option<String>,
}

/// The header, for the document.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the header, which is read by hand so that errors name it")]
struct FollowHeader {
    /// Where to resume: the `id` of the last event that came. Takes precedence over `after`.
    #[param(rename = "Last-Event-ID", required = false, pattern = "^([0-9]{1,18}(@[a-z0-9]{1,32})?)?$")]
    last_event_id: String,
}

/// What was asked for.
#[derive(Debug, Clone)]
struct Wanted {
    topic: Topic,
    after: Option<u64>,
    before: Option<u64>,
    history: Option<HistoryId>,
    limit: u64,
    order: Order,
}

/// Read a topic
///
/// Events in the order of their seqs, up to the last one that was stored when the request came. Go on with
/// `after=next_after` (descending: `before=next_before`). An unknown topic has no events.
///
/// As `text/event-stream` the answer does not end there: it goes on with new events as they become durable. Only
/// `topic`, `after` and `order=asc` go with it.
#[utoipa::path(
    get,
    path = "/events",
    tag = "read",
    params(EventsQuery, FollowHeader),
    responses((status = 200, description = "The events; one a line in NDJSON, without an end in an event stream",
        content((Page<'static> = "application/json"), (String = "application/x-ndjson"),
            (String = "text/event-stream"))), EventsProblems),
)]
pub(super) async fn events(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, Failure> {
    let wanted = wanted(&request)?;
    let had = headers::last_event_id(request.headers())?;
    let format = match accept::accepted(request.headers())? {
        Given::Listed(format) => format,
        Given::Followed => return follow::answer(&request, &state, wanted.followed(had)?).await,
    };
    // Read before any event: see `Reader::history`.
    let turn = state.reads.turn(Peer::of(&request).address()).await?;
    let history = turn.history().await?;
    let cursor = wanted.cursor();
    let counts = history::check(&*turn, &wanted.topic, &history, cursor.as_ref()).await?;
    let plan = plan(wanted, history, counts.as_ref());
    stream::answer(&request, &state, (plan, format), turn).await
}

impl Wanted {
    /// How far the client has read, by the end from which it reads.
    fn cursor(&self) -> Option<Cursor> {
        let before = self.before.map(|before| before.saturating_sub(1));
        let seq = match self.order {
            Order::Ascending => self.after.or(before),
            Order::Descending => before.or(self.after),
        };
        Some(Cursor { seq: seq?, history: self.history.clone() })
    }

    /// The same to be followed, which has no end and only one direction.
    fn followed(self, had: Option<Cursor>) -> Result<follow::Wanted, Failure> {
        let backwards = self.order == Order::Descending;
        for (name, given) in
            [("before", self.before.is_some()), ("limit", self.limit < u64::MAX), ("order", backwards)]
        {
            if given {
                return Err(Failure::parameter(
                    name,
                    "does not go with text/event-stream, which follows without an end",
                ));
            }
        }
        let after = self.cursor();
        Ok(follow::Wanted { topic: self.topic, had, after })
    }
}

/// What a request for events of a topic with seqs from 1 to `last` would read, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(super) fn planned(request: &HttpRequest, last: u64) -> Result<Plan, Failure> {
    let wanted = wanted(request)?;
    let counts = TopicCounts {
        topic: wanted.topic.clone(),
        counts: crate::domain::Counts { accepted: last, ..Default::default() },
        first_seq: 1,
        last_seq: last,
        last_received_at: jiff::Timestamp::UNIX_EPOCH,
    };
    Ok(plan(wanted, HistoryId::first(), Some(&counts).filter(|_| last > 0)))
}

fn wanted(request: &HttpRequest) -> Result<Wanted, Failure> {
    let mut query = Query::of(request)?;
    let wanted = Wanted {
        topic: topic(&query.name("topic")?)?,
        after: query.number("after", 0..=SEQ_MAX)?,
        before: query.number("before", 0..=SEQ_MAX)?,
        history: query.take("history").map(|id| history::parse("history", &id)).transpose()?,
        limit: query.number("limit", 1..=LIMIT_MAX)?.unwrap_or(u64::MAX),
        order: query
            .word("order", &[("asc", Order::Ascending), ("desc", Order::Descending)])?
            .unwrap_or_default(),
    };
    query.finish()?;
    Ok(wanted)
}

/// Fixes the first and the last seq to read. Seqs have no gaps, so that the count is known before the events.
fn plan(wanted: Wanted, history: HistoryId, counts: Option<&TopicCounts>) -> Plan {
    let (stored_first, stored_last) = counts.map_or((1, 0), |topic| (topic.first_seq, topic.last_seq));
    let mut first = stored_first.max(wanted.after.map_or(0, |after| after.saturating_add(1)));
    let mut last = stored_last.min(wanted.before.map_or(u64::MAX, |before| before.saturating_sub(1)));
    let count = (last + 1).saturating_sub(first).min(wanted.limit);
    let next = match (wanted.order, count) {
        (Order::Ascending, 0) => Some(wanted.after.unwrap_or(0)),
        (Order::Descending, 0) => wanted.before,
        (Order::Ascending, _) => {
            last = first + count - 1;
            Some(last)
        }
        (Order::Descending, _) => {
            first = last + 1 - count;
            Some(first)
        }
    };
    Plan { topic: wanted.topic, history, first, last, count, order: wanted.order, next }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::Counts;

    fn planned(after: Option<u64>, before: Option<u64>, limit: u64, order: Order) -> Plan {
        let topic = Topic::parse("t").unwrap();
        let counts = TopicCounts {
            topic: topic.clone(),
            counts: Counts::default(),
            first_seq: 3,
            last_seq: 9,
            last_received_at: Timestamp::UNIX_EPOCH,
        };
        let wanted = Wanted { topic, after, before, history: None, limit, order };
        plan(wanted, HistoryId::first(), Some(&counts))
    }

    #[test]
    fn a_plan_stays_within_what_is_stored_and_asked() {
        let (asc, desc, all) = (Order::Ascending, Order::Descending, u64::MAX);
        for (after, before, limit, order, expected) in [
            (None, None, all, asc, (3, 9, 7, Some(9))),
            (None, None, all, desc, (3, 9, 7, Some(3))),
            (Some(4), None, 2, asc, (5, 6, 2, Some(6))),
            (None, Some(8), 2, desc, (6, 7, 2, Some(6))),
            (Some(4), Some(6), all, asc, (5, 5, 1, Some(5))),
            (Some(0), Some(u64::MAX), all, desc, (3, 9, 7, Some(3))),
        ] {
            let plan = planned(after, before, limit, order);
            assert_eq!((plan.first, plan.last, plan.count, plan.next), expected);
        }
    }

    #[test]
    fn a_plan_without_events_goes_on_from_where_it_was() {
        assert_eq!(planned(Some(9), None, 5, Order::Ascending).next, Some(9));
        assert_eq!(planned(Some(u64::MAX), None, 5, Order::Ascending).count, 0);
        assert_eq!(planned(None, Some(3), 5, Order::Descending).next, Some(3));
        assert_eq!(planned(None, Some(0), 5, Order::Descending).count, 0);
        assert_eq!(planned(None, Some(1), 5, Order::Ascending).next, Some(0));
        let unknown = Wanted {
            topic: Topic::parse("t").unwrap(),
            after: None,
            before: None,
            history: None,
            limit: 1,
            order: Order::Descending,
        };
        let plan = plan(unknown, HistoryId::first(), None);
        assert_eq!((plan.count, plan.next), (0, None));
    }
}
