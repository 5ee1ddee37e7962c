//! A small disk of its own, to be filled up. It needs root and a kernel that lets it mount.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::skipped;

/// A small file system in memory, unmounted when this is dropped.
pub(crate) struct SmallDisk {
    mounted: TempDir,
}

impl SmallDisk {
    /// Mounts one of so many KiB, or says loudly that `test` cannot be done here.
    pub(crate) fn of_kib(kib: usize, test: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={kib}k");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "sekali-test"])
            .arg(directory.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self { mounted: directory }),
            Ok(output) => none(test, &String::from_utf8_lossy(&output.stderr)),
            Err(error) => none(test, &error.to_string()),
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.mounted.path()
    }

    /// Writes a file that takes everything that is left, and gives its path.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        for size in [64 << 10, 4 << 10, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, so that a test that failed with files open leaves nothing behind either.
        let _ = Command::new("umount").arg("-l").arg(self.mounted.path()).output();
        let _ = fs::remove_dir(self.mounted.path());
    }
}

fn none(test: &str, reason: &str) -> Option<SmallDisk> {
    skipped(&format!("{test} needs root and tmpfs: {}", reason.trim()));
    None
}
