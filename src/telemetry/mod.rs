//! The program's own log: to standard error, as text for people or JSON for machines, at a bounded rate.

mod limit;

#[cfg(feature = "otlp")]
mod otlp;

use std::env;
use std::io::{IsTerminal, stderr};

use thiserror::Error;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, fmt, registry};

use self::limit::{Limited, Reporter};
use crate::config::{Log, LogFormat};

/// Why there is no log.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is none.
    #[error("log.level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// What the environment says of the collector of spans cannot be followed.
    #[cfg(feature = "otlp")]
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Collector(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The process has a log already.
    #[error("the log was set up twice")]
    Twice(#[from] TryInitError),
}

/// The log of this process, for as long as it is held: what is on its way elsewhere is sent when this is dropped.
#[must_use]
pub struct Telemetry {
    /// Dropped first, while there is a log.
    _reporter: Reporter,
    #[cfg(feature = "otlp")]
    _spans: Option<otlp::Spans>,
}

/// Sets up the log of this process, from `[log]`. Colours only on a terminal, and none with `NO_COLOR`. Spans of
/// requests go to the collector that the environment names, where the feature `otlp` is compiled in.
///
/// # Errors
/// When the filter is none, when the collector cannot be one, or when it is called again.
pub fn init(log: &Log) -> Result<Telemetry, TelemetryError> {
    let filter = Limited::new(EnvFilter::try_new(&log.level)?, &log.level);
    let kinds = filter.kinds();
    #[cfg(feature = "otlp")]
    let spans = otlp::Spans::of_environment()?;
    #[cfg(feature = "otlp")]
    let registry = registry().with(spans.as_ref().map(otlp::Spans::layer));
    #[cfg(not(feature = "otlp"))]
    let registry = registry();
    let lines = fmt::layer().with_writer(stderr);
    if is_json(log.format, stderr().is_terminal()) {
        registry.with(lines.json().flatten_event(true).with_filter(filter)).try_init()?;
    } else {
        registry
            .with(lines.with_ansi(stderr().is_terminal() && !no_color()).with_filter(filter))
            .try_init()?;
    }
    Ok(Telemetry {
        _reporter: Reporter::start(kinds),
        #[cfg(feature = "otlp")]
        _spans: spans,
    })
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
        let error = init(&log).err().unwrap().to_string();
        assert!(error.starts_with("log.level: "), "{error}");
    }
}
