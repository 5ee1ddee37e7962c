//! The log as its users meet it: through a real socket, against a fresh store, one file a subject.

#![expect(clippy::shadow_unrelated, reason = "a test takes the same steps again on things of the same name")]

#[cfg(test)]
mod support;

#[cfg(test)]
mod backup;
#[cfg(test)]
mod balanced;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod browsers;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod codes;
#[cfg(test)]
mod compat;
#[cfg(test)]
mod composed;
#[cfg(test)]
mod concurrency;
#[cfg(test)]
mod configuring;
#[cfg(test)]
mod confined;
#[cfg(test)]
mod console;
#[cfg(test)]
mod copying;
#[cfg(test)]
mod counters;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod edge;
#[cfg(test)]
mod explaining;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fidelity;
#[cfg(test)]
mod flooding;
#[cfg(test)]
mod following;
#[cfg(test)]
mod following_processes;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod hanging_up;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod locked;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod observing;
#[cfg(all(test, feature = "otlp"))]
mod otlp;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod private_files;
#[cfg(test)]
mod process_limits;
#[cfg(test)]
mod process_signals;
#[cfg(test)]
mod process_starts;
#[cfg(test)]
mod publishing;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod replication;
#[cfg(test)]
mod restoring;
#[cfg(test)]
mod service;
#[cfg(test)]
mod stopping;
#[cfg(test)]
mod surge;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod tracing;
#[cfg(test)]
mod verdicts;
