//! Readers that follow topics through all faults, on any node, behind the last event that they saw.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use actix_web::rt::time::sleep;
use actix_web::rt::{self, task::JoinHandle};

use crate::crash::history::{History, Stored};
use crate::support::{Client, until};

/// The topics that get most events.
const TOPICS: [&str; 3] = ["busy-0", "busy-1", "busy-2"];

/// Between two nodes that are asked to be followed.
const PAUSE: Duration = Duration::from_millis(20);

/// One on each node for each of these topics.
pub(super) struct Readers(Vec<Reader>);

struct Reader {
    topic: &'static str,
    /// What came, each behind the one before it.
    seen: Rc<RefCell<Vec<Stored>>>,
    task: JoinHandle<()>,
}

impl Readers {
    pub(super) fn follow(nodes: &[SocketAddr]) -> Self {
        let mut readers = Vec::new();
        for topic in TOPICS {
            for first in 0..nodes.len() {
                let seen = Rc::<RefCell<Vec<Stored>>>::default();
                let task = rt::spawn(follow(nodes.to_vec(), first, topic, Rc::clone(&seen)));
                readers.push(Reader { topic, seen, task });
            }
        }
        Self(readers)
    }

    /// Each has seen everything that is stored, once, in order, as it is stored.
    pub(super) async fn check(&self, history: &History) {
        for reader in &self.0 {
            let stored = history.read(reader.topic);
            until(&format!("a reader of {} has seen all", reader.topic), async || {
                assert!(!reader.task.is_finished(), "a reader was given something else than what follows");
                reader.seen.borrow().len() >= stored.len()
            })
            .await;
            // What was on its way may have come since.
            assert!(
                reader.seen.borrow().starts_with(stored),
                "a reader of {} saw something else",
                reader.topic
            );
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.0.iter().for_each(|reader| reader.task.abort());
    }
}

/// Follows one node until that ends, and then the next one.
async fn follow(nodes: Vec<SocketAddr>, first: usize, topic: &str, seen: Rc<RefCell<Vec<Stored>>>) {
    for node in (0..nodes.len()).cycle().skip(first) {
        let last = seen.borrow().len() as u64;
        let path = format!("/events?topic={topic}");
        if let Ok(mut sse) = Client::of(nodes[node]).try_follow(&path, (last > 0).then_some(last)).await {
            while let Some((seq, event)) = sse.event().await {
                seen.borrow_mut().push(Stored::of(&event));
                assert_eq!(seq, seen.borrow().len() as u64, "what follows in {topic} on node {node}");
            }
        }
        sleep(PAUSE).await;
    }
}
