//! HAProxy with the configuration of the cluster, where Debian's package is installed.

use std::env;
use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Client, skipped};

/// The configuration, as `compose.cluster.yml` has it too.
const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/cluster/haproxy.cfg");

/// Where Debian puts the program, which is not on everybody's PATH.
const USUAL_PLACE: &str = "/usr/sbin";

/// A running load balancer, and a client that talks to it.
pub(crate) struct Balancer {
    client: Client,
    child: Child,
}

/// The program, ready to run with the configuration; says so loudly where it is not installed.
pub(crate) fn haproxy() -> Option<Command> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).chain([PathBuf::from(USUAL_PLACE)]);
    let Some(place) = places.find(|place| place.join("haproxy").exists()) else {
        skipped(&format!("no haproxy on PATH or in {USUAL_PLACE}"));
        return None;
    };
    let mut program = Command::new(place.join("haproxy"));
    program.args([Path::new("-f"), Path::new(CONFIGURATION)]);
    Some(program)
}

impl Balancer {
    /// Stands before these nodes.
    pub(crate) fn before(mut haproxy: Command, nodes: [SocketAddr; 3]) -> Self {
        // Made here and handed over, so that no two of them can have the same port.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for (number, node) in (1..).zip(nodes) {
            haproxy.env(format!("SEKALI_NODE_{number}"), node.to_string());
        }
        haproxy.arg("-db").env("SEKALI_BALANCER", "fd@0").stdin(OwnedFd::from(listener));
        // What it logs of requests; what it says of nodes is on standard error.
        let child = haproxy.stdout(Stdio::null()).spawn().unwrap();
        Self { client: Client::of(address), child }
    }
}

impl Deref for Balancer {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
