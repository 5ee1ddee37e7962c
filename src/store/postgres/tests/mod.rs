//! The engine on a real server.

#[path = "../../../../tests/it/support/postgres.rs"]
#[expect(dead_code, reason = "what the tests through HTTP use of it")]
mod server;

use std::sync::Arc;

use self::server::Database;
use super::PostgresStore;
use crate::config::{Overrides, Settings, StoreUrl, load};
use crate::store::contract;

fn settings(database: &Database) -> Settings {
    let overrides = Overrides { store: Some(database.url()), ..Overrides::default() };
    load(None, &overrides).unwrap()
}

fn open(settings: &Settings) -> Arc<PostgresStore> {
    let StoreUrl::Postgres(url) = &settings.store.url else { unreachable!() };
    Arc::new(PostgresStore::open(settings, url).unwrap())
}

#[test]
fn the_postgres_engine_keeps_the_contract() {
    if server::server().is_none() {
        return;
    }
    let databases = std::cell::RefCell::new(Vec::new());
    contract::check(&|topic_limit| {
        let database = Database::fresh().unwrap();
        let mut settings = settings(&database);
        settings.limits.topics = topic_limit;
        databases.borrow_mut().push(database);
        open(&settings)
    });
}
