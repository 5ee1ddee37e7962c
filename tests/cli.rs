//! The program itself, where it needs no server: help, wrong usage, and the check of configuration files.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by its panic")]

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use tempfile::TempDir;

fn sekali(arguments: &[&str]) -> Assert {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sekali"));
    for variable in ["SEKALI_CONFIG", "SEKALI_BIND", "SEKALI_STORE", "SEKALI_LOG", "SEKALI_URL"] {
        command.env_remove(variable);
    }
    command.args(arguments).assert()
}

fn stdout(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

fn stderr(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

/// Checks a file of this text; gives standard error with the file's name as `FILE`.
fn check(text: &str, code: i32) -> String {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("sekali.toml");
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    stderr(&sekali(&["check", "--config", path]).code(code)).replace(path, "FILE")
}

#[test]
fn help_names_every_command() {
    let help = stdout(&sekali(&["--help"]).success());
    for command in [
        "serve", "publish", "events", "stats", "topics", "lookup", "bench", "check", "backup", "doctor",
        "health",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} in {help}");
        sekali(&[command, "--help"]).success();
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for wrong in [
        &["nonsense"][..],
        &["--nonsense"],
        &["lookup", "orders"],
        &["events"],
        &["check"],
        &["publish", "--batch", "0"],
        &["publish", "--give-up-after", "soon"],
        &["bench", "--duplicates", "101"],
        &["--bind", "127.0.0.1:0", "stats"],
    ] {
        let assert = sekali(wrong).code(2);
        assert!(stdout(&assert).is_empty() && !stderr(&assert).is_empty(), "{wrong:?}");
    }
}

#[test]
fn an_environment_for_the_server_does_not_disturb_other_commands() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sekali"));
    let checked =
        command.env("SEKALI_BIND", "127.0.0.1:0").args(["check", "--config", "config/default.toml"]);
    checked.assert().success();
}

#[test]
fn the_default_file_has_no_errors() {
    let assert = sekali(&["check", "--config", "config/default.toml"]).success();
    assert_eq!(stdout(&assert), "config/default.toml: no errors\n");
    assert_eq!(stderr(&assert), "");
}

#[test]
fn every_error_of_a_file_stands_on_a_line_with_its_place() {
    assert_eq!(
        check("[router]\nlanes = 0\nline = 1\n\n[limits]\nbody = \"lots\"\n", 1),
        "FILE:3: router.line: no such key; [router] has consumers, idle, lanes, shards\n\
         FILE:6: limits.body: must be a size from 1KiB to 1GiB, such as \"16MiB\", found \"lots\"\n\
         FILE:2: router.lanes: must be from 1 to 64, found 0\n"
    );
    assert!(check("[router\n", 1).starts_with("FILE:1: not TOML: "));
    assert_eq!(check("", 0), "");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let text = stderr(&sekali(&["check", "--config", "no/such.toml"]).code(1));
    assert!(text.starts_with("no/such.toml: cannot be read: "), "{text}");
}

#[test]
fn a_store_that_is_not_there_is_named_and_not_made() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("no/log.db");
    let url = format!("sqlite:{}", file.display());
    for more in [&[][..], &["--rebuild-index"], &["--json"]] {
        let assert = sekali(&[&["doctor", "--store", &url], more].concat()).code(1);
        assert!(stdout(&assert).is_empty() && stderr(&assert).contains("no/log.db"), "{}", stderr(&assert));
    }
    assert!(!directory.path().join("no").exists());
}

#[test]
fn bad_flags_of_serve_are_named_like_keys_with_and_without_its_name() {
    for command in [&["serve"][..], &[]] {
        let text = stderr(&sekali(&[command, &["--bind", "8080", "--store", "mysql:x"]].concat()).code(1));
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("--bind (SEKALI_BIND): server.bind: must be HOST:PORT"), "{text}");
        assert!(lines[1].starts_with("--store (SEKALI_STORE): store.url: must be sqlite:PATH"), "{text}");
    }
}

#[test]
fn a_server_that_is_not_there_fails_with_advice() {
    for command in
        [&["stats"][..], &["health"], &["events", "orders"], &["lookup", "orders", "1"], &["bench"]]
    {
        let text = stderr(&sekali(&[command, &["--url", "http://127.0.0.1:1"]].concat()).code(1));
        assert!(text.contains("cannot reach http://127.0.0.1:1: "), "{text}");
        assert!(text.contains("Start a server with `sekali serve`"), "{text}");
    }
}

#[test]
fn https_is_refused_with_its_reason() {
    let text = stderr(&sekali(&["stats", "--url", "https://localhost"]).code(1));
    assert!(text.contains("https is not supported yet"), "{text}");
}
