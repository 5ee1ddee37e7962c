//! A plain unique index: one thread, a transaction for each request, no server and no protocol at all.

use std::path::Path;

use async_trait::async_trait;
use rusqlite::{Connection as Database, params};

use super::{Peer, Running};
use crate::drive::{Answered, Connection, Driven, drive};
use crate::plan::{Event, Load, Request};
use crate::process::Meter;

/// Memory for pages, in KiB: as much as a connection of sekali has.
const CACHE_KIB: i32 = 16 * 1024;

const TABLE: &str = "CREATE TABLE events (
    pos INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    event_id TEXT NOT NULL,
    timestamp TEXT NOT NULL,
    source TEXT NOT NULL,
    payload TEXT NOT NULL,
    UNIQUE (topic, event_id)
) STRICT";

const INSERT: &str = "INSERT INTO events (topic, event_id, timestamp, source, payload)
    VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";

/// The library that sekali is built on.
#[derive(Debug)]
pub(super) struct Sqlite;

/// An open file.
struct Open {
    database: Database,
    meter: Meter,
}

#[async_trait(?Send)]
impl Peer for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite-unique"
    }

    fn promise(&self) -> &'static str {
        "synced, remembered for ever; in process, no server"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(format!("SQLite {}", rusqlite::version()))
    }

    async fn start(&self, directory: &Path) -> anyhow::Result<Box<dyn Running>> {
        let database = Database::open(directory.join("plain.db"))?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.pragma_update(None, "synchronous", "FULL")?;
        database.pragma_update(None, "cache_size", -CACHE_KIB)?;
        database.execute_batch(TABLE)?;
        Ok(Box::new(Open { database, meter: Meter::of_this_process() }))
    }
}

#[async_trait(?Send)]
impl Running for Open {
    fn meter(&self) -> Meter {
        self.meter.clone()
    }

    async fn publish(&mut self, load: &Load) -> anyhow::Result<Driven> {
        // One thread: the connections' requests in turn, as they would queue up before it.
        let mut lanes = Vec::new();
        for lane in load.lanes() {
            lanes.push(load.requests(lane, |plan, steps| plan.text(steps))?.into_iter());
        }
        let turns = load.requests_each() * u64::from(load.shape.connections);
        let mut places = (0..lanes.len()).cycle();
        let in_turn =
            (0..turns).filter_map(move |_| places.next().and_then(|place| lanes[place].next()).map(Ok));
        let mut thread = Thread { database: &mut self.database };
        drive(vec![(&mut thread, in_turn)], load.shape.limit, &self.meter).await
    }

    async fn stored(&mut self) -> anyhow::Result<Option<u64>> {
        let count: i64 = self.database.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
        Ok(Some(count.try_into()?))
    }

    async fn stop(self: Box<Self>) -> anyhow::Result<()> {
        self.database.close().map_err(|(_, error)| error.into())
    }
}

/// The one thread that writes.
struct Thread<'a> {
    database: &'a mut Database,
}

impl Connection for Thread<'_> {
    type Content = String;

    async fn exchange(&mut self, request: &Request<Self::Content>) -> anyhow::Result<Answered> {
        let mut answered = Answered::default();
        let transaction = self.database.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for (event, planned) in Event::all(&request.content).zip(&request.new) {
                let row =
                    params![event.topic(), event.id(), event.timestamp(), event.source(), event.payload()];
                answered.count(insert.execute(row)? == 1, *planned);
            }
        }
        transaction.commit()?;
        Ok(answered)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::{Plan, Shape};

    #[tokio::test]
    async fn a_run_is_answered_and_stored_as_planned() {
        let directory = tempfile::tempdir().unwrap();
        let limit = Duration::from_mins(10);
        let shape = Shape { name: "test", connections: 3, batch: 50, events: 3000, limit };
        let load = Load { plan: Plan::new(1, 4), seed: 1, shape };
        let mut running = Sqlite.start(directory.path()).await.unwrap();
        let driven = running.publish(&load).await.unwrap();
        assert!(driven.as_planned(), "{driven:?}");
        assert_eq!((driven.events, driven.new, driven.latency.len()), (3000, 2400, 60));
        assert_eq!(running.stored().await.unwrap(), Some(2400));
        let again = running.publish(&load).await.unwrap();
        assert_eq!(again.answered.duplicates, 3000, "the same events once more");
        assert!(!again.as_planned());
    }
}
