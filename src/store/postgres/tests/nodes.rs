//! Several nodes on one database.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::proxy::{Proxy, Way};
use super::server::{self, Database};
use super::{accepted, node, now, settings, store_by_hand, try_open, until};
use crate::domain::Verdict;
use crate::store::contract::{append, append_and_compare, batch, event_from, read_all, topic, wait};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::statements::Topics;
use crate::store::{Batch, Engine, Listener, Repeats};

/// A batch of a topic whose ids others send too, in an order of its own.
fn overlapping(random: &mut fastrand::Rng) -> Batch {
    let name = format!("topic {}", random.u8(..5));
    let mut event = || {
        let source = format!("source {}", random.u8(..80));
        event_from(&source, &name, &random.u8(..200).to_string(), "{}")
    };
    Batch { events: (0..20).map(|_| event()).collect(), topic: topic(&name) }
}

#[test]
fn nodes_that_write_the_same_keys_at_once_store_each_once_and_leave_no_seq_out() {
    // invariant 3: at most one event a key, on any number of nodes; invariant 6: seqs have no gaps.
    let Some(database) = Database::fresh() else { return };
    let (told, decided) = mpsc::channel();
    thread::scope(|scope| {
        for seed in 0..4 {
            let (database, told) = (&database, told.clone());
            scope.spawn(move || {
                let store = node(database);
                let mut writer = store.open_writer().unwrap();
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..30 {
                    let group: Vec<_> = (0..4).map(|_| overlapping(&mut random)).collect();
                    let group_of: Vec<_> = group.iter().collect();
                    let found = writer.append(&group_of, now()).unwrap();
                    for (batch, findings) in group.iter().zip(found) {
                        for (event, finding) in batch.events.iter().zip(findings) {
                            let verdict = finding.verdict().unwrap();
                            told.send((event.topic().to_owned(), event.event_id().to_owned(), verdict))
                                .unwrap();
                        }
                    }
                }
                writer.flush(now()).unwrap();
            });
        }
    });
    drop(told);
    let store = node(&database);
    let mut accepted_once = HashMap::new();
    let mut repeats = 0;
    let decided: Vec<_> = decided.iter().collect();
    for (topic, id, verdict) in &decided {
        match verdict {
            Verdict::Accepted { seq } => {
                assert!(
                    accepted_once.insert((topic.clone(), id.clone()), *seq).is_none(),
                    "{topic} {id} was accepted twice"
                );
            }
            Verdict::Duplicate { .. } => repeats += 1,
            Verdict::Refused(_) => unreachable!("there is no limit"),
        }
    }
    for (topic, id, verdict) in &decided {
        if let Verdict::Duplicate { seq, .. } = verdict {
            assert_eq!(accepted_once[&(topic.clone(), id.clone())], *seq);
        }
    }
    for number in 0..5 {
        let name = format!("topic {number}");
        for (stored, seq) in read_all(&*store.reader(), &name).iter().zip(1..) {
            assert_eq!(stored.seq, seq, "{name}");
            let key = (name.clone(), stored.event.event_id().to_owned());
            assert_eq!(accepted_once.remove(&key), Some(seq), "{name}: what is read is what was answered");
        }
        let found = wait(store.reader().sources(topic(&name))).unwrap();
        assert_eq!(found.named.len(), 50, "limits.sources, whichever node they came to first");
        let mut sum = found.other.counts();
        assert!(sum.accepted > 0 && sum.duplicates > 0);
        found.named.iter().for_each(|(_, counts)| sum += counts.counts());
        assert_eq!(sum, found.topic.counts, "{name}: nothing is lost, and nothing counted twice");
    }
    assert!(accepted_once.is_empty(), "what was acknowledged is there: {accepted_once:?}");
    assert_eq!(wait(store.reader().totals()).counts.duplicates, repeats);
}

