//! What a browser brings for pages that are not the log's: refused, whatever such a page tries. The attack itself, in a real
//! browser, is in tests/e2e/foreign.test.mjs.

use actix_web::http::Method;
use sekali::api::Code;

use crate::support::{Answer, Log, Raw, event};

/// Sends a request with these headers.
async fn with(log: &Log, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = log.request(method.clone(), path);
    for header in headers {
        request = request.insert_header(*header);
    }
    let body = if method == Method::POST { event("csrf", "1") } else { String::new() };
    log.send(request, body).await
}

#[actix_web::test]
async fn a_page_of_another_origin_stores_nothing() {
    let log = Log::start();
    let here = format!("http://{}", log.address());
    for path in ["/publish", "/publish?invalid=skip", "/events/lookup"] {
        for headers in [
            [("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")],
            // Another port of this machine.
            [("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:18090")],
            [("sec-fetch-site", "cross-site"), ("origin", &here)],
            // A browser that says nothing of the site: it does so to addresses of other machines without TLS.
            [("user-agent", "a browser"), ("origin", "http://evil.example")],
            [("user-agent", "a browser"), ("origin", "null")],
        ] {
            with(&log, Method::POST, path, &headers).await.problem(Code::CrossOrigin);
        }
    }
    assert_eq!(log.read("/stats").await["topics_total"], 0);
}

#[actix_web::test]
async fn pages_of_the_log_and_programs_publish_as_ever() {
    let log = Log::configured("[server]\nallowed_hosts = [\"log.example\"]");
    let here = format!("http://{}", log.address());
    let mut accepted = 0;
    for headers in [
        &[][..],
        &[("sec-fetch-site", "same-origin"), ("origin", &*here)],
        &[("origin", &*here)],
        // What a user's own doing is called.
        &[("sec-fetch-site", "none")],
        // A proxy on TLS that gives the log another Host, and one that passes its own name on.
        &[("sec-fetch-site", "same-origin"), ("origin", "https://log.example"), ("host", "10.0.0.1")],
        &[("origin", "https://log.example"), ("host", "log.example")],
    ] {
        let answer = with(&log, Method::POST, "/publish", headers).await;
        accepted += answer.counts()[1];
    }
    assert_eq!(accepted, 1, "the same event each time");
    assert_eq!(log.read("/stats").await["runtime"]["total_events_received"], 6);
}

#[actix_web::test]
async fn a_refusal_leaves_a_connection_that_can_be_used() {
    let log = Log::start();
    let body = event("t", "1");
    let length = format!("Content-Length: {}\r\n", body.len());
    let mut raw = Raw::open(log.address());
    let request =
        |more: &str| format!("POST /publish HTTP/1.1\r\nHost: localhost\r\n{more}{length}\r\n{body}");
    raw.send(request("Sec-Fetch-Site: cross-site\r\n"));
    assert_eq!(raw.answer().status, 403);
    raw.send(request(""));
    let answer = raw.answer();
    assert!(answer.status == 200 && answer.body.contains("\"accepted\":1"), "{answer:?}");
}

/// Paths that answer with what is stored, or tell how the log is doing.
const DATA: [&str; 10] = [
    "/events?topic=secret",
    "/events/secret/1",
    "/events/secret/none",
    "/event?topic=secret&event_id=1",
    "/topics",
    "/topics/secret",
    "/stats",
    "/metrics",
    "/health",
    "/health/live",
];

#[actix_web::test]
async fn a_page_of_another_origin_reads_nothing_and_learns_nothing() {
    let log = Log::start();
    log.publish(event("secret", "1")).await.ok();
    let mut answers = Vec::new();
    for headers in [
        // `<object>`, `<embed>` and `<iframe>` navigate; `<img>` and `<script>` do not.
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "object")][..],
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
        &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors"), ("origin", "http://evil.example")],
        &[("origin", "null")],
    ] {
        for path in DATA.into_iter().chain(["/openapi.json", "/console/main.mjs", "/docs/index.html", "/no"])
        {
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                let answer = with(&log, method.clone(), path, headers).await;
                assert_eq!(answer.status, 403, "{method} {path}: the same whatever is stored");
                answers.push(answer);
            }
        }
    }
    for answer in answers {
        let allowing = answer.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(allowing, None);
    }
}

#[actix_web::test]
async fn a_link_of_another_page_opens_the_console_and_the_docs_and_no_data() {
    let log = Log::start();
    let link =
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    for path in ["/", "/?topic=t", "/docs/"] {
        with(&log, Method::GET, path, &link).await.ok();
    }
    assert_eq!(with(&log, Method::GET, "/docs", &link).await.status, 307);
    // A frame is no tab of its own.
    let framed = [link[0], link[1], ("sec-fetch-dest", "iframe")];
    for path in ["/", "/docs", "/docs/"] {
        with(&log, Method::GET, path, &framed).await.problem(Code::CrossOrigin);
    }
}

