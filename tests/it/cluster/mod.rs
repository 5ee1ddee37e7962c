//! Faults of a whole cluster: three nodes with addresses of their own and one PostgreSQL, each of which is killed, frozen, cut
//! off or restarted under load. Producers send again, to another node, what was not answered; afterwards everything that was
//! acknowledged must be there, once, and readers must have seen it in order.
//!
//! `SEKALI_FAULT_ROUNDS=100` makes as many rounds (default: one of each fault). Each round has a seed of its own, which decides what
//! breaks and what is sent; `SEKALI_FAULT_SEED` begins with one. What the machine does meanwhile is not repeated.

mod fault;
mod nodes;
mod readers;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix_web::rt::System;

use self::fault::Fault;
use self::nodes::{Cluster, NODES};
use self::readers::Readers;
use crate::crash::history::History;
use crate::crash::load::Load;
use crate::crash::{Case, read};
use crate::support::network::Network;
use crate::support::{say, signal, skipped, until};

/// Rounds on one store: its events are read in each of them.
const ROUNDS_PER_STORE: usize = 12;

/// Short patience with the database, so that a round is short: a connection takes a second where its first word is lost. Caches
/// that forget.
const CONFIG: &str = "[server]\nshutdown_timeout = \"5s\"\n[cache]\nkeys = 500\nkeys_per_topic = 100\n\
    [store]\nlock_timeout = \"1s\"\nconnect_timeout = \"2s\"\nstatement_timeout = \"1s\"\n";

/// What all rounds with a fault have seen.
#[derive(Default)]
struct Seen {
    rounds: usize,
    /// The longest until a batch had its verdicts, in milliseconds.
    slowest: u64,
    /// The longest until all nodes were ready again.
    ready: Duration,
    /// The longest until a node that is cut off said so.
    refused: Duration,
    /// Connections of the database that were ended within a commit.
    ended: usize,
}

