//! The console: what its page and files say about themselves, and that they need nobody else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use actix_web::http::Method;
use sekali::api::Code;

use crate::support::{Answer, Log};

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/console")
}

/// The names of the console's files, below its folder.
fn files() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![home()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending != "rs" && ending != "md") {
                found.insert(path.strip_prefix(home()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// Where a file of the console is served.
fn address(file: &str) -> String {
    if file == "index.html" { "/".to_owned() } else { format!("/console/{file}") }
}

#[actix_web::test]
async fn every_file_is_served_as_what_it_is() {
    let log = Log::start();
    let files = files();
    assert!(files.len() > 15, "{files:?}");
    for file in files {
        let answer = log.get(&address(&file)).await.ok();
        assert!(answer.body == fs::read(home().join(&file)).unwrap(), "{file}");
        let expected = match file.rsplit('.').next().unwrap() {
            "html" => "text/html; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "js" | "mjs" => "text/javascript; charset=utf-8",
            "svg" => "image/svg+xml",
            other => panic!("{file}: what is {other}?"),
        };
        assert_eq!(answer.header("content-type"), Some(expected), "{file}");
    }
    log.get("/console/nothing.js").await.problem(Code::NotFound);
    log.get("/console/../http/mod.rs").await.problem(Code::NotFound);
    log.get("/console/vendor/README.md").await.problem(Code::NotFound);
}

#[actix_web::test]
async fn every_answer_carries_the_policy() {
    let log = Log::start();
    for file in files() {
        let answer = log.get(&address(&file)).await.ok();
        let policy = answer.header("content-security-policy").unwrap();
        let rules: BTreeSet<_> = policy.split(';').map(str::trim).collect();
        let expected = [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ];
        assert_eq!(rules, BTreeSet::from(expected), "{file}");
        for (name, value) in [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")] {
            assert_eq!(answer.header(name), Some(value), "{file}: {name}");
        }
    }
}

#[actix_web::test]
async fn what_a_browser_has_is_not_sent_again() {
    let log = Log::start();
    let mut tags = BTreeSet::new();
    for file in files() {
        let path = address(&file);
        let first = log.get(&path).await.ok();
        assert_eq!(first.header("cache-control"), Some("no-cache"), "{file}: it asks each time");
        let tag = first.header("etag").unwrap().to_owned();
        let again = async |tags: &str| -> Answer {
            let request = log.request(Method::GET, &path).insert_header(("if-none-match", tags));
            log.send(request, "").await
        };
        for had in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
            let answer = again(&had).await;
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{file}: {had}");
            assert_eq!(answer.header("etag"), Some(&*tag), "{file}");
        }
        for lacked in ["\"other\"", "nonsense"] {
            again(lacked).await.ok();
        }
        assert!(tags.insert(tag), "{file}: another file has this tag");
    }
}

#[actix_web::test]
async fn head_answers_as_get() {
    let log = Log::start();
    for file in files() {
        let path = address(&file);
        let get = log.get(&path).await.ok();
        let head = log.send(log.request(Method::HEAD, &path), "").await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{file}");
        for name in ["content-type", "content-length", "etag", "content-security-policy"] {
            assert_eq!(head.header(name), get.header(name), "{file}: {name}");
        }
    }
}

#[actix_web::test]
async fn whatever_the_page_and_its_scripts_name_is_served_here() {
    let log = Log::start();
    let page = log.get("/").await.ok().text().to_owned();
    let parts = ["src=\"", "href=\""].map(|name| values(&page, name)).concat();
    assert!(parts.len() > 5, "{parts:?}");
    for part in parts.iter().filter(|part| !part.starts_with('#')) {
        log.get(&format!("/{part}")).await.ok();
    }
    let served = files();
    for file in served.iter().filter(|file| file.rsplit('.').next() == Some("mjs")) {
        let script = fs::read_to_string(home().join(file)).unwrap();
        for import in values(&script, "from \"") {
            assert!(served.contains(import.trim_start_matches("./")), "{file} imports {import}");
        }
    }
}

#[test]
fn nothing_leads_away_and_nothing_is_made_of_text() {
    for file in files() {
        let text = fs::read_to_string(home().join(&file)).unwrap();
        let licence = "/*! https://github.com/leeoniya/uPlot";
        let text = text.trim_start_matches(licence).replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for address in ["http://", "https://", "\"//", "@import", "url("] {
            assert!(!text.contains(address), "{file} names {address}");
        }
        let makers =
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"];
        for maker in makers {
            assert!(!text.contains(maker), "{file} uses {maker}");
        }
    }
    let page = fs::read_to_string(home().join("index.html")).unwrap();
    for inline in ["<style", " style=", " onclick=", " onload=", "javascript:"] {
        assert!(!page.contains(inline), "the policy forbids {inline}");
    }
}

/// What stands between such a beginning and the next quotation mark.
fn values(text: &str, beginning: &str) -> Vec<String> {
    text.split(beginning).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[actix_web::test]
async fn the_console_has_a_route_of_its_own_in_the_metrics() {
    let log = Log::start();
    log.get("/").await.ok();
    log.get("/console/base.css").await.ok();
    for route in ["/", "/console/{file:.*}"] {
        let sample = format!("sekali_http_requests_total{{method=\"GET\",route=\"{route}\",status=\"200\"}}");
        let found = log.metric(&sample).await;
        assert!((found - 1.0).abs() < 0.5, "{route}: {found}");
    }
}
