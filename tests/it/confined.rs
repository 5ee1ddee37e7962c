//! What containers may do, and by which port their health is asked for: read from the files of
//! Compose and the Dockerfiles, and from what Compose makes of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::support::deployed::{CLUSTER, COMPAT, COMPOSE, blocks, composed, file, node, root, value};
use crate::support::skipped;

/// The services of a file of Compose by name: each with what it takes over from `x-node` and
/// `x-confined`, behind its own keys.
fn services(compose: &str) -> BTreeMap<String, String> {
    let anchored = compose.split("x-confined: &confined\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let whole = |(name, block): (String, String)| {
        let mut block = if block.trim() == "*node" { node(compose).to_owned() } else { block };
        if block.contains("<<: *confined\n") {
            block = format!("{block}\n{}", anchored.unwrap());
        }
        (name, block)
    };
    blocks(compose, "services").into_iter().map(whole).collect()
}

/// Lines without their indentation.
fn has_line(text: &str, wanted: &str) -> bool {
    text.lines().any(|line| line.trim() == wanted)
}

#[test]
fn every_container_is_confined_and_has_bounds() {
    for compose in [COMPOSE, CLUSTER].map(file) {
        for (name, service) in services(&compose) {
            for line in [
                "read_only: true",
                "cap_drop: [ALL]",
                "security_opt: [\"no-new-privileges:true\"]",
                "driver: json-file",
                "max-size: 10m",
                "max-file: \"3\"",
            ] {
                assert!(has_line(&service, line), "{name}: {line} in {service}");
            }
            for bound in ["mem_limit", "pids_limit"] {
                assert!(!value(&service, bound).is_empty(), "{name}: {bound}");
            }
        }
    }
    let single = blocks(&file(COMPOSE), "services");
    for name in blocks(&file(COMPAT), "services").keys() {
        assert!(single.contains_key(name), "{name} has no bounds: it is in {COMPAT} alone");
    }
}

#[test]
fn no_file_of_compose_gives_a_container_more_rights() {
    let paths = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let is_yaml = |path: &PathBuf| path.extension().is_some_and(|end| end == "yml" || end == "yaml");
    let mut of_compose: Vec<_> = paths
        .filter(is_yaml)
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .filter(|name| file(name).lines().any(|line| line == "services:"))
        .collect();
    of_compose.sort_unstable();
    assert_eq!(of_compose, [CLUSTER, COMPAT, COMPOSE], "these tests know all of them");
    for name in of_compose {
        let text = file(&name);
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            for right in
                ["privileged", "cap_add", "network_mode", "pid:", "ipc:", "devices", "user:", "userns"]
            {
                assert!(!line.starts_with(right), "{name}: {line}");
            }
            assert!(!line.contains("docker.sock") && !line.contains("seccomp"), "{name}: {line}");
            assert!(!line.starts_with("read_only: false"), "{name}: {line}");
        }
    }
    for dockerfile in
        ["Dockerfile", "config/cluster/haproxy.Dockerfile", "config/cluster/postgres.Dockerfile"].map(file)
    {
        let user = instructions(&dockerfile, "USER").pop();
        assert!(user.is_some_and(|user| user != "root" && user != "0"), "{dockerfile}");
    }
}

#[test]
fn compose_itself_sees_the_bounds_of_every_container() {
    let mut tried = 0;
    for program in [&["docker-compose"][..], &["docker", "compose"]] {
        let all = [
            (2, &[COMPOSE][..], None),
            (2, &[COMPOSE, COMPAT], None),
            (5, &[CLUSTER], Some("./secrets/db-password")),
        ];
        for (count, files, password) in all {
            let Some((done, text)) = composed(program, files, password) else { continue };
            assert!(done, "{text}");
            let services = blocks(&text, "services");
            assert_eq!(services.len(), count, "{text}");
            for (name, service) in services {
                for line in ["read_only: true", "- no-new-privileges:true", "- ALL"] {
                    assert!(has_line(&service, line), "{files:?}: {name}: {line} in {service}");
                }
                for key in ["mem_limit", "pids_limit", "max-size", "max-file"] {
                    assert!(!value(&service, key).is_empty(), "{files:?}: {name}: {key}");
                }
            }
            tried += 1;
        }
    }
    if tried == 0 {
        skipped("no docker-compose and no docker compose");
    }
}

