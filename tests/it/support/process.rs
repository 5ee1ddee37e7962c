//! The real program in a process of its own.

use std::env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::process::{self, Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::network::Namespace;
use super::{Client, until};

/// The program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_sekali");

/// The longest that a start may take.
const START_MAX: Duration = Duration::from_mins(2);

/// What stands before the address in the line that names it.
const LISTENING: &str = "listening on http://";

/// The same before the address for health and metrics, in an earlier line.
const OPS: &str = "health and metrics on http://";

/// A running `sekali serve`.
pub(crate) struct Process {
    client: Client,
    program: Program,
}

/// A process that does not outlive its test, and what it says on standard error.
struct Program {
    child: Child,
    results: Receiver<String>,
    lines: Receiver<String>,
    said: String,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    /// Everything on standard output.
    pub(crate) stdout: String,
    /// Everything on standard error.
    pub(crate) stderr: String,
}

impl Process {
    /// Serves the store in this directory and waits until it listens.
    pub(crate) fn serve(directory: &Path) -> Self {
        Self::configured(directory, "")
    }

    /// Serves it with this configuration file.
    pub(crate) fn configured(directory: &Path, config: &str) -> Self {
        Self::listening(Program::spawn(untouched(PROGRAM).args(serving(directory, config))))
    }

    /// Serves another store, with its configuration in this directory.
    pub(crate) fn storing(directory: &Path, store: &str) -> Self {
        let mut arguments = serving(directory, "");
        let place = arguments.iter().position(|argument| argument == "--store").unwrap();
        store.clone_into(&mut arguments[place + 1]);
        Self::listening(Program::spawn(untouched(PROGRAM).args(arguments)))
    }

    /// Serves it and logs as this filter says.
    pub(crate) fn logging(directory: &Path, filter: &str) -> Self {
        let arguments = with(serving(directory, ""), "--log", filter.to_owned());
        Self::listening(Program::spawn(untouched(PROGRAM).args(arguments)))
    }

    /// Serves it and sends its spans to this collector.
    #[cfg(feature = "otlp")]
    pub(crate) fn exporting(directory: &Path, collector: &str) -> Self {
        let mut serve = untouched(PROGRAM);
        serve.args(serving(directory, "")).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
        Self::listening(Program::spawn(&mut serve))
    }

    /// A node on the database at this URL, with its files in this directory and this configuration
    /// file.
    pub(crate) fn node(directory: &Path, config: &str, url: &str) -> Self {
        let arguments = with(serving(directory, config), "--store", url.to_owned());
        // As in Compose: whoever asks, for its health too, must use a name that it takes for its own.
        let mut program = untouched(PROGRAM);
        program.args(arguments).env("SEKALI_ALLOWED_HOSTS", "log.example,localhost");
        Self::listening(Program::spawn(&mut program))
    }

    /// Serves it on this port, as one who starts it again would.
    pub(crate) fn on_port(directory: &Path, port: u16) -> Self {
        let arguments = with(serving(directory, ""), "--bind", format!("127.0.0.1:{port}"));
        Self::listening(Program::spawn(untouched(PROGRAM).args(arguments)))
    }

    /// A node at an address of its own in this network, with this configuration file in a directory of its own.
    pub(crate) fn elsewhere(
        inside: &Namespace,
        directory: &Path,
        config: &str,
        address: SocketAddr,
        store: &str,
    ) -> Self {
        let arguments = with(serving(directory, config), "--bind", address.to_string());
        let arguments = with(arguments, "--store", store.to_owned());
        Self::listening(inside.inside(|| Program::spawn(untouched(PROGRAM).args(arguments))))
    }

    /// Serves it with this configuration file, within limits that a shell sets: `trap` and `ulimit`.
    pub(crate) fn limited(directory: &Path, config: &str, limits: &str) -> Self {
        Self::listening(Program::spawn(limited(limits).args(serving(directory, config))))
    }

    /// Serves with these arguments, within limits that a shell sets.
    pub(crate) fn within<T: AsRef<OsStr>>(limits: &str, arguments: impl IntoIterator<Item = T>) -> Self {
        Self::listening(Program::spawn(limited(limits).args(arguments)))
    }

    /// Serves with these arguments and this environment, started in this directory.
    pub(crate) fn run(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let environment = environment.iter().copied();
        let mut run = untouched(PROGRAM);
        Self::listening(Program::spawn(run.args(arguments).envs(environment).current_dir(directory)))
    }

    /// The server that this command starts as its child.
    pub(crate) fn under(parent: &mut process::Command) -> Self {
        Self::listening(Program::spawn(parent))
    }

    /// The command line that serves the store in this directory, with this configuration file.
    pub(crate) fn line(directory: &Path, config: &str) -> String {
        [vec![PROGRAM.to_owned()], serving(directory, config)].concat().join(" ")
    }

    fn listening(mut program: Program) -> Self {
        let started = Instant::now();
        loop {
            let patience = START_MAX.saturating_sub(started.elapsed());
            let line = program.lines.recv_timeout(patience).ok();
            let line = line.unwrap_or_else(|| panic!("it does not listen: {}", program.said));
            program.said.push_str(&line);
            if let Some(address) = address_in(&line, LISTENING) {
                return Self { client: Client::of(address), program };
            }
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.program.child.id()
    }

    /// Where it listens for health and metrics alone.
    pub(crate) fn ops_address(&self) -> Option<SocketAddr> {
        address_in(&self.program.said, OPS)
    }

    /// The process id of its child.
    pub(crate) fn child(&self) -> u32 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        let children =
            threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("children")).unwrap());
        children.collect::<String>().trim().parse().expect("one child")
    }

    /// Whether it has said one of these on standard error since it was asked last.
    pub(crate) fn has_said(&mut self, words: &[&str]) -> bool {
        let before = self.program.said.len();
        self.program.said.extend(self.program.lines.try_iter());
        words.iter().any(|words| self.program.said[before..].contains(words))
    }

    /// Sends it a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        self.program.signal(name);
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(self) -> Ended {
        self.program.ended().await
    }
}

