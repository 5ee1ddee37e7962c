//! Crashes of the real program under load: kills, power cuts, failing disks. After each, everything that was
//! acknowledged must be there, once, and every answer must fit one history.
//!
//! `SEKALI_CRASH_ROUNDS=500` makes as many rounds of each kind (default 20), `SEKALI_CRASH_SEED` repeats a plan: what is sent and
//! when the program dies. What the machine does between the two is not repeated.

mod disk;
mod failing;
pub(crate) mod history;
pub(crate) mod load;
mod mount;
mod plan;
mod replica;
mod stopping;

use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};
use tempfile::tempdir;

use self::disk::Cut;
use self::history::{History, Stored};
use self::load::Load;
use self::mount::Disk;
use self::plan::Pool;
use crate::support::{Client, Ended, Process, everything, given, say, until};

/// Rounds of each kind where nothing else is said.
const ROUNDS: usize = 20;

/// Rounds on one store: its events are read in each of them.
const ROUNDS_PER_STORE: usize = 20;

/// Seals every thousand keys and merges every eight thousand, caches that forget, a log that is checkpointed often:
/// whatever can be cut in two is cut.
const CONFIG: &str =
    "[cache]\nkeys = 500\nkeys_per_topic = 100\n[store]\nseal_keys = 1000\nwal_bytes = \"1MiB\"\n";

/// With relaxed durability a power cut may take what was acknowledged for less long than this.
const RELAXED: Duration = Duration::from_secs(1);

/// The bound of an ordinary run, which may share a busy machine. A run of more rounds has a machine
/// of its own, and keeps [`RELAXED`]. One round lasts longer than this bound, so that a store which
/// never syncs is found out.
const BUSY: Duration = Duration::from_secs(10);

/// A store under test, and all that is known of it.
pub(crate) struct Case {
    pub(crate) rng: Rng,
    /// The setting of the environment that repeats the plan, and its value.
    variable: String,
    pub(crate) seed: u64,
    pub(crate) history: History,
    pub(crate) pool: Pool,
    pub(crate) rounds: usize,
}

impl Case {
    fn new(what: &str) -> Self {
        Self::of(what, "CRASH", ROUNDS)
    }

    /// So many rounds of this kind, where whoever runs the tests says nothing else.
    pub(crate) fn of(what: &str, kind: &str, rounds: usize) -> Self {
        let variable = format!("SEKALI_{kind}_SEED");
        let seed = given(&variable).unwrap_or_else(|| fastrand::u64(..));
        let rounds = given(&format!("SEKALI_{kind}_ROUNDS")).unwrap_or(rounds);
        say(&format!("{what}: {rounds} rounds, {variable}={seed}"));
        let (history, pool) = (History::default(), Pool::default());
        Self { rng: Rng::with_seed(seed), variable, seed, history, pool, rounds }
    }

    /// Goes on by this seed.
    pub(crate) fn plan_by(&mut self, seed: u64) {
        (self.seed, self.rng) = (seed, Rng::with_seed(seed));
    }

    /// Forgets the store, for a new one; gives how many answers were checked.
    pub(crate) fn begin_anew(&mut self) -> usize {
        self.pool.lock().unwrap().clear();
        std::mem::take(&mut self.history).acknowledged()
    }

    /// Sends until so many events are answered, and until `ready` says so.
    async fn send(&mut self, process: &Process, ready: impl Fn() -> bool) -> Load {
        let producers = self.rng.u64(1..=4);
        let target = self.rng.usize(1..3_000);
        let load = Load::start(process.address(), producers, &mut self.rng, &self.pool);
        until("events are answered", async || load.answered() >= target && ready()).await;
        load
    }

    /// Sends until the log says that it cannot write.
    async fn send_until_refused(&mut self, process: &Process) -> Load {
        let load = Load::start(process.address(), 2, &mut self.rng, &self.pool);
        until("the log is not ready", async || !process.is_ready().await).await;
        load
    }

    /// Checks everything that a reader can see. A request whose producer hung up may still be on its way: counts lie
    /// between those before and those after it is read.
    pub(crate) async fn check(&mut self, process: &Client) {
        let unique = async || process.totals("persistent").await[1];
        let (before, mut total) = (unique().await, 0);
        for topic in self.history.topics() {
            let first = count(process, &topic).await;
            let events = read(process, &topic).await;
            let last = events.len() as u64;
            total += last;
            let (variable, seed) = (&self.variable, self.seed);
            self.history.check(&topic, events).unwrap_or_else(|what| panic!("{variable}={seed}: {what}"));
            let counted = first..=count(process, &topic).await;
            assert!(counted.contains(&last), "{topic} has {last} events, and counts {counted:?}");
        }
        let counted = before..=unique().await;
        assert!(counted.contains(&total), "{total} events, and {counted:?} are counted");
        self.check_lookups(process).await;
    }

    /// Asks the dedup index for some events, and compares it with what is read.
    async fn check_lookups(&mut self, process: &Client) {
        let pool = self.pool.lock().unwrap().clone();
        let some: Vec<_> = (0..50).filter_map(|_| self.rng.choice(&pool)).collect();
        let keys: Vec<_> =
            some.iter().map(|(topic, id, _)| json!({"topic": topic, "event_id": id})).collect();
        let found = process.lookup(Value::from(keys)).await.ok().json();
        for ((topic, id, _), found) in some.into_iter().zip(found.as_array().unwrap()) {
            match self.history.seq_of(topic, id) {
                Some(seq) => assert_eq!(found["seq"], seq, "{topic} {id}"),
                None => assert!(
                    found.is_null() || found["seq"].as_u64() > self.history.end(topic),
                    "{topic} {id}"
                ),
            }
        }
    }
}

