//! What is wrong with a configuration: all of it at once, each with its place.

use std::fmt;

use super::layer::Entry;

/// One rule that the configuration breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the value comes from: `FILE:LINE`, or the flag and the variable that can set it.
    pub origin: String,
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
    pub(super) fn of_file(origin: String, rule: String) -> Self {
        Self(vec![ConfigError { origin, key: None, rule }])
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
