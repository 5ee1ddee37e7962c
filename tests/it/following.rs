//! Following a topic: stored events, then new ones, each once, in order, and only when they are durable.

use std::cell::Cell;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::rt::time::timeout;
use futures_util::future::{join, join_all};
use sekali::api::Code;
use serde_json::json;

use crate::support::{Client, Log, Raw, Sent, array, event, event_with, everything, ids, parse, seqs, until};

/// Long enough for what comes to have come, where nothing should.
const NOTHING_COMES: Duration = Duration::from_millis(200);

/// A stop takes less than this also on a busy machine, and one that waits for
/// `server.shutdown_timeout` far more.
const STOP_MAX: Duration = Duration::from_mins(2);

async fn until_nobody_follows(log: &Client) {
    until("nobody follows", async || log.metric("sekali_followers").await < 0.5).await;
}

#[actix_web::test]
async fn stored_events_come_first_and_then_new_ones() {
    let log = Log::start();
    log.publish(array(ids("t", 0..3))).await.ok();
    let mut follower = log.follow("/events?topic=t", None).await;
    let header = |name: &str| follower.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(header("content-type").as_deref(), Some("text/event-stream"));
    assert_eq!(header("cache-control").as_deref(), Some("no-store"));
    assert_eq!(header("x-accel-buffering").as_deref(), Some("no"));
    assert_eq!(follower.next().await, Some(Sent::Begin(1_000, Some(0))));
    assert_eq!(follower.seqs(3).await, [1, 2, 3]);
    for seq in 4..50 {
        // Some of them repeat others, or belong to other topics, and are no news.
        let fresh = event_with("t", &format!("new-{seq}"), &format!("{{ \"n\":\n{seq}.50 }}"));
        log.publish(array([event("t", "0"), event("u", &seq.to_string()), fresh])).await.ok();
        let (given, data) = follower.event().await.unwrap();
        assert_eq!((given, &data["event_id"]), (seq, &json!(format!("new-{seq}"))));
    }
    let stored = everything(&log, "t").await;
    let mut again = log.follow("/events?topic=t", None).await;
    for one in stored {
        assert_eq!(again.event().await.unwrap().1, one, "the same event as in a list");
    }
}

#[actix_web::test]
async fn a_topic_may_be_followed_before_its_first_event() {
    let log = Log::start();
    let (mut first, mut later) =
        (log.follow("/events?topic=new", None).await, log.follow("/events?topic=new&after=2", None).await);
    log.publish(array(ids("new", 0..2))).await.ok();
    assert_eq!(first.seqs(2).await, [1, 2]);
    log.publish(array(ids("new", 2..4))).await.ok();
    assert_eq!((first.seqs(2).await, later.seqs(2).await), (vec![3, 4], vec![3, 4]));
}

#[actix_web::test]
async fn a_follower_goes_on_where_it_was() {
    let log = Log::start();
    log.publish(array(ids("t", 0..2_000))).await.ok();
    for (path, last_event, first) in [
        ("/events?topic=t", None, 1),
        ("/events?topic=t&after=0&order=asc", None, 1),
        ("/events?topic=t&after=1234", None, 1_235),
        ("/events?topic=t&after=1234", Some(7), 8),
        ("/events?topic=t&after=7", Some(1_234), 1_235),
        ("/events?topic=t&after=7", Some(0), 1),
        ("/events?topic=t", Some(1_999), 2_000),
    ] {
        let rest = log.follow(path, last_event).await.seqs(2_001 - first).await;
        assert_eq!(rest, (first as u64..=2_000).collect::<Vec<_>>(), "{path} {last_event:?}");
    }
    let mut at_the_end = log.follow("/events?topic=t", Some(2_000)).await;
    log.publish(event("t", "one more")).await.ok();
    assert_eq!(at_the_end.seqs(1).await, [2_001]);
}

