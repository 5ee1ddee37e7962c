//! What `docker compose` runs, as far as it can be checked without Docker: files that exist, three nodes, limits that fit.

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use ipnet::IpNet;

use crate::support::deployed::{CLUSTER, COMPAT, COMPOSE, blocks, composed, file, node, root, value};
use crate::support::{Container, haproxy, skipped};

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
    // One address leaves most of the connections to the others.
    let most: u32 = value(&haproxy, "maxconn").parse().unwrap();
    let (_, bound) = haproxy.split_once("${SEKALI_PER_ADDRESS-").unwrap();
    let of_address: u32 = bound.split('}').next().unwrap().parse().unwrap();
    assert!(of_address > 0 && of_address <= most / 4, "{of_address} of {most}");
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

#[test]
fn the_nodes_of_the_cluster_trust_the_balancer_and_nobody_else() {
    // The value of a variable that .env does not set.
    let default = |text: &str| {
        let (_, rest) = text.split_once(":-").unwrap_or_else(|| panic!("no default in {text}"));
        rest.trim_end_matches('}').to_owned()
    };
    let compose = file(CLUSTER);
    let balancer = &blocks(&compose, "services")["balancer"];
    let written = value(balancer, "ipv4_address");
    assert_eq!(value(node(&compose), "SEKALI_TRUSTED_PROXIES"), written, "one address, also from .env");
    let address: IpAddr = default(written).parse().unwrap();
    let network = |key: &str| -> IpNet { default(value(&compose, key)).parse().unwrap() };
    assert!(network("- subnet").contains(&address), "Docker gives no other address to the balancer");
    let range = network("ip_range");
    assert!(network("- subnet").contains(&range));
    assert!(!range.contains(&address), "Docker would give the balancer's address to a node");
    // Whatever a client sends, the balancer alone writes the headers that the nodes believe.
    let haproxy = file("config/cluster/haproxy.cfg");
    for line in ["http-request set-header X-Forwarded-For %[src]", "http-request del-header Forwarded"] {
        assert!(haproxy.lines().any(|found| found.trim() == line), "{line}");
    }
    let operations = file("docs/OPERATIONS.md");
    for variable in ["SEKALI_CLUSTER_SUBNET", "SEKALI_CLUSTER_RANGE", "SEKALI_BALANCER_ADDRESS"] {
        assert!(compose.contains(&format!("${{{variable}:-")) && operations.contains(variable), "{variable}");
    }
}
