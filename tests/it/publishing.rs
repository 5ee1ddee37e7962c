//! `sekali publish` as people run it: addresses, inputs, conflicts, a slow link.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::support::{Command, Ended, Log, Process, event, event_with, ids, lines, untouched};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sekali");

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn file(text: impl AsRef<[u8]>) -> (TempDir, String) {
    let home = tempdir().unwrap();
    let path = home.path().join("events");
    fs::write(&path, text).unwrap();
    let name = path.to_str().unwrap().to_owned();
    (home, name)
}

/// The program with these variables.
async fn with(variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = untouched(PROGRAM);
    Command::run(command.envs(variables.iter().copied()).args(arguments)).ended().await
}

#[actix_web::test]
async fn an_address_that_is_wrong_in_any_part_stores_nothing_anywhere() {
    let log = Log::start();
    let (_home, events) = file(event("t", "1"));
    let address = log.address();
    for wrong in [
        format!("http://{address}8"),
        format!("http://{address}#other"),
        format!("http://{address}?x"),
        format!("http://{address}garbage"),
        format!("http://me@{address}"),
        format!("http://{address}\n"),
        format!("http://{address} "),
        "http://127.0.0.1:65536".to_owned(),
        "http://127.0.0.1:".to_owned(),
        "http://[::1".to_owned(),
    ] {
        let ended = with(&[("SEKALI_URL", &wrong)], &["publish", &events]).await;
        assert_eq!(ended.code, Some(2), "{wrong:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(" is no address of a server: "), "{}", ended.stderr);
        assert!(!wrong.ends_with('\n') || ended.stderr.contains("\\n is no address"), "{}", ended.stderr);
    }
    assert_eq!(log.totals("persistent").await, [0; 5]);
}

/// A proxy of the environment is for others: events would go to it, or its answers would be taken for the log's.
#[actix_web::test]
async fn no_proxy_of_the_environment_gets_events() {
    let log = Log::start();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_home, events) = file(event("t", "1"));
    let through = url(proxy.local_addr().unwrap());
    let names = ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy", "https_proxy"];
    let proxies = names.map(|name| (name, through.as_str()));
    let ended = with(&proxies, &["publish", &events, "--url", &url(log.address())]).await;
    assert_eq!((ended.code, ended.stdout.contains("accepted 1")), (Some(0), true), "{}", ended.stderr);
    proxy.set_nonblocking(true).unwrap();
    assert!(proxy.accept().is_err(), "nobody came to the proxy");
}