#[actix_web::test]
async fn every_answer_says_to_the_browser_to_keep_it_from_other_pages() {
    let log = Log::start();
    log.publish(event("secret", "1")).await.ok();
    let evil = [("host", "evil.example")];
    let mut answers = vec![
        ("a verdict", log.publish(event("secret", "2")).await.ok()),
        ("a publish that is no JSON", log.publish("{").await),
        ("a look-up", log.send(log.post("/events/lookup"), "[]").await.ok()),
        ("a method", log.send(log.request(Method::DELETE, "/events"), "").await),
        ("a foreign name", with(&log, Method::GET, "/stats", &evil).await),
        ("a redirect", log.get("/docs").await),
        ("no path", log.get("/no").await),
    ];
    for path in DATA.into_iter().chain(["/health/ready", "/openapi.json", "/docs/"]) {
        answers.push((path, log.get(path).await));
    }
    for (what, answer) in &answers {
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    }
    // The console's files hold no data: the browser keeps them, and asks whether they are the same.
    let page = log.get("/").await.ok();
    let tag = page.header("etag").unwrap().to_owned();
    let kept = with(&log, Method::GET, "/", &[("if-none-match", &tag)]).await;
    assert_eq!(kept.status, 304);
    for (what, answer) in [("the page", page), ("the page again", kept)] {
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{what}");
        answers.push((what, answer));
    }
    for (what, answer) in answers {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cross-origin-resource-policy", "same-origin"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{what}: {name}");
        }
    }
}

#[actix_web::test]
async fn a_name_that_was_made_to_lead_here_is_told_nothing() {
    let log = Log::start();
    log.publish(event("secret", "1")).await.ok();
    let port = log.address().port();
    // The port of the log, one that is forwarded to it, none.
    for evil in [format!("evil.example:{port}"), "evil.example:18090".into(), "evil.example".into()] {
        for path in DATA.into_iter().chain(["/", "/docs/", "/no"]) {
            let detail =
                with(&log, Method::GET, path, &[("host", &evil)]).await.problem(Code::HostNotAllowed).detail;
            assert!(detail.contains(&evil) && detail.contains("server.allowed_hosts"), "{detail}");
        }
        // Such a page is of the log's own origin.
        let origin = format!("http://{evil}");
        let own = [("host", &*evil), ("origin", &origin), ("sec-fetch-site", "same-origin")];
        with(&log, Method::POST, "/publish", &own).await.problem(Code::HostNotAllowed);
    }
    assert_eq!(log.read("/stats").await["runtime"]["total_events_received"], 1);
    let names = ["localhost", "sekali.localhost", "127.0.0.1", "[::1]", "10.0.0.1"];
    for name in names {
        for host in [format!("{name}:{port}"), format!("{name}:18090"), name.to_owned()] {
            with(&log, Method::GET, "/stats", &[("host", &host)]).await.ok();
        }
    }
    // HTTP/1.0 needs no name.
    let mut raw = Raw::open(log.address());
    raw.send("GET /stats HTTP/1.0\r\n\r\n");
    assert_eq!(raw.answer().status, 200);
    let mut raw = Raw::open(log.address());
    raw.send("GET http://evil.example/stats HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(raw.answer().status, 421, "the host of the target takes precedence");
}

#[actix_web::test]
async fn names_that_are_listed_are_the_only_ones() {
    let log = Log::configured("[server]\nallowed_hosts = [\"log.example\", \"Log.Internal\"]");
    let port = log.address().port();
    for host in ["log.example", "log.example:8443", "log.internal", "localhost", "127.0.0.1"] {
        with(&log, Method::GET, "/stats", &[("host", host)]).await.ok();
    }
    let straight = format!("log.example:{port}");
    with(&log, Method::GET, "/stats", &[("host", &straight)]).await.ok();
    for host in ["evil.example", "evil.example:8443", "sub.log.example"] {
        let detail =
            with(&log, Method::GET, "/stats", &[("host", host)]).await.problem(Code::HostNotAllowed).detail;
        assert!(detail.contains(host) && detail.contains("server.allowed_hosts"), "{detail}");
    }
}

#[actix_web::test]
async fn the_page_about_the_contract_is_as_guarded_as_the_console() {
    let log = Log::start();
    for path in ["/docs/", "/docs/index.html", "/docs/swagger-ui-bundle.js", "/docs/swagger-initializer.js"] {
        let answer = log.get(path).await.ok();
        let policy = answer.header("content-security-policy").unwrap();
        let rules: Vec<_> = policy.split(';').map(str::trim).collect();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(rules.contains(&rule), "{path}: {rule} in {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        for (name, value) in [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")] {
            assert_eq!(answer.header(name), Some(value), "{path}: {name}");
        }
    }
}