/// Does something in a network of three nodes and a hub, on a thread of the hub; says so where there can be none.
fn in_a_network(test: impl AsyncFnOnce(Cluster<'_>) + Send) {
    let network = match Network::of(NODES) {
        Ok(network) => network,
        Err(why) => return skipped(&format!("no network namespaces, which need root and iproute2: {why}")),
    };
    network.hub.inside(|| {
        System::new().block_on(async {
            match Cluster::start(&network, CONFIG) {
                Some(cluster) => test(cluster).await,
                None => skipped("no initdb and postgres on PATH or where Debian puts them"),
            }
        });
    });
}

// invariants 1 to 3, 5 and 6: whatever breaks between producers, nodes, database and readers.
#[test]
fn nothing_acknowledged_is_lost_or_doubled_by_faults_of_nodes_and_their_database() {
    in_a_network(async |mut cluster| {
        let mut case = Case::of("faults of nodes", "FAULT", Fault::ALL.len());
        let (first, mut checked) = (case.seed, 0);
        let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
        let mut readers = Readers::follow(&cluster.addresses());
        let mut counted = Counted::default();
        for round in 0..case.rounds {
            if round % ROUNDS_PER_STORE == 0 && round > 0 {
                drop(readers);
                checked += case.begin_anew();
                cluster.begin_anew(CONFIG);
                (readers, counted) = (Readers::follow(&cluster.addresses()), Counted::default());
            }
            case.plan_by(first.wrapping_add(round as u64));
            let fault = Fault::of(case.seed);
            say(&format!("round {round}: {fault:?}, SEKALI_FAULT_SEED={}", case.seed));
            suffer(&mut case, &mut cluster, fault, seen.entry(fault.name()).or_default()).await;
            judge(&mut case, &cluster, &readers).await;
            counted.check(&case.history, &cluster, fault).await;
        }
        checked += case.begin_anew();
        for (fault, Seen { rounds, slowest, ready, refused, ended }) in seen {
            let (ready, refused) = (ready.as_millis(), refused.as_millis());
            say(&format!(
                "{fault}: {rounds} rounds; at most {slowest} ms until a batch had its verdicts, {ready} ms until all nodes \
                 were ready again, {refused} ms until a node that was cut off said so; {ended} connections ended in a commit"
            ));
        }
        let rounds = case.rounds;
        say(&format!(
            "faults of nodes: {rounds} rounds, {checked} acknowledged events, none lost, none stored twice"
        ));
    });
}

/// One fault under load, until all is whole again.
async fn suffer(case: &mut Case, cluster: &mut Cluster<'_>, fault: Fault, seen: &mut Seen) {
    let producers = case.rng.u64(3..=5);
    let load = Load::over(&cluster.addresses(), producers, &mut case.rng, &case.pool);
    let warm = case.rng.usize(300..2_000);
    until("events are answered", async || load.answered() >= warm).await;
    fault.strike(case, cluster, &load, seen).await;
    let mended = Instant::now();
    until("all nodes are ready", async || cluster.is_ready().await).await;
    seen.ready = seen.ready.max(mended.elapsed());
    progress(&load).await;
    let slowest = load.slowest();
    case.history.add(load.finish());
    seen.slowest = seen.slowest.max(slowest.load(Ordering::Relaxed));
    seen.rounds += 1;
}

/// Waits until producers get on.
async fn progress(load: &Load) {
    let before = load.answered();
    until("producers get on", async || load.answered() >= before + 300).await;
}

/// Checks what is stored, whichever node is asked, and what readers saw.
async fn judge(case: &mut Case, cluster: &Cluster<'_>, readers: &Readers) {
    for node in 0..NODES {
        case.check(&cluster.client(node)).await;
    }
    readers.check(&case.history).await;
}

/// How many duplicates are counted: a kill of a node may take those of its last second.
#[derive(Default)]
struct Counted {
    /// After the last kill.
    base: u64,
    /// How many were answered by then.
    answered: u64,
}

impl Counted {
    /// All nodes count the same: each event once, each repeat that was answered, and no more than was sent.
    async fn check(&mut self, history: &History, cluster: &Cluster<'_>, fault: Fault) {
        let answered = history.repeats() as u64;
        let least = self.base + if fault == Fault::Kill { 0 } else { answered - self.answered };
        let mut totals = [0; 5];
        until(&format!("all nodes count the same, and at least {least} duplicates"), async || {
            let mut counts = Vec::new();
            for node in 0..NODES {
                let client = cluster.client(node);
                counts
                    .push((client.totals("persistent").await, client.read("/topics").await["topics"].take()));
            }
            totals = counts[0].0;
            let topics = counts[0].1.as_array().unwrap();
            let stored: u64 = topics.iter().map(|topic| topic["last_seq"].as_u64().unwrap()).sum();
            counts.iter().all(|count| *count == counts[0]) && totals[1] == stored && totals[2] >= least
        })
        .await;
        let [received, unique, duplicates, _, rejected] = totals;
        assert_eq!((received, rejected), (unique + duplicates, 0));
        let attempts = history.attempts() as u64;
        assert!(received <= attempts, "{attempts} events were sent, and {received} are counted");
        if fault == Fault::Kill {
            (self.base, self.answered) = (duplicates, answered);
        }
    }
}

/// That the harness can see a loss: a database that keeps what it commits in memory loses it when it is stopped at once.
#[test]
fn a_database_that_forgets_its_last_commits_is_found_out() {
    in_a_network(async |mut cluster| {
        let mut case = Case::of("a forgetful database", "FAULT", 1);
        cluster.begin_anew(&format!("{CONFIG}durability = \"relaxed\"\n"));
        signal(cluster.server.log_writer(), "STOP");
        let load = Load::over(&cluster.addresses(), 3, &mut case.rng, &case.pool);
        until("events are answered", async || load.answered() >= 2_000).await;
        cluster.server.restart("QUIT");
        progress(&load).await;
        case.history.add(load.finish());
        let (client, mut found) = (cluster.client(0), Vec::new());
        for topic in case.history.topics() {
            let events = read(&client, &topic).await;
            found.extend(case.history.check(&topic, events).err());
        }
        assert!(
            found.iter().any(|what| what.contains("LOST") || what.contains("accepted 2 times")),
            "{found:?}"
        );
    });
}
