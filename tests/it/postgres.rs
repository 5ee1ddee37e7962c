//! The same answers on PostgreSQL: the tests of the HTTP interface, run again on that engine.

use std::process::Command;

use crate::support::{ENGINE, postgres, say};

/// The subjects that are no matter of one engine's files.
const SUBJECTS: [&str; 17] = [
    "bodies::",
    "codes::",
    "concurrency::",
    "configuring::",
    "counters::",
    "explaining::",
    "faults::",
    "fidelity::",
    "following::",
    "hanging_up::",
    "histories::",
    "keys::",
    "locked::",
    "overload::",
    "reading::",
    "stopping::",
    "verdicts::",
];

#[test]
fn every_answer_is_the_same_on_postgres() {
    let Some(server) = postgres::server() else { return };
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests
        .args(SUBJECTS)
        .args(["--skip", "surge::", "--skip", "crash::", "--skip", "cluster::"])
        .env(ENGINE, "postgres")
        .env("TEST_DATABASE_URL", server.url());
    let ended = tests.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    say(said.lines().rev().find(|line| line.starts_with("test result")).unwrap_or("no result"));
    assert!(ended.status.success(), "on PostgreSQL:\n{said}");
}
