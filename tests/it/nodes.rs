//! Several nodes on one PostgreSQL are one log.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;
use futures_util::future::{join, join_all};
use sekali::api::Code;

use crate::support::postgres::{Database, Held};
use crate::support::{Log, array, event, event_with, everything, ids, seqs, until};

/// Two nodes, where there is a server.
fn two() -> Option<(Arc<Database>, [Log; 2])> {
    let database = Arc::new(Database::fresh()?);
    let logs = [Log::on(&database, ""), Log::on(&database, "")];
    Some((database, logs))
}

#[actix_web::test]
async fn what_one_node_has_acknowledged_every_node_knows() {
    let Some((_, [a, b])) = two() else { return };
    assert_eq!(a.publish(event("t", "1")).await.fates(), ["accepted 1"]);
    assert_eq!(b.publish(event("t", "1")).await.fates(), ["duplicate 1"]);
    assert_eq!(b.publish(event_with("t", "1", "{\"n\":1}")).await.fates(), ["conflict 1"]);
    assert_eq!(b.publish(event("t", "2")).await.fates(), ["accepted 2"]);
    assert_eq!(seqs(&everything(&a, "t").await), [1, 2]);
    assert_eq!(a.read("/events/t/2").await["seq"], 2);
    until("what the other node counted in memory is stored", async || {
        a.totals("persistent").await == [4, 2, 2, 1, 0] && b.totals("persistent").await == [4, 2, 2, 1, 0]
    })
    .await;
    assert_eq!(a.totals("runtime").await, [1, 1, 0, 0, 0], "these are the node's own");
}

#[actix_web::test]
async fn a_follower_on_one_node_is_given_what_another_one_takes() {
    let Some((_, [a, b])) = two() else { return };
    let mut follower = b.follow("/events?topic=t", None).await;
    for seq in 1..=5 {
        a.publish(event("t", &seq.to_string())).await.ok();
        assert_eq!(follower.seqs(1).await, [seq]);
    }
}

#[actix_web::test]
async fn a_node_whose_connections_were_ended_serves_on() {
    let Some((database, [a, _])) = two() else { return };
    a.publish(array(ids("t", 0..3))).await.ok();
    database.disconnect();
    assert_eq!(a.publish(event("t", "new")).await.fates(), ["accepted 4"]);
    assert_eq!(everything(&a, "t").await.len(), 4);
    assert!(a.is_ready().await);
}

#[actix_web::test]
async fn a_node_without_its_database_says_so_and_heals() {
    let Some(database) = Database::fresh().map(Arc::new) else { return };
    // With one writer: a second one that connects late lets the caches forget what they know.
    let a = Log::on(&database, "[store]\nwriters = 1");
    a.publish(event("t", "1")).await.ok();
    database.run("ALTER TABLE sekali.topics RENAME TO elsewhere");
    a.publish(event("t", "2")).await.problem(Code::StoreUnavailable);
    assert!(!a.is_ready().await);
    assert_eq!(a.publish(event("t", "1")).await.fates(), ["duplicate 1"], "a cache knows it");
    database.run("ALTER TABLE sekali.elsewhere RENAME TO topics");
    until("it is ready again", async || a.is_ready().await).await;
    assert_eq!(a.publish(event("t", "2")).await.fates(), ["accepted 2"]);
}

/// How long a node waits for a lock, if nobody is known to hold it; far more than anything else takes here.
const PATIENCE: Duration = Duration::from_secs(2);

/// A node with one writer, so that all topics are in its groups, and its database.
fn patient() -> Option<(Arc<Database>, Log)> {
    let database = Arc::new(Database::fresh()?);
    let config = format!("[store]\nwriters = 1\nlock_timeout = \"{}ms\"", PATIENCE.as_millis());
    let log = Log::on(&database, &config);
    Some((database, log))
}

/// How often something is published beside what is locked: so often that a machine that stands
/// still now and then does not look like a node that waits for the lock.
const ROUNDS: u64 = 12;

/// Does something, and sees that the log is ready all the while.
async fn while_ready<T>(log: &Log, work: impl Future<Output = T>) -> T {
    let is_done = Cell::new(false);
    let watch = async {
        while !is_done.get() {
            assert!(log.is_ready().await, "a topic that is locked does not keep the store from writing");
            sleep(Duration::from_millis(2)).await;
        }
    };
    let work = async {
        let result = work.await;
        is_done.set(true);
        result
    };
    join(work, watch).await.0
}

