//! Standard output for results, standard error for talk.

use std::io::{self, Write};

/// Writes a result and a line end.
pub(crate) fn result(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// Says something to whoever waits. When even that fails there is nobody to tell.
pub(crate) fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
