//! The program's own log: to standard error, as text for people or JSON for machines.

use std::env;
use std::io::{IsTerminal, stderr};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat};

/// Why there is no log.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is none.
    #[error("log.level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process has a log already.
    #[error("the log was set up twice")]
    Twice(#[from] TryInitError),
}

/// Sets up the log of this process, from `[log]`. Colours only on a terminal, and none with `NO_COLOR`.
///
/// # Errors
/// When the filter is none, or when it is called again.
pub fn init(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.level)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    if is_json(log.format, stderr().is_terminal()) {
        lines.json().flatten_event(true).finish().try_init()?;
    } else {
        lines.with_ansi(stderr().is_terminal() && !no_color()).finish().try_init()?;
    }
    Ok(())
}

fn is_json(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    }
}

/// Whether the user wants no colours (no-color.org: the variable is set and not empty).
fn no_color() -> bool {
    env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_text_on_a_terminal_and_json_else() {
        assert!(!is_json(LogFormat::Auto, true) && is_json(LogFormat::Auto, false));
        assert!(!is_json(LogFormat::Text, false) && is_json(LogFormat::Json, true));
    }

    #[test]
    fn a_bad_filter_is_an_error_that_names_its_key() {
        let log = Log { level: "sekali=loud".to_owned(), format: LogFormat::Auto };
        let error = init(&log).unwrap_err().to_string();
        assert!(error.starts_with("log.level: "), "{error}");
    }
}
