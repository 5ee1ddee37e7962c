//! The program itself, where it needs no server: help, wrong usage, and the check of configuration files.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by its panic")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use tempfile::TempDir;

/// The longest wait for a command that ends by itself.
const PATIENCE: Duration = Duration::from_mins(1);

/// The program, untouched by what whoever runs the tests has in the environment.
fn sekali(arguments: &[&str]) -> Assert {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sekali"));
    let ours = env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEKALI_"));
    for variable in ours.map(|(name, _)| name).chain(["COLUMNS".into()]) {
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
    fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    stderr(&sekali(&["check", "--config", path]).code(code)).replace(path, "FILE")
}

/// The commands that the help names, itself aside.
fn commands() -> Vec<String> {
    let help = stdout(&sekali(&["--help"]).success());
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
    // A description that goes on in a second line is indented further.
    let lines = list.lines().filter(|line| !line.starts_with("   "));
    let names = lines.map(|line| line.split_whitespace().next().unwrap().to_owned());
    names.filter(|name| name != "help").collect()
}

/// The help as it stands in tests/help: what a change does to it is seen in a review. `UPDATE=1` writes it.
#[test]
fn the_help_of_every_command_is_as_committed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let update = env::var_os("UPDATE").is_some();
    let mut known = BTreeSet::new();
    for command in commands().iter().map(String::as_str).chain([""]) {
        let (name, arguments) = match command {
            "" => ("sekali", vec!["--help"]),
            name => (name, vec![name, "--help"]),
        };
        let file = folder.join(format!("{name}.txt"));
        let help = stdout(&sekali(&arguments).success());
        if update {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &help).unwrap();
        }
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(help, committed, "{name} --help: UPDATE=1 cargo test --test cli writes tests/help");
        known.insert(file);
    }
    let there: BTreeSet<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(there, known);
}

#[test]
fn every_shell_is_given_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = stdout(&sekali(&["completions", shell]).success());
        for command in commands() {
            assert!(script.contains(&command), "{command} for {shell}");
        }
    }
    sekali(&["completions", "tcsh"]).code(2);
}

#[test]
fn bash_takes_its_completions() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("sekali.bash");
    fs::write(&file, stdout(&sekali(&["completions", "bash"]).success())).unwrap();
    let asks = "source \"$0\"; COMP_WORDS=(sekali back); COMP_CWORD=1; _sekali sekali back sekali; echo \"${COMPREPLY[@]}\"";
    let completed = Command::new("bash").args(["--norc", "-c", asks]).arg(&file).assert().success();
    assert_eq!(stdout(&completed), "backup\n", "{}", stderr(&completed));
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let page = stdout(&sekali(&["man"]).success());
    assert!(page.contains(".TH sekali 1") && page.contains("An idempotent event log"), "{page}");
    let directory = TempDir::new().unwrap();
    let pages = directory.path().join("made/man1");
    sekali(&["man", pages.to_str().unwrap()]).success();
    assert_eq!(fs::read_to_string(pages.join("sekali.1")).unwrap().trim_end(), page.trim_end());
    for command in commands() {
        let its = fs::read_to_string(pages.join(format!("sekali-{command}.1"))).unwrap();
        assert!(its.contains(&format!("sekali\\-{command}")), "{its}");
    }
    let taken = directory.path().join("file");
    fs::write(&taken, "").unwrap();
    assert!(stderr(&sekali(&["man", taken.to_str().unwrap()]).code(1)).contains("cannot be written to"));
}

/// A password is told to a process by its environment because nobody else sees that.
#[test]
fn a_password_of_the_environment_is_in_no_help() {
    const SECRET: &str = "postgres://me:topsecret@db/log";
    let lists = commands();
    let all = lists.iter().map(|name| vec![name.as_str(), "--help"]);
    for arguments in all.chain([vec!["--help"], vec!["help", "serve"], vec!["man"]]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sekali"));
        command.envs(["SEKALI_STORE", "SEKALI_COPY_FROM", "SEKALI_COPY_TO"].map(|name| (name, SECRET)));
        let help = stdout(&command.args(&arguments).assert().success());
        assert!(!help.is_empty() && !help.contains("topsecret"), "{arguments:?}: {help}");
    }
}