#[test]
fn any_node_says_how_an_event_was_repeated_on_all() {
    let Some(database) = Database::fresh() else { return };
    let (here, there) = (node(&database), node(&database));
    let (mut first, mut second) = (here.open_writer().unwrap(), there.open_writer().unwrap());
    append(&mut *first, &batch("a", &[("1", "{}"), ("1", "{}")]));
    let at = |second| Timestamp::from_second(second).unwrap();
    let repeat =
        |source, payload| Batch { topic: topic("a"), events: vec![event_from(source, "a", "1", payload)] };
    append_and_compare(&there, &mut *second, (&repeat("x", "[1]"), 8));
    second.append(&[&repeat("y", "{}")], at(9)).unwrap();
    let known = |store: &PostgresStore| wait(store.reader().repeats(topic("a"), 1));
    assert_eq!(known(&here).map(|found| found.duplicates), Some(1), "its own at once");
    first.close().unwrap();
    second.close().unwrap();
    let all = Repeats {
        duplicates: 3,
        conflicts: 1,
        last_at: at(9),
        last_source: "y".to_owned(),
        last_conflict: false,
    };
    assert_eq!((known(&here).as_ref(), known(&there).as_ref()), (Some(&all), Some(&all)));
    drop((here, there));
    assert_eq!(known(&node(&database)), Some(all), "and one that starts");
}

/// What `docs/DESIGN.md` says of sequences: one gives numbers in the order in which they are asked for, and readers see
/// them in the order of commits.
#[test]
fn a_plain_sequence_would_lose_an_event_to_a_reader() {
    let Some(database) = Database::fresh() else { return };
    let url = database.url();
    let (first, second) = server::blocking(async move {
        let (slow, fast) = (server::connect(&url).await.unwrap(), server::connect(&url).await.unwrap());
        let read = async |after: i64| -> Vec<i64> {
            let sql = format!("SELECT seq FROM sekali.plain WHERE seq > {after} ORDER BY seq");
            fast.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
        };
        let table = "CREATE SCHEMA sekali; CREATE TABLE sekali.plain (seq bigserial PRIMARY KEY, id text)";
        slow.batch_execute(table).await.unwrap();
        slow.batch_execute("BEGIN; INSERT INTO sekali.plain (id) VALUES ('slow')").await.unwrap();
        fast.batch_execute("INSERT INTO sekali.plain (id) VALUES ('fast')").await.unwrap();
        let first = read(0).await;
        slow.batch_execute("COMMIT").await.unwrap();
        let second = read(*first.last().unwrap()).await;
        assert_eq!(read(0).await, [1, 2], "both are there");
        (first, second)
    });
    assert_eq!(first, [2]);
    assert_eq!(second, [0; 0], "a reader that goes on behind 2 never sees 1");
}

#[test]
fn a_reader_sees_no_event_before_those_with_smaller_seqs() {
    // invariant 6: a seq is taken under a lock that is held until it can be read.
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    let mut writer = store.open_writer().unwrap();
    append(&mut *writer, &batch("a", &[("1", "{}")]));
    let (go, wait_for) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let url = database.url();
    // Another node that has taken seq 2 and does not commit yet.
    let slow = thread::spawn(move || {
        server::blocking(async move {
            let client = server::connect(&url).await.unwrap();
            client.batch_execute("BEGIN").await.unwrap();
            client.query(&Topics::Many.lock(), &[&vec!["a"]]).await.unwrap();
            assert_eq!(store_by_hand(&client, Topics::Many, "slow").await, 2);
            begun.send(()).unwrap();
            wait_for.recv().unwrap();
            client.batch_execute("COMMIT").await.unwrap();
        });
    });
    has_begun.recv().unwrap();
    let fast = thread::spawn(move || append(&mut *writer, &batch("a", &[("fast", "{}")])));
    until("the fast one waits for the lock", || {
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        database.run(waiting) != "0"
    });
    assert_eq!(read_all(&*store.reader(), "a").len(), 1, "neither can be read");
    go.send(()).unwrap();
    assert_eq!(fast.join().unwrap(), [accepted(3)]);
    slow.join().unwrap();
    let ids: Vec<_> =
        read_all(&*store.reader(), "a").iter().map(|stored| stored.event.event_id().to_owned()).collect();
    assert_eq!(ids, ["1", "slow", "fast"]);
}

