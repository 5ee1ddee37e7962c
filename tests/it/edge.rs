//! The server's edge: what clients, proxies and editors make of a request before it is read.

use std::io::{BufRead, BufReader};

use actix_web::http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sekali::api::Code;
use serde_json::json;

use crate::bodies::compressed;
use crate::support::events::event_but;
use crate::support::{Answer, Client, Log, Raw, RawAnswer, array, event, ids};

/// The byte order mark of UTF-8.
const MARK: &str = "\u{feff}";

/// The answer to this request target, sent as it is: a client library would normalise it.
fn raw(log: &Client, method: &str, target: &str, body: &str) -> RawAnswer {
    let mut raw = Raw::open(log.address());
    raw.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
        log.address(),
        body.len()
    ));
    raw.answer()
}

#[actix_web::test]
async fn a_byte_order_mark_before_a_body_is_skipped_also_where_it_is_compressed() {
    let log = Log::start();
    let (one, two) = (event("t", "1"), event("t", "2"));
    let batch = format!("{{\"events\":[{one}]}}");
    for (content_type, body) in [
        ("application/json", one.clone()),
        ("application/json", array([&one])),
        ("application/json", batch),
        ("application/x-ndjson", one.clone()),
        ("application/x-ndjson", format!("{one}\n{two}\n")),
    ] {
        let body = format!("{MARK}{body}");
        log.publish_as(content_type, body.clone()).await.ok();
        for encoding in ["gzip", "deflate", "br", "zstd"] {
            let request =
                log.post("/publish").content_type(content_type).insert_header(("content-encoding", encoding));
            let answer = log.send(request, compressed(encoding, body.as_bytes()).await).await;
            assert_eq!(answer.counts()[4], 0, "{content_type} {encoding}: {}", answer.text());
        }
    }
    assert_eq!(log.totals("persistent").await[1], 2);
    let keys = format!("{MARK}[{{\"topic\":\"t\",\"event_id\":\"2\"}}]");
    let found = log.send(log.post("/events/lookup"), keys).await.ok().json();
    assert_eq!(found[0]["seq"], 2);
}

