//! What `docker compose` runs, as far as it can be checked without Docker: files that exist, three nodes, limits that fit.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{Container, haproxy, skipped};

/// The single log, what lets clients of the first version run with it, and three nodes on one
/// database.
const COMPOSE: &str = "docker-compose.yml";
const COMPAT: &str = "compose.compat.yml";
const CLUSTER: &str = "compose.cluster.yml";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn file(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The blocks below a key of the first level, by name: what is indented by two spaces, and all below it.
fn blocks(text: &str, key: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut name = None;
    let inside = text.lines().skip_while(|line| *line != format!("{key}:")).skip(1);
    for line in inside.take_while(|line| line.is_empty() || line.starts_with([' ', '#'])) {
        let bare = line.trim_start();
        if line.len() - bare.len() == 2
            && let Some((new, rest)) = bare.split_once(':')
            && !bare.starts_with('#')
        {
            found.insert(new.to_owned(), rest.trim().to_owned());
            name = Some(new.to_owned());
        } else if let Some(block) = name.as_ref().and_then(|name| found.get_mut(name)) {
            block.push_str(line);
            block.push('\n');
        }
    }
    found
}

/// What every `*node` is.
fn node(compose: &str) -> &str {
    compose.split("x-node: &node\n").nth(1).unwrap().split("\n\n").next().unwrap()
}

/// What stands behind a key, wherever it is first.
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let found = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix([':', '=', ' ']));
    let found =
        found.or_else(|| text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(' ')));
    found.unwrap_or_else(|| panic!("no {key}")).trim().trim_matches('"')
}

/// Seconds, as "10s".
fn seconds(text: &str) -> u32 {
    text.trim_end_matches('s').parse().unwrap_or_else(|_| panic!("{text:?} is no number of seconds"))
}

#[test]
fn compose_runs_one_log_by_default_and_three_nodes_on_demand() {
    let by_default: Vec<_> = blocks(&file(COMPOSE), "services").into_keys().collect();
    assert_eq!(by_default, ["aggregator", "publisher"]);
    let compose = file(CLUSTER);
    let (services, node) = (blocks(&compose, "services"), node(&compose));
    let nodes: Vec<_> =
        services.iter().filter(|(_, block)| block.trim() == "*node").map(|(name, _)| name.as_str()).collect();
    assert_eq!(nodes, ["node-1", "node-2", "node-3"]);
    let haproxy = file("config/cluster/haproxy.cfg");
    for name in nodes {
        assert!(
            haproxy.contains(&format!("server {name} \"${{SEKALI_NODE_{}-{name}:8080}}\"", &name[5..])),
            "{name}"
        );
        assert!(services["balancer"].contains(&format!("      {name}:\n")), "the balancer waits for {name}");
    }
    // What a node connects to.
    assert!(node.contains("sekali@postgres:5432/sekali?") && services.contains_key("postgres"));
}

#[test]
fn compose_and_its_dockerfiles_name_only_files_that_exist() {
    let mut contexts = vec![(".".to_owned(), "Dockerfile".to_owned())];
    for compose in [COMPOSE, CLUSTER].map(file) {
        for block in blocks(&compose, "services").values().filter(|block| block.contains("context:")) {
            contexts.push((value(block, "context").to_owned(), value(block, "dockerfile").to_owned()));
        }
        for line in compose.lines().filter_map(|line| line.trim().strip_prefix("- ./")) {
            let path = line.split(':').next().unwrap();
            assert!(root().join(path).exists(), "{path}");
        }
        for volume in blocks(&compose, "volumes").keys() {
            assert!(compose.contains(&format!("- {volume}:/")), "{volume} is used");
        }
    }
    assert_eq!(contexts.len(), 3);
    for (context, dockerfile) in contexts {
        let text = fs::read_to_string(root().join(&context).join(&dockerfile)).unwrap();
        let copies = text.lines().filter_map(|line| line.strip_prefix("COPY "));
        for copy in copies.filter(|copy| !copy.starts_with("--from")) {
            let mut names: Vec<_> = copy.split(' ').collect();
            names.pop();
            for name in names {
                assert!(root().join(&context).join(name).exists(), "{dockerfile} copies {name}");
            }
        }
    }
}

#[test]
fn no_container_has_a_volume_without_a_name() {
    // Docker makes one wherever nothing is mounted on a `VOLUME` of the image, and removes it never, or not always.
    let cluster = file(CLUSTER);
    let node = node(&cluster);
    let mut services = blocks(&cluster, "services");
    services.append(&mut blocks(&file(COMPOSE), "services"));
    let mut places = 0;
    for (name, block) in &services {
        let block = if block.trim() == "*node" { node } else { block };
        let dockerfile =
            if block.contains("context:") { value(block, "dockerfile") } else { "../../Dockerfile" };
        let text = file(&format!("config/cluster/{dockerfile}"));
        for place in text.lines().filter_map(|line| line.strip_prefix("VOLUME ")) {
            let is_mounted = |line: &str| line.starts_with("- ") && line.ends_with(&format!(":{place}"));
            let is_memory =
                |line: &str| line == format!("tmpfs: {place}") || line.starts_with(&format!("- {place}:"));
            assert!(block.lines().map(str::trim).any(|line| is_mounted(line) || is_memory(line)), "{name}");
            places += 1;
        }
    }
    assert_eq!(places, services.len() - 1, "all but the balancer have one");
}

