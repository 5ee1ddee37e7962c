//! The commands of README.md, run as they stand there and in their order, in a folder with nothing
//! but the repository's files.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::support::{Command, Ended, Process, untouched};

const README: &str = include_str!("../../README.md");

/// The address that the commands name; tests have a port of their own.
const ADDRESS: &str = "127.0.0.1:8080";

/// The fenced blocks of a language below a heading, in their order.
fn blocks(heading: &str, language: &str) -> Vec<String> {
    let begin = format!("\n## {heading}\n");
    let (_, rest) = README.split_once(&begin).unwrap_or_else(|| panic!("no section {heading}"));
    let section = rest.split("\n## ").next().unwrap();
    let mut parts = section.split("\n```").skip(1).step_by(2);
    let mut found = Vec::new();
    for part in parts.by_ref() {
        let (info, block) = part.split_once('\n').unwrap();
        if info == language {
            found.push(block.to_owned());
        }
    }
    assert!(!found.is_empty(), "{heading} has blocks of {language}");
    found
}

/// The commands of a block: each is a line, or several up to the end of a quoted text.
fn commands(block: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = String::new();
    for line in block.lines().filter(|line| !line.is_empty()) {
        open.push_str(line);
        if open.matches('\'').count().is_multiple_of(2) {
            found.push(std::mem::take(&mut open));
        } else {
            open.push('\n');
        }
    }
    assert!(open.is_empty(), "a quoted text has an end: {open}");
    found
}

/// A command without its comment, and the comment.
fn parts(command: &str) -> (&str, &str) {
    command.rsplit_once(" # ").map_or((command, ""), |(command, comment)| (command.trim_end(), comment))
}

/// A clone of the repository as far as the commands need it.
struct Clone {
    folder: TempDir,
    address: String,
}

impl Clone {
    fn new() -> Self {
        let folder = tempdir().unwrap();
        fs::create_dir(folder.path().join("config")).unwrap();
        let events = "config/example-events.ndjson";
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(events), folder.path().join(events)).unwrap();
        Self { folder, address: String::new() }
    }

    /// Runs the log by this command, on a port of its own.
    fn serve(&mut self, command: &str) -> Process {
        let words: Vec<_> = parts(command).0.split(' ').skip(1).chain(["--bind", "127.0.0.1:0"]).collect();
        let log = Process::run(self.folder.path(), &words, &[]);
        self.address = log.address().to_string();
        log
    }

    /// A shell that finds the program by its name, and the log at its address.
    fn shell(&self, command: &str) -> process::Command {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_sekali"));
        let before = env::var_os("PATH").unwrap();
        let path = env::join_paths(
            [program.parent().unwrap().to_owned()].into_iter().chain(env::split_paths(&before)),
        );
        let mut shell = untouched("sh");
        shell
            .args(["-c", &command.replace(ADDRESS, &self.address)])
            .current_dir(self.folder.path())
            .env("PATH", path.unwrap())
            .env("SEKALI_URL", format!("http://{}", self.address));
        shell
    }

    async fn run(&self, command: &str) -> Ended {
        Ended::running(&mut self.shell(command)).await
    }

    /// Runs a command that succeeds, and gives what it writes.
    async fn done(&self, command: &str) -> String {
        let ended = self.run(command).await;
        assert_eq!(ended.code, Some(0), "{command}: {ended:?}");
        ended.stdout
    }

    /// Starts a command that follows; `exec` makes it the process that gets signals.
    fn follow(&self, command: &str) -> Command {
        Command::run(&mut self.shell(&format!("exec {command}")))
    }
}

async fn interrupted(follower: Command) {
    follower.signal("INT");
    follower.ended().await;
}

