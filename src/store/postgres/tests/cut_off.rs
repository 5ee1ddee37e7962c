//! A node that is cut off from the database in the middle of a transaction: what it has locked is free again in time.

use std::time::Duration;

use tokio_postgres::Client;

use self::network::{Cut, HUB, Network};
use super::server::{Server, skipped};
use super::{settings, try_open};
use crate::store::Engine;
use crate::store::contract::{append, batch};
use crate::store::postgres::connection::Use;

#[path = "../../../../tests/it/support/network.rs"]
#[expect(dead_code, reason = "what the tests of whole clusters use of it")]
mod network;

/// How long a statement may take, and so how long a server that waits for the rest of one has patience.
const STATEMENT: Duration = Duration::from_secs(1);

/// A server asks once a second whether a silent node is there. By itself it would ask after two
/// hours. Whoever waits for the lock gives up in between: longer than any machine takes that is
/// only busy.
const FREE_WITHIN: &str = "2min";

/// Where a transaction that has locked topics stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    /// Between two statements.
    Between,
    /// Within one, of which the server waits for the rest.
    Within,
}

/// Locks the topic, and goes no further.
async fn begin(client: &Client, half: Half) {
    let lock = "CREATE TEMP TABLE IF NOT EXISTS rest (line text); BEGIN; SELECT FROM sekali.topics FOR NO KEY UPDATE";
    client.batch_execute(lock).await.unwrap();
    if half == Half::Within {
        let rest = client.copy_in::<_, &[u8]>("COPY rest FROM STDIN").await.unwrap();
        // Dropped, it would say that it ends.
        std::mem::forget(rest);
    }
}

#[test]
fn what_a_node_had_locked_when_it_was_cut_off_is_free_again_in_time() {
    let network = match Network::of(1) {
        Ok(network) => network,
        Err(why) => return skipped(&format!("no network namespaces, which need root and iproute2: {why}")),
    };
    network.hub.inside(|| {
        let Some(server) = Server::own(HUB) else { return skipped("no PostgreSQL to start") };
        let mut settings = settings(&server.url().replace("127.0.0.1", HUB));
        settings.store.statement_timeout = STATEMENT;
        let store = network.node(0).inside(|| try_open(&settings).unwrap());
        append(&mut *store.open_writer().unwrap(), &batch("a", &[("1", "{}")]));
        for half in [Half::Between, Half::Within] {
            let database = &store.node.database;
            let client = database.block_on(database.connect(Use::Write)).unwrap();
            database.block_on(begin(&client, half));
            network.cut(0, Cut::Both);
            // It fails where the topic stays locked.
            server.run(&format!(
                "BEGIN; SET LOCAL lock_timeout = '{FREE_WITHIN}'; SELECT topic FROM sekali.topics FOR NO KEY UPDATE; COMMIT"
            ));
            network.mend(0, Cut::Both);
        }
    });
}