#[test]
fn the_limits_of_the_cluster_fit_together() {
    let (postgres, haproxy, settings, cluster) = (
        file("config/cluster/postgresql.conf"),
        file("config/cluster/haproxy.cfg"),
        file("config/default.toml"),
        file(CLUSTER),
    );
    // Connections: commits, reads, counts, news, and one that replaces another; three for the administrator, and ten to spare.
    let [writers, readers]: [u32; 2] =
        ["writers", "readers"].map(|key| value(&settings, key).parse().unwrap());
    let connections: u32 = value(&postgres, "max_connections").parse().unwrap();
    assert!(connections >= 3 * (writers + readers + 3) + 3 + 10, "{connections}");
    for on in ["fsync", "full_page_writes", "synchronous_commit"] {
        assert_eq!(value(&postgres, on), "on", "{on}");
    }
    for (setting, slower) in [("request_timeout", 2), ("follow_heartbeat", 2)] {
        let ours = seconds(value(&settings, setting));
        for side in ["client", "server"] {
            let theirs = seconds(value(&haproxy, &format!("timeout {side}")));
            assert!(theirs >= slower * ours, "timeout {side} of {theirs}s, {setting} of {ours}s");
        }
    }
    let stop = seconds(value(&haproxy, "hard-stop-after"));
    let balancer = &blocks(&cluster, "services")["balancer"];
    assert!(seconds(value(balancer, "stop_grace_period")) > stop);
    let log = &blocks(&file(COMPOSE), "services")["aggregator"];
    for process in [node(&cluster), log] {
        assert!(seconds(value(process, "stop_grace_period")) > seconds(value(&settings, "shutdown_timeout")));
    }
}

#[test]
fn no_password_is_given_away() {
    assert!(!file(COMPOSE).contains("PASSWORD"), "the single log runs without one");
    let cluster = file(CLUSTER);
    let used = cluster.split("${SEKALI_DB_PASSWORD").skip(1).map(|rest| &rest[..7]);
    assert_eq!(used.collect::<Vec<_>>(), ["_FILE:?"], "a file, and no default that everybody knows");
    // Without one the database does not start.
    let start = root().join("config/cluster/postgres.sh");
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("password");
    for (written, words) in [(None, "cannot be read"), (Some("\n"), "into .env"), (Some("it's\n"), "letters")]
    {
        if let Some(text) = written {
            fs::write(&file, text).unwrap();
        }
        let refused = Command::new("sh").arg(&start).env("SEKALI_DB_PASSWORD_FILE", &file).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && said.contains(words), "{written:?}: {said}");
    }
    let none = ["SEKALI_DB_PASSWORD_FILE", "SEKALI_DB_PASSWORD"];
    let mut without = Command::new("sh");
    for name in none {
        without.env_remove(name);
    }
    assert_eq!(without.arg(&start).output().unwrap().status.code(), Some(1));
}

#[test]
fn every_container_is_confined_and_has_bounds() {
    for compose in [COMPOSE, CLUSTER].map(file) {
        let confined = compose.split("x-confined: &confined\n").nth(1).unwrap().split("\n\n").next().unwrap();
        for line in [
            "read_only: true",
            "cap_drop: [ALL]",
            "security_opt: [\"no-new-privileges:true\"]",
            "driver: json-file",
            "max-size: 10m",
            "max-file: \"3\"",
        ] {
            assert!(confined.lines().any(|found| found.trim() == line), "{line} in {confined}");
        }
        for (name, block) in blocks(&compose, "services") {
            let block = if block.trim() == "*node" { node(&compose).to_owned() } else { block };
            assert!(block.contains("<<: *confined\n"), "{name}: {block}");
            let whole = block + confined;
            for bound in ["mem_limit", "pids_limit"] {
                assert!(!value(&whole, bound).is_empty(), "{name}: {bound}");
            }
        }
    }
}

