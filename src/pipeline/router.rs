//! The router actor: shards a request's events by topic and lane, and keeps the consumers.
//!
//! It alone starts consumers, finds them again, and retires them: it drops a consumer's address and sends
//! `Retire` as the last message, so that whatever was sent before is still served.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use foldhash::fast::RandomState;

use super::consumer::{Alive, Consumer};
use super::hot_cache::{HotCache, Room};
use super::keeper::{Keeper, report_restart};
use super::lane::{Lane, Shared};
use super::messages::{Consume, Gone, Publish, Retire};
use super::roster::{LaneId, Roster};
use super::undecided::Undecided;
use super::writer::WriterActor;
use crate::config::Settings;
use crate::domain::{Event, Topic};

/// How often idle consumers are looked for.
const ROUND: Duration = Duration::from_millis(250);

/// What the router shares with the pipeline, to be started again with it.
#[derive(Clone)]
pub(super) struct Wiring {
    pub(super) settings: Arc<Settings>,
    /// The threads that run consumers: `router.shards` of them.
    pub(super) shards: Arc<Vec<ArbiterHandle>>,
    pub(super) room: Arc<Room>,
    pub(super) shared: Shared,
    pub(super) writer: Arc<Keeper<WriterActor>>,
}

/// The actor.
pub(super) struct Router {
    wiring: Wiring,
    roster: Roster<Addr<Consumer>>,
    /// Lanes whose consumer cannot be started before another one is gone, the oldest first, and their work.
    parked: VecDeque<LaneId>,
    parked_work: HashMap<LaneId, Vec<Consume>>,
    /// The shard of the next consumer.
    next_shard: usize,
}

/// The events of one lane, and their indexes in the request.
struct Share {
    lane: LaneId,
    events: Vec<Event>,
    indexes: Vec<u32>,
}

impl Router {
    pub(super) fn new(wiring: Wiring) -> Self {
        Self {
            wiring,
            roster: Roster::new(),
            parked: VecDeque::new(),
            parked_work: HashMap::new(),
            next_shard: 0,
        }
    }

    fn dispatch(&mut self, lane: LaneId, work: Consume, context: &mut Context<Self>) {
        if let Some(earlier) = self.parked_work.get_mut(&lane) {
            earlier.push(work);
        } else if let Some(consumer) = self.find(&lane) {
            consumer.do_send(work);
        } else {
            // Behind those that wait already: a lane that came later must not take the place of one of them.
            self.parked_work.insert(lane.clone(), vec![work]);
            self.parked.push_back(lane);
            self.unpark(context);
        }
    }

    /// The consumer of a lane, if it lives.
    fn find(&mut self, lane: &LaneId) -> Option<Addr<Consumer>> {
        let consumer = self.roster.touch(lane, Instant::now())?.clone();
        if consumer.connected() {
            return Some(consumer);
        }
        report_restart("consumer", &self.wiring.shared.metrics);
        self.roster.remove(lane);
        None
    }

    /// Starts the consumer of a lane, unless as many are alive as may be; then the longest idle is retired.
    fn start(&mut self, lane: &LaneId, context: &mut Context<Self>) -> Option<Addr<Consumer>> {
        let Wiring { settings, shards, room, shared, .. } = &self.wiring;
        let alive = usize::try_from(shared.metrics.consumers.get()).unwrap_or(0);
        if alive >= settings.router.consumers {
            if let Some(longest_idle) = self.roster.remove_longest_idle() {
                longest_idle.do_send(Retire);
            }
            return None;
        }
        let topic = lane.topic.as_str();
        let lanes = settings.lanes(topic);
        let cache = HotCache::new(settings.keys_per_topic(topic).div_ceil(lanes), Arc::clone(room));
        let guard = Alive::new(Arc::clone(&shared.metrics), context.address());
        let consumer = Consumer::new(Lane::new(lane.topic.clone(), cache, shared.clone()), guard);
        self.next_shard = (self.next_shard + 1) % shards.len();
        let address = Consumer::start_in_arbiter(&shards[self.next_shard], |_| consumer);
        self.roster.add(lane.clone(), address.clone(), Instant::now());
        Some(address)
    }

    /// Serves parked lanes as far as consumers can be started.
    fn unpark(&mut self, context: &mut Context<Self>) {
        while let Some(lane) = self.parked.pop_front() {
            let Some(consumer) = self.start(&lane, context) else {
                self.parked.push_front(lane);
                return;
            };
            for work in self.parked_work.remove(&lane).into_iter().flatten() {
                consumer.do_send(work);
            }
        }
    }

    fn retire_idle(&mut self) {
        let now = Instant::now();
        while let Some(idle) = self.roster.remove_idle(self.wiring.settings.router.idle, now) {
            idle.do_send(Retire);
        }
    }

    fn lane_of(&self, event: &Event) -> u32 {
        let lanes = self.wiring.settings.lanes(event.topic());
        self.wiring.shared.hasher.lane(event.event_id(), lanes)
    }

    /// The lanes of a request's events, and for each event which of them is its own.
    fn assign(&self, events: &[Event]) -> (Vec<LaneId>, Vec<usize>) {
        let mut lanes = Vec::new();
        let mut seen: HashMap<(&str, u32), usize, RandomState> = HashMap::default();
        let mut last = None;
        let mut places = Vec::with_capacity(events.len());
        for event in events {
            let lane = (event.topic(), self.lane_of(event));
            let place = match last {
                Some((same, place)) if same == lane => place,
                _ => *seen.entry(lane).or_insert_with(|| {
                    lanes.push(LaneId { topic: Topic::trusted(lane.0), number: lane.1 });
                    lanes.len() - 1
                }),
            };
            last = Some((lane, place));
            places.push(place);
        }
        (lanes, places)
    }

    /// Shares out the events of a request, in their order.
    fn share_out(&self, events: Vec<Event>) -> Vec<Share> {
        let (lanes, places) = self.assign(&events);
        let share = |lane| Share { lane, events: Vec::new(), indexes: Vec::new() };
        let mut shares: Vec<_> = lanes.into_iter().map(share).collect();
        if let [only] = &mut shares[..] {
            only.indexes = (0..).take(events.len()).collect();
            only.events = events;
            return shares;
        }
        for ((index, event), place) in (0..).zip(events).zip(places) {
            shares[place].events.push(event);
            shares[place].indexes.push(index);
        }
        shares
    }
}

impl Drop for Router {
    /// A consumer goes only when it is told to, also where its router dies.
    fn drop(&mut self) {
        for consumer in self.roster.iter() {
            consumer.do_send(Retire);
        }
    }
}

impl Actor for Router {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(ROUND, |router, context| {
            router.retire_idle();
            router.unpark(context);
        });
    }
}

impl Handler<Publish> for Router {
    type Result = ();

    fn handle(&mut self, Publish { events: all, reply }: Publish, context: &mut Self::Context) {
        let undecided = Undecided::new(reply, Arc::clone(&self.wiring.writer));
        for Share { lane, events, indexes } in self.share_out(all) {
            let work = Consume { events, indexes, undecided: undecided.clone() };
            self.dispatch(lane, work, context);
        }
    }
}

impl Handler<Gone> for Router {
    type Result = ();

    fn handle(&mut self, _: Gone, context: &mut Self::Context) {
        self.unpark(context);
    }
}

#[cfg(test)]
impl Handler<super::messages::WithConsumers> for Router {
    type Result = ();

    fn handle(
        &mut self,
        super::messages::WithConsumers(act): super::messages::WithConsumers,
        _: &mut Self::Context,
    ) {
        self.roster.iter().for_each(act);
    }
}