impl Ended {
    /// How the program ends with these arguments, which must be by itself.
    pub(crate) async fn of<T: AsRef<OsStr>>(arguments: impl IntoIterator<Item = T>) -> Self {
        Program::spawn(untouched(PROGRAM).args(arguments)).ended().await
    }

    /// The same within limits that a shell sets, which may also send its output elsewhere.
    pub(crate) async fn limited<T: AsRef<OsStr>>(
        limits: &str,
        arguments: impl IntoIterator<Item = T>,
    ) -> Self {
        Program::spawn(limited(limits).args(arguments)).ended().await
    }

    /// The same without root's right to write where nobody may.
    pub(crate) async fn unprivileged<const N: usize>(arguments: [&str; N]) -> Self {
        const RIGHTS: &str = "-dac_override,-dac_read_search";
        if !rustix::process::geteuid().is_root() {
            return Self::of(arguments).await;
        }
        let mut without = untouched("setpriv");
        without.args(["--bounding-set", RIGHTS, "--inh-caps", RIGHTS, PROGRAM]).args(arguments);
        Program::spawn(&mut without).ended().await
    }

    /// How another program ends, which must be by itself.
    pub(crate) async fn running(command: &mut process::Command) -> Self {
        Program::spawn(command).ended().await
    }

    /// How it ends on a terminal, which takes both outputs as one, with this setting of the environment. The terminal is
    /// that of `script` (Debian's bsdutils, which every system has).
    pub(crate) async fn on_a_terminal(arguments: &[&str], setting: (&str, &str)) -> Self {
        let line = [&[PROGRAM], arguments].concat().join(" ");
        let mut script = untouched("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env(setting.0, setting.1);
        Program::spawn(&mut script).ended().await
    }
}

/// A running command, such as one that follows a topic.
pub(crate) struct Command(Program);

impl Command {
    /// Starts the program with these arguments.
    pub(crate) fn start<T: AsRef<OsStr>>(arguments: impl IntoIterator<Item = T>) -> Self {
        Self(Program::spawn(untouched(PROGRAM).args(arguments)))
    }

