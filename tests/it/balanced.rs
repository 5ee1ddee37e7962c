//! Three nodes behind the load balancer of the cluster are one log, whichever of them goes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use futures_util::future::{join, join_all};
use sekali::api::Code;
use tempfile::{TempDir, tempdir};

use crate::support::postgres::Database;
use crate::support::{
    Answer, Balancer, Client, Process, Raw, array, event, everything, haproxy, ids, say, seqs, until,
};

/// Requests of one producer, and the events of each.
const REQUESTS: usize = 150;
const EVENTS: usize = 5;

/// What a producer may be told by a node that stops, until the balancer has seen that, and must send again. Of a node that is
/// killed it sees nothing: its requests fit into the balancer's buffers.
const AGAIN: u16 = 503;

/// Three nodes on one database, and what stands before them.
struct Cluster {
    balancer: Balancer,
    nodes: Vec<Process>,
    _home: TempDir,
    _database: Database,
}

impl Cluster {
    /// Starts it where its programs are installed, and waits until all nodes are taken for ready.
    async fn start() -> Option<Self> {
        Self::configured("").await
    }

    /// The same, of nodes with this configuration file.
    async fn configured(config: &str) -> Option<Self> {
        let (haproxy, database) = (haproxy()?, Database::fresh()?);
        let home = tempdir().unwrap();
        let nodes: Vec<_> = (0..3).map(|_| Process::node(home.path(), config, &database.url())).collect();
        let addresses = [0, 1, 2].map(|node: usize| nodes[node].address());
        let balancer = Balancer::before(haproxy, addresses);
        until("it answers", async || {
            let asked = balancer.request(actix_web::http::Method::GET, "/health/ready");
            balancer.try_send(asked, "").await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        Some(Self { balancer, nodes, _home: home, _database: database })
    }
}

/// Publishes, each request again until it is answered with verdicts, and notes which seqs were acknowledged. Gives how
/// often it had to.
async fn produce(client: Client, producer: usize, acknowledged: &RefCell<BTreeMap<String, u64>>) -> usize {
    let mut again = 0;
    for request in 0..REQUESTS {
        let ids: Vec<_> = (0..EVENTS).map(|place| format!("{producer}-{request}-{place}")).collect();
        let body = array(ids.iter().map(|id| event("t", id)));
        let answer = loop {
            let sent = client.post("/publish").content_type("application/json");
            let answer = client.try_send(sent, body.clone()).await.expect("the balancer itself answers");
            if answer.status == 200 {
                break answer;
            }
            assert_eq!(answer.status, AGAIN, "{answer:?}");
            again += 1;
        };
        let results = answer.json()["results"].clone();
        for (place, id) in ids.into_iter().enumerate() {
            let seq = results[place]["seq"].as_u64().unwrap();
            assert_eq!(acknowledged.borrow_mut().insert(id, seq), None);
        }
    }
    again
}

/// Follows through the balancer to the seq `last`, from where it was whenever the connection ends.
async fn follow(client: Client, last: u64, seen: &RefCell<Vec<u64>>, ends: &Cell<usize>) {
    while (seen.borrow().len() as u64) < last {
        let behind = seen.borrow().last().copied();
        let Ok(mut sse) = client.try_follow("/events?topic=t", behind).await else { continue };
        while (seen.borrow().len() as u64) < last {
            let Some((seq, _)) = sse.event().await else {
                ends.set(ends.get() + 1);
                break;
            };
            seen.borrow_mut().push(seq);
        }
    }
}

/// Whom a follower is connected to.
async fn followed(nodes: &[Process]) -> usize {
    let mut found = None;
    until("somebody is followed", async || {
        for (place, node) in nodes.iter().enumerate() {
            if node.metric("sekali_followers").await > 0.5 {
                found = Some(place);
            }
        }
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[actix_web::test]
async fn producers_and_followers_go_on_when_nodes_are_killed_and_stopped() {
    // invariants 1 and 3: what was acknowledged is stored, once, also where the balancer has sent a request twice.
    let Some(mut cluster) = Cluster::start().await else { return };
    let (acknowledged, seen, ends) = (RefCell::default(), RefCell::<Vec<u64>>::default(), Cell::new(0));
    let client = || Client::of(cluster.balancer.address());
    let producers = 4;
    let last = (producers * REQUESTS * EVENTS) as u64;
    let has_come = async |part: u64| {
        until("events have come", async || seen.borrow().len() as u64 >= last * part / 10).await;
    };
    let producing = join_all((0..producers).map(|producer| produce(client(), producer, &acknowledged)));
    let following = follow(client(), last, &seen, &ends);
    let losing = async {
        has_come(2).await;
        let place = followed(&cluster.nodes).await;
        let killed = cluster.nodes.remove(place);
        killed.signal("KILL");
        assert_eq!(killed.ended().await.code, None);
        has_come(5).await;
        let place = followed(&cluster.nodes).await;
        let stopped = cluster.nodes.remove(place);
        stopped.signal("TERM");
        assert_eq!(stopped.ended().await.code, Some(0));
    };
    let ((again, ()), ()) = join(join(producing, following), losing).await;
    assert!(ends.get() >= 2, "both nodes had a follower, who lost them");
    let stored = everything(&cluster.balancer, "t").await;
    assert_eq!(seqs(&stored), (1..=last).collect::<Vec<_>>());
    assert_eq!(*seen.borrow(), seqs(&stored), "the follower has seen each once and in order");
    for event in &stored {
        assert_eq!(event["seq"], acknowledged.borrow()[event["event_id"].as_str().unwrap()]);
    }
    let times: usize = again.iter().sum();
    say(&format!("producers had to send {times} of {} requests again", producers * REQUESTS));
}

#[actix_web::test]
async fn a_request_goes_to_another_node_when_its_own_cannot_be_reached() {
    let Some(mut cluster) = Cluster::start().await else { return };
    cluster.nodes.truncate(1);
    for number in 0..30 {
        let answer = cluster.balancer.publish(event("t", &number.to_string())).await;
        assert_eq!(answer.fates(), [format!("accepted {}", number + 1)]);
    }
}

#[actix_web::test]
async fn while_no_node_is_ready_a_producer_is_told_to_send_again_as_by_a_node() {
    let Some(mut cluster) = Cluster::start().await else { return };
    cluster.nodes.clear();
    let answer = cluster.balancer.publish(event("t", "1")).await;
    answer.problem(Code::StoreUnavailable);
    assert_eq!(answer.header("retry-after"), Some("1"));
}

/// A node that says it is ready, and goes away in the middle of everything else.
fn fickle() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut begin = [0; 12];
            if connection.read_exact(&mut begin).is_ok() && begin.starts_with(b"GET /health/") {
                let ready = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                connection.write_all(ready.as_bytes()).unwrap();
            }
        }
    });
    address
}

#[actix_web::test]
async fn a_request_goes_to_another_node_when_its_own_goes_away_before_it_answers() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let [a, b] = [0, 1].map(|node: usize| cluster.nodes[node].address());
    cluster.balancer = Balancer::before(haproxy().unwrap(), [fickle(), a, b]);
    until("it answers", async || cluster.balancer.is_ready().await).await;
    for number in 0..30 {
        let answer = cluster.balancer.publish(event("t", &number.to_string())).await;
        assert_eq!(answer.fates(), [format!("accepted {}", number + 1)]);
    }
}

