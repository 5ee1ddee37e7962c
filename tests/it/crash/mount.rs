//! The disk of the model as a file system of the kernel (FUSE).

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags, spawn_mount2,
};
use tempfile::TempDir;

use super::disk::{Cut, Fault, State};
use crate::support::skipped;

/// How long the kernel may believe what it was told of a file: nobody else changes one.
const TTL: Duration = Duration::from_mins(1);

/// A disk that is mounted.
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
    place: TempDir,
    session: Option<BackgroundSession>,
}

impl Disk {
    /// A new, empty disk; `None`, said loudly, where this machine has no FUSE.
    pub(crate) fn new(purpose: &str) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mut disk = Self { state: Arc::default(), place, session: None };
        match disk.mount() {
            Ok(()) => Some(disk),
            Err(error) => {
                skipped(&format!("{purpose}: no file system can be mounted with FUSE here: {error}"));
                None
            }
        }
    }

    fn mount(&mut self) -> std::io::Result<()> {
        let files = Files(Arc::clone(&self.state));
        self.session = Some(spawn_mount2(files, self.place.path(), &Config::default())?);
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        self.place.path()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A disk that says that it syncs, and does not.
    pub(crate) fn lie(&self) {
        self.state().lies = true;
    }

    /// Lets calls fail from now on; `None` heals it.
    pub(crate) fn break_with(&self, fault: Option<Fault>) {
        self.state().break_with(fault);
    }

    /// Calls that failed so far.
    pub(crate) fn failed(&self) -> u64 {
        self.state().failed
    }

    /// Syncs so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Takes the power away: from now on nothing is written.
    pub(crate) fn die(&self) {
        self.state().die();
    }

    /// Gives the power back, once nobody has a file open. The kernel forgets what it held of the disk.
    pub(crate) fn revive(&mut self, cut: Cut, rng: &mut Rng) {
        if let Some(session) = self.session.take() {
            // The kernel may have ended the connection before the thread that serves it did (ECONNABORTED).
            let _ = session.umount_and_join();
        }
        self.state().revive(cut, rng);
        self.mount().unwrap();
    }
}

/// What the kernel asks.
struct Files(Arc<Mutex<State>>);

impl Files {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn attributes(&self, file: u64) -> Result<FileAttr, Errno> {
        if file == INodeNo::ROOT.0 {
            return Ok(attributes(file, FileType::Directory, 0));
        }
        let state = self.state();
        let found = state.files.get(&file).ok_or(Errno::ENOENT)?;
        Ok(attributes(file, FileType::RegularFile, found.data.len() as u64))
    }

    fn named(&self, name: &OsStr) -> Result<FileAttr, Errno> {
        let file = self.state().names.get(name).copied().ok_or(Errno::ENOENT)?;
        self.attributes(file)
    }
}

fn attributes(file: u64, kind: FileType, size: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(file),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn done(outcome: Result<(), Errno>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.named(name) {
            Ok(found) => reply.entry(&TTL, &found, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _: &Request, file: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(file.0) {
            Ok(found) => reply.attr(&TTL, &found),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        file: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let length = size.map(|size| usize::try_from(size).unwrap());
        let truncated = length.map_or(Ok(()), |length| self.state().truncate(file.0, length));
        match truncated.and_then(|()| self.attributes(file.0)) {
            Ok(found) => reply.attr(&TTL, &found),
            Err(errno) => reply.error(errno),
        }
    }

    fn create(&self, _: &Request, _: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let created = self.state().create(name);
        match created.and_then(|file| self.attributes(file)) {
            Ok(made) => {
                let handle = FileHandle(self.state().open(made.ino.0));
                reply.created(&TTL, &made, Generation(0), handle, FopenFlags::empty());
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.state().unlink(name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        // Neither the log nor SQLite renames a file; one that begins to must be modelled first.
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _: &Request,
        file: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.state().files.get(&file.0) {
            Some(found) => {
                let from = usize::try_from(offset).unwrap().min(found.data.len());
                let to = (from + size as usize).min(found.data.len());
                reply.data(&found.data[from..to]);
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn write(
        &self,
        _: &Request,
        file: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.state().write(file.0, usize::try_from(offset).unwrap(), data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap()),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, file: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.state().sync(file.0, handle.0), reply);
    }

    fn open(&self, _: &Request, file: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(self.state().open(file.0)), FopenFlags::empty());
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.state().close(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.state().sync_directory(), reply);
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        for ((name, file), at) in self.state().names.iter().zip(1..) {
            if at > offset && reply.add(INodeNo(*file), at, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
