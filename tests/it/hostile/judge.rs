//! What a victim must be given during an attack and after it, and the run of an attack that is
//! judged.
//!
//! 1. Of 100 small publishes 99 are 200 within a second. Where the attack comes from the victim's
//!    own address, a 429 with `Retry-After` within a second counts as well.
//! 2. Of 100 questions for `/health/live` to the ops listener 99 are 200 within a second, wherever
//!    the attack comes from.
//! 3. The memory of the process stays below the [bound](super::bound) that its settings imply.
//! 4. Within 5 s of the end of the attack, every publish and every question is 200 within a second
//!    again.
//!
//! A busy machine may break the rules 1, 2 and 4, also with the attacker's own work: an attempt
//! that fails is repeated, and not counted where a victim of another log, which nobody attacks, is
//! not served either at the same time. A victim there that is not served even once has met a fault
//! of the log, and excuses nothing.

use std::env;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::victim::{Seen, Victim, recovery};
use super::{OWN, STRANGER, Target};
use crate::support::{alone, say};

/// Seconds of an attack where the environment names no number.
const SECONDS: u64 = 2;

/// The longest until service is as before: the figure of the issue.
const RECOVERED_IN: Duration = Duration::from_secs(5);

/// The longest that a machine may be too busy to serve a victim without an attack, in all tests
/// together.
const BUSY_MAX: Duration = Duration::from_mins(2);

/// Attempts before a share of successes counts as missed: a busy machine may stall any single one.
const ATTEMPTS: usize = 3;

/// An attack that the victim has endured.
pub(super) struct Endured {
    /// Where the attack came from.
    pub(super) from: IpAddr,
    pub(super) target: Target,
    pub(super) seen: Seen,
    recovered: Duration,
}

/// The length of one attack.
fn lasting() -> Duration {
    let seconds = env::var("SEKALI_HOSTILE_SECONDS").ok().map(|value| value.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(SECONDS))
}

/// Runs the attack of a row from the address of a stranger and from that of the victim, each on a
/// fresh target beside a victim, until the victim was given its due in one of [`ATTEMPTS`]; fails
/// with the last observation otherwise. The attack gets the target, the address that it comes from
/// and the time that it lasts, and returns whatever must stay alive until the victim stops.
pub(super) fn endured<T>(
    row: &str,
    start: impl Fn() -> Target,
    attack: impl Fn(&Target, IpAddr, Duration) -> T,
) -> [Endured; 2] {
    [STRANGER, OWN].map(|from| {
        let _alone = alone();
        let endured = judged(row, from, &start, &attack);
        say(&endured.as_row(row));
        if !endured.seen.failures.is_empty() {
            say(&format!("{row}, from {from}: {:?}", endured.seen.failures));
        }
        endured
    })
}

fn judged<T>(
    row: &str,
    from: IpAddr,
    start: &impl Fn() -> Target,
    attack: &impl Fn(&Target, IpAddr, Duration) -> T,
) -> Endured {
    /// The time that attempts took for which the machine was too busy, of all tests.
    static BUSY: Mutex<Duration> = Mutex::new(Duration::ZERO);
    let (mut failed, mut last) = (0, String::new());
    while failed < ATTEMPTS {
        let begun = Instant::now();
        let (endured, is_busy) = attempt(from, start(), attack);
        let (seen, most) = (&endured.seen, endured.target.memory);
        assert!(seen.memory < most, "{row}, from {from}: more than {} MiB: {}", most >> 20, seen.said());
        if endured.is_served() {
            return endured;
        }
        last = format!("served after {:?}; {}", endured.recovered, seen.said());
        say(&format!("\n{row}, from {from}: an attempt failed: {last}"));
        if !is_busy {
            failed += 1;
            continue;
        }
        let mut busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
        *busy += begun.elapsed();
        if *busy > BUSY_MAX {
            say(&format!(
                "NOT JUDGED: the machine serves no victim of a log without an attack either: {last}"
            ));
            return endured;
        }
    }
    panic!("{row}, from {from}: the victim was not served in {ATTEMPTS} attempts: {last}");
}

/// One attempt, and whether the machine was too busy to serve anybody.
fn attempt<T>(
    from: IpAddr,
    target: Target,
    attack: &impl Fn(&Target, IpAddr, Duration) -> T,
) -> (Endured, bool) {
    let beside = Target::start("");
    let victims = [&target, &beside].map(|target| Victim::start(&target.process));
    let kept = attack(&target, from, lasting());
    let [mut seen, elsewhere] = victims.map(Victim::stop);
    drop(kept);
    let recovering = |target: &Target| recovery(&target.process, Instant::now());
    let (recovered, memory) = recovering(&target);
    seen.memory = seen.memory.max(memory);
    let is_served_at_times = elsewhere.published.served > 0 && elsewhere.health.served > 0;
    let is_late = !elsewhere.published.is_served()
        || !elsewhere.health.is_served()
        || recovered > RECOVERED_IN && recovering(&beside).0 > RECOVERED_IN;
    (Endured { from, target, seen, recovered }, is_served_at_times && is_late)
}

impl Endured {
    fn is_served(&self) -> bool {
        let Seen { published, health, .. } = &self.seen;
        let is_own = self.from == OWN;
        let is_published = if is_own { published.is_served_or_told() } else { published.is_served() };
        let may_tell = is_own && self.target.is_attacked_at_health;
        let is_healthy = if may_tell { health.is_served_or_told() } else { health.is_served() };
        is_published && is_healthy && self.recovered <= RECOVERED_IN
    }

    /// A row of the table in docs/RELIABILITY.md: the row, who attacks, publishes and questions for
    /// health that were served in time, those answered 429, the most memory and its bound in MiB,
    /// and the time until service was as before.
    fn as_row(&self, row: &str) -> String {
        let Seen { published, health, memory, .. } = &self.seen;
        let who = if self.from == OWN { "victim's own address" } else { "stranger" };
        let told = published.told + health.told;
        let (memory, most) = (memory >> 20, self.target.memory >> 20);
        let recovered = self.recovered.as_secs_f64();
        // On a line of its own, also behind what the harness prints of a test.
        format!(
            "\n| {row} | {who} | {} of {} | {} of {} | {told} | {memory} of {most} | {recovered:.2} s |",
            published.served, published.total, health.served, health.total
        )
    }
}

#[test]
fn a_victim_without_an_attack_is_served() {
    let _alone = alone();
    let row = "nobody attacks";
    let endured = judged(row, STRANGER, &|| Target::start(""), &|_, _, lasting| thread::sleep(lasting));
    say(&endured.as_row(row));
    let seen = endured.seen;
    assert_eq!(seen.published.told, 0, "{seen:?}");
    assert!(seen.memory > 1 << 20 && seen.failures.len() < 3, "{seen:?}");
}