/// What Compose makes of files, without Docker: its exit code, and both outputs. `None` where it is
/// not installed. `password` is the file of one.
fn composed(program: &[&str], files: &[&str], password: Option<&str>) -> Option<(bool, String)> {
    let (name, plugin) = program.split_first().unwrap();
    let is_there =
        Command::new(name).args(plugin).arg("version").output().is_ok_and(|of| of.status.success());
    if !is_there {
        return None;
    }
    // A developer's own .env must not answer for it.
    let empty = tempfile::NamedTempFile::new().unwrap();
    let mut compose = Command::new(name);
    compose.args(plugin).arg("--env-file").arg(empty.path()).current_dir(root());
    let variable = "SEKALI_DB_PASSWORD_FILE";
    compose.env_remove(variable).envs(password.map(|file| (variable, file)));
    let ended = compose.args(files.iter().flat_map(|file| ["-f", file])).arg("config").output().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    Some((ended.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn compose_takes_its_files_and_asks_for_a_password_only_where_one_is_needed() {
    let mut tried = 0;
    for program in [&["docker-compose"][..], &["docker", "compose"]] {
        let Some((done, single)) = composed(program, &[COMPOSE], None) else { continue };
        assert!(done && !single.contains("COMPAT"), "{single}");
        let (done, compat) = composed(program, &[COMPOSE, COMPAT], None).unwrap();
        assert!(
            done && compat.contains("SEKALI_COMPAT_FIRST_VERSION: 'true'")
                | compat.contains("SEKALI_COMPAT_FIRST_VERSION: \"true\""),
            "{compat}"
        );
        assert!(compat.contains("SEKALI_ALLOWED_HOSTS: aggregator"), "{compat}");
        for missing in [None, Some("")] {
            let (done, refused) = composed(program, &[CLUSTER], missing).unwrap();
            assert!(
                !done && refused.contains("SEKALI_DB_PASSWORD_FILE is not set. Make a file"),
                "{refused}"
            );
        }
        let (done, cluster) = composed(program, &[CLUSTER], Some("./secrets/db-password")).unwrap();
        assert!(done && cluster.matches("postgres://sekali@postgres").count() >= 3, "{cluster}");
        assert!(
            cluster.contains("secrets/db-password") && cluster.contains("/run/secrets/db-password"),
            "{cluster}"
        );
        for (services, all) in [(2, &single), (5, &cluster)] {
            for confined in
                ["read_only: true", "no-new-privileges:true", "- ALL", "mem_limit: ", "pids_limit: "]
            {
                assert!(all.matches(confined).count() >= services, "{confined} in {all}");
            }
        }
        tried += 1;
    }
    if tried == 0 {
        skipped("no docker-compose and no docker compose");
    }
}

#[test]
fn compose_turns_on_what_the_page_about_the_first_version_says() {
    let services = blocks(&file(COMPAT), "services");
    let names: Vec<_> = services.keys().collect();
    assert_eq!(names, ["aggregator"], "the service that clients of the first version call");
    assert_eq!(value(&services["aggregator"], "SEKALI_COMPAT_FIRST_VERSION"), "true");
    let page = file("docs/FIRST_VERSION.md");
    assert!(page.contains(&format!("docker compose -f {COMPOSE} -f {COMPAT} up")), "{page}");
}

#[test]
fn documents_name_the_file_of_the_cluster() {
    for document in ["README.md", "docs/OPERATIONS.md"] {
        let text = file(document);
        assert!(text.contains(&format!("docker compose -f {CLUSTER} up --build")), "{document}");
        assert!(
            text.contains("docker-compose` 1.29") || text.contains("docker-compose` from 1.29"),
            "{document}"
        );
        assert!(!text.contains("--profile"), "{document}");
        for command in text.split("docker compose ").skip(1).filter(|command| command.contains("node-")) {
            let line = command.lines().next().unwrap();
            assert!(!line.contains("node-") || line.starts_with(&format!("-f {CLUSTER} ")), "{line}");
        }
    }
}

#[test]
fn haproxy_takes_its_configuration() {
    let Some(mut haproxy) = haproxy() else { return };
    for number in 1..=3 {
        haproxy.env(format!("SEKALI_NODE_{number}"), format!("127.0.0.1:{number}"));
    }
    let checked = haproxy.args(["-c", "-dW"]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success(), "{said}");
}

#[test]
fn the_database_starts_again_after_a_kill_and_has_what_was_committed() {
    let mut container = match Container::new() {
        Ok(container) => container,
        Err(why) => return skipped(&format!("no container without root and Debian's PostgreSQL: {why}")),
    };
    container.start("before");
    container.run("CREATE TABLE kept AS SELECT 'committed' AS what");
    container.kill();
    // Of a server that is gone, and of the process that starts the next one.
    assert_eq!(container.owner(), "1");
    container.start("after");
    assert_eq!(container.run("SELECT what FROM kept"), "committed");
}

#[test]
fn no_web_page_reaches_a_container_by_a_name_of_its_own() {
    // They listen on all addresses, so that only a list tells foreign names.
    let log = &blocks(&file(COMPOSE), "services")["aggregator"];
    assert_eq!(value(log, "SEKALI_ALLOWED_HOSTS"), "aggregator");
    let compose = file(CLUSTER);
    let nodes = blocks(&compose, "services").into_keys().filter(|name| name.starts_with("node-"));
    let names: Vec<_> = ["balancer".to_owned()].into_iter().chain(nodes).collect();
    let listed = format!(":-{}}}", names.join(","));
    assert!(value(node(&compose), "SEKALI_ALLOWED_HOSTS").ends_with(&listed), "{listed}");
}
