//! The real program, followed: a thousand followers, kills, restarts, and `sekali events --follow`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use futures_util::future::{join, join_all};
use serde_json::Value;
use tempfile::tempdir;

use crate::support::{Client, Command, Ended, Process, Sse, array, event, everything, free_port, ids, until};

/// Followers at once.
const MANY: usize = 1_000;

#[actix_web::test]
async fn a_thousand_followers_get_every_event_once() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(array(ids("t", 0..10))).await.ok();
    let connecting = (0..MANY).map(|_| process.follow("/events?topic=t&after=5", None));
    let mut followers = join_all(connecting).await;
    until("all follow", async || process.metric("sekali_followers").await > 999.5).await;
    let mut last = 5;
    for round in 0..5 {
        let next = 10 + round * 20;
        process.publish(array(ids("t", next..next + 20))).await.ok();
        let upto = next as u64 + 20;
        let count = usize::try_from(upto - last).unwrap();
        let given = join_all(followers.iter_mut().map(|follower| follower.seqs(count))).await;
        let expected: Vec<_> = (last + 1..=upto).collect();
        assert!(given.iter().all(|seqs| *seqs == expected), "round {round}");
        last = upto;
    }
    process.signal("TERM");
    let ends = join_all(followers.iter_mut().map(Sse::end)).await;
    assert!(ends.iter().all(|words| words["last_seq"] == last), "{:?}", ends.first());
    assert_eq!(process.ended().await.code, Some(0));
}

#[actix_web::test]
async fn there_are_file_handles_for_as_many_followers_as_the_system_allows() {
    let home = tempdir().unwrap();
    let process = Process::limited(home.path(), "", "ulimit -S -n 64");
    let followers = join_all((0..100).map(|_| process.follow("/events?topic=t", None))).await;
    assert_eq!(followers.len(), 100);
}

/// Publishes until the log goes away, and notes what was acknowledged.
async fn publish_until_it_ends(client: Client, round: usize, acknowledged: &RefCell<BTreeMap<String, u64>>) {
    for number in 0.. {
        let ids: Vec<_> = (0..5).map(|place| format!("{round}-{number}-{place}")).collect();
        let request = client.post("/publish").content_type("application/json");
        let Ok(answer) = client.try_send(request, array(ids.iter().map(|id| event("t", id)))).await else {
            return;
        };
        let results = answer.ok().json()["results"].clone();
        for (id, place) in ids.into_iter().zip(0..) {
            acknowledged.borrow_mut().insert(id, results[place]["seq"].as_u64().unwrap());
        }
    }
}

/// Follows until the log goes away, and notes what came behind what came before.
async fn follow_until_it_ends(client: Client, seen: &RefCell<Vec<Value>>) {
    let last = seen.borrow().len() as u64;
    let Ok(mut sse) = client.try_follow("/events?topic=t", (last > 0).then_some(last)).await else { return };
    while let Some((seq, data)) = sse.event().await {
        seen.borrow_mut().push(data);
        assert_eq!(seq, seen.borrow().len() as u64);
    }
}

#[actix_web::test]
async fn what_was_pushed_before_a_kill_is_stored_and_what_was_not_comes_after_it() {
    // invariant 1: what was pushed is durable; what was acknowledged is pushed, once.
    let home = tempdir().unwrap();
    let (acknowledged, seen) = (RefCell::default(), <[RefCell<Vec<Value>>; 3]>::default());
    for round in 0..3 {
        let process = Process::serve(home.path());
        let client = || Client::of(process.address());
        let before = seen[0].borrow().len();
        let killing = async {
            until("all have seen some", async || seen.iter().all(|seen| seen.borrow().len() >= before + 300))
                .await;
            process.signal("KILL");
        };
        let following = join_all(seen.iter().map(|seen| follow_until_it_ends(client(), seen)));
        join(join(following, publish_until_it_ends(client(), round, &acknowledged)), killing).await;
        process.ended().await;
    }
    let process = Process::serve(home.path());
    let stored = everything(&process, "t").await;
    for seen in &seen {
        let missing = stored.len() - seen.borrow().len();
        let last = seen.borrow().len() as u64;
        let mut sse = process.follow("/events?topic=t", Some(last)).await;
        for _ in 0..missing {
            let (_, event) = sse.event().await.unwrap();
            seen.borrow_mut().push(event);
        }
        assert!(*seen.borrow() == stored, "each event once, at its place, as it is stored");
    }
    for (id, seq) in acknowledged.borrow().iter() {
        let at = usize::try_from(*seq).unwrap() - 1;
        assert_eq!(stored[at]["event_id"], **id, "what was acknowledged was pushed");
    }
}

