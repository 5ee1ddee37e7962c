//! A disk that forgets what was not synced when its power goes, and that fails when it is told to.
//!
//! This is the model: one directory of files, each with what is written and what is synced. `mount` gives it to the
//! system under test as a real file system.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};

use fastrand::Rng;
use fuser::Errno;

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// What happens at a power cut to writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All are lost.
    Wholly,
    /// Each is lost or not.
    Random,
    /// Each sector of each is lost or not.
    Torn,
}

/// What a fault meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Write,
    Sync,
    /// Whatever changes something.
    Change,
}

/// A fault: so many calls of this kind go well, then some fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) call: Call,
    pub(crate) errno: Errno,
    pub(crate) after: u64,
    /// How many fail; `u64::MAX` for all, until it is healed.
    pub(crate) failures: u64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) files: HashMap<u64, File>,
    /// The directory.
    pub(super) names: BTreeMap<OsString, u64>,
    synced_names: BTreeMap<OsString, u64>,
    last: u64,
    /// By open file: how many failed syncs of its file it was told of.
    handles: HashMap<u64, u64>,
    fault: Option<Fault>,
    /// The power is gone: nothing is written any more.
    dead: bool,
    /// It says that it syncs, and does not.
    pub(super) lies: bool,
    pub(super) syncs: u64,
    pub(super) failed: u64,
}

#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) data: Vec<u8>,
    synced: Vec<u8>,
    changes: Vec<Change>,
    failed_syncs: u64,
}

#[derive(Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl Change {
    fn apply(&self, data: &mut Vec<u8>) {
        match self {
            Self::Truncate(length) => data.resize(*length, 0),
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                if data.len() < end {
                    data.resize(end, 0);
                }
                data[*at..end].copy_from_slice(bytes);
            }
        }
    }

    /// What a cut leaves of it, in pieces that are applied or not.
    fn pieces(self, cut: Cut) -> Vec<Self> {
        match self {
            Self::Write { at, bytes } if cut == Cut::Torn => {
                let starts = (at..).step_by(SECTOR);
                starts
                    .zip(bytes.chunks(SECTOR))
                    .map(|(at, bytes)| Self::Write { at, bytes: bytes.to_vec() })
                    .collect()
            }
            whole => vec![whole],
        }
    }
}

impl State {
    /// Whether a call of this kind may go on.
    fn permit(&mut self, call: Call) -> Result<(), Errno> {
        if self.dead {
            return Err(Errno::EIO);
        }
        let Some(fault) = &mut self.fault else { return Ok(()) };
        if fault.call != call && fault.call != Call::Change {
            return Ok(());
        }
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        let errno = fault.errno;
        fault.failures = fault.failures.saturating_sub(u64::from(fault.failures < u64::MAX));
        self.failed += 1;
        if fault.failures == 0 {
            self.fault = None;
        }
        Err(errno)
    }

    pub(super) fn create(&mut self, name: &OsStr) -> Result<u64, Errno> {
        self.permit(Call::Change)?;
        // The root directory is 1.
        self.last = self.last.max(1) + 1;
        self.files.insert(self.last, File::default());
        self.names.insert(name.to_owned(), self.last);
        Ok(self.last)
    }

    pub(super) fn unlink(&mut self, name: &OsStr) -> Result<(), Errno> {
        self.permit(Call::Change)?;
        self.names.remove(name).map(drop).ok_or(Errno::ENOENT)
    }

    pub(super) fn write(&mut self, file: u64, at: usize, bytes: &[u8]) -> Result<(), Errno> {
        self.permit(Call::Write)?;
        self.change(file, Change::Write { at, bytes: bytes.to_vec() })
    }

    pub(super) fn truncate(&mut self, file: u64, length: usize) -> Result<(), Errno> {
        self.permit(Call::Write)?;
        self.change(file, Change::Truncate(length))
    }

    fn change(&mut self, file: u64, change: Change) -> Result<(), Errno> {
        let found = self.files.get_mut(&file).ok_or(Errno::ENOENT)?;
        change.apply(&mut found.data);
        found.changes.push(change);
        Ok(())
    }

    /// Opens a file; gives its handle.
    pub(super) fn open(&mut self, file: u64) -> u64 {
        self.last = self.last.max(1) + 1;
        let told = self.files.get(&file).map_or(0, |found| found.failed_syncs);
        self.handles.insert(self.last, told);
        self.last
    }

    pub(super) fn close(&mut self, handle: u64) {
        self.handles.remove(&handle);
    }