async fn stopped(log: Process) {
    log.signal("INT");
    let ended = log.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// The value of the next line of a follower.
async fn event_id(follower: &Command) -> String {
    let event: Value = serde_json::from_str(&follower.line().await).unwrap();
    event["event_id"].as_str().unwrap().to_owned()
}

/// Whether a command runs until Ctrl-C.
fn follows(command: &str) -> bool {
    command.contains("--follow") || command.contains("text/event-stream")
}

/// The number behind a word of a comment, such as 2 of `accepted 2`.
fn number(comment: &str, word: &str) -> Option<u64> {
    let (_, rest) = comment.split_once(&format!("{word} "))?;
    rest.split(|end: char| !end.is_ascii_digit()).next()?.parse().ok()
}

#[actix_web::test]
async fn the_first_two_sections_run_as_they_stand_one_after_the_other() {
    let mut clone = Clone::new();
    let first = blocks("From nothing to a followed topic", "sh");
    let [installed, second, third] = &first[..] else { panic!("three terminals: {first:?}") };
    let log = clone.serve(&commands(installed)[1]);
    assert!(clone.folder.path().join("data/sekali.db").exists());
    let mut follower = None;
    let mut counted = 0;
    for command in commands(second) {
        let (command, comment) = parts(&command);
        if follows(command) {
            follower = Some(clone.follow(command));
            continue;
        }
        let said = clone.run(command).await;
        assert_eq!(said.code, Some(0), "{command}: {said:?}");
        if command == "sekali topics" {
            let topic: Value = serde_json::from_str(&said.stdout).unwrap();
            let [name, events, duplicates] = [&topic["topic"], &topic["accepted"], &topic["duplicates"]];
            let told = format!("{}: {events} events, {duplicates} duplicates", name.as_str().unwrap());
            assert_eq!(comment.trim(), told);
            continue;
        }
        for word in ["accepted", "duplicates"] {
            let Some(number) = number(comment, word) else { continue };
            let told = format!("{word} {number},");
            assert!(said.stderr.contains(&told) || said.stdout.contains(&told), "{told} {said:?}");
            counted += 1;
        }
    }
    assert_eq!(counted, 3, "comments tell three counts");
    let follower = follower.expect("the second terminal follows");
    assert_eq!([event_id(&follower).await, event_id(&follower).await], ["order-1", "order-2"]);
    clone.done(&commands(third).join("\n")).await;
    assert_eq!([event_id(&follower).await, event_id(&follower).await], ["book-1", "book-2"]);

    // The next section says so before it starts a log that does not have these events.
    let (_, section) = README.split_once("\n## Try it by HTTP\n").unwrap();
    let told = section.split("```").next().unwrap();
    assert!(told.contains("End the follower") && told.contains("stop the log"), "{told}");
    interrupted(follower).await;
    stopped(log).await;

    let blocks_of_shell = blocks("Try it by HTTP", "sh");
    let [serve, publish, read, client, offline, ..] = &blocks_of_shell[..] else {
        panic!("the blocks of the section: {blocks_of_shell:?}")
    };
    let log = clone.serve(&commands(serve)[0]);
    let answer = blocks("Try it by HTTP", "json").remove(0);
    assert_eq!(clone.done(publish).await, answer);
    let mut names = Vec::new();
    for command in commands(read).into_iter().chain(commands(client)) {
        let (command, _) = parts(&command);
        if follows(command) {
            continue;
        }
        let ended = clone.run(command).await;
        // `lookup` asks for an event that is not stored, too.
        let expected = i32::from(command.starts_with("sekali lookup"));
        assert_eq!(ended.code, Some(expected), "{command}: {ended:?}");
        names.push(command.split(' ').take(2).collect::<Vec<_>>().join(" "));
    }
    assert!(
        names.contains(&"curl -s".to_owned()) && names.contains(&"sekali backup".to_owned()),
        "{names:?}"
    );
    stopped(log).await;

    let offline = commands(offline);
    let names: Vec<_> = offline.iter().filter_map(|command| command.split(' ').nth(1)).collect();
    assert_eq!(names, ["doctor", "copy"]);
    for command in &offline {
        clone.done(parts(command).0).await;
    }
    // All three were about the store that the section began with: each has the two events.
    for store in ["new.db", "backups/today.db", "moved.db"] {
        let report = clone.done(&format!("sekali doctor --store sqlite:{store}")).await;
        assert!(report.contains("2 events"), "{store}: {report}");
    }
}

#[actix_web::test]
async fn compose_counts_what_the_readme_says_at_each_start() {
    // What the service `publisher` does, against a store that is kept, as the volume is.
    let (_, compose) = README.split_once("With Docker: ").unwrap();
    let compose = compose.split("\n\n").next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut clone = Clone::new();
    for _ in 0..2 {
        let log = clone.serve("sekali --store sqlite:volume.db");
        clone.done("sekali publish config/example-events.ndjson").await;
        let stats = log.read("/stats").await;
        let [received, unique, duplicates] =
            ["total_events_received", "total_unique_events_processed", "total_duplicate_events_dropped"]
                .map(|name| stats["persistent"][name].as_u64().unwrap());
        let plural = if duplicates == 1 { "" } else { "s" };
        let told = format!("{received} received, {unique} unique, {duplicates} duplicate{plural}");
        assert!(compose.contains(&told), "{told}: {compose}");
        stopped(log).await;
    }
}

#[test]
fn no_document_promises_a_distributed_database() {
    let scale = include_str!("../../docs/SCALE.md");
    for engine in ["Citus", "CockroachDB", "YugabyteDB"] {
        let (_, section) = scale.split_once(&format!("\n## {engine}\n\n")).unwrap();
        assert!(section.starts_with("Not supported yet"), "{engine}");
        assert!(README.contains(engine) && README.contains("no distributed database"), "{engine}");
    }
    // What a run on Citus 13.2 gave, and no figure that no run gave.
    assert!(scale.contains("SQLSTATE 0A000"));
    let (_, model) = scale.split_once("\n## A model of sizes\n").unwrap();
    for invented in ["Citus", "Yugabyte", "Cockroach", "ssumption"] {
        assert!(!model.contains(invented), "{invented}");
    }
    // The tests of the engine distribute no table, wherever they run.
    assert!(!scale.contains("TEST_DATABASE_URL"), "a run of our tests on such a database proves nothing");
}