/// Publishes to a topic that something else has locked, and to others, until the lock is gone.
async fn is_refused_alone(log: &Log, stored: u64, held: Held) {
    // invariant 5: nothing of what was refused is stored.
    let both = |id: &str| format!("[{},{}]", event("held", id), event("free", id));
    while_ready(log, async {
        // They are in one group: the request is refused, and what could be stored of it is.
        log.publish(both("1")).await.problem(Code::StoreUnavailable);
        assert_eq!(log.publish(event("free", "1")).await.fates(), ["duplicate 2"]);
        let mut waits = 0;
        for seq in 3..=ROUNDS + 2 {
            let id = &(seq - 1).to_string();
            let begun = Instant::now();
            let others = join(log.publish(event("free", id)), log.publish(event(id, "1")));
            let (refused, (free, new)) = join(log.publish(event("held", id)), others).await;
            refused.problem(Code::StoreUnavailable);
            assert_eq!(free.fates(), [format!("accepted {seq}")]);
            assert_eq!(new.fates(), ["accepted 1"]);
            waits += u64::from(begun.elapsed() >= PATIENCE);
        }
        // A busy machine makes some as long, a wait makes all.
        assert!(waits < ROUNDS / 2, "{waits} rounds took as long as a lock is waited for");
        drop(held);
        until("it is accepted", async || log.publish(event("held", "2")).await.status == 200).await;
        assert_eq!(log.publish(event("held", "2")).await.fates(), [format!("duplicate {}", stored + 1)]);
    })
    .await;
    assert_eq!(everything(log, "held").await.len() as u64, stored + 1);
}

#[actix_web::test]
async fn a_topic_that_something_else_has_locked_is_refused_alone() {
    let Some((database, log)) = patient() else { return };
    log.publish(format!("[{},{}]", event("held", "0"), event("free", "0"))).await.ok();
    let held = database.hold("SELECT FROM sekali.topics WHERE topic = 'held' FOR UPDATE");
    is_refused_alone(&log, 1, held).await;
}

#[actix_web::test]
async fn a_topic_that_something_else_is_making_is_refused_alone() {
    let Some((database, log)) = patient() else { return };
    log.publish(event("free", "0")).await.ok();
    let held = database.hold("INSERT INTO sekali.topics VALUES ('held', 0, 0, 0, 0)");
    is_refused_alone(&log, 0, held).await;
}

#[actix_web::test]
async fn a_node_is_not_ready_while_a_whole_table_is_locked() {
    let Some((database, log)) = patient() else { return };
    let held = database.hold("LOCK TABLE sekali.events IN SHARE MODE");
    log.publish(event("t", "1")).await.problem(Code::StoreUnavailable);
    let failures = async || log.metric("sekali_commit_failures_total").await;
    let before = failures().await;
    until("it was tried again", async || failures().await > before + 1.5).await;
    assert!(!log.is_ready().await);
    drop(held);
    until("it is ready again", async || log.is_ready().await).await;
    assert_eq!(log.publish(event("t", "1")).await.fates(), ["accepted 1"]);
}

#[actix_web::test]
async fn the_writers_of_a_node_make_no_more_new_topics_than_the_limit_together() {
    const LIMIT: u64 = 300;
    let Some(database) = Database::fresh().map(Arc::new) else { return };
    let config = format!("[limits]\nnew_topics_per_minute = {LIMIT}\n[store]\nwriters = 8\n");
    let log = Log::on(&database, &config);
    let begun = Instant::now();
    let publishing = (0..20).map(|client| {
        let events = (0..60).map(move |number| event(&format!("topic {client} {number}"), "1"));
        let client = log.another_client();
        async move { client.publish(array(events)).await }
    });
    let statuses: Vec<_> = join_all(publishing).await.iter().map(|answer| answer.status).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    let made = log.read("/stats").await["topics_total"].as_u64().unwrap();
    // What was made counts less as time goes by: 5 topics a second.
    let most = LIMIT + begun.elapsed().as_secs() * LIMIT / 60 + 1;
    assert!((LIMIT..=most).contains(&made), "{made} of {LIMIT} to {most}");
}
