//! Connections that are lost at the worst moment, a database that is gone for a while, events that it does not take.

use std::io::Read;
use std::iter;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::join;
use tokio::net::TcpSocket;

use super::proxy::{Proxy, Way};
use super::server::{self, Database};
use super::{accepted, duplicate, node, now, settings, try_open, until};
use crate::config::{Settings, StoreUrl};
use crate::domain::Counts;
use crate::store::contract::{append, append_and_compare, batch, read_all, topic, wait};
use crate::store::postgres::connection::{self, Use};
use crate::store::postgres::transaction::{Lock, Transaction, Trouble};
use crate::store::postgres::{Drivers, PostgresStore};
use crate::store::{AppendError, Engine, Finding, Key, Repeat, StoreError};

/// A node whose way to the database can be broken.
pub(super) fn behind_a_proxy(database: &Database) -> (Proxy, Settings) {
    let proxy = Proxy::to(&database.url());
    let mut settings = settings(&proxy.url(&database.url()));
    // What an unknown commit has locked may be free only when the server has seen that its
    // connection is gone, which takes long on a busy machine.
    settings.store.lock_timeout = Duration::from_mins(1);
    settings.store.writers = 1;
    (proxy, settings)
}

#[test]
fn a_commit_of_unknown_outcome_is_settled_whether_it_was_stored_or_not() {
    // invariant 5: an unknown commit is never taken for a duplicate; invariant 3: nor stored twice.
    let Some(database) = Database::fresh() else { return };
    let (proxy, settings) = behind_a_proxy(&database);
    let store = try_open(&settings).unwrap();
    let mut writer = store.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("old", "{}")]));
    let era = store.era().load(Ordering::Relaxed);
    let mut seq = 1;
    for way in [Way::LoseConfirmation, Way::LoseCommit] {
        let id = format!("{way:?}");
        let group = batch("a", &[("old", "{}"), (&id, "{}"), (&id, "[]")]);
        proxy.set(way);
        let verdicts = append_and_compare(&store, &mut *writer, (&group, 1));
        assert!(proxy.is_open(), "the commit was lost");
        seq += 1;
        let conflict = crate::domain::Verdict::Duplicate { seq, conflict: true };
        assert_eq!(verdicts, [duplicate(1), accepted(seq), conflict], "{way:?}");
    }
    assert!(store.era().load(Ordering::Relaxed) > era, "what the caches know may be of another server");
    assert_eq!(read_all(&*store.reader(), "a").len(), 3);
    let counts = wait(store.reader().topic(topic("a"))).unwrap().counts;
    assert_eq!(counts, Counts { accepted: 3, duplicates: 4, conflicts: 2, rejected: 0 });
    writer.flush(now()).unwrap();
    let sources = wait(store.reader().sources(topic("a"))).unwrap().named;
    assert_eq!(sources[0].1.counts(), counts, "each once, whichever run it was");
}

#[test]
fn counts_of_an_unknown_commit_are_counted_once() {
    let Some(database) = Database::fresh() else { return };
    let (proxy, settings) = behind_a_proxy(&database);
    let store = try_open(&settings).unwrap();
    let mut writer = store.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("1", "{}")]));
    for (way, rejected) in [(Way::LoseConfirmation, 1), (Way::LoseCommit, 2)] {
        store.tally().reject(1);
        let repeat = Repeat { source: "test", seq: 1, conflict: false, late: 3 };
        store.tally().count(&topic("a"), now(), [repeat].into_iter());
        proxy.set(way);
        assert!(matches!(writer.flush(now()), Err(AppendError::Failed(_))), "{way:?}");
        let totals = || wait(store.reader().totals()).counts;
        let expected = Counts { accepted: 1, duplicates: rejected, conflicts: 0, rejected };
        assert_eq!(totals(), expected, "{way:?}");
        writer.flush(now()).unwrap();
        assert_eq!(totals(), expected, "{way:?}, stored");
    }
}