#[actix_web::test]
async fn conflicts_fail_the_command_and_are_named() {
    let log = Log::start();
    log.publish(format!("[{},{}]", event_with("t", "1", r#"{"n":1}"#), event("t", "2"))).await.ok();
    let url = url(log.address());
    let (_home, events) = file(lines([event("t", "2"), event_with("t", "1", r#"{"n":2}"#), event("t", "3")]));
    let ended = Ended::of(["publish", &events, "--url", &url, "--json"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let told = "conflict: line 2: topic t, event_id 1: stored before with another payload (seq 1)";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&report["conflicts"], &report["complete"]), (&1.into(), &false.into()));
    let conflict = &report["conflicting"][0];
    assert_eq!((&conflict["place"], &conflict["topic"]), (&"line 2".into(), &"t".into()));
    assert_eq!((&conflict["event_id"], &conflict["seq"]), (&"1".into(), &1.into()));
    let allowed = Ended::of(["publish", &events, "--url", &url, "--json", "--allow-conflicts"]).await;
    let report: Value = serde_json::from_str(&allowed.stdout).unwrap();
    assert_eq!((allowed.code, &report["complete"]), (Some(0), &true.into()));
    let many = lines((0..30).map(|number| event_with("t", &number.to_string(), r#"{"n":"A"}"#)));
    let (_other, twice) = file(many.clone() + &many.replace('A', "B"));
    let ended = Ended::of(["publish", &twice, "--url", &url]).await;
    assert_eq!((ended.code, ended.stderr.matches("conflict: ").count()), (Some(1), 10), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("further conflicts are counted").count(), 1, "{}", ended.stderr);
}

#[actix_web::test]
async fn what_is_no_json_is_one_message_and_counts_nowhere() {
    let log = Log::start();
    let url = url(log.address());
    let csv = (0..100_000).map(|row| format!("orders,{row},2026-01-01\n")).collect::<Vec<_>>().concat();
    let (_home, table) = file(csv);
    let ended = Ended::of(["publish", &table, "--url", &url]).await;
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{}", ended.stderr);
    assert!(
        ended.stderr.starts_with("error: nothing was sent: the input holds no events"),
        "{}",
        ended.stderr
    );
    assert_eq!(log.totals("runtime").await, [0; 5]);
}

#[actix_web::test]
async fn an_archive_is_read_from_a_file_and_from_standard_input() {
    let log = Log::start();
    let archive = zstd::encode_all(lines(ids("t", 0..500)).as_bytes(), 1).unwrap();
    let (_home, path) = file(archive);
    for (input, accepted) in [("cat", "accepted 500"), ("sekali", "duplicates 500")] {
        let text = match input {
            "cat" => format!("cat '{path}' | '{PROGRAM}' publish --url {}", url(log.address())),
            _ => format!("'{PROGRAM}' publish '{path}' --url {}", url(log.address())),
        };
        let ended = Ended::running(untouched("sh").args(["-c", &text])).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stdout.contains(accepted), "{}", ended.stdout);
    }
}

/// A link that takes so many bytes a second, towards this address.
fn slow_link(to: SocketAddr, bytes_a_second: u32) -> SocketAddr {
    const PIECE: usize = 4096;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pause = Duration::from_secs(1) * u32::try_from(PIECE).unwrap() / bytes_a_second;
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(to).unwrap();
            let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || forward(client, server, pause));
            thread::spawn(move || forward(back.0, back.1, Duration::ZERO));
        }
    });
    address
}

fn forward(mut from: TcpStream, mut to: TcpStream, pause: Duration) {
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        thread::sleep(pause);
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[actix_web::test]
async fn a_batch_that_a_slow_link_does_not_bring_in_time_goes_in_halves() {
    let home = tempdir().unwrap();
    let process = Process::configured(home.path(), "[server]\nbody_timeout = \"1s\"\n");
    let link = slow_link(process.address(), 400_000);
    let payload = format!("{{\"x\":\"{}\"}}", "x".repeat(20_000));
    let (_home, events) = file(lines((0..60).map(|number| event_with("t", &number.to_string(), &payload))));
    let ended = Ended::of(["publish", &events, "--url", &url(link)]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("in two requests"), "{}", ended.stderr);
    assert_eq!(process.totals("persistent").await[1], 60);
}

#[actix_web::test]
async fn a_home_directory_that_no_shell_has_replaced_is_refused_with_its_path() {
    let home = tempdir().unwrap();
    let path = home.path().to_str().unwrap();
    let run = async |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = untouched(PROGRAM);
        command.current_dir(home.path()).env("HOME", "/home/me").envs(variables.iter().copied());
        let ended = Command::run(command.args(arguments)).ended().await;
        assert_eq!(ended.code, Some(2), "{arguments:?} {}", ended.stderr);
        assert!(!home.path().join("~").exists(), "{arguments:?}");
        ended.stderr
    };
    let store = "sqlite:~/x.db";
    for text in [
        run(&[], &["serve", "--store", store]).await,
        run(&[("SEKALI_STORE", store)], &["serve"]).await,
        run(&[], &["doctor", "--store", "sqlite://~/x.db"]).await,
        run(&[], &["backup", "copy.db", "--store", store]).await,
        run(&[], &["copy", store, "sqlite:to.db"]).await,
        run(&[], &["copy", &format!("sqlite:{path}/from.db"), store]).await,
    ] {
        assert!(
            text.contains("must not begin with ~") && text.contains("write sqlite:/home/me/x.db"),
            "{text}"
        );
    }
    let text = run(&[], &["backup", "~/copy.db", "--store", "sqlite:x.db"]).await;
    assert!(text.contains("DEST: must not begin with ~") && text.contains("/home/me/copy.db"), "{text}");
    let text = run(&[], &["man", "~/man1"]).await;
    assert!(text.contains("DIR: must not begin with ~") && text.contains("/home/me/man1"), "{text}");
    let text = run(&[], &["serve", "--store", "sqlite:~other/x.db"]).await;
    assert!(text.contains("must not begin with ~other") && text.contains("absolute path"), "{text}");
    let text = run(&[("SEKALI_STORE", "sqlite:x.db\n")], &["serve"]).await;
    assert!(text.contains("sqlite:x.db\\n") && text.contains("control characters"), "{text}");
    let config = home.path().join("sekali.toml");
    fs::write(&config, "[store]\nurl = \"sqlite:~/x.db\"\n").unwrap();
    let checked = Ended::of(["check", "--config", config.to_str().unwrap()]).await;
    assert_eq!(checked.code, Some(1));
    assert!(checked.stderr.contains(":2: store.url: must not begin with ~"), "{}", checked.stderr);
}
