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
use super::keeper::report_restart;
use super::lane::{Lane, Shared};
use super::messages::{Consume, Gone, Publish, Retire, Share};
use super::roster::{LaneId, Roster};
use super::undecided::Undecided;
use super::writers::Writers;
use crate::config::Settings;
use crate::domain::{Event, Topic};
use crate::metrics::CONSUMER;
#[cfg(test)]
use crate::testing::{Moment, pass};

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
    pub(super) writers: Arc<Writers>,
}

/// The actor.
pub(super) struct Router {
    wiring: Wiring,
    roster: Roster<Member>,
    /// Lanes whose consumer cannot be started before another one is gone, the oldest first, and their work.
    parked: VecDeque<LaneId>,
    parked_work: HashMap<LaneId, Vec<(Share, Undecided)>>,
    /// The shard of the next consumer.
    next_shard: usize,
}

/// A consumer that is alive.
#[derive(Clone)]
struct Member {
    address: Addr<Consumer>,
    lane: Arc<Lane>,
    /// Which of the shards it runs on.
    shard: usize,
}

impl Member {
    fn retire(&self) {
        self.address.do_send(Retire);
    }
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

    /// Passes on the shares of a request: one message for each shard, however many topics there are, and one for each
    /// lane whose consumer has to be started.
    fn dispatch(&mut self, shares: Vec<(LaneId, Share)>, undecided: &Undecided, context: &mut Context<Self>) {
        let now = Instant::now();
        let mut of_shards: Vec<Option<(Addr<Consumer>, Consume)>> = Vec::new();
        of_shards.resize_with(self.wiring.shards.len(), || None);
        let metrics = Arc::clone(&self.wiring.shared.metrics);
        let none = || Consume::new(undecided.clone(), &metrics);
        let mut without_consumer = Vec::new();
        for (id, share) in shares {
            match self.find(&id, now) {
                Some(Member { address, lane, shard }) => {
                    let (_, work) = of_shards[shard].get_or_insert_with(|| (address, none()));
                    work.add(lane, share);
                }
                None => without_consumer.push((id, share)),
            }
        }
        for (consumer, work) in of_shards.into_iter().flatten() {
            #[cfg(test)]
            pass(Moment::Share);
            consumer.do_send(work);
        }
        // Only now, because to start consumers may retire those that were found.
        for (id, share) in without_consumer {
            #[cfg(test)]
            pass(Moment::Share);
            // Looked for again: a lane that waits already may just have been started before another one.
            if let Some(Member { address, lane, .. }) = self.find(&id, now) {
                address.do_send(none().with(lane, share));
                continue;
            }
            self.park(id, share, undecided.clone());
            self.unpark(context);
        }
    }

    /// Lets a lane wait for a consumer, behind those that wait already: one that came later must not take the place
    /// of one of them.
    fn park(&mut self, id: LaneId, share: Share, undecided: Undecided) {
        if let Some(earlier) = self.parked_work.get_mut(&id) {
            earlier.push((share, undecided));
        } else {
            self.parked_work.insert(id.clone(), vec![(share, undecided)]);
            self.parked.push_back(id);
        }
    }

    /// The consumer of a lane, if it lives.
    fn find(&mut self, lane: &LaneId, now: Instant) -> Option<Member> {
        let member = self.roster.touch(lane, now)?;
        if member.address.connected() {
            return Some(member.clone());
        }
        report_restart(CONSUMER, &self.wiring.shared.metrics);
        self.roster.remove(lane);
        None
    }

    /// Starts the consumer of a lane that has none.
    fn start(&mut self, id: LaneId, context: &mut Context<Self>) -> Member {
        let Wiring { settings, shards, room, shared, .. } = &self.wiring;
        let topic = id.topic.as_str();
        let lanes = settings.lanes(topic);
        let cache = HotCache::new(settings.keys_per_topic(topic).div_ceil(lanes), Arc::clone(room));
        let lane = Arc::new(Lane::new(id.topic.clone(), cache, shared.clone()));
        let consumer = Consumer::new(Alive::new(Arc::clone(&shared.metrics), context.address()));
        self.next_shard = (self.next_shard + 1) % shards.len();
        let address = Consumer::start_in_arbiter(&shards[self.next_shard], |_| consumer);
        let member = Member { address, lane, shard: self.next_shard };
        self.roster.add(id, member.clone(), Instant::now());
        member
    }

    /// Serves parked lanes as far as consumers can be started, and sees to it that there will be room for the others.
    fn unpark(&mut self, context: &mut Context<Self>) {
        while self.has_room()
            && let Some(id) = self.parked.pop_front()
        {
            let parked_work = self.parked_work.remove(&id);
            let Member { address, lane, .. } = self.start(id, context);
            for (share, undecided) in parked_work.into_iter().flatten() {
                let work = Consume::new(undecided, &self.wiring.shared.metrics);
                address.do_send(work.with(Arc::clone(&lane), share));
            }
        }
        self.make_room();
    }

    /// Whether one more consumer may be alive. One that was retired is, until it is gone.
    fn has_room(&self) -> bool {
        let alive = usize::try_from(self.wiring.shared.metrics.consumers.get()).unwrap_or(0);
        alive < self.wiring.settings.router.consumers
    }

    /// Retires the longest idle consumers, one for each lane that waits. Those that were retired before are not in the
    /// roster any more: each takes its cache with it, so that none is retired for a lane that waits for another one to go.
    fn make_room(&mut self) {
        let most = self.wiring.settings.router.consumers;
        while self.parked.len() > most.saturating_sub(self.roster.len())
            && let Some(longest_idle) = self.roster.remove_longest_idle()
        {
            longest_idle.retire();
        }
    }

    fn retire_idle(&mut self) {
        let now = Instant::now();
        while let Some(idle) = self.roster.remove_idle(self.wiring.settings.router.idle, now) {
            idle.retire();
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
    fn share_out(&self, events: Vec<Event>) -> Vec<(LaneId, Share)> {
        let (lanes, places) = self.assign(&events);
        let mut shares: Vec<_> = lanes.into_iter().map(|lane| (lane, Share::default())).collect();
        if let [(_, only)] = &mut shares[..] {
            only.indexes = (0..).take(events.len()).collect();
            only.events = events;
            return shares;
        }
        for ((index, event), place) in (0..).zip(events).zip(places) {
            let (_, share) = &mut shares[place];
            share.events.push(event);
            share.indexes.push(index);
        }
        shares
    }
}

impl Drop for Router {
    /// A consumer goes only when it is told to, also where its router dies.
    fn drop(&mut self) {
        self.roster.iter().for_each(Member::retire);
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

    fn handle(&mut self, Publish { events, reply, queued }: Publish, context: &mut Self::Context) {
        drop(queued);
        let undecided = Undecided::new(reply, Arc::clone(&self.wiring.writers));
        let shares = self.share_out(events);
        self.dispatch(shares, &undecided, context);
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
        self.roster.iter().map(|member| &member.address).for_each(act);
    }
}