#[actix_web::test]
async fn the_command_follows_over_restarts_and_kills_of_the_server() {
    let (home, port) = (tempdir().unwrap(), free_port());
    let url = format!("http://127.0.0.1:{port}");
    let mut process = Process::on_port(home.path(), port);
    process.publish(array(ids("t", 0..3))).await.ok();
    let command = Command::start(["events", "t", "--follow", "--limit", "13", "--url", &url]);
    let expect = async |range: std::ops::RangeInclusive<u64>| {
        for seq in range {
            let line: Value = serde_json::from_str(&command.line().await).unwrap();
            assert_eq!(
                (line["seq"].as_u64(), line["event_id"].as_str()),
                (Some(seq), Some(&*(seq - 1).to_string()))
            );
        }
    };
    expect(1..=3).await;
    let published = Cell::new(3);
    for signal in ["TERM", "KILL"] {
        let next = published.replace(published.get() + 5);
        process.publish(array(ids("t", next..next + 2))).await.ok();
        expect(next as u64 + 1..=next as u64 + 2).await;
        process.signal(signal);
        process.ended().await;
        process = Process::on_port(home.path(), port);
        process.publish(array(ids("t", next + 2..next + 5))).await.ok();
        expect(next as u64 + 3..=next as u64 + 5).await;
    }
    let ended = command.ended().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("following on after seq").count(), 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("the log is stopping; following on after seq 5\n"), "{}", ended.stderr);
}

#[actix_web::test]
async fn the_command_says_at_once_what_no_patience_mends() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let ended = Ended::of(["events", "t", "--follow", "--url", &nobody]).await;
    assert!(ended.code == Some(1) && ended.stderr.contains("cannot reach"), "{ended:?}");
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    let url = format!("http://{}", process.address());
    let ended = Ended::of(["events", "", "--follow", "--url", &url]).await;
    assert!(ended.code == Some(1) && ended.stderr.contains("422 invalid_parameter"), "{ended:?}");
}

#[actix_web::test]
async fn a_follower_of_a_store_that_was_put_back_is_told_how_to_go_on() {
    let (home, port) = (tempdir().unwrap(), free_port());
    let url = format!("http://127.0.0.1:{port}");
    let process = Process::on_port(home.path(), port);
    process.publish(array(ids("t", 0..3))).await.ok();
    let command = Command::start(["events", "t", "--follow", "--url", &url]);
    for _ in 0..3 {
        command.line().await;
    }
    process.signal("TERM");
    process.ended().await;
    let older = tempdir().unwrap();
    let _again = Process::on_port(older.path(), port);
    let ended = command.ended().await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for words in [
        "409 history_changed",
        "the store does not hold all events that were read",
        "resume with --after 0 --history",
    ] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[actix_web::test]
async fn a_follower_ends_with_whoever_read_it_and_not_at_the_next_event() {
    let home = tempdir().unwrap();
    let process = Process::serve(home.path());
    process.publish(event("t", "1")).await.ok();
    let url = format!("http://{}", process.address());
    // At its latest after a time that is longer than the patience of this test, so that a failure leaves nobody behind.
    let line = "timeout 100 \"$0\" events t --follow --url \"$1\" | head -n 1";
    let mut pipe = std::process::Command::new("sh");
    pipe.args(["-c", line, env!("CARGO_BIN_EXE_sekali"), &url]).stdout(std::process::Stdio::null());
    let mut shell = pipe.spawn().unwrap();
    // The shell waits for both ends of its pipe, and nothing more is published.
    until("both have ended", async || shell.try_wait().unwrap().is_some()).await;
}
