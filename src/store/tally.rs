//! Counts that wait in memory for the next commit.

/// Counts that wait in memory for the next commit.
#[derive(Debug, Default)]
pub struct Tally {}
