//! The `sekali` program.

fn main() {}
