//! What the tests stand on: a log behind a real socket, a client, events, raw bytes, trouble.

mod alone;
mod answer;
mod balancer;
mod client;
mod container;
pub(crate) mod deployed;
pub(crate) mod disk;
pub(crate) mod events;
mod follow;
mod litestream;
mod lock;
mod log;
pub(crate) mod network;
#[expect(dead_code, reason = "what the unit tests of the engine use of it")]
pub(crate) mod postgres;
mod process;
mod raw;
mod request;
mod say;
mod sse;
mod wait;

pub(crate) use alone::{Calm, alone, calm};
pub(crate) use answer::Answer;
pub(crate) use balancer::{Balancer, haproxy};
pub(crate) use client::Client;
pub(crate) use container::Container;
pub(crate) use events::{array, event, event_with, ids, lines};
pub(crate) use follow::{everything, seqs};
pub(crate) use litestream::Litestream;
pub(crate) use lock::Locked;
pub(crate) use log::{ENGINE, Log};
pub(crate) use postgres::{free_port, skipped};
pub(crate) use process::{Command, Ended, Process, serving, signal, untouched};
pub(crate) use raw::{Raw, RawAnswer};
pub(crate) use say::{given, say};
pub(crate) use sse::{Sent, Sse, parse};
pub(crate) use wait::until;
