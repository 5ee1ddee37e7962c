//! Three nodes and their database, in a network of their own.

use std::net::SocketAddr;

use tempfile::TempDir;

use crate::support::network::{Cut, HUB, Network};
use crate::support::postgres::Server;
use crate::support::{Client, Process};

/// Nodes of a cluster.
pub(super) const NODES: usize = 3;

/// Nodes that run, and what they share. All of it is used within the hub.
pub(super) struct Cluster<'a> {
    network: &'a Network,
    pub(super) server: Server,
    config: String,
    homes: Vec<TempDir>,
    nodes: Vec<Option<Process>>,
}

impl<'a> Cluster<'a> {
    /// Starts all of it; `None` where there is no PostgreSQL.
    pub(super) fn start(network: &'a Network, config: &str) -> Option<Self> {
        let homes = (0..NODES).map(|_| tempfile::tempdir().unwrap()).collect();
        let nodes = (0..NODES).map(|_| None).collect();
        let server = Server::own(HUB)?;
        let mut cluster = Self { network, server, config: config.to_owned(), homes, nodes };
        (0..NODES).for_each(|node| cluster.begin(node));
        Some(cluster)
    }

    /// An empty store and new nodes, with this configuration.
    pub(super) fn begin_anew(&mut self, config: &str) {
        self.nodes.iter_mut().for_each(|node| *node = None);
        self.server.clean();
        config.clone_into(&mut self.config);
        (0..NODES).for_each(|node| self.begin(node));
    }

    /// Starts a node.
    pub(super) fn begin(&mut self, node: usize) {
        let (home, address) = (self.homes[node].path(), self.addresses()[node]);
        let store = self.server.url().replace("127.0.0.1", HUB);
        let started = Process::elsewhere(self.network.node(node), home, &self.config, address, &store);
        self.nodes[node] = Some(started);
    }

    /// Takes a node out, running; it is killed when it is dropped.
    pub(super) fn take(&mut self, node: usize) -> Process {
        self.nodes[node].take().unwrap()
    }

    /// Sends a node a signal.
    pub(super) fn signal(&self, node: usize, name: &str) {
        self.nodes[node].as_ref().unwrap().signal(name);
    }

    /// Whether a node has said these words since it was asked last.
    pub(super) fn has_said(&mut self, node: usize, words: &[&str]) -> bool {
        self.nodes[node].as_mut().unwrap().has_said(words)
    }

    /// Where clients reach the nodes.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.network.addresses()
    }

    /// A client of one of them.
    pub(super) fn client(&self, node: usize) -> Client {
        Client::of(self.addresses()[node])
    }

    /// Whether every node says that it can write.
    pub(super) async fn is_ready(&self) -> bool {
        for node in 0..NODES {
            if !self.client(node).is_ready().await {
                return false;
            }
        }
        true
    }

    /// Cuts a node off from the database.
    pub(super) fn cut(&self, node: usize, cut: Cut) {
        self.network.cut(node, cut);
    }

    /// Undoes that.
    pub(super) fn mend(&self, node: usize, cut: Cut) {
        self.network.mend(node, cut);
    }
}
