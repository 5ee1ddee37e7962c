//! What a test says to whoever runs it.

/// Says that a test did not run, what repeats it, or how much it saw.
#[expect(clippy::print_stderr, reason = "a test that did not run must not look like one that passed")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}
