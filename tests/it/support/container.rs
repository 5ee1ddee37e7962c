//! The database of the cluster as its container starts it: the same script and settings, as process 1 of namespaces of its own.

use std::fs::{self, OpenOptions};
use std::process::{Child, Command};

use tempfile::TempDir;

use super::network::Namespace;
use super::postgres::{USUAL_PORT, command, done, programs, run, user, wait_for};
use super::signal;

/// The script's own directory, which is what the image has in `/etc/postgresql`.
const SETTINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/cluster");

/// What the container has besides its network: its own processes, shared memory, and mounts.
const UNSHARE: &str = "unshare --ipc --pid --fork --mount-proc --";

/// Puts the settings, the volume and the directory of sockets where the image has them (Debian's package makes these places),
/// and becomes the container's command.
const ENTER: &str = "set -e; mount --bind \"$0\" /etc/postgresql; mount --bind \"$1/lib\" /var/lib/postgresql; \
    mount --bind \"$1/run\" /var/run/postgresql; mount -t tmpfs shm /dev/shm; shift; exec \"$@\"";

/// A container that may run or not; what it stores stays until this is dropped.
pub(crate) struct Container {
    network: Namespace,
    home: TempDir,
    /// `unshare`, whose only child is the container's process 1.
    running: Option<Child>,
    password: String,
}

impl Container {
    /// One in which nothing runs and nothing is stored; an error says why there can be none.
    pub(crate) fn new() -> Result<Self, String> {
        programs().ok_or("no initdb and postgres")?;
        fs::metadata("/etc/postgresql").map_err(|error| format!("/etc/postgresql: {error}"))?;
        let network = Namespace::new()?;
        network.try_run(&format!("{UNSHARE} true"))?;
        let home = tempfile::tempdir().unwrap();
        for place in ["lib/store", "run"] {
            fs::create_dir_all(home.path().join(place)).unwrap();
        }
        done(Command::new("chown").arg("-R").arg(user().unwrap_or("root")).arg(home.path()));
        Ok(Self { network, home, running: None, password: String::new() })
    }

    /// Starts it with this password for the log's user, and waits until it lets that user in.
    pub(crate) fn start(&mut self, password: &str) {
        let script = command(user(), "/etc/postgresql/postgres.sh".as_ref());
        let log = OpenOptions::new().create(true).append(true).open(self.home.path().join("log")).unwrap();
        let mut words = UNSHARE.split(' ');
        let mut unshare = Command::new(words.next().unwrap());
        unshare.args(words).args(["sh", "-c", ENTER, SETTINGS]).arg(self.home.path());
        unshare.arg(script.get_program()).args(script.get_args());
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs().unwrap().display());
        unshare.env_clear().env("PATH", path).env("LANG", "C.UTF-8").env("SEKALI_DB_PASSWORD", password);
        unshare.stdout(log.try_clone().unwrap()).stderr(log);
        password.clone_into(&mut self.password);
        let url = self.url();
        let running = self.running.insert(self.network.inside(|| unshare.spawn()).unwrap());
        self.network.inside(|| wait_for(&url, running, self.home.path()));
    }

    /// Runs SQL as the log's user, and gives the first column of the last row.
    pub(crate) fn run(&self, sql: &str) -> String {
        self.network.inside(|| run(&self.url(), sql)).unwrap()
    }

    /// The process that has the stored data, as its lock file names it.
    pub(crate) fn owner(&self) -> String {
        let lock = fs::read_to_string(self.home.path().join("lib/store/data/postmaster.pid")).unwrap();
        lock.lines().next().unwrap().to_owned()
    }

    /// Kills all that runs in it, and waits until nothing is left.
    pub(crate) fn kill(&mut self) {
        let Some(mut unshare) = self.running.take() else { return };
        if unshare.try_wait().unwrap().is_some() {
            return;
        }
        let id = unshare.id();
        // With process 1 the kernel kills the others, before anybody hears of its end.
        let first = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        first.split_whitespace().for_each(|process| signal(process, "KILL"));
        unshare.wait().unwrap();
    }

    fn url(&self) -> String {
        format!("postgres://sekali:{}@127.0.0.1:{USUAL_PORT}/sekali", self.password)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
    }
}
