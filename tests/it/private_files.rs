//! Files that the program makes are their owner's alone, whatever the umask, and no file that has one of
//! their names already is written into.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use tempfile::tempdir;

use crate::support::{Ended, Process, array, event, ids};

/// The modes of all files and directories below a directory, by name, without the configuration that the
/// test itself wrote.
fn modes(directory: &Path) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let (name, file) = (entry.file_name().into_string().unwrap(), entry.metadata().unwrap());
        if file.is_dir() {
            found.extend(
                modes(&entry.path()).into_iter().map(|(below, mode)| (format!("{name}/{below}"), mode)),
            );
        }
        if name != "sekali.toml" {
            found.insert(name, file.mode() & 0o7777);
        }
    }
    found
}

fn is_mode(found: &BTreeMap<String, u32>, names: &[&str], mode: u32) {
    for name in names {
        assert_eq!(found.get(*name).copied(), Some(mode), "{name} in {found:?}");
    }
}

fn url(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

/// Runs the program with these arguments.
async fn sekali(arguments: &[&str]) -> Ended {
    Ended::of(arguments).await
}

#[actix_web::test]
async fn a_store_its_backup_and_its_copy_are_their_owners_alone_whatever_the_umask() {
    for umask in ["000", "022", "777"] {
        let home = tempdir().unwrap();
        let config = format!("[store]\nurl = \"{}\"", url(&home.path().join("made/below/log.db")));
        fs::write(home.path().join("sekali.toml"), &config).unwrap();
        let set = format!("umask {umask}");
        let file = home.path().join("sekali.toml").display().to_string();
        let serve = ["serve", "--config", &file, "--bind", "127.0.0.1:0"];
        let process = Process::within(&set, serve);
        process.publish(event("t", "1")).await.ok();
        let store = url(&home.path().join("made/below/log.db"));
        let backup = home.path().join("backup.db").display().to_string();
        let ended = Ended::limited(&set, ["backup", "--store", &store, &backup]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let below =
            ["log.db", "log.db-wal", "log.db-shm", "log.db.lock"].map(|name| format!("made/below/{name}"));
        let found = modes(home.path());
        is_mode(&found, &below.each_ref().map(String::as_str), 0o600);
        is_mode(&found, &["made/below", "made"], 0o700);
        is_mode(&found, &["backup.db"], 0o600);
        drop(process);
        let copy = url(&home.path().join("copied/log.db"));
        let ended = Ended::limited(&set, ["copy", &store, &copy]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let found = modes(home.path());
        is_mode(&found, &["copied/log.db", "copied/log.db.lock"], 0o600);
        is_mode(&found, &["copied"], 0o700);
    }
}

#[actix_web::test]
async fn the_store_of_an_earlier_version_loses_the_rights_of_others_and_says_so() {
    let home = tempdir().unwrap();
    drop(Process::serve(home.path()));
    let file = |name: &str| home.path().join(name);
    for name in ["log.db", "log.db.lock"] {
        fs::set_permissions(file(name), Permissions::from_mode(0o664)).unwrap();
    }
    let process = Process::serve(home.path());
    process.publish(event("t", "1")).await.ok();
    let found = modes(home.path());
    is_mode(&found, &["log.db", "log.db.lock"], 0o660);
    for name in ["log.db-wal", "log.db-shm"] {
        assert_eq!(found[name] & 0o007, 0, "{name} in {found:?}");
    }
    process.signal("TERM");
    let said = process.ended().await.stderr;
    assert_eq!(said.matches("every user of this machine could read the file").count(), 2, "{said}");
}

#[actix_web::test]
async fn a_file_that_somebody_prepared_beside_a_store_is_not_written_into() {
    for suffix in ["", ".lock", "-wal", "-shm", "-journal"] {
        for kind in ["symbolic link", "hard links"] {
            let home = tempdir().unwrap();
            let (theirs, name) = (home.path().join("theirs"), home.path().join(format!("log.db{suffix}")));
            fs::write(&theirs, "").unwrap();
            if kind == "symbolic link" {
                let target = if suffix.is_empty() { home.path().join("nowhere") } else { theirs.clone() };
                symlink(target, &name).unwrap();
            } else {
                fs::hard_link(&theirs, &name).unwrap();
            }
            let store = url(&home.path().join("log.db"));
            let ended = sekali(&["serve", "--bind", "127.0.0.1:0", "--store", &store]).await;
            let said = &ended.stderr;
            assert_eq!(ended.code, Some(1), "log.db{suffix} as {kind}: {said}");
            assert!(said.contains(kind) && said.contains(&*name.to_string_lossy()), "log.db{suffix}: {said}");
            assert_eq!(fs::read(&theirs).unwrap(), b"", "log.db{suffix} as {kind}");
            assert!(!home.path().join("nowhere").exists());
            let from = home.path().join("from");
            fs::create_dir(&from).unwrap();
            drop(Process::serve(&from));
            let ended = sekali(&["copy", &url(&from.join("log.db")), &store]).await;
            assert_ne!(ended.code, Some(0), "a copy to log.db{suffix} as {kind}: {}", ended.stderr);
            assert_eq!(fs::read(&theirs).unwrap(), b"", "a copy to log.db{suffix} as {kind}");
        }
    }
}

#[actix_web::test]
async fn a_backup_writes_to_no_file_that_exists() {
    let home = tempdir().unwrap();
    Process::serve(home.path()).publish(array(ids("t", 0..10))).await.ok();
    let store = url(&home.path().join("log.db"));
    let (dest, partial) = (home.path().join("copy.db"), home.path().join("copy.db.partial"));
    let theirs = home.path().join("theirs");
    fs::write(&theirs, "notes").unwrap();
    let backup = async || sekali(&["backup", "--store", &store, &dest.display().to_string()]).await;
    let refused = async |what: &str, words: &str| {
        let ended = backup().await;
        assert_eq!(ended.code, Some(1), "{what}: {}", ended.stderr);
        assert!(ended.stderr.contains(words) && ended.stderr.contains("copy.db.partial"), "{}", ended.stderr);
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "notes", "{what}");
        assert!(!dest.exists(), "{what}");
    };
    fs::hard_link(&theirs, &partial).unwrap();
    refused("a hard link", "hard links").await;
    fs::remove_file(&partial).unwrap();
    symlink(&theirs, &partial).unwrap();
    refused("a link", "symbolic link").await;
    fs::remove_file(&partial).unwrap();
    fs::write(&partial, "notes").unwrap();
    refused("a file of the user", "no backup left").await;
    assert_eq!(fs::read_to_string(&partial).unwrap(), "notes");
    // An empty one, as a backup that was killed leaves it, but of another user.
    if rustix::process::geteuid().is_root() {
        fs::write(&partial, "").unwrap();
        std::os::unix::fs::chown(&partial, Some(65_534), Some(65_534)).unwrap();
        refused("a file of another user", "no backup left").await;
    }
    fs::remove_file(&partial).unwrap();
    // What SQLite writes beside the copy.
    for beside in ["copy.db.partial-wal", "copy.db.partial-journal", "copy.db.partial-shm"] {
        symlink(&theirs, home.path().join(beside)).unwrap();
    }
    let ended = backup().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "notes");
    assert_eq!(fs::metadata(&dest).unwrap().nlink(), 1);
}

#[actix_web::test]
async fn manual_pages_replace_names_and_write_through_none() {
    let home = tempdir().unwrap();
    let (theirs, pages) = (home.path().join("theirs"), home.path().join("pages"));
    fs::write(&theirs, "notes").unwrap();
    fs::create_dir(&pages).unwrap();
    symlink(&theirs, pages.join("sekali.1")).unwrap();
    fs::hard_link(&theirs, pages.join("sekali-serve.1")).unwrap();
    let ended = sekali(&["man", &pages.display().to_string()]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "notes");
    for page in ["sekali.1", "sekali-serve.1"] {
        assert!(fs::symlink_metadata(pages.join(page)).unwrap().is_file(), "{page}");
        assert!(fs::read_to_string(pages.join(page)).unwrap().contains(".TH"), "{page}");
    }
    let hidden = fs::read_dir(&pages)
        .unwrap()
        .find(|page| page.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert!(hidden.is_none(), "{hidden:?}");
}