#[actix_web::test]
async fn headers_pass_and_what_is_large_or_slow_does_too() {
    let Some(cluster) = Cluster::start().await else { return };
    let request = cluster.balancer.post("/publish").content_type("application/json");
    let request = request.insert_header(("x-request-id", "mine"));
    let answer = cluster.balancer.send(request, event("t", "1")).await;
    assert_eq!(answer.headers.get("x-request-id").unwrap(), "mine");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = cluster.balancer.post("/publish").content_type("application/json");
    let request = request.insert_header(("traceparent", format!("00-{trace}-00f067aa0ba902b7-01")));
    // Much more than fits into a buffer.
    let answer = cluster.balancer.send(request, array(ids("t", 2..5_001))).await;
    assert_eq!(answer.headers.get("x-request-id").unwrap(), trace);
    assert_eq!(everything(&cluster.balancer, "t").await.len(), 5_000);
}

#[actix_web::test]
async fn a_node_hears_at_once_that_its_follower_has_left() {
    // By the next sign of life a node would find out as well, each time.
    let config = "[server]\nfollow_heartbeat = \"30s\"\n";
    let Some(cluster) = Cluster::configured(config).await else { return };
    let mut soon = false;
    for _ in 0..3 {
        let follower = cluster.balancer.try_follow("/events?topic=t", None).await.unwrap();
        let node = &cluster.nodes[followed(&cluster.nodes).await];
        drop(follower);
        let left = Instant::now();
        until("nobody is followed", async || node.metric("sekali_followers").await < 0.5).await;
        soon |= left.elapsed() < Duration::from_secs(20);
    }
    assert!(soon, "it finds out only by its next sign of life");
}