    /// Starts another program.
    pub(crate) fn run(command: &mut process::Command) -> Self {
        Self(Program::spawn(command))
    }

    /// The next line on standard output, without its end.
    pub(crate) async fn line(&self) -> String {
        let mut next = None;
        until("there is a line", async || {
            next = self.0.results.try_recv().ok();
            next.is_some()
        })
        .await;
        next.unwrap().trim_end().to_owned()
    }

    /// Waits until it says these words on standard error.
    pub(crate) async fn said(&mut self, words: &str) {
        until(&format!("it says {words}"), async || {
            self.0.said.extend(self.0.lines.try_iter());
            self.0.said.contains(words)
        })
        .await;
    }

    /// Sends it a signal, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        self.0.signal(name);
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(self) -> Ended {
        self.0.ended().await
    }
}

impl Program {
    fn spawn(command: &mut process::Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let results = lines_of(child.stdout.take().unwrap());
        let lines = lines_of(child.stderr.take().unwrap());
        Self { child, results, lines, said: String::new() }
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    async fn ended(mut self) -> Ended {
        let mut code = None;
        until("the process ends", async || {
            let status = self.child.try_wait().unwrap();
            code = status.and_then(|status| status.code());
            status.is_some()
        })
        .await;
        let mut stderr = std::mem::take(&mut self.said);
        stderr.extend(self.lines.iter());
        Ended { code, stdout: self.results.iter().collect(), stderr }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Deref for Process {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// The arguments that serve the store in this directory on a free port, with this configuration file.
pub(crate) fn serving(directory: &Path, config: &str) -> Vec<String> {
    let file = directory.join("sekali.toml");
    fs::write(&file, config).unwrap();
    let (file, store) =
        (file.display().to_string(), format!("sqlite:{}", directory.join("log.db").display()));
    let arguments = ["serve", "--config", &file, "--bind", "127.0.0.1:0", "--store", &store, "--log", "info"];
    arguments.map(str::to_owned).to_vec()
}

/// Arguments with another value of a flag.
fn with(mut arguments: Vec<String>, flag: &str, value: String) -> Vec<String> {
    let at = arguments.iter().position(|argument| argument == flag).unwrap();
    arguments[at + 1] = value;
    arguments
}

/// Sends a process a signal, such as `TERM`.
pub(crate) fn signal(process: impl Display, name: &str) {
    let sent =
        process::Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status().unwrap();
    assert!(sent.success(), "kill -{name}");
}

/// A command that inherits no settings of sekali from the environment of the tests, and no ignored
/// signals: `nohup` ignores SIGHUP, and a shell ignores SIGINT and SIGQUIT for its background jobs.
pub(crate) fn untouched(program: &str) -> process::Command {
    let mut command = process::Command::new("env");
    command.args(["--default-signal=HUP,INT,QUIT,TERM", program]);
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEKALI_")) {
        command.env_remove(name);
    }
    command
}

/// A shell that sets limits and then becomes the program.
fn limited(limits: &str) -> process::Command {
    let mut shell = untouched("sh");
    shell.arg("-c").arg(format!("{limits}; exec \"$0\" \"$@\"")).arg(PROGRAM);
    shell
}

/// Lines as they come, so that a full pipe never holds the process back.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if sender.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    });
    lines
}

fn address_in(line: &str, before: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once(before)?;
    let end = after.find(|mark: char| !mark.is_ascii_digit() && mark != '.' && mark != ':');
    after[..end.unwrap_or(after.len())].parse().ok()
}
