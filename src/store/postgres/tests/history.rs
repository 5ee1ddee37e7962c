//! Histories: a server that was restored, or took over, tells cursors of the events that it lacks from those
//! that it has.

use std::time::{Duration, Instant};

use super::server::{self, Database, Server};
use super::{node, now, settings, try_open};
use crate::config::Durability;
use crate::domain::{HistoryId, Kinship};
use crate::store::contract::{append, batch, topic, wait};
use crate::store::postgres::PostgresStore;
use crate::store::{Engine, Order, PageQuery, StoreError};

/// What a server has that lost the events after seq 2 of topic a, and all of b.
const LOST: &str = "DELETE FROM sekali.events WHERE seq > 2 OR topic = 'b';
    DELETE FROM sekali.topics WHERE topic = 'b';
    UPDATE sekali.topics SET last_seq = 2";

fn kinship(store: &PostgresStore, name: &str, history: &HistoryId) -> Kinship {
    wait(store.reader().kinship(topic(name), history.clone()))
}

fn history(store: &PostgresStore) -> HistoryId {
    wait(store.reader().history())
}

/// Stores four events of topic a and one of b, through a writer of its own.
fn publish(store: &PostgresStore) {
    let mut writer = store.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("1", "{}"), ("2", "{}"), ("3", "{}"), ("4", "{}")]));
    append(&mut *writer, &batch("b", &[("1", "{}")]));
}

/// Stores three events as soon as the server takes connections again.
fn write_again(store: &PostgresStore) {
    write_as(store, &[("5", "{}"), ("6", "{}"), ("7", "{}")]);
}

/// Stores an event with this id as soon as the server takes connections again.
fn write_again_as(store: &PostgresStore, id: &str) {
    write_as(store, &[(id, "{}")]);
}

fn write_as(store: &PostgresStore, events: &[(&str, &str)]) {
    let begun = Instant::now();
    let mut writer = loop {
        match store.open_writer() {
            Ok(writer) => break writer,
            Err(error) => assert!(begun.elapsed() < Duration::from_mins(2), "{error}"),
        }
    };
    append(&mut *writer, &batch("a", events));
}

#[test]
fn another_timeline_begins_a_history_before_anything_is_stored_on_it() {
    // invariant 11: events 3 and 4 of the old timeline are not those of the new one.
    let Some(mut server) = Server::alone() else { return server::skipped("no PostgreSQL") };
    let store = try_open(&settings(server.url())).unwrap();
    publish(&store);
    let first = history(&store);
    server.run(LOST);
    server.restart("INT");
    write_again(&store);
    assert_eq!(history(&store), first, "a restart alone is the same timeline");
    server.run(LOST);
    server.restore();
    // A node that runs on, and one that starts.
    let other = try_open(&settings(server.url())).unwrap();
    write_again(&store);
    drop(other.open_writer().unwrap());
    for node in [&store, &other] {
        let second = history(node);
        assert_ne!(second, first);
        assert_eq!(kinship(node, "a", &first), Kinship::SharedUpTo(2));
        assert_eq!(kinship(node, "b", &first), Kinship::SharedUpTo(0));
        assert_eq!(kinship(node, "a", &second), Kinship::Same);
    }
    assert_eq!(server.run("SELECT count(*) FROM sekali.histories"), "2", "one of both recorded it");
    let query = PageQuery { topic: topic("a"), first: 3, last: 9, limit: 9, order: Order::Ascending };
    assert_eq!(wait(store.reader().page(query)).history, history(&store));
}

#[test]
fn tables_that_came_from_a_dump_begin_a_history() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    publish(&store);
    let first = history(&store);
    // As pg_restore leaves it: the same rows in another table.
    database.run(&format!(
        "{LOST}; CREATE TABLE sekali.restored (LIKE sekali.topics INCLUDING ALL);
        INSERT INTO sekali.restored SELECT * FROM sekali.topics; DROP TABLE sekali.topics;
        ALTER TABLE sekali.restored RENAME TO topics"
    ));
    database.disconnect();
    write_again(&store);
    assert_eq!(kinship(&store, "a", &first), Kinship::SharedUpTo(2));
}

#[test]
fn a_restart_begins_a_history_where_the_server_may_lose_commits() {
    let Some(mut server) = Server::alone() else { return server::skipped("no PostgreSQL") };
    let mut relaxed = settings(server.url());
    relaxed.store.durability = Durability::Relaxed;
    // A node with full durability was there first: it did not record the start of the server.
    drop(try_open(&settings(server.url())).unwrap().open_writer().unwrap());
    let store = try_open(&relaxed).unwrap();
    publish(&store);
    let first = history(&store);
    server.run(LOST);
    server.restart("QUIT");
    // The next node may have another durability than the node that wrote what is lost.
    let next = try_open(&settings(server.url())).unwrap();
    write_again(&next);
    let second = history(&next);
    assert_eq!(kinship(&next, "a", &first), Kinship::SharedUpTo(2));
    server.restart("INT");
    write_again_as(&next, "8");
    assert_eq!(history(&next), second, "nobody wrote with relaxed durability since");
    write_again_as(&store, "9");
    server.restart("QUIT");
    write_again_as(&store, "10");
    assert_ne!(history(&store), second);
}

#[test]
fn ten_writers_that_meet_a_new_server_begin_one_history() {
    let Some(database) = Database::fresh() else { return };
    drop(node(&database).open_writer().unwrap());
    database.run("UPDATE sekali.histories SET server = 'another'");
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| node(&database).open_writer().unwrap().flush(now()).unwrap());
        }
    });
    assert_eq!(database.run("SELECT count(*) FROM sekali.histories"), "2");
}

#[test]
fn a_damaged_id_is_damage_and_no_other_history() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    publish(&store);
    database.run("UPDATE sekali.histories SET id = 'Not An Id'");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let read = runtime.block_on(store.reader().history());
    assert!(matches!(read, Err(StoreError::Damaged(_))), "{read:?}");
    database.disconnect();
    assert!(node(&database).open_writer().is_err());
}
