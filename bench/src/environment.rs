//! Where figures were made: without it they say nothing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::disk::Syncs;

/// Writes of the measurement of the disk: enough for a p99.
const SYNCS: u64 = 2000;

/// A block of the size of SQLite's pages.
const SYNC_BYTES: usize = 4096;

const SYNCS_MAX: Duration = Duration::from_secs(20);

/// The machine and the sources.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// When the run began, in UTC.
    pub(crate) started: String,
    /// The command line, without the paths.
    pub(crate) command: String,
    /// The commit of the sources, with `-dirty` where they differ from it.
    pub(crate) commit: String,
    /// Processors.
    pub(crate) cores: usize,
    /// Their model.
    pub(crate) processor: String,
    /// Memory in bytes.
    pub(crate) memory_bytes: u64,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The disk.
    pub(crate) disk: Syncs,
}

impl Environment {
    /// Of this machine, with the disk of this directory.
    pub(crate) fn read(directory: &Path, command: String) -> anyhow::Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.map_or("unknown", |text| text.trim_start_matches([' ', '\t', ':']));
        Ok(Self {
            started: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%MZ").to_string(),
            command,
            commit: commit().unwrap_or_else(|_| "unknown".to_owned()),
            cores: available_parallelism()?.get(),
            processor: model.to_owned(),
            memory_bytes: procfs::Current::current().map(|info: procfs::Meminfo| info.mem_total)?,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            disk: Syncs::measure(directory, SYNC_BYTES, SYNCS, SYNCS_MAX)?,
        })
    }
}

fn commit() -> anyhow::Result<String> {
    said(Command::new("git").args(["describe", "--always", "--dirty", "--exclude", "*"]))
}

/// The first line that a command says.
pub(crate) fn said(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    ensure!(output.status.success(), "{program} failed: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}