#[actix_web::test]
async fn what_cannot_be_followed_is_a_problem() {
    let log = Log::start();
    log.publish(array(ids("t", 0..3))).await.ok();
    for (path, last_event) in [
        ("/events?topic=t", "x"),
        ("/events?topic=t", "-1"),
        ("/events?topic=t", "4"),
        ("/events?topic=unknown", "1"),
        ("/events?topic=t&limit=2", "1"),
        ("/events?topic=t&before=2", "1"),
        ("/events?topic=t&order=desc", "1"),
        ("/events", "1"),
        ("/events?topic=", "1"),
    ] {
        let request = log.following(path, None).insert_header(("last-event-id", last_event));
        log.send(request, "").await.problem(Code::InvalidParameter);
    }
    let twice = log.following("/events?topic=t", Some(1)).append_header(("last-event-id", "2"));
    log.send(twice, "").await.problem(Code::InvalidParameter);
    let head = log.following("/events?topic=t", None).method(Method::HEAD);
    let answer = log.send(head, "").await.ok();
    assert_eq!((answer.header("content-type"), answer.body.len()), (Some("text/event-stream"), 0));
    assert!(log.metric("sekali_followers").await < 0.5, "a head follows nothing");
}

#[actix_web::test]
async fn an_event_is_pushed_only_when_it_is_durable() {
    // invariant 1: what a follower sees is durable, as what a producer is told is.
    let log = Log::configured("[store]\nlock_timeout = \"30s\"");
    log.publish(event("t", "1")).await.ok();
    let mut follower = log.follow("/events?topic=t", None).await;
    assert_eq!(follower.seqs(1).await, [1]);
    let locked = log.locked();
    let publishing = log.publish(event("t", "2"));
    let watching = async {
        until("the event waits", async || log.metric("sekali_in_flight_events").await > 0.5).await;
        assert!(timeout(NOTHING_COMES, follower.next()).await.is_err(), "it is not stored yet");
        drop(locked);
        assert_eq!(follower.seqs(1).await, [2]);
    };
    join(publishing, watching).await.0.ok();
}

#[actix_web::test]
async fn followers_that_come_and_go_under_load_miss_nothing_and_see_nothing_twice() {
    // invariant 6: a reader that saw seq n never finds a smaller one appear later.
    const EVENTS: u64 = 6_000;
    let log = Log::configured("[store]\nseal_keys = 1000\n[router]\nlanes = 4");
    let published = Cell::new(0);
    let publishers = (0..4).map(async |publisher: u64| {
        let client = log.another_client();
        while published.get() < EVENTS {
            let batch = 1 + (published.get() + publisher) % 40;
            let first = published.replace(published.get() + batch);
            let events = (first..first + batch).map(|id| event("t", &id.to_string()));
            client.publish(array(events)).await.ok();
        }
    });
    let followers = (0..12_u64).map(async |number| {
        let client = log.another_client();
        let (mut last, mut connections) = (0, 0);
        while last < EVENTS {
            let mut sse = client.follow("/events?topic=t", (last > 0).then_some(last)).await;
            // Some go away after a few events, some stay for long.
            for _ in 0..(number + 1) * 83 {
                if last == EVENTS {
                    break;
                }
                let (seq, _) = sse.event().await.expect("the log goes on");
                assert_eq!(seq, last + 1);
                last = seq;
            }
            connections += 1;
        }
        connections
    });
    let (connections, _) = join(join_all(followers), join_all(publishers)).await;
    assert!(connections[0] > 50, "{connections:?}");
    until_nobody_follows(&log).await;
}

