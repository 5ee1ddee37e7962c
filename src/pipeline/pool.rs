//! A bounded resource that addresses share: what one address holds is bounded by what is still free.
//!
//! This is the dynamic threshold of switches with a shared buffer (Choudhury and Hahne, "Dynamic Queue
//! Length Thresholds for Shared-Memory Packet Switches", 1998): an address may hold at most
//! [`SHARE`] times the free part of a pool. No list of addresses and no weights are needed.
//!
//! | greedy addresses | each holds in the end | stays free |
//! | --- | --- | --- |
//! | 1 | 3/4 of the pool | 1/4 |
//! | 2 | 3/7 | 1/7 |
//! | n | 3/(1 + 3n) | 1/(1 + 3n) |
//!
//! The first address that comes may hold more than that. It gets nothing more then: the next bytes of
//! each of its bodies are refused, and the body with them. Bodies cannot avoid that by bringing nothing
//! (`server.body_min_rate`), so shares become equal within `server.body_grace`.
//!
//! A resource is two pools. The reserve, an eighth, is for small requests alone; a small request that
//! finds no room there takes it from the large pool, so that small requests alone may fill both. A
//! request that grows past the bound moves to the large pool with everything that it holds.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The most that an address may hold of a pool, as a multiple of the free part.
pub(super) const SHARE: usize = 3;

/// The part of a resource that only small requests may use.
const RESERVE_PART: usize = 8;

/// A small request is at most this part of the reserve, whatever the bound of the resource is.
const SMALL_PART: usize = 16;

/// The part of a limit that is kept free at most for a request that was refused late, so that one large
/// request does not have to wait until its address holds nothing.
const WANTED_PART: usize = 8;

/// Bytes or events that all requests share.
#[derive(Debug)]
pub(super) struct Resource {
    /// The key of its limit.
    pub(super) name: &'static str,
    pub(super) limit: usize,
    /// The most that a small request takes.
    small_max: usize,
    reserve: Pool,
    large: Pool,
}

/// A part of a resource.
#[derive(Debug)]
struct Pool {
    limit: usize,
    taken: AtomicUsize,
}

/// What one address holds of a resource.
#[derive(Debug, Default)]
pub(super) struct Held {
    reserve: AtomicUsize,
    large: AtomicUsize,
    /// The amount that was refused last, 0 once there was room for it. Until then a request of the
    /// address need not be tried: a request that is refused late has cost as much as one that is
    /// served.
    wanted: AtomicUsize,
}

/// What one request has taken of a resource.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) amount: usize,
    place: Place,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Reserve,
    Large,
}

/// Why an amount is not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The resource is used up, by other addresses for the greater part.
    Full,
    /// The address holds more than its share.
    OverShare,
}

impl Resource {
    /// A resource of `limit` units, of which a small request takes at most `small_max`.
    pub(super) fn new(name: &'static str, limit: usize, small_max: usize) -> Self {
        let small_max = small_max.min(limit / RESERVE_PART / SMALL_PART);
        let reserve = if small_max > 0 { limit / RESERVE_PART } else { 0 };
        let pool = |units| Pool { limit: units, taken: AtomicUsize::new(0) };
        Self { name, limit, small_max, reserve: pool(reserve), large: pool(limit - reserve) }
    }

    /// The units that all requests hold.
    pub(super) fn taken(&self) -> usize {
        self.reserve.taken.load(Ordering::Relaxed) + self.large.taken.load(Ordering::Relaxed)
    }

    /// Takes `amount` more for a request.
    pub(super) fn take(&self, amount: usize, held: &Held, taken: &mut Taken) -> Result<(), Refused> {
        let after = taken.amount.checked_add(amount).ok_or(Refused::Full)?;
        if taken.place == Place::Reserve {
            if after <= self.small_max && self.reserve.take(amount, &held.reserve).is_ok() {
                taken.amount = after;
                return Ok(());
            }
            self.large.take(after, &held.large).inspect_err(|_| self.want(held, after))?;
            self.reserve.give_back(taken.amount, &held.reserve);
            taken.place = Place::Large;
        } else {
            self.large.take(amount, &held.large).inspect_err(|_| self.want(held, after))?;
        }
        taken.amount = after;
        Ok(())
    }

