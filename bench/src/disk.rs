//! The disk: what a bare write and sync takes on it, and how much a peer keeps on it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::drive::micros;

/// Bytes of a block in `st_blocks`, whatever the file system's own blocks are: stat(2).
const STAT_BLOCK: u64 = 512;

/// Times of writes with a sync after each, in milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Syncs {
    /// Bytes of one write.
    pub(crate) bytes: usize,
    /// Writes.
    pub(crate) count: u64,
    /// The median.
    pub(crate) p50_ms: f64,
    /// All but one in a hundred are faster.
    pub(crate) p99_ms: f64,
    /// The slowest.
    pub(crate) max_ms: f64,
}

impl Syncs {
    /// Appends to a new file in this directory until `count` writes are done or the time is over.
    pub(crate) fn measure(
        directory: &Path,
        bytes: usize,
        count: u64,
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let path = directory.join("syncs");
        let mut file = File::create(&path)?;
        let (block, mut times) = (vec![0xA5; bytes], Histogram::<u64>::new(3)?);
        let started = Instant::now();
        while times.len() < count && started.elapsed() < limit {
            let begun = Instant::now();
            file.write_all(&block)?;
            file.sync_data()?;
            times.record(micros(begun.elapsed()))?;
        }
        fs::remove_file(path)?;
        Ok(Self {
            bytes,
            count: times.len(),
            p50_ms: millis(times.value_at_quantile(0.5)),
            p99_ms: millis(times.value_at_quantile(0.99)),
            max_ms: millis(times.max()),
        })
    }
}

/// Microseconds in milliseconds.
pub(crate) fn millis(micros: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 µs")]
    let micros = micros as f64;
    micros / 1000.0
}

/// Bytes that the files below a directory take on the disk, without those in directories of this name.
pub(crate) fn allocated(directory: &Path, without: Option<&str>) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if !metadata.is_dir() {
            bytes += metadata.blocks() * STAT_BLOCK;
        } else if without.is_none_or(|name| entry.file_name() != *name) {
            bytes += allocated(&entry.path(), without)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_with_those_in_directories_but_not_with_what_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["kept", "left-out"] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("file"), vec![1; 8192]).unwrap();
        }
        File::open(directory.path().join("kept/file")).unwrap().sync_all().unwrap();
        File::open(directory.path().join("left-out/file")).unwrap().sync_all().unwrap();
        let all = allocated(directory.path(), None).unwrap();
        let some = allocated(directory.path(), Some("left-out")).unwrap();
        assert!(some >= 8192 && all >= some + 8192, "{some} of {all}");
    }

    #[test]
    fn a_disk_is_measured_until_the_count_or_the_time() {
        let directory = tempfile::tempdir().unwrap();
        let few = Syncs::measure(directory.path(), 4096, 3, Duration::from_mins(1)).unwrap();
        assert_eq!(few.count, 3);
        assert!(few.p50_ms <= few.p99_ms && few.p99_ms <= few.max_ms, "{few:?}");
        assert_eq!(Syncs::measure(directory.path(), 4096, 3, Duration::ZERO).unwrap().count, 0);
    }
}
