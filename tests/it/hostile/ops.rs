//! `server.ops_bind`: health and metrics while clients hold every place of the first listener.

use std::net::{IpAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{OTHER, OWN, STRANGER, Target, connect, endured, follow, get};
use crate::support::{Client, calm, until};

/// Connections of an attack; more than three times the places of the listener.
const CROWD: usize = 200;

/// The time after which an attacker opens all its connections again.
const AGAIN: Duration = Duration::from_secs(2);

#[actix_web::test]
async fn health_and_metrics_answer_on_their_own_listener_while_the_first_one_is_full() {
    let target = calm(|| Target::start("limits.connections = 4\nlimits.connections_per_address = 2\n"));
    let to = target.process.address();
    let full: Vec<_> = [STRANGER, STRANGER, OWN, OWN].into_iter().map(|from| follow(from, to)).collect();
    assert!(full.iter().all(|(status, _)| *status == 200), "all places are taken");
    assert_eq!(follow(OTHER, to).0, 503, "the first listener is full");

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
    until("the first listener has places", async || get(OWN, to, "/health").0 == 200).await;
}

#[test]
fn a_crowd_on_the_listener_for_health_does_not_fill_it() {
    let start = || Target { is_attacked_at_health: true, ..Target::start("") };
    let attack = |target: &Target, from: IpAddr, lasting: Duration| -> Vec<TcpStream> {
        let (to, begun) = (target.process.ops_address().unwrap(), Instant::now());
        loop {
            let crowd = (0..CROWD).map(|_| connect(from, to).unwrap()).collect();
            thread::sleep(AGAIN);
            if begun.elapsed() > lasting {
                return crowd;
            }
        }
    };
    let _ = endured("10: a crowd on the listener for health", start, attack);
}