/// What stands behind an instruction of a Dockerfile, each time, with its further lines.
fn instructions(dockerfile: &str, name: &str) -> Vec<String> {
    let joined = dockerfile.replace("\\\n", " ");
    let lines = joined.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// The port at the end of `HOST:PORT`, or of a URL without a path.
fn port(text: &str) -> u16 {
    let (_, port) = text.rsplit_once(':').unwrap_or_else(|| panic!("no port in {text}"));
    port.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or_else(|_| panic!("no port in {text}"))
}

/// The port that a health check asks; `None` where it is switched off.
fn asked(check: &str) -> Option<u16> {
    let (_, url) = check.split_once("http://")?;
    let end = url.find(|c: char| c == '"' || c == '\'' || c.is_whitespace()).unwrap_or(url.len());
    Some(port(url[..end].split('/').next().unwrap()))
}

/// What a service sets a variable to.
fn variable<'a>(service: &'a str, name: &str) -> Option<&'a str> {
    service.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix([':', '='])).map(str::trim)
}

#[test]
fn health_is_asked_for_where_the_image_listens_for_it() {
    let dockerfile = file("Dockerfile");
    let environment = instructions(&dockerfile, "ENV").join(" ");
    let of_image = |name: &str| {
        let words = environment.split_whitespace();
        let found = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).next_back();
        port(found.unwrap_or_else(|| panic!("no {name} in {environment}")))
    };
    let (bind, ops) = (of_image("SEKALI_BIND"), of_image("SEKALI_OPS_BIND"));
    assert_ne!(bind, ops);
    let checks = instructions(&dockerfile, "HEALTHCHECK");
    assert_eq!(checks.len(), 1, "{checks:?}");
    assert_eq!(asked(&checks[0]), Some(ops), "{checks:?}");
    let exposed: Vec<u16> = instructions(&dockerfile, "EXPOSE")
        .iter()
        .flat_map(|ports| ports.split_whitespace().map(|port| port.parse().unwrap()))
        .collect();
    assert_eq!(exposed, [bind, ops]);
    let mut seen = 0;
    for compose in [COMPOSE, COMPAT, CLUSTER].map(file) {
        for (name, service) in services(&compose) {
            let is_ours = has_line(&service, "image: sekali") || name == "aggregator";
            if !is_ours {
                continue;
            }
            let own = |variable_name, image| variable(&service, variable_name).map_or(image, port);
            let (bind, ops) = (own("SEKALI_BIND", bind), own("SEKALI_OPS_BIND", ops));
            assert_ne!(bind, ops, "{name}");
            // A health check of its own, or that of the image.
            let check = service.split_once("healthcheck:").map_or(&*checks[0], |(_, check)| check);
            if let Some(asked) = asked(check) {
                assert_eq!(asked, ops, "{name}: {check}");
                seen += 1;
            }
            let published =
                service.lines().map(str::trim).filter_map(|line| line.strip_prefix("- \"127.0.0.1:"));
            for mapping in published {
                assert_eq!(port(mapping), bind, "{name}: only the first listener is for clients");
            }
        }
    }
    assert_eq!(seen, 1 + 1 + 3, "the log, with and without older clients, and three nodes");
    let haproxy = file("config/cluster/haproxy.cfg");
    for line in haproxy.lines().map(str::trim).filter(|line| line.starts_with("server node-")) {
        assert_eq!(port(line.trim_end_matches(['}', '"'])), bind, "{line}");
    }
    let operations = file("docs/OPERATIONS.md");
    let target = operations.lines().find(|line| line.trim().starts_with("- targets: [")).unwrap();
    assert_eq!(port(target.split(']').next().unwrap()), ops, "{target}");
}
