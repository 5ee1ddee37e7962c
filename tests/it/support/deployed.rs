//! What is deployed: the files of Compose, read as text and as Compose reads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The single log.
pub(crate) const COMPOSE: &str = "docker-compose.yml";

/// What lets clients of the first version run with it.
pub(crate) const COMPAT: &str = "compose.compat.yml";

/// Three nodes on one database.
pub(crate) const CLUSTER: &str = "compose.cluster.yml";

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
pub(crate) fn file(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The blocks below a key of the first level, by name: what is indented by two spaces, and all
/// below it.
pub(crate) fn blocks(text: &str, key: &str) -> BTreeMap<String, String> {
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
pub(crate) fn node(compose: &str) -> &str {
    compose.split("x-node: &node\n").nth(1).unwrap().split("\n\n").next().unwrap()
}

/// What stands behind a key, wherever it is first.
pub(crate) fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let found = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix([':', '=', ' ']));
    let found =
        found.or_else(|| text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(' ')));
    found.unwrap_or_else(|| panic!("no {key}")).trim().trim_matches('"')
}

/// What Compose makes of files, without Docker: its exit code, and both outputs. `None` where it is
/// not installed. `password` is the file of one.
pub(crate) fn composed(program: &[&str], files: &[&str], password: Option<&str>) -> Option<(bool, String)> {
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
