//! Style that no compiler checks: layers, a head on every file, bounded sizes, documents that name only what
//! exists. What is allowed stands in docs/ARCHITECTURE.md.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the sources has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A layer and the layers that it may import, besides itself. The same table as in docs/ARCHITECTURE.md.
const LAYERS: [(&str, &[&str]); 15] = [
    ("domain", &[]),
    ("config", &["domain"]),
    ("metrics", &["domain"]),
    ("api", &["domain"]),
    ("throttle", &[]),
    ("turns", &[]),
    ("telemetry", &["config", "throttle"]),
    ("store", &["domain", "config", "metrics"]),
    ("pipeline", &["domain", "config", "metrics", "store", "throttle", "turns"]),
    ("intake", &["domain", "api"]),
    ("http", &["domain", "config", "metrics", "api", "intake", "store", "pipeline", "throttle", "turns"]),
    ("client", &["api"]),
    ("app", &["domain", "config", "metrics", "store", "pipeline", "http", "telemetry"]),
    ("cli", &["api", "app", "client", "config", "domain", "telemetry"]),
    ("main", &["cli"]),
];

/// Lines of a source file, tests included. See docs/ARCHITECTURE.md.
const MAX_LINES: usize = 450;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder with one of these endings, by its path from the root.
fn files(folder: &str, endings: &[&str]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().join(folder)];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| path.extension().is_some_and(|ends| ends == *ending)) {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn layer_of(file: &str) -> &str {
    let inside = file.strip_prefix("src/").unwrap();
    inside.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The source files of the program, without what only its tests compile.
fn program() -> BTreeMap<String, String> {
    code_of("src")
}

/// The source files below a folder, without what only tests compile.
fn code_of(folder: &str) -> BTreeMap<String, String> {
    let of_tests = ["/tests/", "/tests.rs", "/testing.rs", "/contract.rs", "/contract/"];
    let mut sources = files(folder, &["rs"]);
    sources.retain(|file, _| !of_tests.iter().any(|part| file.contains(part)));
    for source in sources.values_mut() {
        let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
        *source = code;
    }
    sources
}

/// The layers that a source text names as `crate::LAYER`.
fn imports(code: &str) -> Vec<&str> {
    let code_lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let parts = code_lines.flat_map(|line| line.split("crate::").skip(1));
    let names = parts.map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap());
    names.filter(|name| LAYERS.iter().any(|(layer, _)| layer == name)).collect()
}

#[test]
fn a_file_imports_only_from_its_own_layer_and_those_below() {
    let allowed: BTreeMap<_, _> = LAYERS.into_iter().collect();
    let mut wrong = Vec::new();
    for (file, source) in program() {
        let layer = layer_of(&file);
        if layer == "lib" {
            continue;
        }
        let may = allowed.get(layer).unwrap_or_else(|| panic!("{file}: layer {layer} is not in the table"));
        for import in imports(&source) {
            if import != layer && !may.contains(&import) {
                wrong.push(format!("{file} imports {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn handlers_reach_the_store_only_to_read() {
    for (file, code) in program().into_iter().filter(|(file, _)| file.starts_with("src/http/")) {
        for forbidden in ["Engine", "Writer", "SqliteStore", "rusqlite"] {
            assert!(
                !code.contains(forbidden),
                "{file} names {forbidden}: handlers hold a Reader and the Pipeline"
            );
        }
    }
}

#[test]
fn the_architecture_document_has_the_same_layers() {
    let document = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    for (layer, may) in LAYERS {
        let imports = if may.is_empty() { "nothing".to_owned() } else { may.join(" ") };
        let row = format!("| `{layer}` | {imports} |");
        assert!(document.contains(&row), "docs/ARCHITECTURE.md lacks the row {row}");
    }
}

#[test]
fn every_source_file_begins_with_what_it_is_and_stays_small() {
    for folder in ["src", "tests", "bench"] {
        for (file, source) in files(folder, &["rs"]) {
            assert!(source.starts_with("//!"), "{file} does not begin with //!");
            let lines = source.lines().count();
            assert!(lines <= MAX_LINES, "{file} has {lines} lines, more than {MAX_LINES}");
        }
    }
}

/// A clock that jumps changes the times shown and nothing else: the day is asked for where a commit gets its time, and where
/// a hot cache answers a repeat, of which is shown when it came and how late. Durations that decide anything are those of
/// a clock that only goes forward; only `Retry-After` may be a date, whose wait is bounded.
#[test]
fn only_a_commit_and_a_cached_repeat_ask_what_day_it_is() {
    let may_ask = ["src/pipeline/commit.rs", "src/pipeline/lane.rs", "src/client/retry_after.rs"];
    for (file, code) in program() {
        for clock in ["Timestamp::now", "SystemTime", "Zoned::now"] {
            assert!(may_ask.contains(&&*file) || !code.contains(clock), "{file} asks {clock}");
        }
    }
}

#[test]
fn no_unwrap_no_allow_no_leftovers_in_the_programs() {
    for (file, code) in program().into_iter().chain(code_of("bench/src")) {
        for forbidden in [".unwrap()", "#[allow", "todo!", "unimplemented!", "FIXME", "super::super"] {
            assert!(!code.contains(forbidden), "{file} contains {forbidden}");
        }
    }
}

#[test]
fn documents_name_only_files_that_exist() {
    let mut documents = files("docs", &["md"]);
    for name in ["README.md", "CHANGELOG.md"] {
        documents.insert(name.to_owned(), fs::read_to_string(root().join(name)).unwrap());
    }
    for (document, text) in documents {
        for word in text.split(|c: char| c.is_whitespace() || "()`,;\"'|".contains(c)) {
            let path = word.trim_end_matches(['.', ':']);
            let ours = ["src/", "tests/", "docs/", "config/", ".ci/", "bench/"]
                .iter()
                .any(|at| path.starts_with(at));
            if ours && !path.contains(['*', '<', '{', '#']) {
                assert!(exists(Path::new(path)), "{document} names {path}, which does not exist");
            }
        }
    }
}

/// Links of a document are relative to its folder, and code is named as within `src`.
fn exists(path: &Path) -> bool {
    ["", "src", "docs"].iter().any(|folder| root().join(folder).join(path).exists())
}

/// CI runs the tests in a script that fails also where they pass and print what only a failure
/// should.
#[test]
fn a_run_that_passes_must_not_print_a_failure() {
    let ends = |script: &str| {
        let quiet = Command::new(root().join(".ci/quiet")).args(["sh", "-c", script]).output().unwrap();
        (quiet.status.code(), String::from_utf8(quiet.stdout).unwrap())
    };
    assert_eq!(
        ends("echo test it_panicked_at ... ok; exit 7"),
        (Some(7), "test it_panicked_at ... ok\n".into())
    );
    assert_eq!(ends("echo test it_panicked_at ... ok").0, Some(0));
    for printed in
        ["FAILED: 1 fault", "thread 'main' (7) panicked at src/x.rs:1:1:", "Task failed, serializing"]
    {
        let (code, said) = ends(&format!("echo \"{printed}\" >&2"));
        assert!(code == Some(1) && said.contains(printed), "{printed}: {said}");
    }
}

/// Whether a source text names an invariant: `invariant 3:`, or within `invariants 1, 3 and 5 to 7:`.
fn names_invariant(source: &str, number: u8) -> bool {
    let heads = source.split("invariant").skip(1).filter_map(|rest| Some(rest.split_once(':')?.0));
    heads.into_iter().any(|head| {
        let mut words = head.split([' ', ',']).filter(|word| !["", "s", "and"].contains(word));
        let mut last = None;
        while let Some(word) = words.next() {
            let to = if word == "to" { words.next() } else { Some(word) };
            let Some(to) = to.and_then(|to| to.parse::<u8>().ok()) else { return false };
            if number == to || (word == "to" && last.is_some_and(|from| (from..to).contains(&number))) {
                return true;
            }
            last = Some(to);
        }
        false
    })
}

#[test]
fn invariants_have_numbers_that_code_and_tests_name() {
    let document = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let (code, mut sources) = (program(), files("src", &["rs"]));
    sources.append(&mut files("tests", &["rs"]));
    for number in 1..=10 {
        let found =
            document.split_once(&format!("**{number}.**")).and_then(|(_, rest)| rest.split_once("Kept by "));
        let line = found.and_then(|(_, rest)| rest.split_once(".\n")).unwrap_or_else(|| {
            panic!("docs/ARCHITECTURE.md does not say by what invariant {number} is kept")
        });
        let (kept, shown) = line.0.split_once("; shown by ").unwrap();
        for (named, is_code) in [(kept, true), (shown, false)] {
            let paths: Vec<_> = named.split('`').skip(1).step_by(2).collect();
            assert!(!paths.is_empty(), "invariant {number}: no file after {named:?}");
            for path in paths {
                let source = if is_code { code.get(path) } else { sources.get(path) };
                assert!(
                    source.is_some_and(|source| names_invariant(source, number)),
                    "{path} does not name invariant {number}"
                );
                assert!(is_code || !code.contains_key(path), "{path} shows nothing: it is no test");
            }
        }
    }
}

#[test]
fn an_invariant_is_named_alone_or_in_a_row() {
    let source = "// invariants 1 to 3 and 6: so.\n// invariant 9: more. An invariant to keep: 8.";
    let named: Vec<_> = (1..=10).filter(|number| names_invariant(source, *number)).collect();
    assert_eq!(named, [1, 2, 3, 6, 9]);
}
