//! Makes the files of a store so that only their owner reads them, and writes into none that somebody
//! else prepared under their names.
//!
//! A new file has the mode 0600 and a new directory 0700, whatever the umask says. SQLite gives the
//! files that it keeps beside a store the mode of the store, so the mode of the store decides. A file
//! that exists is opened only where it is a regular file with one name: through a symbolic link, or a
//! second name (hard link), a write would change a file of somebody else.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

/// The mode of new files.
const FILE_MODE: u32 = 0o600;

/// The mode of new directories.
const DIRECTORY_MODE: u32 = 0o700;

/// The part of a mode that concerns everybody but the owner and the group.
const OTHERS: u32 = 0o007;

/// Makes a directory and those above it that are missing, each for its owner alone.
///
/// # Errors
/// As the system gives them; a directory that exists is none.
pub(super) fn make_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_directories(parent)?;
    }
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        // A umask may have taken rights from the owner too.
        made => made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))),
    }
}

/// Makes a file that does not exist, for its owner alone, and opens it for reading and writing.
///
/// # Errors
/// `AlreadyExists` where the name is taken, also by a link that leads nowhere.
pub(super) fn make(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
    // A umask may have taken rights from the owner too.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    Ok(file)
}

/// Makes the file of a new store, for SQLite to fill. A file that exists is left as it is.
///
/// # Errors
/// Where the name leads to a file that [`open`] refuses, and as the system gives them.
pub(super) fn make_store(path: &Path) -> io::Result<()> {
    match make(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check(path),
        made => made.map(drop),
    }
}

/// Makes a file beside a store that belongs to the owner of the store, as SQLite does for its files:
/// otherwise a command that root runs once would keep the server of another user from its store.
///
/// # Errors
/// As [`make`].
pub(super) fn make_beside(path: &Path, store: &Path) -> io::Result<File> {
    let file = make(path)?;
    if geteuid().is_root()
        && let Ok(store) = fs::metadata(store)
    {
        fchown(&file, Some(store.uid()), Some(store.gid()))?;
    }
    Ok(file)
}

/// Opens a regular file with one name to write it.
///
/// # Errors
/// Where the name is a link or the file has further names, and as the system gives them.
pub(super) fn open(path: &Path) -> io::Result<File> {
    // Without NONBLOCK the open of a named pipe would wait for a reader.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().write(true).custom_flags(flags).open(path).map_err(|error| {
        let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        if is_link { refused("it is a symbolic link") } else { error }
    })?;
    check_kind(&file.metadata()?)?;
    Ok(file)
}

/// Refuses a name that leads to a file that [`open`] refuses. A missing file is none.
///
/// # Errors
/// As [`open`].
pub(super) fn check(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) => check_kind(&found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a file belongs to this process's user, as what this program left behind does.
pub(super) fn is_own(file: &Metadata) -> bool {
    file.uid() == geteuid().as_raw()
}

/// Takes the rights of others from a file that an earlier version made, or that was copied here, and
/// says so in the log. The rights of the group stay: they may be meant.
pub(super) fn tighten(path: &Path) {
    // By its name: closing a handle of a database drops the locks that SQLite holds on it.
    let Ok(found) = fs::symlink_metadata(path) else { return };
    let mode = found.mode() & 0o7777;
    if !found.is_file() || mode & OTHERS == 0 {
        return;
    }
    let file = path.display();
    let (mode, tightened) = (format!("{mode:04o}"), mode & !OTHERS);
    match fs::set_permissions(path, Permissions::from_mode(tightened)) {
        Ok(()) => tracing::warn!(
            %file,
            mode,
            now = format!("{tightened:04o}"),
            "every user of this machine could read the file: took that right away"
        ),
        Err(error) => tracing::warn!(
            %file,
            mode,
            %error,
            "every user of this machine can read the file: run `chmod o-rwx` on it"
        ),
    }
}

fn check_kind(file: &Metadata) -> io::Result<()> {
    let kind = file.file_type();
    if kind.is_symlink() {
        return Err(refused("it is a symbolic link"));
    }
    if kind.is_dir() || kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device()
    {
        return Err(refused("it is not a regular file"));
    }
    if file.nlink() > 1 {
        return Err(refused("it has other names (hard links), and a write would change those too"));
    }
    Ok(())
}

fn refused(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::tempdir;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_replaces_nothing() {
        let home = tempdir().unwrap();
        let directory = home.path().join("a/b");
        make_directories(&directory).unwrap();
        assert_eq!((mode(&directory), mode(&home.path().join("a"))), (0o700, 0o700));
        let path = directory.join("file");
        make(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        let link = directory.join("link");
        symlink(directory.join("nowhere"), &link).unwrap();
        for taken in [&path, &link, &directory] {
            assert_eq!(make(taken).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
        assert!(!directory.join("nowhere").exists());
    }

    #[test]
    fn only_a_regular_file_with_one_name_is_opened() {
        let home = tempdir().unwrap();
        let name = |name: &str| home.path().join(name);
        fs::write(name("file"), "kept").unwrap();
        assert!(open(&name("file")).is_ok() && check(&name("file")).is_ok() && check(&name("none")).is_ok());
        symlink(name("file"), name("link")).unwrap();
        symlink(name("none"), name("nowhere")).unwrap();
        fs::create_dir(name("directory")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, name("pipe"), 0o600.into()).unwrap();
        for wrong in ["link", "nowhere", "directory", "pipe"] {
            assert!(open(&name(wrong)).is_err() && check(&name(wrong)).is_err(), "{wrong}");
        }
        assert!(!name("none").exists());
        fs::hard_link(name("file"), name("second")).unwrap();
        for linked in ["file", "second"] {
            let refused = open(&name(linked)).unwrap_err().to_string();
            assert!(refused.contains("hard links") && check(&name(linked)).is_err(), "{refused}");
        }
        assert_eq!(fs::read_to_string(name("file")).unwrap(), "kept");
    }

    #[test]
    fn the_rights_of_others_go_and_those_of_the_group_stay() {
        let home = tempdir().unwrap();
        let path = home.path().join("file");
        fs::write(&path, "").unwrap();
        for (before, after) in [(0o644, 0o640), (0o666, 0o660), (0o640, 0o640), (0o600, 0o600)] {
            fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            tighten(&path);
            assert_eq!(mode(&path), after, "{before:o}");
        }
    }
}
