//! The configuration: raw settings as they are written, validated settings as the program uses them.

mod error;
mod exposure;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod layer;
mod listeners;
mod load;
mod password;
mod postgres;
mod raw;
mod rules;
mod settings;
mod texts;
mod validate;

pub use error::{ConfigError, ConfigErrors, Origin};
pub use exposure::Exposure;
pub use listeners::SharedListener;
pub use load::load;
pub use postgres::{PostgresUrl, Security};
pub use raw::Overrides;
pub use settings::{
    Cache, Compat, Durability, Limits, Log, LogFormat, Metrics, Router, Server, Settings, Store, StoreUrl,
    TopicSettings,
};
pub use texts::home_rule;