#[test]
fn counts_wait_for_a_topic_that_something_else_has_locked_and_keep_nobody_from_the_others() {
    let Some(database) = Database::fresh() else { return };
    let mut settings = settings(&database.url());
    settings.store.lock_timeout = Duration::from_mins(1);
    let store = try_open(&settings).unwrap();
    let mut writer = store.open_writer().unwrap();
    for name in ["a", "m", "z"] {
        append(&mut *writer, &batch(name, &[("1", "{}")]));
    }
    writer.flush(now()).unwrap();
    let count = || {
        for name in ["a", "m", "z"] {
            let repeat = Repeat { source: "test", seq: 1, conflict: false, late: 3 };
            store.tally().count(&topic(name), now(), [repeat].into_iter());
        }
    };
    let lock = database.hold("SELECT FROM sekali.topics WHERE topic = 'm' FOR UPDATE");
    let begun = Instant::now();
    for _ in 0..3 {
        count();
        writer.flush(now()).unwrap();
        append(&mut *writer, &batch("a", &[("1", "{}")]));
    }
    // A tenth of it is waited for, once. Whoever waited in full would take at least this long.
    assert!(begun.elapsed() < settings.store.lock_timeout, "{:?}", begun.elapsed());
    drop(lock);
    until("they are stored", || {
        writer.flush(now()).unwrap();
        store.tally().is_empty()
    });
    let duplicates = "SELECT string_agg(topic || ' ' || duplicates, ', ' ORDER BY topic) FROM sekali.topics";
    assert_eq!(database.run(duplicates), "a 6, m 3, z 3");
}

/// Counts of a connection that was given up are those of the one after it, or its own, and never both: whether they wait with
/// nothing done yet, or with the node's own row changed.
#[test]
fn counts_that_an_old_connection_stores_late_are_counted_once() {
    let Some(database) = Database::fresh() else { return };
    let (proxy, mut settings) = behind_a_proxy(&database);
    // Nobody gives up but who is told to.
    let patience = Duration::from_secs(20);
    (settings.store.lock_timeout, settings.store.statement_timeout) = (patience * 10, patience);
    settings.store.connect_timeout = patience;
    let store = try_open(&settings).unwrap();
    let mut writer = store.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("1", "{}")]));
    writer.flush(now()).unwrap();
    let waiting = |count: &str| {
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        until(&format!("{count} wait"), || database.run(waiting) == count);
    };
    for (counted, held) in (1..).zip(["sekali.topics", "sekali.sources"]) {
        let repeat = Repeat { source: "test", seq: 1, conflict: false, late: 3 };
        store.tally().count(&topic("a"), now(), [repeat].into_iter());
        let lock = database.hold(&format!("SELECT FROM {held} FOR UPDATE"));
        proxy.set(Way::LoseNode);
        assert!(matches!(writer.flush(now()), Err(AppendError::Failed(_))), "{held}");
        waiting("1");
        thread::scope(|scope| {
            // The first makes the connection, the second stores what is not stored.
            let anew = scope.spawn(|| writer.flush(now()).and_then(|()| writer.flush(now())));
            waiting("2");
            drop(lock);
            anew.join().unwrap().unwrap();
        });
        waiting("0");
        writer.flush(now()).unwrap();
        assert_eq!(wait(store.reader().totals()).counts.duplicates, counted, "{held}");
    }
    let sources = wait(store.reader().sources(topic("a"))).unwrap();
    assert_eq!(sources.named[0].1.counts().duplicates, 2);
}

#[test]
fn a_connection_that_others_end_is_made_again_before_it_is_missed() {
    let Some(database) = Database::fresh() else { return };
    let mut settings = settings(&database.url());
    settings.store.writers = 1;
    let store = try_open(&settings).unwrap();
    let mut writer = store.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("1", "{}")]));
    writer.flush(now()).unwrap();
    assert_eq!(read_all(&*store.reader(), "a").len(), 1);
    let era = store.era().load(Ordering::Relaxed);
    database.disconnect();
    until("the connection is made again", || {
        // It may be used once more before its end is seen.
        let _ = writer.flush(now());
        store.era().load(Ordering::Relaxed) > era
    });
    assert_eq!(append(&mut *writer, &batch("a", &[("1", "{}"), ("2", "{}")])), [duplicate(1), accepted(2)]);
    assert_eq!(read_all(&*store.reader(), "a").len(), 2);
}

