//! What breaks in a round.

use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;
use futures_util::future::join;

use super::nodes::{Cluster, NODES};
use super::{Seen, progress};
use crate::crash::Case;
use crate::crash::history::{Attempt, Verdict};
use crate::crash::load::Load;
use crate::support::network::Cut;
use crate::support::{event, signal, until};

/// The longest until a node that is cut off says 503: it waits for a commit, for a new connection, and to settle the commit there,
/// which is some seconds, and a machine may be very busy.
const REFUSED_MAX: Duration = Duration::from_mins(1);

/// The longest for which a node is frozen, in milliseconds: the database gives its connections up or not.
const FROZEN_MAX: u64 = 2_500;

/// Connections that are ended within a commit, in a round.
const ENDED: usize = 30;

/// What a node says when it does not know what became of a commit.
const UNKNOWN: &str = "the outcome of a commit is not known";

/// What it says where it lost its way to the database before a commit was on it.
const UNWRITABLE: &str = "the store cannot write";

/// Whoever is in the middle of a commit, of those that nodes have.
const COMMITTING: &str =
    "FROM pg_stat_activity WHERE application_name = 'sekali' AND backend_xid IS NOT NULL";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A node is killed, and started again.
    Kill,
    /// A node is told to stop while requests are in flight, and started again.
    Drain,
    /// A node is frozen for a while, and goes on with what it believes.
    Freeze,
    /// A node is cut off from the database for a while.
    Cut(Cut),
    /// What the database answers a node is lost until the node has given up its connection: it makes another one, and runs
    /// again there what is stored already.
    LoseAnswers,
    /// The database is restarted: connections are ended.
    Restart,
    /// The same at once: nothing is written down first, and the log is replayed.
    Crash,
    /// The database ends connections within a commit, again and again.
    EndBackends,
    /// A process of the database is killed within a commit: it starts all of them anew, and replays the log.
    KillBackend,
}

impl Fault {
    pub(super) const ALL: [Self; 12] = [
        Self::Kill,
        Self::Drain,
        Self::Freeze,
        Self::Cut(Cut::Wire),
        Self::Cut(Cut::Both),
        Self::Cut(Cut::Answers),
        Self::Cut(Cut::Requests),
        Self::LoseAnswers,
        Self::Restart,
        Self::Crash,
        Self::EndBackends,
        Self::KillBackend,
    ];

    /// Neighbouring seeds have all of them in turn.
    pub(super) fn of(seed: u64) -> Self {
        Self::ALL[usize::try_from(seed % Self::ALL.len() as u64).unwrap()]
    }

    /// What it is called in a report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "node killed",
            Self::Drain => "node told to stop",
            Self::Freeze => "node frozen",
            Self::Cut(Cut::Wire) => "node cut off, wire",
            Self::Cut(Cut::Both) => "node cut off, both ways",
            Self::Cut(Cut::Answers) => "node cut off, answers",
            Self::Cut(Cut::Requests) => "node cut off, requests",
            Self::LoseAnswers => "answers lost for a moment",
            Self::Restart => "database restarted",
            Self::Crash => "database stopped at once",
            Self::EndBackends => "connections ended within a commit",
            Self::KillBackend => "process of the database killed",
        }
    }

    /// Happens under load, and ends when what it took away is there again.
    pub(super) async fn strike(
        self,
        case: &mut Case,
        cluster: &mut Cluster<'_>,
        load: &Load,
        seen: &mut Seen,
    ) {
        let node = case.rng.usize(0..NODES);
        match self {
            Self::Kill => {
                drop(cluster.take(node));
                progress(load).await;
                cluster.begin(node);
            }
            Self::Drain => {
                let process = cluster.take(node);
                process.signal("TERM");
                let ended = process.ended().await;
                assert_eq!(ended.code, Some(0), "{}", ended.stderr);
                progress(load).await;
                cluster.begin(node);
            }
            Self::Freeze => {
                let (begun, long) = (Instant::now(), Duration::from_millis(case.rng.u64(..FROZEN_MAX)));
                cluster.signal(node, "STOP");
                progress(load).await;
                sleep(long.saturating_sub(begun.elapsed())).await;
                cluster.signal(node, "CONT");
            }
            Self::Cut(cut) => {
                cluster.cut(node, cut);
                let ((), refused) = join(progress(load), refuses(case, cluster, node)).await;
                seen.refused = seen.refused.max(refused);
                cluster.mend(node, cut);
            }
            Self::LoseAnswers => {
                let met = [UNKNOWN, UNWRITABLE];
                cluster.has_said(node, &met);
                cluster.cut(node, Cut::Answers);
                until("a commit has met it", async || cluster.has_said(node, &met)).await;
                cluster.mend(node, Cut::Answers);
            }
            Self::Restart => cluster.server.restart("INT"),
            Self::Crash => cluster.server.restart("QUIT"),
            Self::EndBackends => {
                let end = format!("SELECT count(pg_terminate_backend(pid)) {COMMITTING}");
                let mut ended = 0;
                until("connections are ended within a commit", async || {
                    ended += cluster.server.run(&end).parse::<usize>().unwrap();
                    ended >= ENDED
                })
                .await;
                seen.ended += ended;
            }
            Self::KillBackend => {
                let mut victim = String::new();
                until("somebody commits", async || {
                    // Best one that writes the log, since nobody knows what becomes of what it commits.
                    let first = "ORDER BY wait_event LIKE 'WAL%' DESC NULLS LAST LIMIT 1";
                    victim = cluster.server.run(&format!("SELECT pid {COMMITTING} {first}"));
                    !victim.is_empty()
                })
                .await;
                signal(victim, "KILL");
                seen.ended += 1;
            }
        }
    }
}

/// A node that is cut off answers an event 503, and says that it is not ready. Gives how long the first took.
async fn refuses(case: &mut Case, cluster: &Cluster<'_>, node: usize) -> Duration {
    let (client, id, begun) = (cluster.client(node), format!("{:016x}", case.rng.u64(..)), Instant::now());
    let answer = client.publish(event("cut-off", &id)).await;
    let took = begun.elapsed();
    assert!(answer.status == 503 && took < REFUSED_MAX, "{answer:?} after {took:?}");
    until("it is not ready", async || !client.is_ready().await).await;
    let (topic, payload, verdict) = ("cut-off".to_owned(), "{}".to_owned(), None::<Verdict>);
    case.history.add([Attempt { topic, id, payload, verdict, at: Instant::now() }]);
    took
}