#[test]
fn a_password_is_in_no_error_about_a_url() {
    for url in ["postgres://me:topsecret", "postgres://me:topsecret/log", "postgres://me:x@topsecret@h:y/log"]
    {
        for arguments in
            [&["serve", "--store", url][..], &["doctor", "--store", url], &["copy", url, "sqlite:a"]]
        {
            let text = stderr(&sekali(arguments).code(2));
            assert!(text.contains("***") && !text.contains("topsecret"), "{text}");
        }
    }
}

#[test]
fn the_trusted_proxies_of_a_variable_or_flag_are_checked_like_those_of_a_file() {
    let rule = "server.trusted_proxies: must be a list of addresses and networks";
    let home = TempDir::new().unwrap();
    let serve = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sekali"));
        command.args(["serve", "--bind", "127.0.0.1:0"]).args(arguments).envs(environment.iter().copied());
        // A server that takes the list does not end.
        command.current_dir(home.path()).timeout(PATIENCE);
        stderr(&command.assert().code(2))
    };
    for list in ["proxy.example", "10.0.0.1,10.0.0.0/33", "10.0.0.1:80", "10.0.0.1,,10.0.0.2", ""] {
        for text in
            [serve(&[], &[("SEKALI_TRUSTED_PROXIES", list)]), serve(&["--trusted-proxies", list], &[])]
        {
            assert!(text.starts_with("--trusted-proxies (SEKALI_TRUSTED_PROXIES): "), "{text}");
            assert!(text.contains(rule), "{list:?}: {text}");
        }
    }
}

#[test]
fn a_password_in_an_argument_is_warned_of_and_one_from_a_file_is_not() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("password");
    fs::write(&file, "topsecret\n").unwrap();
    let warned = |url: &str, variables: &[(&str, &str)]| {
        for arguments in [
            &["serve", "--bind", "127.0.0.1:0", "--store", url][..],
            &["serve", "--bind", "127.0.0.1:0", &format!("--store={url}")],
            &["copy", "sqlite:none.db", url],
        ] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sekali"));
            command.args(arguments).envs(variables.iter().copied()).current_dir(home.path());
            // Nobody listens there.
            let text = stderr(&command.assert().code(1));
            assert!(!text.contains("topsecret"), "{text}");
            let warned = text.contains("an argument holds the password");
            assert_eq!(warned, url.contains("topsecret"), "{arguments:?}: {text}");
            assert!(!warned || text.contains("SEKALI_STORE_PASSWORD_FILE"), "{text}");
        }
    };
    warned("postgres://me:topsecret@127.0.0.1:1/log", &[]);
    warned("postgres://127.0.0.1:1/log?user=me&password=topsecret", &[]);
    warned("postgres://me@127.0.0.1:1/log", &[("SEKALI_STORE_PASSWORD_FILE", file.to_str().unwrap())]);
    warned("postgres://me@127.0.0.1:1/log", &[("SEKALI_STORE_PASSWORD", "topsecret")]);
}

#[test]
fn a_database_that_is_reached_without_protection_is_named_once_with_the_remedy() {
    let home = TempDir::new().unwrap();
    // Nobody listens at these addresses; by their names the databases are on other machines.
    for (host, query, level, words) in [
        ("db.example", "hostaddr=127.0.0.1&sslmode=disable", "", ""),
        ("127.0.0.1", "sslmode=disable", "", ""),
        ("localhost", "hostaddr=0.0.0.0&sslmode=disable", "WARN", "not encrypted (sslmode=disable)"),
        ("localhost", "hostaddr=0.0.0.0", "INFO", "certificate of the database is not checked"),
        ("localhost", "hostaddr=0.0.0.0&channel_binding=require", "", ""),
    ] {
        let url = format!("postgres://me@{host}:1/log?{query}");
        let serve = ["serve", "--bind", "127.0.0.1:0", "--log", "info", "--store", &url];
        let target = format!("sqlite:{}", home.path().join("none.db").display());
        let text = stderr(&sekali(&serve).code(1));
        let lines: Vec<_> = text.lines().filter(|line| line.contains("sslmode=verify-full")).collect();
        assert_eq!(lines.len(), usize::from(!level.is_empty()), "{url}: {text}");
        for line in lines {
            for named in [level, words, "localhost"] {
                assert!(line.contains(named), "{named} in {line}");
            }
        }
        let copied = stderr(&sekali(&["copy", &url, &target]).code(1));
        let is_warned = copied.contains("warning: localhost: ");
        assert_eq!(is_warned, level == "WARN", "{url}: {copied}");
    }
}