    /// Whether a request that is going to need `amount` is worth reading now. Takes nothing.
    pub(super) fn look_for(&self, amount: usize, is_small: bool, held: &Held) -> Result<(), Refused> {
        if is_small && amount <= self.small_max && self.reserve.fits(amount, &held.reserve).is_ok() {
            return Ok(());
        }
        let wanted = held.wanted.load(Ordering::Relaxed);
        self.large.fits(amount.max(wanted), &held.large)?;
        if wanted > 0 {
            held.wanted.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether a request of this amount is small.
    pub(super) fn is_small(&self, amount: usize) -> bool {
        amount <= self.small_max
    }

    /// Gives back a part of what a request has taken.
    pub(super) fn give_back(&self, amount: usize, held: &Held, taken: &mut Taken) {
        debug_assert!(amount <= taken.amount, "a request gives back at most what it took");
        taken.amount -= amount;
        match taken.place {
            Place::Reserve => self.reserve.give_back(amount, &held.reserve),
            Place::Large => self.large.give_back(amount, &held.large),
        }
    }

    /// Takes `amount` for the log itself, whatever the limit is: no address holds it.
    pub(super) fn overdraw(&self, amount: usize) {
        self.large.taken.fetch_add(amount, Ordering::Relaxed);
    }

    /// Gives back what was overdrawn.
    pub(super) fn repay(&self, amount: usize) {
        let before = self.large.taken.fetch_sub(amount, Ordering::Relaxed);
        debug_assert!(before >= amount, "a pool gets back what it gave");
    }

    fn want(&self, held: &Held, amount: usize) {
        held.wanted.store(amount.min(self.large.limit / WANTED_PART), Ordering::Relaxed);
    }
}

impl Pool {
    fn take(&self, amount: usize, held: &AtomicUsize) -> Result<(), Refused> {
        // Added first and looked at then, so that requests of one address cannot pass the bound
        // together.
        let before = held.fetch_add(amount, Ordering::Relaxed);
        let fits = |taken: usize| {
            let free = self.limit.checked_sub(taken.checked_add(amount)?)?;
            (before.saturating_add(amount) <= free.saturating_mul(SHARE)).then_some(taken + amount)
        };
        let outcome = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        outcome.map(drop).map_err(|taken| {
            held.fetch_sub(amount, Ordering::Relaxed);
            self.refusal(taken, before)
        })
    }

    fn fits(&self, amount: usize, held: &AtomicUsize) -> Result<(), Refused> {
        let (taken, before) = (self.taken.load(Ordering::Relaxed), held.load(Ordering::Relaxed));
        let after = taken.checked_add(amount).and_then(|after| self.limit.checked_sub(after));
        let fits = after.is_some_and(|free| before.saturating_add(amount) <= free.saturating_mul(SHARE));
        if fits { Ok(()) } else { Err(self.refusal(taken, before)) }
    }

    /// An address that holds more than what is free, or more than all others together, is told so; any
    /// other one meets the load of others.
    fn refusal(&self, taken: usize, held: usize) -> Refused {
        let (free, others) = (self.limit.saturating_sub(taken), taken.saturating_sub(held));
        if held > free.min(others) { Refused::OverShare } else { Refused::Full }
    }

    fn give_back(&self, amount: usize, held: &AtomicUsize) {
        let (all, own) =
            (self.taken.fetch_sub(amount, Ordering::Relaxed), held.fetch_sub(amount, Ordering::Relaxed));
        debug_assert!(all >= amount && own >= amount, "a pool gets back what it gave");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8,000 units, of which 1,000 are the reserve; a request of at most 50 is small.
    fn resource() -> Resource {
        Resource::new("limits.test", 8_000, 50)
    }

    /// Takes pieces of this size until one is refused.
    fn fill(resource: &Resource, piece: usize, held: &Held) -> (Vec<Taken>, Refused) {
        let mut all = Vec::new();
        loop {
            let mut taken = Taken::default();
            match resource.take(piece, held, &mut taken) {
                Ok(()) => all.push(taken),
                Err(refused) => return (all, refused),
            }
        }
    }

    #[test]
    fn one_greedy_address_leaves_a_quarter_of_each_pool() {
        let (resource, greedy) = (resource(), Held::default());
        let (large, refused) = fill(&resource, 100, &greedy);
        assert_eq!((large.len(), refused), (52, Refused::OverShare), "5,200 of 7,000");
        let (small, refused) = fill(&resource, 10, &greedy);
        // 750 of the reserve, then what is left of its share of the large pool.
        assert_eq!((small.len(), refused), (75 + 5, Refused::OverShare));
        let (other, refused) = fill(&resource, 100, &Held::default());
        assert_eq!((other.len(), refused), (13, Refused::OverShare), "3/4 of what was free");
        let (other, _) = fill(&resource, 10, &Held::default());
        assert_eq!(other.len() * 10, 180 + 330, "small ones have the reserve as well");
    }

    #[test]
    fn a_newcomer_is_served_beside_greedy_addresses_and_those_lose_what_is_over_their_share() {
        let (resource, greedy) = (resource(), [(); 3].map(|()| Held::default()));
        let mut first = fill(&resource, 60, &greedy[0]).0;
        let _others = [&greedy[1], &greedy[2]].map(|held| fill(&resource, 60, held).0);
        assert_eq!(resource.take(50, &Held::default(), &mut Taken::default()), Ok(()), "the reserve");
        // Not its own doing, and so not its share that is used up.
        assert_eq!(resource.take(500, &Held::default(), &mut Taken::default()), Err(Refused::Full));
        // Every body of the first address brings one byte more.
        let mut lost = 0;
        first.retain_mut(|taken| {
            let refused = resource.take(1, &greedy[0], taken).is_err();
            if refused {
                lost += taken.amount;
                resource.give_back(taken.amount, &greedy[0], taken);
            }
            !refused
        });
        assert!(lost > 1_000, "{lost}");
        assert_eq!(resource.take(500, &Held::default(), &mut Taken::default()), Ok(()));
    }

    #[test]
    fn large_requests_never_take_the_reserve() {
        let resource = resource();
        let greedy: Vec<_> = (0..50).map(|_| Held::default()).collect();
        for held in &greedy {
            fill(&resource, 60, held);
        }
        assert_eq!(resource.reserve.taken.load(Ordering::Relaxed), 0);
        let (small, _) = fill(&resource, 50, &greedy[0]);
        assert_eq!(small.len(), 15, "also for the address that holds most");
    }

    #[test]
    fn a_request_that_grows_moves_and_gives_everything_back() {
        let (resource, held) = (resource(), Held::default());
        let mut taken = Taken::default();
        for expected in [(40, 0), (0, 80), (0, 120)] {
            resource.take(40, &held, &mut taken).unwrap();
            let places = [&resource.reserve, &resource.large].map(|pool| pool.taken.load(Ordering::Relaxed));
            assert_eq!((places[0], places[1]), expected);
        }
        resource.give_back(20, &held, &mut taken);
        assert_eq!((resource.taken(), taken.amount), (100, 100));
        resource.give_back(100, &held, &mut taken);
        assert_eq!((resource.taken(), held.large.load(Ordering::Relaxed)), (0, 0));
        assert_eq!(held.reserve.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_refused_amount_must_be_free_before_the_same_address_tries_again() {
        let (resource, held) = (resource(), Held::default());
        let (mut all, _) = fill(&resource, 100, &held);
        assert_eq!(resource.take(800, &held, &mut Taken::default()), Err(Refused::OverShare));
        let mut give_back = || {
            let mut taken = all.pop().unwrap();
            resource.give_back(100, &held, &mut taken);
        };
        (0..3).for_each(|_| give_back());
        assert_eq!(resource.look_for(100, false, &held), Err(Refused::OverShare), "800 do not fit yet");
        assert_eq!(resource.look_for(100, false, &Held::default()), Ok(()), "others need not wait");
        (0..10).for_each(|_| give_back());
        assert_eq!(resource.look_for(100, false, &held), Ok(()));
        assert_eq!(resource.take(7_001, &held, &mut Taken::default()), Err(Refused::OverShare));
        assert_eq!(held.wanted.load(Ordering::Relaxed), 7_000 / WANTED_PART, "never the whole limit");
    }

    #[test]
    fn a_resource_that_is_tiny_has_no_reserve() {
        let (tiny, held) = (Resource::new("limits.test", 100, 50), Held::default());
        assert!(!tiny.is_small(1) && tiny.is_small(0));
        assert_eq!(tiny.take(75, &held, &mut Taken::default()), Ok(()));
        assert_eq!(tiny.take(1, &held, &mut Taken::default()), Err(Refused::OverShare));
        assert_eq!(tiny.take(usize::MAX, &Held::default(), &mut Taken::default()), Err(Refused::Full));
    }
}
