//! The memory that a configuration implies: the arithmetic of docs/OPERATIONS.md, "Memory that the limits
//! allow".

use sekali::config::{self, Overrides, Settings};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Bytes of an open connection, of a follower beside its connection, of a key in a hot cache, of a key that
/// is not sealed, of a duplicate that was repeated, and of the pages of one connection of SQLite.
const CONNECTION: usize = 20 * KIB;
const FOLLOWER: usize = 25 * KIB;
const CACHED: usize = 100;
const UNSEALED: usize = 55;
const REPEATED: usize = 300;
const PAGES: usize = 16 * MIB;

/// The three further connections of SQLite, with 2 MiB of pages each.
const MORE_PAGES: usize = 3 * 2 * MIB;

/// Events that are read for one page, where none is larger.
const PAGE: usize = MIB;

/// Beside the budgets, for each connection: a head that arrives, and pieces of an answer.
const HEAD: usize = 128 * KIB;
const PIECES: usize = 64 * KIB;

/// The first table, without the ids that are sealed (1.6 bytes each) and without the program itself, which
/// has about 20 MiB before its first client. In bytes.
fn limited(settings: &Settings) -> usize {
    let Settings { server, limits, cache, store, .. } = settings;
    limits.in_flight_bytes
        + server.workers * limits.body
        + limits.answer_bytes
        + store.readers * 2 * limits.event.max(PAGE)
        + limits.followers * FOLLOWER
        + limits.connections * CONNECTION
        + cache.keys * CACHED
        + store.seal_keys * UNSEALED * 2
        + (store.readers + 1) * PAGES
        + MORE_PAGES
        + store.repeated_keys * REPEATED
}

/// The part of the second table that is memory of the process: heads and pieces, of all connections.
fn held(settings: &Settings) -> usize {
    settings.limits.connections * (HEAD + PIECES)
}

/// The most bytes that the process may take beside what it has before its first client.
pub(super) fn implied(settings: &Settings) -> u64 {
    (limited(settings) + held(settings)) as u64
}

#[test]
fn the_bound_is_the_one_of_the_manual() {
    /// The manual rounds the sum, and has the turn by which comparisons may pass their limit, in MiB.
    const ROUNDED: usize = 5;
    let mut settings = config::load(None, &Overrides::default()).unwrap();
    settings.server.workers = 2;
    let manual = include_str!("../../../docs/OPERATIONS.md");
    let figure = |line: &str, column: usize| -> usize {
        let line = manual.lines().find(|text| text.starts_with(line)).unwrap();
        let digits = line.split('|').nth(column).unwrap().replace(|c: char| !c.is_ascii_digit(), "");
        digits.parse().unwrap()
    };
    let together = figure("| **together** |", 3);
    assert!(together.abs_diff(limited(&settings) / MIB) <= ROUNDED, "{together} MiB in the manual");
    let beside = figure("| a head that arrives", 4) + figure("| pieces of an answer that is not taken", 4);
    assert_eq!(beside, held(&settings) / MIB);
}