#[test]
fn a_password_file_that_cannot_be_used_is_named() {
    let home = TempDir::new().unwrap();
    let (file, config) = (home.path().join("password"), home.path().join("sekali.toml"));
    fs::write(&file, "topsecret\nmore\n").unwrap();
    fs::write(
        &config,
        format!("[store]\nurl = \"postgres://me@127.0.0.1:1/log\"\npassword_file = {file:?}\n"),
    )
    .unwrap();
    let config = config.to_str().unwrap();
    for words in ["must hold the password of the store and nothing else", "cannot be read"] {
        let text = stderr(&sekali(&["check", "--config", config]).code(1));
        assert!(text.contains(words) && text.contains(file.to_str().unwrap()), "{text}");
        assert!(!text.contains("topsecret"), "{text}");
        let _ = fs::remove_file(&file);
    }
}

#[test]
fn a_wrong_key_of_a_database_url_is_named() {
    for (query, words) in [
        ("sslmode=verify-ca", "sslmode must be disable, prefer, require or verify-full"),
        ("foo=1", "unknown option `foo`"),
        ("sslrootcert=ca.pem", "sslrootcert needs sslmode=verify-full"),
    ] {
        let text = stderr(&sekali(&["serve", "--store", &format!("postgres://me@h/log?{query}")]).code(2));
        assert!(text.contains(words) && !text.contains("sqlite:"), "{text}");
    }
}

/// The four exit codes: what each is, and that it is the one that the help tells.
#[test]
fn exit_codes_are_those_of_the_help() {
    let (help, page) = (stdout(&sekali(&["--help"]).success()), stdout(&sekali(&["man"]).success()));
    for text in [help, page, fs::read_to_string("README.md").unwrap()] {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for told in ["0 is done", "1 is failed", "2 is wrong usage", "has 3: the server did not say"] {
            assert!(words.contains(told), "{told}: {text}");
        }
    }
    sekali(&["check", "--config", "config/default.toml"]).code(0);
    sekali(&["check", "--config", "no/such.toml"]).code(1);
    let nobody = "http://127.0.0.1:1";
    sekali(&["stats", "--url", nobody]).code(1);
    let text = stderr(&sekali(&["lookup", "orders", "1", "--url", nobody]).code(3));
    assert!(text.contains("it is not known whether the events are stored: cannot reach"), "{text}");
}

#[test]
fn wrong_usage_exits_with_2() {
    for wrong in [
        &["--store", "foo"][..],
        &["--bind", "8080"],
        &["serve", "--log", "nope"],
        &["backup", "copy.db", "--store", "foo"],
        &["doctor", "--store", "foo"],
        &["stats", "--url", "localhost"],
        &["lookup", "orders", "1", "--url", "localhost"],
        &["copy", "foo", "sqlite:no/such.db"],
        &["copy", "sqlite:no/such.db", "bar"],
        &["publish", "--give-up-after", "5"],
        &["nonsense"],
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
fn a_limit_of_nothing_is_refused_in_words() {
    let text = stderr(&sekali(&["events", "orders", "--limit", "0"]).code(2));
    assert!(text.contains("must be a whole number from 1 on"), "{text}");
}

#[test]
fn what_cannot_be_written_is_named() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_sekali"));
    let ended = program.arg("man").stdout(full()).output().unwrap();
    let text = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(text.starts_with("error: standard output cannot be written: No space left"), "{text}");
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
        let text = stderr(&sekali(&[command, &["--bind", "8080", "--store", "mysql:x"]].concat()).code(2));
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
        let code = if command[0] == "lookup" { 3 } else { 1 };
        let text = stderr(&sekali(&[command, &["--url", "http://127.0.0.1:1"]].concat()).code(code));
        assert!(text.contains("cannot reach http://127.0.0.1:1: "), "{text}");
        assert!(text.contains("Start a server with `sekali serve`"), "{text}");
    }
}

#[test]
fn https_is_refused_with_its_reason() {
    let text = stderr(&sekali(&["stats", "--url", "https://localhost"]).code(2));
    assert!(text.contains("https is not supported yet"), "{text}");
}
