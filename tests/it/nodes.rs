//! Several nodes on one PostgreSQL are one log.

use std::sync::Arc;

use sekali::api::Code;

use crate::support::postgres::Database;
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
    let Some((database, [a, _b])) = two() else { return };
    a.publish(event("t", "1")).await.ok();
    database.run("ALTER TABLE sekali.topics RENAME TO elsewhere");
    a.publish(event("t", "2")).await.problem(Code::StoreUnavailable);
    assert!(!a.is_ready().await);
    assert_eq!(a.publish(event("t", "1")).await.fates(), ["duplicate 1"], "a cache knows it");
    database.run("ALTER TABLE sekali.elsewhere RENAME TO topics");
    until("it is ready again", async || a.is_ready().await).await;
    assert_eq!(a.publish(event("t", "2")).await.fates(), ["accepted 2"]);
}