    /// Makes a file durable, and its name with it, as file systems with a journal do. What a sync that fails was to
    /// write is believed to be written from then on, and never is, and whoever has the file open is told of it once:
    /// so does Linux (`errseq_t`).
    pub(super) fn sync(&mut self, file: u64, handle: u64) -> Result<(), Errno> {
        self.syncs += 1;
        let permit = self.permit(Call::Sync);
        if self.dead || self.lies {
            return permit;
        }
        let found = self.files.get_mut(&file).ok_or(Errno::ENOENT)?;
        let changes = std::mem::take(&mut found.changes);
        found.failed_syncs += u64::from(permit.is_err());
        let told = self.handles.insert(handle, found.failed_syncs).unwrap_or(found.failed_syncs);
        permit?;
        for change in changes {
            change.apply(&mut found.synced);
        }
        for (name, _) in self.names.iter().filter(|(_, id)| **id == file) {
            self.synced_names.insert(name.clone(), file);
        }
        if told < found.failed_syncs { Err(Errno::EIO) } else { Ok(()) }
    }

    /// Makes the names durable.
    pub(super) fn sync_directory(&mut self) -> Result<(), Errno> {
        self.permit(Call::Sync)?;
        if !self.lies {
            self.synced_names = self.names.clone();
        }
        Ok(())
    }

    pub(super) fn break_with(&mut self, fault: Option<Fault>) {
        self.fault = fault;
    }

    /// Takes the power away.
    pub(super) fn die(&mut self) {
        self.dead = true;
    }

    /// What is there when the power comes back.
    pub(super) fn revive(&mut self, cut: Cut, rng: &mut Rng) {
        let mut keep = || cut != Cut::Wholly && rng.bool();
        let mut names = self.synced_names.clone();
        for (name, id) in &self.names {
            if self.synced_names.get(name) != Some(id) && keep() {
                names.insert(name.clone(), *id);
            }
        }
        names.retain(|name, _| self.names.contains_key(name) || !keep());
        self.files.retain(|id, _| names.values().any(|named| named == id));
        for file in self.files.values_mut() {
            for piece in std::mem::take(&mut file.changes).into_iter().flat_map(|change| change.pieces(cut)) {
                if keep() {
                    piece.apply(&mut file.synced);
                }
            }
            file.data = file.synced.clone();
        }
        self.synced_names.clone_from(&names);
        self.names = names;
        (self.dead, self.fault) = (false, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> (State, u64) {
        let mut disk = State::default();
        let file = disk.create(OsStr::new("f")).unwrap();
        disk.write(file, 0, &[1; 1024]).unwrap();
        disk.sync(file, 0).unwrap();
        disk.write(file, 0, &[2; 2048]).unwrap();
        (disk, file)
    }

    #[test]
    fn a_cut_takes_what_was_not_synced_and_nothing_else() {
        let (mut disk, file) = written();
        disk.create(OsStr::new("g")).unwrap();
        disk.revive(Cut::Wholly, &mut Rng::with_seed(1));
        assert_eq!(disk.files[&file].data, [1; 1024]);
        assert_eq!(disk.names.len(), 1, "nobody synced the other name");
    }

    #[test]
    fn a_torn_write_keeps_whole_sectors() {
        let torn = (0..20).map(|seed| {
            let (mut disk, file) = written();
            disk.revive(Cut::Torn, &mut Rng::with_seed(seed));
            let data = &disk.files[&file].data;
            data.chunks(SECTOR).map(|sector| sector[0]).collect::<Vec<_>>()
        });
        let torn: std::collections::BTreeSet<_> = torn.collect();
        assert!(torn.len() > 4, "{torn:?}");
    }

    #[test]
    fn a_failed_sync_loses_what_it_was_to_write() {
        let (mut disk, file) = written();
        disk.break_with(Some(Fault { call: Call::Sync, errno: Errno::EIO, after: 0, failures: 1 }));
        let (one, other) = (disk.open(file), disk.open(file));
        assert!(disk.sync(file, one).is_err() && disk.sync(file, one).is_ok());
        assert!(disk.sync(file, other).is_err() && disk.sync(file, other).is_ok(), "everybody is told once");
        assert_eq!(disk.files[&file].data, [2; 2048], "it is read as if it were there");
        disk.revive(Cut::Wholly, &mut Rng::with_seed(1));
        assert_eq!(disk.files[&file].data, [1; 1024]);
    }
}