/// Waits until a topic is past a seq, and gives how long that took.
fn told(listener: &mut Listener, seq: u64) -> Duration {
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let heard = async { tokio::time::timeout(Duration::from_mins(2), listener.beyond(seq)).await };
    runtime.block_on(heard).unwrap();
    begun.elapsed()
}

/// Commits on one node until most of the commits were heard of on another one much sooner than a
/// look that comes once a second hears of them. Each commit follows the news of the one before, and
/// so looks alone would take a second for each, also on a machine that is not busy.
fn is_told_of_others(here: &PostgresStore, there: &PostgresStore) {
    let mut writer = there.open_writer().unwrap();
    let mut listener = here.news().listen(topic("a"));
    let (mut seq, mut soon) = (0, 0);
    until("most commits are heard of at once", || {
        append(&mut *writer, &batch("a", &[(&seq.to_string(), "{}")]));
        soon += u64::from(told(&mut listener, seq) < Duration::from_millis(500));
        seq += 1;
        assert_eq!(read_all(&*here.reader(), "a").len() as u64, seq, "what was told can be read");
        seq >= 15 && soon > seq / 2
    });
}

#[test]
fn who_listens_on_one_node_hears_of_commits_on_another_at_once() {
    let Some(database) = Database::fresh() else { return };
    is_told_of_others(&node(&database), &node(&database));
}

#[test]
fn who_listens_hears_of_other_nodes_where_the_database_has_no_notifications() {
    let Some(database) = Database::fresh() else { return };
    let proxy = Proxy::to(&database.url());
    proxy.set(Way::Deaf);
    let [here, there] = [(); 2].map(|()| try_open(&settings(&proxy.url(&database.url()))).unwrap());
    is_told_of_others(&here, &there);
    let listening = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    assert_eq!(database.run(listening), "0");
}

#[test]
fn a_word_that_was_lost_is_made_up_for_by_looking() {
    let Some(database) = Database::fresh() else { return };
    let here = Arc::new(node(&database));
    let mut listener = here.news().listen(topic("a"));
    // A node that commits and dies before it says so.
    let there = node(&database);
    append(&mut *there.open_writer().unwrap(), &batch("a", &[("1", "{}")]));
    told(&mut listener, 0);
    database.run(
        "INSERT INTO sekali.events SELECT topic, 2, received_at, digest, commit_id, '2', timestamp, source, payload
         FROM sekali.events; UPDATE sekali.topics SET last_seq = 2",
    );
    told(&mut listener, 1);
    database.disconnect();
    database.run("UPDATE sekali.topics SET last_seq = 3");
    told(&mut listener, 2);
}

#[test]
fn who_listens_reads_for_itself_while_its_node_hears_nothing() {
    let Some(database) = Database::fresh() else { return };
    let here = node(&database);
    let mut listener = here.news().listen(topic("a"));
    // A connection for reads stays; the one that hears goes, and no other is made.
    assert_eq!(read_all(&*here.reader(), "a").len(), 0);
    let ear = "query LIKE 'SELECT topic, last_seq FROM%ANY ($1)' AND pid <> pg_backend_pid()";
    let ears = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {ear}");
    until("it hears", || database.run(&ears) == "1");
    database.admit(false);
    database.disconnect_those(ear);
    let looked = thread::spawn(move || {
        told(&mut listener, 0);
        listener
    });
    let looked = looked.join();
    database.admit(true);
    let mut listener = looked.unwrap();
    append(&mut *node(&database).open_writer().unwrap(), &batch("a", &[("1", "{}")]));
    told(&mut listener, 0);
}
