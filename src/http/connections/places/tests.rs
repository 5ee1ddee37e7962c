//! Places over connections that are only pretended, and a model of the rules.

use std::cell::Cell;
use std::sync::Mutex;

use super::*;

struct Fake(Mutex<Option<Wait>>);

thread_local! {
    /// How often this thread has looked at a connection.
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

impl Waits for Fake {
    fn wait(&self) -> Option<Wait> {
        LOOKS.set(LOOKS.get() + 1);
        *self.0.lock().unwrap()
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn since(seconds: u64) -> Wait {
    Wait { was_served: true, since: at(seconds) }
}

fn waiting(seconds: u64) -> Arc<Fake> {
    Arc::new(Fake(Mutex::new(Some(since(seconds)))))
}

fn busy() -> Arc<Fake> {
    Arc::new(Fake(Mutex::new(None)))
}

/// An address with a bound.
fn address(text: &str) -> Option<Address> {
    text.parse().ok().map(Address::of)
}

fn places(all: usize, address: usize) -> Places<Fake> {
    Places::new(Bounds { all, address, refused: 1 })
}

#[test]
fn past_all_places_the_longest_waiting_connection_is_closed() {
    let mut places = places(3, 3);
    for (ip, connection) in [("10.0.0.1", waiting(2)), ("10.0.0.2", waiting(1)), ("10.0.0.3", busy())] {
        assert!(places.admit(address(ip), connection, at(3)).unwrap().1.is_none());
    }
    let (_, closed) = places.admit(address("10.0.0.4"), busy(), at(3)).unwrap();
    assert_eq!(closed.unwrap().connection.wait(), Some(since(1)));
    let (_, closed) = places.admit(address("10.0.0.4"), busy(), at(3)).unwrap();
    assert_eq!(closed.unwrap().connection.wait(), Some(since(2)));
    assert_eq!(places.admit(address("10.0.0.5"), busy(), at(4)).err(), Some(Full::All));
    assert_eq!(places.iter().count(), 3);
}

#[test]
fn an_address_past_its_bound_closes_its_own_connections_only() {
    let mut places = places(10, 2);
    places.admit(address("10.0.0.1"), waiting(1), at(3)).unwrap();
    for seconds in [2, 3] {
        assert!(places.admit(address("10.0.0.2"), waiting(seconds), at(3)).unwrap().1.is_none());
    }
    let (_, closed) = places.admit(address("10.0.0.2"), busy(), at(3)).unwrap();
    assert_eq!(closed.unwrap().connection.wait(), Some(since(2)));
    places.admit(address("10.0.0.2"), busy(), at(3)).unwrap();
    assert_eq!(places.admit(address("10.0.0.2"), busy(), at(4)).err(), Some(Full::Address));
    assert!(places.admit(None, busy(), at(4)).is_ok(), "a proxy has no bound of its own");
}

#[test]
fn addresses_of_one_network_share_a_bound() {
    let mut places = places(10, 1);
    places.admit(address("2001:db8::1"), busy(), at(0)).unwrap();
    assert_eq!(places.admit(address("2001:db8::2"), busy(), at(0)).err(), Some(Full::Address));
    assert!(places.admit(address("2001:db8:0:1::2"), busy(), at(0)).is_ok());
}

#[test]
fn a_connection_that_was_served_since_the_search_is_not_closed() {
    let mut places = places(3, 3);
    let first = waiting(1);
    for connection in [waiting(0), first.clone(), waiting(2)] {
        places.admit(None, connection, at(3)).unwrap();
    }
    places.admit(None, busy(), at(3)).unwrap();
    *first.0.lock().unwrap() = Some(since(4));
    let (_, closed) = places.admit(None, busy(), at(4)).unwrap();
    assert_eq!(closed.unwrap().connection.wait(), Some(since(2)));
}

#[test]
fn a_place_is_free_again_once() {
    let mut places = places(1, 1);
    let (number, _) = places.admit(address("10.0.0.1"), busy(), at(0)).unwrap();
    assert!(places.remove(number).is_some() && places.remove(number).is_none());
    assert!(places.addresses.is_empty(), "an address without connections is forgotten");
    assert!(places.admit(address("10.0.0.1"), busy(), at(0)).is_ok());
}

fn unserved(seconds: u64) -> Wait {
    Wait { was_served: false, since: at(seconds) }
}

fn sending(seconds: u64) -> Arc<Fake> {
    Arc::new(Fake(Mutex::new(Some(unserved(seconds)))))
}

#[test]
fn slow_connections_end_before_idle_ones_and_new_ones_have_their_second() {
    let mut places = places(4, 4);
    for connection in [waiting(1), sending(5), sending(3), sending(2)] {
        places.admit(None, connection, at(5)).unwrap();
    }
    for expected in [unserved(2), unserved(3), since(1)] {
        let (_, closed) = places.admit(None, busy(), at(5)).unwrap();
        assert_eq!(closed.unwrap().connection.wait(), Some(expected));
    }
    let almost = at(6).checked_sub(Duration::from_millis(1)).unwrap();
    assert_eq!(places.admit(None, busy(), almost).err(), Some(Full::All));
    let (_, closed) = places.admit(None, busy(), at(6)).unwrap();
    assert_eq!(closed.unwrap().connection.wait(), Some(unserved(5)));
}

#[test]
fn in_a_burst_the_first_connections_keep_their_places() {
    let mut places = places(10, 2);
    let burst: Vec<_> = (0..5).map(|_| places.admit(address("10.0.0.1"), sending(0), at(0))).collect();
    assert!(burst[..2].iter().all(|admitted| matches!(admitted, Ok((_, None)))));
    assert!(burst[2..].iter().all(|admitted| matches!(admitted, Err(Full::Address))));
    let (_, closed) = places.admit(address("10.0.0.1"), sending(1), at(1)).unwrap();
    assert_eq!(closed.unwrap().connection.wait(), Some(unserved(0)));
}

/// Admits so many connections of an address at second 0 that were just accepted.
fn flood(places: &mut Places<Fake>, ip: &str, count: usize) {
    for _ in 0..count {
        assert!(places.admit(address(ip), sending(0), at(0)).unwrap().1.is_none());
    }
}

fn held(places: &Places<Fake>, ip: &str) -> usize {
    places.addresses.get(&address(ip).unwrap()).map_or(0, |held| held.numbers.len())
}

#[test]
fn a_flood_gives_up_places_to_an_address_that_holds_far_fewer() {
    let mut places = places(20, 10);
    flood(&mut places, "10.0.0.1", 10);
    flood(&mut places, "10.0.0.2", 10);
    for _ in 0..4 {
        let (_, closed) = places.admit(address("10.0.0.9"), busy(), at(0)).unwrap();
        assert_eq!(closed.unwrap().why, Closing::Crowded);
    }
    let counts = ["10.0.0.1", "10.0.0.2", "10.0.0.9"].map(|ip| held(&places, ip));
    assert_eq!(counts, [8, 8, 4], "the address that holds the most gives up the next one");
    for ip in ["10.0.0.9", "10.0.0.1", "10.0.0.2"] {
        assert_eq!(places.admit(address(ip), sending(0), at(0)).err(), Some(Full::All), "{ip}");
    }
    // A further address of the same attacker takes its own, and none of those that hold few.
    let (_, closed) = places.admit(address("10.0.0.3"), sending(0), at(0)).unwrap();
    assert_eq!(closed.unwrap().why, Closing::Crowded);
    assert_eq!(held(&places, "10.0.0.9"), 4);
}

#[test]
fn of_a_crowd_the_longest_wait_ends_and_a_connection_that_is_served_never() {
    let mut places = places(8, 8);
    let served = sending(0);
    places.admit(address("10.0.0.1"), served.clone(), at(0)).unwrap();
    let millis = Duration::from_millis;
    for wait in [30, 10, 20, 40, 50] {
        let young = Fake(Mutex::new(Some(Wait { was_served: false, since: millis(wait) })));
        places.admit(address("10.0.0.1"), Arc::new(young), millis(60)).unwrap();
    }
    for _ in 0..2 {
        places.admit(address("10.0.0.2"), busy(), millis(60)).unwrap();
    }
    let mut ended = |ip| {
        let (_, closed) = places.admit(address(ip), busy(), millis(60)).unwrap();
        closed.unwrap().connection.wait().unwrap().since
    };
    // Its wait was the longest at the search.
    let first = ended("10.0.0.3");
    *served.0.lock().unwrap() = None;
    assert_eq!([first, ended("10.0.0.4")], [millis(0), millis(10)]);
}

#[test]
fn a_connection_that_is_served_since_the_search_is_passed_over_in_a_crowd() {
    let mut places = places(7, 7);
    let young: Vec<_> = (0..7).map(|_| sending(0)).collect();
    for connection in &young {
        places.admit(address("10.0.0.1"), connection.clone(), at(0)).unwrap();
    }
    places.admit(address("10.0.0.2"), busy(), at(0)).unwrap();
    *young[1].0.lock().unwrap() = None;
    let (_, closed) = places.admit(address("10.0.0.3"), busy(), at(0)).unwrap();
    assert!(Arc::ptr_eq(&closed.unwrap().connection, &young[2]));
}

#[test]
fn an_address_below_the_average_gives_up_nothing() {
    let admit_busy = |places: &mut Places<Fake>, count| {
        for _ in 0..count {
            places.admit(address("10.0.0.1"), busy(), at(0)).unwrap();
        }
    };
    // The address that holds the most is served on all its connections.
    let mut few = places(16, 12);
    admit_busy(&mut few, 12);
    flood(&mut few, "10.0.0.2", 4);
    assert_eq!(few.admit(address("10.0.0.3"), busy(), at(0)).err(), Some(Full::All));
    let mut many = places(16, 12);
    admit_busy(&mut many, 8);
    flood(&mut many, "10.0.0.2", 8);
    many.admit(address("10.0.0.3"), busy(), at(0)).unwrap();
    assert_eq!((held(&many, "10.0.0.1"), held(&many, "10.0.0.2")), (8, 7));
}

#[test]
fn proxies_give_up_nothing_and_count_as_one_address() {
    let mut places = places(12, 6);
    for _ in 0..6 {
        places.admit(None, sending(0), at(0)).unwrap();
    }
    flood(&mut places, "10.0.0.1", 6);
    assert_eq!(places.admit(None, sending(0), at(0)).err(), Some(Full::All), "they hold as many");
    for expected in [5, 4] {
        places.admit(address("10.0.0.2"), busy(), at(0)).unwrap();
        assert_eq!((places.proxied, held(&places, "10.0.0.1")), (6, expected));
    }
    assert_eq!(places.admit(address("10.0.0.2"), busy(), at(0)).err(), Some(Full::All));
}

#[test]
fn one_search_serves_many_connections() {
    let mut places = places(4_000, 2_000);
    flood(&mut places, "10.0.0.1", 2_000);
    flood(&mut places, "10.0.0.2", 2_000);
    for _ in 0..500 {
        places.admit(address("10.0.0.9"), busy(), at(0)).unwrap();
        assert!(places.admit(address("10.0.0.1"), busy(), at(0)).is_err());
    }
    let looks = LOOKS.get();
    assert!((6_000..8_000).contains(&looks), "one search each, of all and of the address: {looks}");
}

#[test]
fn an_address_that_grows_after_the_search_is_known_to_hold_more() {
    let mut places = places(20, 20);
    flood(&mut places, "10.0.0.1", 4);
    let others: Vec<_> =
        (0..16).map(|_| places.admit(address("10.0.0.2"), sending(0), at(0)).unwrap().0).collect();
    places.admit(address("10.0.0.8"), busy(), at(0)).unwrap();
    assert_eq!(others.into_iter().filter_map(|number| places.remove(number)).count(), 15);
    flood(&mut places, "10.0.0.1", 15);
    let (_, closed) = places.admit(address("10.0.0.9"), busy(), at(0)).unwrap();
    assert_eq!((closed.unwrap().why, held(&places, "10.0.0.1")), (Closing::Crowded, 18));
}

mod model {
    use proptest::prelude::*;

    use super::*;

    const ALL: usize = 12;
    const EACH: usize = 6;

    /// What happens next. Connections are chosen by their place among those that are open.
    #[derive(Debug, Clone)]
    enum Step {
        Admit(Option<u8>),
        Serve(prop::sample::Index),
        Wait(prop::sample::Index, bool),
        Close(prop::sample::Index),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let one = any::<prop::sample::Index>;
        prop_oneof![
            // Low numbers come more often, so that some addresses hold many.
            12 => prop::option::weighted(0.95, (0_u8..5, 0_u8..5).prop_map(|(one, other)| one.min(other)))
                .prop_map(Step::Admit),
            4 => one().prop_map(Step::Serve),
            1 => (one(), any::<bool>()).prop_map(|(of, was_served)| Step::Wait(of, was_served)),
            1 => one().prop_map(Step::Close),
            2 => (0_u64..700).prop_map(Step::Pass),
        ]
    }

    struct Connected {
        number: u64,
        address: Option<Address>,
        fake: Arc<Fake>,
    }

    /// Every open connection, in the order of their numbers.
    struct World(Vec<Connected>);

    impl World {
        fn held(&self, address: Option<Address>) -> usize {
            self.0.iter().filter(|open| open.address == address).count()
        }

        /// The first by rank and wait of those that can be closed for any other, or that are young.
        fn first(
            &self,
            now: Duration,
            is_young: bool,
            of: impl Fn(&Connected) -> bool,
        ) -> Option<&Connected> {
            let waits = self.0.iter().filter(|open| of(open)).filter_map(|open| {
                let wait = open.fake.wait()?;
                let rank = wait.rank(now);
                ((rank == Rank::Young) == is_young).then_some((rank, wait, open.number, open))
            });
            waits.min_by_key(|(rank, wait, number, _)| (*rank, *wait, *number)).map(|(.., open)| open)
        }

        /// The rules as the head of `places` says them, by looking at every connection.
        fn expected(&self, address: Option<Address>, now: Duration) -> Result<Option<(u64, Closing)>, Full> {
            let waited = |open: &Connected| Some((open.number, Closing::Waited));
            let own = self.held(address);
            if address.is_some() && own >= EACH {
                return self
                    .first(now, false, |open| open.address == address)
                    .map(waited)
                    .ok_or(Full::Address);
            }
            if self.0.len() < ALL {
                return Ok(None);
            }
            if let Some(open) = self.first(now, false, |_| true) {
                return Ok(waited(open));
            }
            let mut holders: Vec<_> = self.0.iter().filter_map(|open| open.address).collect();
            let bounded = holders.len();
            holders.sort_unstable();
            holders.dedup();
            let sharers = holders.len() + usize::from(own == 0);
            let crowded = holders.into_iter().filter_map(|holder| {
                let young = self.first(now, true, |open| open.address == Some(holder))?;
                Some((self.held(Some(holder)), holder, young))
            });
            let (count, _, young) =
                crowded.max_by_key(|(count, holder, _)| (*count, *holder)).ok_or(Full::All)?;
            if 2 * (own + 1) < count && count * sharers > bounded {
                Ok(Some((young.number, Closing::Crowded)))
            } else {
                Err(Full::All)
            }
        }
    }

    /// Carries out steps. `tick` passes before each of them: with none, searches are as old as they may be.
    fn run(steps: Vec<Step>, tick: Duration) -> Result<(), TestCaseError> {
        let mut places = places(ALL, EACH);
        let (mut world, mut now) = (World(Vec::new()), at(10));
        for step in steps {
            now += tick;
            let at = |index: prop::sample::Index, world: &World| match world.0.len() {
                0 => None,
                open => Some(index.index(open)),
            };
            match step {
                Step::Pass(millis) => now += Duration::from_millis(millis),
                Step::Serve(index) => {
                    let Some(at) = at(index, &world) else { continue };
                    *world.0[at].fake.0.lock().unwrap() = None;
                }
                Step::Wait(index, was_served) => {
                    let Some(at) = at(index, &world) else { continue };
                    *world.0[at].fake.0.lock().unwrap() = Some(Wait { since: now, was_served });
                }
                Step::Close(index) => {
                    let Some(at) = at(index, &world) else { continue };
                    let open = world.0.remove(at);
                    prop_assert!(places.remove(open.number).is_some());
                }
                Step::Admit(last) => {
                    let address = last.map(|last| Address::of([10, 0, 0, last].into()));
                    let fake = Arc::new(Fake(Mutex::new(Some(Wait { since: now, was_served: false }))));
                    let expected = world.expected(address, now);
                    let own = world.held(address);
                    let admitted = places.admit(address, fake.clone(), now);
                    let found = admitted.as_ref().map(|(_, closed)| {
                        closed.as_ref().and_then(|closed| {
                            let is_it = |open: &&Connected| Arc::ptr_eq(&open.fake, &closed.connection);
                            world.0.iter().find(is_it).map(|open| (open.number, closed.why))
                        })
                    });
                    if !tick.is_zero() {
                        prop_assert_eq!(found.map_err(|full| *full), expected);
                    }
                    if let Ok((number, closed)) = admitted {
                        if let Some(Closed { connection, why }) = closed {
                            prop_assert!(connection.wait().is_some(), "a served connection was closed");
                            let at = world.0.iter().position(|open| Arc::ptr_eq(&open.fake, &connection));
                            let open = world.0.remove(at.unwrap());
                            if why == Closing::Crowded {
                                let left = world.held(open.address);
                                prop_assert!(open.address.is_some() && left > own + 1);
                            }
                        }
                        world.0.push(Connected { number, address, fake });
                    }
                }
            }
            prop_assert_eq!(places.open.len(), world.0.len());
            prop_assert!(world.0.len() <= ALL);
            for holder in 0..5 {
                prop_assert!(world.held(Some(Address::of([10, 0, 0, holder].into()))) <= EACH);
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Each connection is admitted, closed or refused as the rules say.
        #[test]
        fn places_are_given_by_the_rules(steps in prop::collection::vec(step(), 1..120)) {
            run(steps, Duration::from_millis(1))?;
        }

        /// Where the last search is old, the bounds hold all the same, no served connection is closed, and
        /// no address loses a young one to an address that holds as many.
        #[test]
        fn no_rule_is_broken_between_searches(steps in prop::collection::vec(step(), 1..120)) {
            run(steps, Duration::ZERO)?;
        }
    }
}
