//! A network for one test: nodes with addresses of their own, a database, and ways to cut them apart.
//!
//! All of it is in network namespaces that have no names and end with the last process in them: no two tests meet, also where
//! a node of tests that were killed is still there. The unit tests of the PostgreSQL engine include this file too.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the hub, which has the database, is for nodes. Clients are in the hub too, and reach nodes over another wire.
pub(crate) const HUB: &str = "10.2.0.1";

/// What nodes listen on.
const PORT: u16 = 7000;

/// Says that it is there, and stays until the tests' end of the pipe is closed.
const HOLD: &str = "echo here; read -r _";

/// A network namespace. Threads and processes that are started inside are in it too.
pub(crate) struct Namespace {
    holder: Child,
    link: File,
}

/// The hub, and nodes with two wires to it: one for clients, one for the database.
pub(crate) struct Network {
    pub(crate) hub: Namespace,
    nodes: Vec<Namespace>,
}

/// How a node is cut off from the database. Clients reach it as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The wire is pulled out: the node sees that.
    Wire,
    /// What goes either way is dropped, and nobody is told.
    Both,
    /// What the node sends arrives; what the database sends does not.
    Answers,
    /// What the node sends does not arrive.
    Requests,
}

impl Namespace {
    /// A new one, in which nothing is up; an error says why there can be none.
    pub(crate) fn new() -> Result<Self, String> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--", "sh", "-c", HOLD]);
        unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = unshare.spawn().map_err(|error| format!("unshare: {error}"))?;
        let mut said = String::new();
        let _ = BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said);
        if said.is_empty() {
            let _ = holder.stderr.take().unwrap().read_to_string(&mut said);
            return Err(said);
        }
        let link = File::open(format!("/proc/{}/ns/net", holder.id())).unwrap();
        let namespace = Self { holder, link };
        // Also shows whether threads of this process may enter it.
        namespace.try_run("ip link set lo up")?;
        Ok(namespace)
    }

    /// Does something on a thread inside.
    pub(crate) fn inside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let entered = || {
            self.enter().unwrap();
            what()
        };
        thread::scope(|scope| scope.spawn(entered).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn enter(&self) -> Result<(), rustix::io::Errno> {
        move_into_link_name_space(self.link.as_fd(), Some(LinkNameSpaceType::Network))
    }

    /// Runs a program inside, which must succeed.
    fn run(&self, line: &str) {
        self.try_run(line).unwrap();
    }

    /// Runs a program inside; an error is what it says.
    pub(crate) fn try_run(&self, line: &str) -> Result<(), String> {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        let output = thread::scope(|scope| {
            let inside = || self.enter().map_err(|error| error.to_string()).map(|()| command.output());
            scope.spawn(inside).join().unwrap()
        })?;
        let output = output.map_err(|error| format!("{line}: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("{line}: {said}")) }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Network {
    /// So many nodes and a hub; an error says why there can be none, which is so without root and iproute2.
    pub(crate) fn of(nodes: usize) -> Result<Self, String> {
        let hub = Namespace::new()?;
        for (bridge, subnet) in [("front", 1), ("back", 2)] {
            hub.try_run(&format!("ip link add {bridge} type bridge"))?;
            hub.try_run(&format!("ip address add 10.{subnet}.0.1/24 dev {bridge}"))?;
            hub.try_run(&format!("ip link set {bridge} up"))?;
        }
        let mut network = Self { hub, nodes: Vec::new() };
        for node in 0..nodes {
            let namespace = Namespace::new()?;
            for (wire, subnet) in [("front", 1), ("back", 2)] {
                let holder = namespace.holder.id();
                let ends = format!("ip link add {wire}-{node} type veth peer name {wire} netns {holder}");
                network.hub.try_run(&ends)?;
                network.hub.try_run(&format!("ip link set {wire}-{node} master {wire} up"))?;
                let address = format!("10.{subnet}.0.{}", place(node));
                namespace.try_run(&format!("ip address add {address}/24 dev {wire}"))?;
                namespace.try_run(&format!("ip link set {wire} up"))?;
            }
            network.nodes.push(namespace);
        }
        // The bridge's own program comes with iproute2, too.
        network.hub.try_run("bridge link show")?;
        Ok(network)
    }

    pub(crate) fn node(&self, node: usize) -> &Namespace {
        &self.nodes[node]
    }

    /// What each node listens on for clients in the hub.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        (0..self.nodes.len()).map(|node| SocketAddr::from(([10, 1, 0, place(node)], PORT))).collect()
    }

    /// Cuts a node off from the database.
    pub(crate) fn cut(&self, node: usize, cut: Cut) {
        match cut {
            Cut::Wire => self.hub.run(&format!("ip link set back-{node} down")),
            Cut::Both => self.hub.run(&format!("bridge link set dev back-{node} state 0")),
            Cut::Answers => self.hub.run(&format!("ip route add blackhole 10.2.0.{}", place(node))),
            Cut::Requests => self.nodes[node].run(&format!("ip route add blackhole {HUB}")),
        }
    }

    /// Undoes that.
    pub(crate) fn mend(&self, node: usize, cut: Cut) {
        match cut {
            Cut::Wire => self.hub.run(&format!("ip link set back-{node} up")),
            Cut::Both => self.hub.run(&format!("bridge link set dev back-{node} state 3")),
            Cut::Answers => self.hub.run(&format!("ip route del blackhole 10.2.0.{}", place(node))),
            Cut::Requests => self.nodes[node].run(&format!("ip route del blackhole {HUB}")),
        }
    }
}

/// The last part of a node's addresses.
fn place(node: usize) -> u8 {
    u8::try_from(node + 11).unwrap()
}
