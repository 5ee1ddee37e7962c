//! Encrypted connections, and whom they trust.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

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
    let bound = format!("{verified}&channel_binding=require");
    assert!(connects(&database, &url(&database, &bound)).is_err(), "no password, so nothing to bind");
    let other_name = url(&database, &verified).replace("127.0.0.1", "localhost");
    let refused = connects(&database, &other_name);
    assert!(refused.as_ref().is_err_and(|error| error.to_string().contains("certificate")), "{refused:?}");
    let unknown = url(&database, "sslmode=verify-full");
    assert!(connects(&database, &unknown).is_err(), "an authority that the system does not know");
}

/// What a server is sent that refuses TLS and then asks for the password in clear text.
fn sent_to_a_server_without_tls(url: impl Fn(u16) -> String) -> (Vec<u8>, StoreError) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = url(server.local_addr().unwrap().port());
    let serving = thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        client.set_read_timeout(Some(Duration::from_mins(2))).unwrap();
        let mut sent = vec![0; 8];
        client.read_exact(&mut sent).unwrap();
        // An SSLRequest has eight bytes; without one these are the beginning of the startup message.
        if sent == [0, 0, 0, 8, 4, 210, 22, 47] {
            client.write_all(b"N").unwrap();
            sent.clear();
        }
        let mut some = [0; 1024];
        let mut asked = false;
        while let Ok(length @ 1..) = client.read(&mut some) {
            sent.extend(&some[..length]);
            // AuthenticationCleartextPassword, once.
            if !asked {
                client.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).unwrap();
                asked = true;
            } else if sent.windows(6).any(|window| window == b"secret") {
                break;
            }
        }
        sent
    });
    let mut settings = settings(&url);
    settings.store.connect_timeout = Duration::from_secs(20);
    let error = try_open(&settings).map(drop).unwrap_err();
    (serving.join().unwrap(), error)
}

#[test]
fn a_server_elsewhere_that_refuses_tls_is_sent_nothing() {
    for mode in ["", "&sslmode=prefer", "&sslmode=require", "&channel_binding=disable"] {
        // By its name it is another machine; the address is only where the test finds it.
        let (sent, error) = sent_to_a_server_without_tls(|port| {
            format!("postgres://me:secret@db.example:{port}/d?hostaddr=127.0.0.1{mode}")
        });
        assert!(sent.is_empty(), "{mode}: {:?}", String::from_utf8_lossy(&sent));
        let said = error.to_string();
        assert!(said.contains("sslmode=disable") && !said.contains("secret"), "{mode}: {said}");
    }
}

#[test]
fn a_server_on_this_machine_may_do_without_tls() {
    let (sent, _) = sent_to_a_server_without_tls(|port| format!("postgres://me:secret@127.0.0.1:{port}/d"));
    assert!(sent.windows(6).any(|window| window == b"secret"), "{:?}", String::from_utf8_lossy(&sent));
}

#[test]
fn no_password_is_sent_in_clear_text_where_channel_binding_is_required() {
    let (sent, error) = sent_to_a_server_without_tls(|port| {
        format!("postgres://me:secret@127.0.0.1:{port}/d?channel_binding=require")
    });
    let sent = String::from_utf8_lossy(&sent);
    assert!(sent.contains("me") && !sent.contains("secret"), "{sent}");
    assert!(error.to_string().contains("channel binding"), "{error}");
}
