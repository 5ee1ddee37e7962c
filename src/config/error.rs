//! What is wrong with a configuration: all of it at once, each with its place.

use std::fmt;

use super::layer::Entry;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A place in a file: `FILE:LINE`, or the file as a whole.
    File(String),
    /// The command line, or the environment in its place: the flag and the variable.
    Argument(&'static str),
}

/// One rule that the configuration breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the value comes from.
    pub origin: Origin,
    /// The key, such as `router.lanes`; `None` where the file as a whole is at fault.
    pub key: Option<String>,
    /// The rule and what was found instead.
    pub rule: String,
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigError {
    /// A rule that a key breaks.
    pub(super) fn of(entry: &Entry, rule: String) -> Self {
        Self { origin: entry.origin.clone(), key: Some(entry.key.clone()), rule }
    }
}

impl ConfigErrors {
    /// A file that cannot be used as a whole.
    pub(super) fn of_file(file: String, rule: String) -> Self {
        Self(vec![ConfigError { origin: Origin::File(file), key: None, rule }])
    }

    /// Whether a flag, or a variable in its place, is at fault, and not only a file.
    #[must_use]
    pub fn are_of_usage(&self) -> bool {
        self.0.iter().any(|error| matches!(error.origin, Origin::Argument(_)))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(place) => formatter.write_str(place),
            Self::Argument(names) => formatter.write_str(names),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: ", self.origin)?;
        if let Some(key) = &self.key {
            write!(formatter, "{key}: ")?;
        }
        formatter.write_str(&self.rule)
    }
}

impl fmt::Display for ConfigErrors {
    /// One error a line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            error.fmt(formatter)?;
        }
        Ok(())
    }
}
