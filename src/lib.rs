//! sekali ("once" in Indonesian): an idempotent event log.
//!
//! Producers that retry send events over HTTP; each `(topic, event_id)` is stored exactly once, durably, before
//! it is acknowledged; the answer tells the fate of every event; consumers read each topic in one stable order.
//!
//! A map of the crate, from the inside out (who may import whom is kept by `tests/tidy.rs`):
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`domain`] | what an event is, and when two payloads are the same |
//! | [`config`] | the settings and where they come from |
//! | [`metrics`] | what the process counts about itself |
//! | [`store`] | the events, their keys, their counters: SQLite, PostgreSQL, or memory for tests |
//! | [`pipeline`] | the actors between a request and the store |
//! | [`api`] | the words of the HTTP contract |
//! | [`intake`] | bodies to events |
//! | [`http`] | the server |
//! | [`client`] | the other end of the contract, for the command line |
//! | [`telemetry`] | the log of the process |
//! | [`throttle`] | how many lines of the log there may be |
//! | [`turns`] | which of several waiting keys comes next |
//! | [`app`] | wires everything; owns the order of start and stop |
//! | [`cli`] | arguments and exit codes |

#![cfg_attr(
    test,
    expect(
        clippy::shadow_unrelated,
        reason = "a test takes the same steps again on things of the same name"
    )
)]

pub mod api;
pub mod app;
pub mod cli;
pub mod client;
pub mod config;
pub mod domain;
pub mod http;
pub mod intake;
pub mod metrics;
pub mod pipeline;
pub mod store;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod throttle;
pub mod turns;