#[test]
fn a_database_that_does_not_answer_is_an_error_in_time_and_heals() {
    let Some(database) = Database::fresh() else { return };
    let (proxy, mut settings) = behind_a_proxy(&database);
    settings.store.statement_timeout = Duration::from_millis(500);
    settings.store.lock_timeout = Duration::from_millis(100);
    settings.store.connect_timeout = Duration::from_secs(2);
    let store = Arc::new(try_open(&settings).unwrap());
    let mut writer = Some(store.open_writer().unwrap());
    // Every connection that was begun is in use.
    writer.as_mut().unwrap().flush(now()).unwrap();
    proxy.set(Way::Blocked);
    let group = batch("a", &[("1", "{}")]);
    // The proxy lets nothing pass until it is told to: without a limit this would never return.
    let refused = writer.as_mut().unwrap().append(&[&group], now());
    assert!(matches!(refused, Err(AppendError::Unknown(_))), "{refused:?}");
    drop(writer.take());
    let read = futures_executor::block_on(async {
        let (reader, store) = (store.reader(), Arc::clone(&store));
        let read = async move { reader.topic(topic("a")).await };
        store.node.database.spawn(read).await.unwrap()
    });
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    // The next ones do not wait as long again, one after the other; a machine that stands still
    // delays few of them.
    let waits = (0..20).filter(|_| {
        let begun = Instant::now();
        assert!(store.open_writer().is_err());
        begun.elapsed() >= settings.store.connect_timeout
    });
    assert!(waits.count() < 10);
    proxy.set(Way::Open);
    until("it heals", || {
        writer = store.open_writer().ok();
        writer.is_some()
    });
    let verdicts = append(&mut **writer.as_mut().unwrap(), &group);
    assert!(verdicts == [accepted(1)] || verdicts == [duplicate(1)], "{verdicts:?}");
    assert_eq!(read_all(&*store.reader(), "a").len(), 1);
}

#[test]
fn a_probe_tries_what_every_commit_does() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    let mut writer = store.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("1", "{}")]));
    writer.probe(now()).unwrap();
    // Counts are stored without it.
    database.run("ALTER TABLE sekali.events RENAME TO elsewhere");
    let probed = writer.probe(now());
    assert!(matches!(probed, Err(AppendError::Failed(_))), "{probed:?}");
    database.run("ALTER TABLE sekali.elsewhere RENAME TO events");
    writer.probe(now()).unwrap();
}

#[test]
fn a_probe_gives_up_a_connection_on_which_nobody_answers() {
    let Some(database) = Database::fresh() else { return };
    let (proxy, mut settings) = behind_a_proxy(&database);
    settings.store.statement_timeout = Duration::from_millis(500);
    settings.store.lock_timeout = Duration::from_millis(100);
    // A busy machine does not always answer within so short a limit.
    let mut opened = None;
    until("it opens in time", || {
        opened = try_open(&settings).ok().and_then(|store| Some((store.open_writer().ok()?, store)));
        opened.is_some()
    });
    let (mut writer, _store) = opened.unwrap();
    until("it answers in time", || writer.probe(now()).is_ok());
    proxy.silence();
    assert!(matches!(writer.probe(now()), Err(AppendError::Failed(_))));
    // Connections that there were stay as they are: only another one is answered.
    until("it heals", || writer.probe(now()).is_ok());
    assert_eq!(append(&mut *writer, &batch("a", &[("1", "{}")])), [accepted(1)]);
}

/// A port of this machine where nobody takes connections any more, for as long as these live.
fn silent_port() -> (u16, TcpListener, Vec<TcpStream>) {
    let listener = server::blocking(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        socket.listen(0).unwrap().into_std().unwrap()
    });
    let address = listener.local_addr().unwrap();
    let queued = || TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok();
    let waiting: Vec<_> = iter::from_fn(queued).take(10).collect();
    assert!(waiting.len() < 10, "they are refused in silence");
    (address.port(), listener, waiting)
}

#[test]
fn a_host_that_does_not_answer_leaves_time_for_the_next_one() {
    let Some(database) = Database::fresh() else { return };
    let (port, _listener, _waiting) = silent_port();
    let mut settings = settings(&database.url().replace('@', &format!("@127.0.0.1:{port},")));
    settings.store.connect_timeout = Duration::from_secs(10);
    let store = try_open(&settings).unwrap();
    assert_eq!(append(&mut *store.open_writer().unwrap(), &batch("a", &[("1", "{}")])), [accepted(1)]);
}

/// A database that takes every event but one.
fn picky(database: &Database) -> PostgresStore {
    let store = node(database);
    database.run(
        "CREATE FUNCTION sekali.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.event_id = 'bad' THEN RAISE EXCEPTION USING ERRCODE = '22000', MESSAGE = 'no'; END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON sekali.events FOR EACH ROW EXECUTE FUNCTION sekali.refuse()",
    );
    store
}

