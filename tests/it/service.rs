//! The unit for systemd: what it names is there, and the server runs as it says.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::tempdir;

use crate::support::{Ended, Process, Raw, event, signal, skipped, until};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/sekali.service");
/// Where `StateDirectory=sekali` is.
const STATE: &str = "/var/lib/sekali";

/// The value of a key that stands once in the unit.
fn value(key: &str) -> String {
    let text = fs::read_to_string(UNIT).unwrap();
    let values: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
    assert_eq!(values.len(), 1, "{key}: {values:?}");
    values[0].to_owned()
}

#[actix_web::test]
async fn the_server_runs_with_the_command_line_and_the_environment_of_the_unit() {
    let home = tempdir().unwrap();
    let line = value("ExecStart");
    let (program, arguments) = line.split_once(' ').unwrap();
    assert!(Path::new(program).is_absolute() && program.ends_with("/sekali"), "{program}");
    assert_eq!(value("StateDirectory"), STATE.rsplit('/').next().unwrap());
    let (name, store) =
        value("Environment").split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(store.starts_with(&format!("sqlite:{STATE}/")), "{store}");
    let store = store.replace(STATE, home.path().to_str().unwrap());
    let environment = [(name.as_str(), store.as_str()), ("SEKALI_BIND", "127.0.0.1:0")];
    let process = Process::run(home.path(), &arguments.split(' ').collect::<Vec<_>>(), &environment);
    process.publish(event("t", "1")).await.ok();
    assert!(home.path().join("sekali.db").exists(), "{store}");
    process.signal("TERM");
    assert_eq!(process.ended().await.code, Some(0));
}

#[actix_web::test]
async fn the_unit_waits_for_a_clean_stop_and_does_not_repeat_wrong_usage() {
    let home = tempdir().unwrap();
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/default.toml")).unwrap();
    let timeout = text.lines().find_map(|line| line.strip_prefix("shutdown_timeout = \"")).unwrap();
    let seconds = |text: &str| text.trim_end_matches(['s', '"']).parse::<u64>().unwrap();
    assert!(seconds(&value("TimeoutStopSec")) >= seconds(timeout) + 10);
    assert_eq!((value("Restart"), value("RestartSec")), ("on-failure".to_owned(), "1s".to_owned()));
    assert_eq!(value("StartLimitIntervalSec"), "0", "however long its database is away");
    assert!(value("LimitNOFILE").parse::<u32>().unwrap() > 4_000, "for 2,000 followers");
    let store = format!("mysql:{}", home.path().display());
    let wrong = Ended::of(["serve", "--store", &store]).await;
    assert_eq!(wrong.code.unwrap().to_string(), value("RestartPreventExitStatus"));
}

#[test]
fn systemd_takes_the_unit() {
    let home = tempdir().unwrap();
    let verify =
        |unit: &Path| Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(unit).output();
    // The program is not where it is to be installed.
    let unit = |name: &str, more: &str| {
        let text = fs::read_to_string(UNIT).unwrap() + more;
        let path = home.path().join(name);
        fs::write(&path, text.replace("/usr/local/bin/sekali", env!("CARGO_BIN_EXE_sekali"))).unwrap();
        path
    };
    let Ok(verified) = verify(&unit("right.service", "")) else {
        return skipped("the unit is not verified: systemd-analyze is not here");
    };
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && !said.contains("right.service"), "{said}");
    let wrong = verify(&unit("wrong.service", "\n[Service]\nProtectEverything=yes\n")).unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(said.contains("ProtectEverything"), "a wrong one is told of: {said}");
}

/// The most that `systemd-analyze security` may find exposed, of 10: what is left is that a server needs
/// the network and files of the system.
const EXPOSURE_MAX: f64 = 1.3;