#[actix_web::test]
async fn what_a_node_counts_of_itself_comes_from_one_node() {
    let Some(cluster) = Cluster::start().await else { return };
    for number in 0..30 {
        cluster.balancer.publish(event("t", &number.to_string())).await.ok();
    }
    let first = cluster.balancer.totals("runtime").await;
    for _ in 0..10 {
        assert_eq!(cluster.balancer.totals("runtime").await, first);
    }
    assert!(first[0] < 30, "the events were shared out: {first:?}");
}

/// Two clients of the balancer.
const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// A node behind the balancer that trusts it as in `compose.cluster.yml`: by a variable.
struct Trusting {
    balancer: Balancer,
    node: Process,
    _home: TempDir,
}

impl Trusting {
    /// A node that trusts these addresses, with this configuration file.
    fn start(trusted: &str, config: &str) -> Option<Self> {
        let (haproxy, home) = (haproxy()?, tempdir().unwrap());
        fs::write(home.path().join("sekali.toml"), config).unwrap();
        let arguments = ["--config", "sekali.toml", "--bind", "127.0.0.1:0", "--store", "sqlite:log.db"];
        let node = Process::run(home.path(), &arguments, &[("SEKALI_TRUSTED_PROXIES", trusted)]);
        let balancer = Balancer::before(haproxy, [node.address(); 3]);
        Some(Self { balancer, node, _home: home })
    }

    fn client(&self, own: IpAddr) -> Client {
        Client::at(own, self.balancer.address())
    }
}

/// The balancer and another proxy; and a network in which the clients are as well.
const TRUSTED: [&str; 2] = ["10.9.9.9,127.0.0.1", "10.9.9.9,127.0.0.0/8"];

/// Headers by which a client could try to be taken for another one.
const FORGED: [&[(&str, &str)]; 8] = [
    &[("x-forwarded-for", "127.0.0.3")],
    &[("x-forwarded-for", "192.0.2.1")],
    &[("x-forwarded-for", "192.0.2.2, 127.0.0.1")],
    &[("x-forwarded-for", "192.0.2.3"), ("x-forwarded-for", "10.9.9.9")],
    &[("forwarded", "for=127.0.0.3")],
    &[("forwarded", "for=127.0.0.3"), ("x-forwarded-for", "127.0.0.3")],
    &[("forwarded", "for=\"192.0.2.4")],
    &[("connection", "x-forwarded-for, forwarded"), ("x-forwarded-for", "192.0.2.5")],
];

/// Publishes with these headers as well.
async fn publish(client: &Client, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let request = client.post("/publish").content_type("application/json");
    let request = headers.iter().fold(request, |request, header| request.append_header(*header));
    client.send(request, body).await
}