#[actix_web::test]
async fn a_byte_order_mark_elsewhere_is_named() {
    let log = Log::start();
    let (one, two) = (event("t", "1"), event("t", "2"));
    for body in [format!("{MARK}{MARK}{one}"), format!("[{one},{MARK}{two}]"), format!("[{one}]\n{MARK}")] {
        let detail = log.publish(body).await.problem(Code::NotJson).detail;
        assert!(detail.contains("a UTF-8 byte order mark at line "), "{detail}");
    }
    let lookup = log.send(log.post("/events/lookup"), format!("[{MARK}]")).await;
    assert!(lookup.problem(Code::NotJson).detail.contains("byte order mark at line 1, column 2"));
    // As `cat` makes it of two files.
    let joined = format!("{MARK}{one}\n{MARK}{two}\n{}\n", event("t", "3"));
    let request = log.post("/publish?invalid=skip").content_type("application/x-ndjson");
    let answer = log.send(request, joined.clone()).await;
    assert_eq!(answer.fates(), ["accepted 1", "rejected - not_json", "accepted 2"]);
    let detail = answer.json()["results"][1]["error"]["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("a UTF-8 byte order mark at column 1"), "{detail}");
    let refused = log.publish_as("application/x-ndjson", joined).await;
    assert_eq!(refused.faults(Code::InvalidEvents), ["1 - not_json"]);
    let wide: Vec<u8> = [0xfeff].into_iter().chain(one.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    for content_type in ["application/json", "application/x-ndjson"] {
        let detail = log.publish_as(content_type, wide.clone()).await.problem(Code::NotJson).detail;
        assert!(detail.contains("UTF-16 byte order mark"), "{detail}");
    }
}

#[actix_web::test]
async fn an_empty_last_event_id_is_as_if_absent() {
    let log = Log::start();
    log.publish(array(ids("t", 0..3))).await.ok();
    for empty in ["", "  ", " \t "] {
        for (accept, expected) in [("application/json", "\"count\":2"), ("application/x-ndjson", "\"seq\":2")]
        {
            let mut raw = Raw::open(log.address());
            raw.send(format!(
                "GET /events?topic=t&after=1 HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nLast-Event-ID:{empty}\r\n\r\n"
            ));
            let answer = raw.answer();
            assert_eq!(answer.status, 200, "{empty:?}: {}", answer.body);
            assert!(answer.body.contains(expected), "{}", answer.body);
        }
    }
    let mut raw = Raw::open(log.address());
    raw.send(
        "GET /events?topic=t&after=1 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nLast-Event-ID: \r\n\r\n",
    );
    let lines = BufReader::new(raw.stream()).lines().map(Result::unwrap);
    let ids: Vec<_> = lines.filter(|line| line.starts_with("id: ")).take(3).collect();
    let history = log.read("/stats").await["history"].as_str().unwrap().to_owned();
    let expected = [1, 2, 3].map(|seq| format!("id: {seq}@{history}"));
    assert_eq!(ids, expected, "the place that the query says, and the events after it");
}

#[actix_web::test]
async fn the_form_of_events_is_negotiated() {
    let log = Log::start();
    log.publish(event("t", "1")).await.ok();
    for (accept, expected) in [
        ("application/x-ndjson;Q=0.1, application/json", "application/json"),
        ("Application/X-NDJSON", "application/x-ndjson"),
        ("application/json;q=0, */*", "application/x-ndjson"),
        ("application/json;q=0.1, application/*;q=0.9", "application/x-ndjson"),
        ("application/json;charset=utf-8", "application/json"),
        ("application/json;version=1", "application/json"),
        ("text/html;x=\"a, application/x-ndjson\", application/json;q=0.1", "application/json"),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "application/json"),
    ] {
        let answer = log.get_as("/events?topic=t", accept).await.ok();
        assert_eq!(answer.header("content-type"), Some(expected), "{accept}");
        assert_eq!(answer.header("vary"), Some("accept"), "a cache must not mix them up");
    }
    let head = log.request(Method::HEAD, "/events?topic=t").insert_header(("accept", "text/*"));
    assert_eq!(log.send(head, "").await.ok().header("content-type"), Some("text/event-stream"));
    let two = log
        .request(Method::GET, "/events?topic=t")
        .append_header(("accept", "application/json;q=0.1"))
        .append_header(("accept", "application/x-ndjson"));
    assert_eq!(log.send(two, "").await.ok().header("content-type"), Some("application/x-ndjson"));
    for refused in ["application/json;q=0", "*/*;q=0", "text/html", "application/json;q=none"] {
        log.get_as("/events?topic=t", refused).await.problem(Code::NotAcceptable);
    }
    // Only `/events` has several forms. Elsewhere there is one, and a problem is JSON whatever was
    // asked for.
    log.get_as("/stats", "text/html").await.ok();
    log.get_as("/events?topic=", "text/html").await.problem(Code::InvalidParameter);
}

#[actix_web::test]
async fn a_leap_second_is_at_its_time_and_a_timestamp_has_64_bytes() {
    let log = Log::start();
    let publish = async |timestamp: &str| -> Answer {
        let event = event_but("timestamp", &format!("\"{timestamp}\""));
        let id = serde_json::Value::from(timestamp).to_string();
        log.publish(event.replace("\"event_id\":\"1\"", &format!("\"event_id\":{id}"))).await
    };
    let longest = format!("2026-11-22T10:00:00.{}+05:30", "1".repeat(38));
    for good in ["2016-12-31T23:59:60Z", "2016-12-31T18:59:60-05:00", "2017-01-01 05:29:60.5+05:30", &longest]
    {
        assert_eq!(publish(good).await.counts(), [1, 1, 0, 0, 0], "{good}");
    }
    let event = |timestamp: &str| event_but("timestamp", &format!("\"{timestamp}\""));
    let long = format!("2026-11-22T10:00:00.{}Z", "1".repeat(44));
    let longer = format!("2026-11-22T10:00:00.{}Z", "1".repeat(500_000));
    for (bad, word) in [
        ("1998-12-31T23:58:60Z", "23:59:60 UTC"),
        ("2016-12-31T18:59:60+05:00", "23:59:60 UTC"),
        ("2024-02-29T23:59:60+05:30", "23:59:60 UTC"),
        (&*long, "64 bytes"),
        (&*longer, "64 bytes"),
    ] {
        let problem = log.publish(event(bad)).await;
        assert_eq!(problem.faults(Code::InvalidEvents), ["0 timestamp bad_timestamp"]);
        assert!(problem.text().contains(word) && problem.body.len() < 1_000, "{}", problem.text());
    }
}

#[actix_web::test]
async fn every_name_is_reached_by_path_and_by_query() {
    let log = Log::start();
    let names =
        ["..", ".", "...", "a/b", "/a", "a//b", "a/", "//", "%2e", "100%", "q?q#", "a;b=c", "a&b", "a=b"];
    let more = ["a+b", " ", "größe", "\\", "%", "lookup", "..;", "./..", "\u{feff}"];
    let all: Vec<_> = names.into_iter().chain(more).collect();
    log.publish(array(all.iter().map(|name| event(name, name)))).await.ok();
    for name in all {
        let encoded = utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
        let expected = (json!(name), json!(name), json!(1));
        for target in
            [format!("/events/{encoded}/{encoded}"), format!("/event?event_id={encoded}&topic={encoded}")]
        {
            let answer = raw(&log, "GET", &target, "");
            assert_eq!(answer.status, 200, "{name:?} {target}: {}", answer.body);
            let found: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            let found = (found["topic"].clone(), found["event_id"].clone(), found["seq"].clone());
            assert_eq!(found, expected, "{target}");
        }
        let by_path = raw(&log, "GET", &format!("/topics/{encoded}"), "");
        let by_query = raw(&log, "GET", &format!("/topic?topic={encoded}"), "");
        assert_eq!((by_path.status, &by_path.body), (200, &by_query.body), "{name:?}");
        let found: serde_json::Value = serde_json::from_str(&by_path.body).unwrap();
        assert_eq!(found["topic"], name);
    }
}

#[actix_web::test]
async fn raw_dot_paths_name_the_topic_and_the_event() {
    let log = Log::start();
    let all = [("..", "."), (".", ".."), ("..", "x"), (".", "x"), ("x", "..")];
    log.publish(array(all.map(|(topic, id)| event(topic, id)))).await.ok();
    for (topic, id) in all {
        for (topic_as, id_as) in [(topic.to_owned(), id.to_owned()), (dots(topic, "%2e"), dots(id, "%2E"))] {
            let answer = raw(&log, "GET", &format!("/events/{topic_as}/{id_as}"), "");
            assert_eq!(answer.status, 200, "{topic_as} {id_as}: {}", answer.body);
            let found: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!((&found["topic"], &found["event_id"]), (&json!(topic), &json!(id)));
            let found = raw(&log, "GET", &format!("/topics/{topic_as}"), "");
            assert!(found.body.contains(&format!("\"topic\":\"{topic}\"")), "{}", found.body);
        }
    }
    assert_eq!(raw(&log, "GET", "/topics/...", "").status, 404, "three dots are another name");
}

fn dots(name: &str, dot: &str) -> String {
    name.replace('.', dot)
}

#[actix_web::test]
async fn a_path_matches_as_it_was_sent() {
    let log = Log::start();
    let body = event("t", "1");
    for target in [
        "/%70ublish",
        "/publis%68",
        "/%2Fpublish",
        "//publish",
        "/publish/",
        "/publish//",
        "/PUBLISH",
        "/Publish",
        "/./publish",
        "/x/../publish",
        "/publish%3F",
        "/publish%00",
        "/publish;x=1",
        "/events/%6cookup",
        "/event%73/lookup",
        "/events%2flookup",
    ] {
        let answer = raw(&log, "POST", target, &body);
        assert_eq!(answer.status, 404, "{target}: {}", answer.body);
    }
    for target in [
        "/%73tats",
        "/stats/",
        "//stats",
        "/health/%6cive",
        "/%68ealth/ready",
        "/%64ocs",
        "/%64ocs/",
        "/docs/%69ndex.html",
        "/docs/../stats",
        "/console/%62ase.css",
        "/console/./base.css",
        "/%63onsole/base.css",
        "/openapi%2ejson",
        "/%6dvents?topic=t",
        "/%65vents?topic=t",
        "/event%73/t/1",
        "/%74opics/t",
        "/topic%73/t",
        "/%65vent?topic=t&event_id=1",
        "/topi%63?topic=t",
        "/metric%73",
        "/Stats",
    ] {
        let answer = raw(&log, "GET", target, "");
        assert_eq!(answer.status, 404, "{target}: {}", answer.body);
        assert!(answer.body.contains("\"code\":\"not_found\""), "{target}: {}", answer.body);
    }
    assert_eq!(log.totals("persistent").await, [0; 5], "nothing was stored");
    // As it is, and in the form that a proxy is asked with.
    let absolute = format!("http://{}", log.address());
    for target in ["/stats", "/stats?", &format!("{absolute}/stats"), &format!("{absolute}/events?topic=t")] {
        assert_eq!(raw(&log, "GET", target, "").status, 200, "{target}");
    }
    assert_eq!(raw(&log, "GET", &format!("{absolute}/%73tats"), "").status, 404);
    assert_eq!(raw(&log, "POST", &format!("{absolute}/publish"), &body).status, 200);
}

/// Where a reference leads from a page, as RFC 3986 says; only as much of it as pages of ours need.
fn resolved(page: &str, reference: &str) -> String {
    assert!(!reference.contains(':') && !reference.starts_with("//"), "{reference} leads to another server");
    if reference.starts_with('/') {
        return reference.to_owned();
    }
    let joined = format!("{}/{reference}", page.rsplit_once('/').unwrap().0);
    let mut parts = Vec::new();
    for part in joined.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    // A folder has an empty name behind it.
    if reference == "." {
        parts.push("");
    }
    parts.join("/")
}

/// What a browser asks for behind a proxy that serves the log below `/log/`: the answer of the log
/// to the rest.
async fn behind_prefix(log: &Client, path: &str) -> Answer {
    let rest = path.strip_prefix("/log").unwrap_or_else(|| panic!("{path} leads outside of the prefix"));
    log.get(rest).await
}

#[actix_web::test]
async fn behind_the_prefix_of_a_proxy_nothing_leads_outside() {
    let log = Log::start();
    let redirect = behind_prefix(&log, "/log/docs").await;
    assert_eq!(redirect.status, 307);
    let docs = resolved("/log/docs", redirect.header("location").unwrap());
    assert_eq!(docs, "/log/docs/");
    for page in ["/log/", &docs] {
        let html = behind_prefix(&log, page).await.ok().text().to_owned();
        let references: Vec<_> = ["src=\"", "href=\""]
            .into_iter()
            .flat_map(|name| html.split(name).skip(1))
            .map(|rest| rest.split('"').next().unwrap())
            .filter(|reference| !reference.starts_with('#'))
            .collect();
        assert!(references.len() > 4, "{page}: {references:?}");
        for reference in references {
            let target = resolved(page, reference);
            let answer = behind_prefix(&log, &target).await;
            assert!(matches!(answer.status, 200 | 307), "{page} names {reference}: {}", answer.text());
        }
    }
    // The page of the contract: the document that it loads, and the server that its requests go to.
    let script = behind_prefix(&log, "/log/docs/swagger-initializer.js").await.ok().text().to_owned();
    let named = script.split("\"url\": \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let document = resolved(&docs, named);
    let contract = behind_prefix(&log, &document).await.ok().json();
    assert_eq!(document, "/log/openapi.json");
    let server = contract["servers"][0]["url"].as_str().unwrap();
    assert_eq!(resolved(&document, server), "/log/");
    // The console's own requests.
    let asks = log.get("/console/server.mjs").await.ok().text().to_owned();
    for absolute in ["ask(\"/", "ask(`/", "send(\"/", "EventSource(`/", "EventSource(\"/", "fetch(\"/"] {
        assert!(!asks.contains(absolute), "{absolute}");
    }
}
