//! What a test says to whoever runs it, and is told by them.

/// Says that a test did not run, what repeats it, or how much it saw.
#[expect(clippy::print_stderr, reason = "a test that did not run must not look like one that passed")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

/// A number that whoever runs the tests gives in an environment variable.
pub(crate) fn given<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not such a number")))
}