#[actix_web::test]
async fn clients_behind_the_balancer_have_shares_of_their_own_and_cannot_choose_another_one() {
    for trusted in TRUSTED {
        let config = "[limits]\nnew_topics_per_minute = 2\n";
        let Some(cluster) = Trusting::start(trusted, config) else { return };
        until("it answers", async || cluster.balancer.is_ready().await).await;
        let (one, other) = (cluster.client(ONE), cluster.client(OTHER));
        for topic in ["a", "b"] {
            one.publish(event(topic, "1")).await.ok();
        }
        one.publish(event("c", "1")).await.problem(Code::TooManyTopics);
        for (number, headers) in FORGED.iter().enumerate() {
            let refused = publish(&one, headers, event(&format!("forged {number}"), "1")).await;
            refused.problem(Code::TooManyTopics);
        }
        for topic in ["d", "e"] {
            other.publish(event(topic, "1")).await.ok();
        }
        other.publish(event("f", "1")).await.problem(Code::TooManyTopics);
    }
}

#[actix_web::test]
async fn a_client_that_holds_its_share_of_what_is_in_flight_refuses_no_other_one_behind_the_balancer() {
    // The stalled bodies stay until the test ends.
    let config = "[server]\nbody_timeout = \"1h\"\nbody_min_rate = 0\n\
        [limits]\nin_flight_bytes = \"48MiB\"\nbody = \"4MiB\"\n";
    let Some(cluster) = Trusting::start(TRUSTED[0], config) else { return };
    until("it answers", async || cluster.balancer.is_ready().await).await;
    let spaces = vec![b' '; 3 << 20];
    let stalled: Vec<_> = (0..10)
        .map(|_| {
            let mut raw = Raw::open_from(ONE, cluster.balancer.address());
            let length = spaces.len() + 1;
            raw.send(format!(
                "POST /publish HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 127.0.0.3\r\n\
                    Content-Length: {length}\r\n\r\n"
            ));
            raw.send(&spaces);
            raw
        })
        .collect();
    until("all of it is held", async || {
        cluster.node.metric("sekali_in_flight_bytes").await >= f64::from(30 << 20)
    })
    .await;
    let large = [&spaces[..2 << 20], b"[]"].concat();
    let (one, other) = (cluster.client(ONE), cluster.client(OTHER));
    one.publish(large.clone()).await.problem(Code::TooManyRequests);
    for headers in FORGED {
        publish(&one, headers, large.clone()).await.problem(Code::TooManyRequests);
    }
    other.publish(large).await.ok();
    drop(stalled);
}

/// The status of a small request on this connection; `None` where it ends without an answer.
fn asked(raw: &mut Raw) -> Option<u16> {
    let request = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    raw.stream().write_all(request.as_bytes()).ok()?;
    let mut begin = [0; 12];
    raw.stream().read_exact(&mut begin).ok()?;
    str::from_utf8(&begin[9..]).ok()?.parse().ok()
}

#[actix_web::test]
async fn a_client_that_holds_very_many_connections_of_the_balancer_keeps_no_other_one_out() {
    const MOST: usize = 20;
    let Some(mut haproxy) = haproxy() else { return };
    haproxy.env("SEKALI_PER_ADDRESS", MOST.to_string());
    let home = tempdir().unwrap();
    let node = Process::serve(home.path());
    let balancer = Balancer::before(haproxy, [node.address(); 3]);
    until("it answers", async || balancer.is_ready().await).await;
    let mut held: Vec<_> = (0..MOST).map(|_| Raw::open_from(ONE, balancer.address())).collect();
    for raw in &mut held {
        assert_eq!(asked(raw), Some(200));
    }
    assert_eq!(asked(&mut Raw::open_from(ONE, balancer.address())), None, "one too many");
    assert_eq!(asked(&mut Raw::open_from(OTHER, balancer.address())), Some(200));
    held.pop();
    until("its place is free again", async || {
        asked(&mut Raw::open_from(ONE, balancer.address())) == Some(200)
    })
    .await;
}