#[actix_web::test]
async fn a_follower_that_takes_nothing_is_cut_off_and_goes_on_later() {
    // Long enough for the one that takes what it is given, on a machine that does much else.
    let log = Log::configured("[server]\nfollow_timeout = \"3s\"");
    let payload = format!("{{\"x\":\"{}\"}}", "x".repeat(60_000));
    let big = |id: usize| event_with("t", &id.to_string(), &payload);
    let mut slow = Raw::open(log.address());
    slow.send("GET /events?topic=t HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    let mut quick = log.follow("/events?topic=t", None).await;
    // More than the sockets' buffers take.
    for round in 0..4 {
        log.publish(array((0..100).map(|id| big(round * 100 + id)))).await.ok();
        let first = round as u64 * 100;
        assert_eq!(quick.seqs(100).await, (first + 1..=first + 100).collect::<Vec<_>>());
    }
    until("the slow one is cut off", async || log.metric("sekali_followers_cut_total").await > 0.5).await;
    assert!(log.metric("sekali_followers").await > 0.5, "the other one is not");
    let text = String::from_utf8(slow.rest()).unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(
        !body.ends_with("\r\n0\r\n\r\n"),
        "the connection is cut, and holds nothing for a client that takes nothing"
    );
    // Without the lines that are the lengths of chunks.
    let lines = body.split("\r\n").skip(1).step_by(2).collect::<String>();
    let whole = lines.rfind("\n\n").map_or("", |end| &lines[..end]);
    let sent: Vec<_> = whole.split("\n\n").map(parse).collect();
    let given = sent.iter().filter_map(|one| if let Sent::Event(seq, _) = one { Some(*seq) } else { None });
    let given: Vec<_> = given.collect();
    let last = given.len() as u64;
    assert_eq!(given, (1..=last).collect::<Vec<_>>());
    assert!((1..400).contains(&last), "{last}");
    let rest = log.follow("/events?topic=t", Some(last)).await.seqs(400 - given.len()).await;
    assert_eq!(rest, (last + 1..=400).collect::<Vec<_>>());
}

#[actix_web::test]
async fn a_follower_without_news_gets_signs_of_life() {
    let log = Log::configured("[server]\nfollow_heartbeat = \"100ms\"");
    let mut follower = log.follow("/events?topic=t", None).await;
    assert_eq!(follower.next().await, Some(Sent::Begin(1_000, Some(0))));
    for _ in 0..3 {
        assert_eq!(follower.next().await, Some(Sent::Beat));
    }
    log.publish(event("t", "1")).await.ok();
    assert_eq!(follower.seqs(1).await, [1]);
}

#[actix_web::test]
async fn places_are_bounded_and_free_again_when_followers_are_gone() {
    let log = Log::configured("[limits]\nfollowers = 2");
    let first = log.follow("/events?topic=t", None).await;
    let _second = log.follow("/events?topic=u", None).await;
    let refused = log.send(log.following("/events?topic=t", None), "").await;
    refused.problem(Code::Overloaded);
    log.get("/events?topic=t").await.ok();
    drop(first);
    until("there is a place", async || log.try_follow("/events?topic=t", None).await.is_ok()).await;
}

#[actix_web::test]
async fn a_stop_ends_followers_with_the_last_event_they_were_given() {
    let mut log = Log::configured("[server]\nshutdown_timeout = \"1h\"");
    log.publish(array(ids("t", 0..3))).await.ok();
    let (mut busy, mut idle) =
        (log.follow("/events?topic=t", None).await, log.follow("/events?topic=u", None).await);
    assert_eq!(busy.seqs(3).await, [1, 2, 3]);
    assert_eq!(idle.next().await, Some(Sent::Begin(1_000, Some(0))));
    let started = Instant::now();
    log.begin_to_stop();
    let words =
        |last: u64| json!({"code": "shutting_down", "detail": "the log is stopping", "last_seq": last});
    assert_eq!((busy.end().await, idle.end().await), (words(3), words(0)));
    assert_eq!((busy.next().await, idle.next().await), (None, None), "nothing comes after the last words");
    log.stop();
    assert!(started.elapsed() < STOP_MAX, "{:?}", started.elapsed());
    let log = log.restarted();
    log.publish(event("t", "more")).await.ok();
    assert_eq!(log.follow("/events?topic=t", Some(3)).await.seqs(1).await, [4]);
}

#[actix_web::test]
async fn a_follower_that_takes_nothing_does_not_hold_a_stop_back() {
    let mut log = Log::configured("[server]\nshutdown_timeout = \"1h\"\nfollow_timeout = \"1h\"");
    let payload = format!("{{\"x\":\"{}\"}}", "x".repeat(60_000));
    let mut slow = Raw::open(log.address());
    slow.send("GET /events?topic=t HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    until("it follows", async || log.metric("sekali_followers").await > 0.5).await;
    for round in 0..3 {
        let big = |id: usize| event_with("t", &(round * 100 + id).to_string(), &payload);
        log.publish(array((0..100).map(big))).await.ok();
    }
    let started = Instant::now();
    log.stop();
    assert!(started.elapsed() < STOP_MAX, "{:?}", started.elapsed());
    assert!(TcpStream::connect(log.address()).is_err());
    drop(slow);
    assert_eq!(seqs(&everything(&log.restarted(), "t").await).len(), 300);
}