/// The events that are counted in a topic.
async fn count(process: &Client, topic: &str) -> u64 {
    let answer = process.get(&format!("/topics/{topic}")).await;
    if answer.status == 404 { 0 } else { answer.ok().json()["last_seq"].as_u64().unwrap() }
}

/// All events of a topic.
pub(crate) async fn read(process: &Client, topic: &str) -> Vec<Stored> {
    everything(process, topic).await.iter().map(Stored::of).collect()
}

/// Stops the log, which must be by itself, and has the doctor check all of its file.
async fn stop_and_examine(process: Process, directory: &Path) {
    process.signal("TERM");
    let ended = process.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let store = format!("sqlite:{}", directory.join("log.db").display());
    let doctor = Ended::of(["doctor", "--store", &store]).await;
    assert_eq!(doctor.code, Some(0), "{}{}", doctor.stdout, doctor.stderr);
}

// invariants 1 to 6 and 9: whatever the moment of a kill.
#[actix_web::test]
async fn nothing_acknowledged_is_lost_or_doubled_by_kills() {
    let mut case = Case::new("kills");
    let (mut left, mut checked) = (case.rounds, 0);
    while left > 0 {
        let home = tempdir().unwrap();
        let rounds = left.min(ROUNDS_PER_STORE);
        for _ in 0..rounds {
            let process = Process::configured(home.path(), CONFIG);
            case.check(&process).await;
            let load = case.send(&process, || true).await;
            drop(process);
            case.history.add(load.finish());
        }
        let process = Process::configured(home.path(), CONFIG);
        case.check(&process).await;
        stop_and_examine(process, home.path()).await;
        checked += case.begin_anew();
        left -= rounds;
    }
    say(&format!(
        "kills: {} rounds, {checked} acknowledged events, none lost, none stored twice",
        case.rounds
    ));
}

/// A power cut after some load; gives when the power went.
async fn cut_power(case: &mut Case, disk: &mut Disk, config: &str, cut: Cut, lived: Duration) -> Instant {
    let process = Process::configured(disk.path(), config);
    case.check(&process).await;
    let started = Instant::now();
    let load = case.send(&process, || started.elapsed() >= lived).await;
    disk.die();
    let died = Instant::now();
    drop(process);
    case.history.add(load.finish());
    disk.revive(cut, &mut case.rng);
    died
}

// invariant 1: what is acknowledged with durability full is on the disk.
#[actix_web::test]
async fn nothing_acknowledged_is_lost_or_doubled_by_power_cuts() {
    let mut case = Case::new("power cuts");
    let (mut left, mut checked) = (case.rounds, 0);
    while left > 0 {
        let Some(mut disk) = Disk::new("power cuts") else { return };
        let rounds = left.min(ROUNDS_PER_STORE);
        for round in 0..rounds {
            let cut = [Cut::Wholly, Cut::Random, Cut::Torn][round % 3];
            cut_power(&mut case, &mut disk, CONFIG, cut, Duration::ZERO).await;
        }
        let process = Process::configured(disk.path(), CONFIG);
        case.check(&process).await;
        stop_and_examine(process, disk.path()).await;
        checked += case.begin_anew();
        left -= rounds;
    }
    say(&format!(
        "power cuts: {} rounds, {checked} acknowledged events, none lost, none stored twice",
        case.rounds
    ));
}

#[actix_web::test]
async fn relaxed_durability_loses_at_most_the_newest_second() {
    let mut case = Case::new("power cuts with relaxed durability");
    let config = format!("{CONFIG}durability = \"relaxed\"\n");
    let (mut left, mut lost, mut checked) = (case.rounds.div_ceil(5), 0, 0);
    let bound = if case.rounds > ROUNDS { RELAXED } else { BUSY };
    while left > 0 {
        let Some(mut disk) = Disk::new("power cuts with relaxed durability") else { return };
        let rounds = left.min(ROUNDS_PER_STORE);
        for round in 0..rounds {
            let cut = [Cut::Wholly, Cut::Random, Cut::Torn][round % 3];
            let is_last = left == rounds && round + 1 == rounds;
            let lived =
                if is_last { BUSY + RELAXED } else { Duration::from_millis(case.rng.u64(500..2_500)) };
            let died = cut_power(&mut case, &mut disk, &config, cut, lived).await;
            let process = Process::configured(disk.path(), &config);
            for topic in case.history.topics() {
                let end = read(&process, &topic).await.len() as u64;
                let taken = case.history.forget_behind(&topic, end);
                let age =
                    taken.oldest.map_or(Duration::ZERO, |oldest| died.saturating_duration_since(oldest));
                assert!(age <= bound, "{topic}: lost what was acknowledged {age:?} before the cut");
                lost += taken.acknowledged;
            }
            case.check(&process).await;
        }
        let process = Process::configured(disk.path(), &config);
        case.check(&process).await;
        stop_and_examine(process, disk.path()).await;
        checked += case.begin_anew();
        left -= rounds;
    }
    say(&format!(
        "relaxed: {checked} acknowledged events kept, {lost} of the last second lost, none stored twice"
    ));
}

/// That the harness can see a loss: on a disk that lies about its syncs there is one.
#[actix_web::test]
async fn a_disk_that_lies_about_syncs_is_found_out() {
    let mut case = Case::new("a lying disk");
    let Some(mut disk) = Disk::new("a lying disk") else { return };
    disk.lie();
    cut_power(&mut case, &mut disk, CONFIG, Cut::Wholly, Duration::ZERO).await;
    let process = Process::configured(disk.path(), CONFIG);
    let mut found = Vec::new();
    for topic in case.history.topics() {
        let events = read(&process, &topic).await;
        found.extend(case.history.check(&topic, events).err());
    }
    assert!(found.iter().any(|what| what.contains("LOST")), "{found:?}");
}
