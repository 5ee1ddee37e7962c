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
    let log = Log::start();
    let here = format!("http://{}", log.address());
    let mut accepted = 0;
    for headers in [
        &[][..],
        &[("sec-fetch-site", "same-origin"), ("origin", &*here)],
        &[("origin", &*here)],
        // What a user's own doing is called.
        &[("sec-fetch-site", "none")],
        // A proxy on TLS that gives the log another Host, and one that passes its own name on.
        &[("sec-fetch-site", "same-origin"), ("origin", "https://log.example"), ("host", "upstream")],
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
    let request = |more: &str| format!("POST /publish HTTP/1.1\r\nHost: test\r\n{more}{length}\r\n{body}");
    raw.send(request("Sec-Fetch-Site: cross-site\r\n"));
    assert_eq!(raw.answer().status, 403);
    raw.send(request(""));
    let answer = raw.answer();
    assert!(answer.status == 200 && answer.body.contains("\"accepted\":1"), "{answer:?}");
}

#[actix_web::test]
async fn a_preflight_is_refused_and_no_answer_lets_another_origin_read() {
    let log = Log::start();
    let foreign = [
        ("origin", "http://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let mut answers = Vec::new();
    for path in ["/publish", "/events/lookup", "/events", "/stats"] {
        let answer = with(&log, Method::OPTIONS, path, &foreign).await;
        answer.problem(Code::MethodNotAllowed);
        answers.push(answer);
    }
    for path in ["/events?topic=t", "/topics", "/stats", "/metrics", "/", "/docs/"] {
        answers.push(with(&log, Method::GET, path, &foreign).await.ok());
    }
    for answer in answers {
        let allowing = answer.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(allowing, None);
    }
}

#[actix_web::test]
async fn a_name_that_was_made_to_lead_here_is_told_nothing() {
    let log = Log::start();
    log.publish(event("secret", "1")).await.ok();
    let port = log.address().port();
    let evil = format!("evil.example:{port}");
    for path in
        ["/events?topic=secret", "/topics", "/stats", "/metrics", "/health/live", "/", "/docs/", "/no"]
    {
        with(&log, Method::GET, path, &[("host", &evil)]).await.problem(Code::HostNotAllowed);
    }
    // Such a page is of the log's own origin.
    let own = [("host", &*evil), ("origin", &format!("http://{evil}")), ("sec-fetch-site", "same-origin")];
    with(&log, Method::POST, "/publish", &own).await.problem(Code::HostNotAllowed);
    let names = ["localhost", "sekali.localhost", "127.0.0.1", "[::1]", "10.0.0.1"];
    for host in names.map(|name| format!("{name}:{port}")) {
        with(&log, Method::GET, "/stats", &[("host", &host)]).await.ok();
    }
    // Through a proxy, which has another port; and by HTTP/1.0, which needs no name.
    for host in ["log.example", "log.example:8443"] {
        with(&log, Method::GET, "/stats", &[("host", host)]).await.ok();
    }
    let mut raw = Raw::open(log.address());
    raw.send("GET /stats HTTP/1.0\r\n\r\n");
    assert_eq!(raw.answer().status, 200);
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
