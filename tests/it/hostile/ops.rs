//! `server.ops_bind`: health and metrics while clients hold every place of the first listener.

use std::io::{Read, Write};

use super::{OWN, STRANGER, Target, connect};
use crate::support::{Client, until};

#[actix_web::test]
async fn health_and_metrics_answer_on_their_own_listener_while_the_first_one_is_full() {
    let config =
        "[server]\nops_bind = \"127.0.0.1:0\"\n[limits]\nconnections = 4\nconnections_per_address = 2\n";
    let target = Target::start(config);
    let follow = |from| target.follow(from);
    let full: Vec<_> = [STRANGER, STRANGER, OWN, OWN].into_iter().map(follow).collect();
    assert!(full.iter().all(|(beginning, _)| beginning == "HTTP/1.1 200"), "all places are taken");
    assert_eq!(follow("127.0.0.3".parse().unwrap()).0, "HTTP/1.1 503", "the first listener is full");

    let ops = Client::of(target.process.ops_address().unwrap());
    for path in ["/health", "/health/live", "/health/ready", "/metrics"] {
        ops.get(path).await.ok();
    }
    for path in ["/stats", "/topics", "/", "/publish", "/events?topic=t"] {
        assert_eq!(ops.get(path).await.status, 404, "{path} is on the first listener alone");
    }
    let text = ops.get("/metrics").await.ok().text().to_owned();
    let line = "sekali_connections_refused_total{reason=\"connections\"} 1";
    assert!(text.lines().any(|found| found == line), "{text}");
    drop(full);
    until("the first listener has places", async || {
        let mut stream = connect(OWN, target.process.address()).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).is_ok() && text.starts_with("HTTP/1.1 200")
    })
    .await;
}

#[actix_web::test]
async fn a_crowd_on_the_listener_for_health_does_not_fill_it() {
    let target = Target::start("[server]\nops_bind = \"127.0.0.1:0\"\n");
    let address = target.process.ops_address().unwrap();
    for from in [STRANGER, OWN] {
        let crowd: Vec<_> = (0..200).map(|_| connect(from, address).unwrap()).collect();
        let client = Client::of(address);
        if from == STRANGER {
            client.get("/health/live").await.ok();
        }
        // A crowd at the same address has its first second, and makes room then.
        until("health answers", async || client.get("/health/live").await.status == 200).await;
        drop(crowd);
    }
}