#[test]
fn the_unit_leaves_next_to_nothing_open() {
    let analysed =
        |unit: &Path| Command::new("systemd-analyze").args(["security", "--offline=true"]).arg(unit).output();
    let exposure = |unit: &Path| {
        let said = String::from_utf8(analysed(unit).unwrap().stdout).unwrap();
        let level = said.lines().find(|line| line.contains("Overall exposure level")).unwrap();
        level.rsplit(": ").next().unwrap().split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let unit = Path::new(UNIT);
    if analysed(unit).is_err() {
        return skipped("what the unit leaves open is not known: systemd-analyze is not here");
    }
    let found = exposure(unit);
    assert!(found < EXPOSURE_MAX, "{found}");
    // What the figure is worth: one line less is seen.
    let home = tempdir().unwrap();
    let open = home.path().join("open.service");
    fs::write(&open, fs::read_to_string(UNIT).unwrap().replace("\nPrivateUsers=yes", "")).unwrap();
    assert!(exposure(&open) > found);
}

/// The system calls of a set of systemd's, with those of the sets in it.
fn calls(set: &str) -> Option<BTreeSet<String>> {
    let listed = Command::new("systemd-analyze").args(["syscall-filter", set]).output().ok()?;
    let text = String::from_utf8(listed.stdout).unwrap();
    let names = text.lines().map(str::trim).filter(|line| !line.starts_with('#') && !line.is_empty());
    let (sets, own): (Vec<_>, Vec<_>) =
        names.filter(|name| *name != set).partition(|name| name.starts_with('@'));
    let mut found: BTreeSet<_> = own.into_iter().map(str::to_owned).collect();
    for set in sets {
        found.extend(calls(set)?);
    }
    Some(found)
}

#[actix_web::test]
async fn the_server_makes_no_system_call_that_the_unit_forbids() {
    let text = fs::read_to_string(UNIT).unwrap();
    let mut allowed = BTreeSet::new();
    for filter in text.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let forbids = filter.starts_with('~');
        for set in filter.trim_start_matches('~').split(' ') {
            let Some(calls) = calls(set) else { return skipped("systemd-analyze is not here") };
            assert!(!calls.is_empty(), "{set}");
            if forbids {
                allowed.retain(|call| !calls.contains(call));
            } else {
                allowed.extend(calls);
            }
        }
    }
    if Command::new("strace").arg("--version").output().is_err() {
        return skipped("system calls are not traced: strace is not here");
    }
    let home = tempdir().unwrap();
    let trace = home.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["--follow-forks", "--quiet=all", "--output"]).arg(&trace);
    // A user that is not root, as the unit's: root would give files to the owner of the store.
    let line = Process::line(home.path(), "");
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(home.path(), Some(65_534), Some(65_534)).unwrap();
        strace.args(user);
    }
    let process = Process::under(strace.args(line.split(' ')));
    process.publish(event("t", "1")).await.ok();
    process.read("/events?topic=t").await;
    process.read("/stats").await;
    signal(process.child(), "TERM");
    assert_eq!(process.ended().await.code, Some(0));
    let traced = fs::read_to_string(&trace).unwrap();
    // From the start of the program on: what becomes of the user before it is systemd's business.
    let started = traced.rfind("execve(").unwrap();
    let called = traced[started..].lines().filter_map(|line| {
        let call = line.split_whitespace().find(|word| word.contains('('))?;
        let name = call.split('(').next()?;
        (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
            .then_some(name)
    });
    let called: BTreeSet<_> = called.collect();
    assert!(called.contains("accept4") && called.contains("openat") && called.len() > 20, "{called:?}");
    let forbidden: Vec<_> = called.iter().filter(|call| !allowed.contains(**call)).collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
}

#[actix_web::test]
async fn the_end_of_a_terminal_stops_the_server_cleanly() {
    let home = tempdir().unwrap();
    let mut process = Process::serve(home.path());
    let body = event("t", "1");
    let mut raw = Raw::publishing(process.address(), &format!("Content-Length: {}\r\n", body.len()));
    raw.send(&body[..10]);
    until("the body is being read", async || process.metric("sekali_in_flight_bytes").await > 9.5).await;
    process.signal("HUP");
    until("it stops", async || process.has_said(&["stopping"])).await;
    // The shell sends one to its jobs, and the system another one when the shell is gone.
    process.signal("HUP");
    raw.send(&body[10..]);
    assert_eq!(raw.answer().status, 200);
    let ended = process.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("stopped"), "{}", ended.stderr);
}

#[actix_web::test]
async fn a_server_that_is_to_outlive_its_terminal_does() {
    // As `nohup` does it.
    let home = tempdir().unwrap();
    let process = Process::limited(home.path(), "", "trap '' HUP");
    process.signal("HUP");
    process.publish(event("t", "1")).await.ok();
    assert_eq!(process.read("/stats").await["persistent"]["total_unique_events_processed"], json!(1));
    process.signal("TERM");
    let ended = process.ended().await;
    // The hang-up came first, and would have been taken first.
    assert_eq!((ended.code, ended.stderr.matches("stopping").count()), (Some(0), 1), "{}", ended.stderr);
}

#[actix_web::test]
async fn the_line_of_the_start_has_the_absolute_path_of_the_store() {
    let home = tempdir().unwrap();
    let arguments = ["serve", "--bind", "127.0.0.1:0", "--store", "sqlite:a/log.db"];
    let process = Process::run(home.path(), &arguments, &[]);
    process.signal("TERM");
    let ended = process.ended().await;
    let path = home.path().canonicalize().unwrap().join("a/log.db");
    let store = format!("\"store\":\"sqlite:{}\"", path.display());
    assert!(path.exists() && ended.stderr.contains(&store), "{}", ended.stderr);
}
