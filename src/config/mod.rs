//! The configuration: raw settings as they are written, validated settings as the program uses them.

mod settings;

pub use settings::{
    Cache, Durability, Limits, Log, LogFormat, Router, Server, Settings, Store, StoreUrl, TopicSettings,
};
