//! Litestream, the program that replicates a SQLite file (<https://litestream.io>), where it is on PATH.

use std::env;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command as Program;

use tempfile::{TempDir, tempdir};

use super::{Command, Ended, Process, skipped, until};

/// Litestream for the store in a directory, with its replica in another.
pub(crate) struct Litestream {
    program: PathBuf,
    home: PathBuf,
    place: TempDir,
}

impl Litestream {
    /// Ready to replicate the store in this directory; says so loudly where it is not installed.
    pub(crate) fn of(home: &Path) -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let program =
            env::split_paths(&path).map(|place| place.join("litestream")).find(|file| file.exists());
        let Some(program) = program else {
            skipped("no litestream on PATH");
            return None;
        };
        let litestream = Self { program, home: home.to_owned(), place: tempdir().unwrap() };
        let (store, place) = (litestream.store(), litestream.place.path());
        let config = format!(
            "socket:\n  enabled: true\n  path: {0}/socket\ndbs:\n  - path: {1}\n    truncate-page-n: 0\n    \
             replica:\n      type: file\n      path: {0}/replica\n",
            place.display(),
            store.display()
        );
        fs::write(place.join("litestream.yml"), config).unwrap();
        Some(litestream)
    }

    /// Replicates, with the server as its child, as docs/OPERATIONS.md says; the server ends when Litestream does, as it does
    /// in a service or a container.
    pub(crate) fn serve(&self, config: &str) -> Process {
        let server = format!("setpriv --pdeathsig KILL {}", Process::line(&self.home, config));
        Process::under(self.command("replicate").args(["-exec", &server]))
    }

    /// Replicates beside a server.
    pub(crate) fn replicate(&self) -> Command {
        Command::run(&mut self.command("replicate"))
    }

    /// Has everything that is in the store now in the replica.
    pub(crate) async fn sync(&self) {
        let (socket, store) = (self.place.path().join("socket"), self.store());
        until("Litestream listens", async || UnixStream::connect(&socket).is_ok()).await;
        let mut sync = Program::new(&self.program);
        let synced = Ended::running(sync.args(["sync", "-wait", "-socket"]).args([socket, store])).await;
        assert_eq!(synced.code, Some(0), "{}{}", synced.stdout, synced.stderr);
    }

    /// The store of the replica in a directory of its own, examined.
    pub(crate) async fn restored(&self) -> TempDir {
        let home = tempdir().unwrap();
        let copy = home.path().join("log.db");
        let restored = Ended::running(self.command("restore").arg("-o").args([&copy, &self.store()])).await;
        assert_eq!(restored.code, Some(0), "{}{}", restored.stdout, restored.stderr);
        let examined = Ended::of(["doctor", "--store", &format!("sqlite:{}", copy.display())]).await;
        assert!(examined.stdout.ends_with("HEALTHY: nothing is damaged\n"), "{}", examined.stdout);
        home
    }

    fn store(&self) -> PathBuf {
        self.home.join("log.db")
    }

    fn command(&self, what: &str) -> Program {
        let mut command = Program::new(&self.program);
        command.args([what, "-config"]).arg(self.place.path().join("litestream.yml"));
        command
    }
}
