//! Encrypted connections, and whom they trust.

use super::server::{self, Database};
use super::{settings, try_open};
use crate::store::{Engine, StoreError};

/// A URL of the database with this in place of its `sslmode`, by which its connections are called as well.
fn url(database: &Database, security: &str) -> String {
    let name = security.split('&').next().unwrap().replace('=', " ");
    database.url().replace("sslmode=disable", &format!("{security}&application_name={name}"))
}

/// Whether the connections of a node that connects like this are encrypted.
fn connects(database: &Database, url: &str) -> Result<bool, StoreError> {
    let store = try_open(&settings(url))?;
    let _writer = store.open_writer()?;
    let name = url.rsplit_once("application_name=").unwrap().1;
    let encrypted =
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name";
    Ok(database.run(&format!("{encrypted} = '{name}'")) == "t")
}

#[test]
fn the_mode_says_whether_connections_are_encrypted_and_whom_they_trust() {
    let (Some(server), Some(database)) = (server::server(), Database::fresh()) else { return };
    let Some(authority) = server.authority() else {
        return server::skipped("TLS, on a server that was given");
    };
    let verified = format!("sslmode=verify-full&sslrootcert={}", authority.display());
    for (security, encrypted) in
        [("sslmode=disable", false), ("sslmode=prefer", true), ("sslmode=require", true), (&verified, true)]
    {
        assert_eq!(connects(&database, &url(&database, security)).unwrap(), encrypted, "{security}");
    }
    let other_name = url(&database, &verified).replace("127.0.0.1", "localhost");
    let refused = connects(&database, &other_name);
    assert!(refused.as_ref().is_err_and(|error| error.to_string().contains("certificate")), "{refused:?}");
    let unknown = url(&database, "sslmode=verify-full");
    assert!(connects(&database, &unknown).is_err(), "an authority that the system does not know");
}