#[test]
fn an_event_that_the_database_does_not_take_fails_alone() {
    let Some(database) = Database::fresh() else { return };
    let store = picky(&database);
    let mut writer = store.open_writer().unwrap();
    let (good, bad) = (batch("a", &[("good", "{}")]), batch("b", &[("bad", "{}")]));
    // The pipeline tries batches of such a group one by one: see `Committer::commit`.
    let refused = writer.append(&[&good, &bad], now());
    assert!(matches!(refused, Err(AppendError::Failed(StoreError::Damaged(_)))), "{refused:?}");
    assert_eq!(append(&mut *writer, &good), [accepted(1)]);
    assert!(writer.append(&[&bad], now()).is_err());
    assert_eq!(append(&mut *writer, &batch("b", &[("other", "{}")])), [accepted(1)], "no seq is left out");
}

// invariant 5: only an error of the database makes the end of a transaction a rollback.
#[test]
fn an_error_that_the_database_knows_nothing_of_does_not_say_that_nothing_is_stored() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    database.run("CREATE TABLE sekali.lines (line text)");
    let shared = &store.node.database;
    let client = shared.block_on(shared.connect(Use::Write)).unwrap();
    for (line, wrong) in [("driver", "SELECT WHERE false"), ("database", "SELECT 1/0")] {
        let insert = format!("INSERT INTO sekali.lines VALUES ('{line}')");
        let wrong = shared.block_on(client.prepare(wrong)).unwrap();
        let sent = async {
            let (inserted, row) = join(client.batch_execute(&insert), client.query_one(&wrong, &[])).await;
            inserted.and(row)
        };
        let patience = shared.patience();
        let transaction = Transaction { client: &client, lock: Lock::Rows, wait: None, patience };
        let outcome = shared.block_on(transaction.commit(sent));
        match line {
            "driver" => assert!(matches!(outcome, Err(Trouble::Lost(_))), "{outcome:?}"),
            _ => assert!(matches!(outcome, Err(Trouble::Failed(_))), "{outcome:?}"),
        }
    }
    assert_eq!(database.run("SELECT string_agg(line, ', ') FROM sekali.lines"), "driver");
}

#[test]
fn a_stored_payload_that_is_no_json_keeps_nothing_from_being_stored() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    let mut writer = store.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("1", "{}")]));
    database.run("UPDATE sekali.events SET payload = '{'");
    assert_eq!(append(&mut *writer, &batch("a", &[("1", "{}")])), [duplicate(1)], "the same digest");
    let both = batch("a", &[("2", "{}"), ("1", "{ }")]);
    let found = writer.append(&[&both], now()).unwrap().concat();
    assert_eq!(found[0].verdict(), Some(accepted(2)));
    assert!(matches!(found[1], Finding::Differs { seq: 1, .. }), "{found:?}");
    let key = Key { topic: topic("a"), event_id: "1".to_owned() };
    let read = wait(store.reader().payloads(&[key])).pop().unwrap().unwrap();
    assert_eq!((read.seq, &*read.json), (1, "{"), "whoever compares says that it is damaged");
}

#[test]
fn whatever_json_may_hold_is_compared_and_no_damage() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    let mut writer = store.open_writer().unwrap();
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(120), "]".repeat(120));
    let odd = [r#"{"\u0000":"\u0000\ud83d\ude00"}"#, r#"{"x":-0,"y":1e400,"x":1e-999}"#, " {\t\r\n} ", &deep];
    for (number, payload) in odd.iter().enumerate() {
        let id = number.to_string();
        let verdicts = append(&mut *writer, &batch("a", &[(&id, payload)]));
        let conflict = crate::domain::Verdict::Duplicate { seq: number as u64 + 1, conflict: true };
        assert_eq!(verdicts, [accepted(number as u64 + 1)], "{payload}");
        let other = batch("a", &[(&id, r#"{"n":1}"#)]);
        assert_eq!(append_and_compare(&store, &mut *writer, (&other, 2)), [conflict], "{payload}");
    }
}

#[test]
fn a_connection_that_is_accepted_and_never_answered_is_closed() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://sekali@{}/sekali?sslmode=disable", server.local_addr().unwrap());
    let mut settings = settings(&url);
    settings.store.connect_timeout = Duration::from_millis(200);
    let StoreUrl::Postgres(url) = &settings.store.url else { unreachable!() };
    let drivers = Drivers::start().unwrap();
    let database = connection::Database::new(&settings, url, drivers.handle.clone()).unwrap();
    let silent = thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        client.set_read_timeout(Some(Duration::from_mins(2))).unwrap();
        client.read_to_end(&mut Vec::new()).map(drop)
    });
    let refused = database.block_on(database.connect(Use::Read)).map(drop);
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    silent.join().unwrap().unwrap();
}
