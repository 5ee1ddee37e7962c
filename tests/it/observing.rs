//! How the log shows itself: health, metrics, the OpenAPI document and the page to try it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Client, Log, array, event, event_with};

#[actix_web::test]
async fn a_log_that_can_write_is_live_and_ready() {
    let log = Log::start();
    for path in ["/health/live", "/health/ready", "/health"] {
        assert_eq!(log.read(path).await, json!({"status": "ok"}), "{path}");
    }
}

#[actix_web::test]
async fn metrics_count_events_and_requests() {
    let log = Log::start();
    log.publish(array([event("t", "1"), event("t", "1"), event_with("t", "1", "{\"n\":1}")])).await.ok();
    log.publish_skipping("[7]").await.ok();
    for (name, value) in [
        ("sekali_events_accepted_total", 1.0),
        ("sekali_events_duplicate_total", 2.0),
        ("sekali_events_conflict_total", 1.0),
        ("sekali_events_rejected_total", 1.0),
        ("sekali_in_flight_bytes", 0.0),
        ("sekali_in_flight_events", 0.0),
    ] {
        let found: f64 = log.metric(name).await;
        assert!((found - value).abs() < 0.5, "{name}: {found}");
    }
    let answer = log.get("/metrics").await.ok();
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let publishes = answer.text().lines().find(|line| line.contains("route=\"/publish\"")).unwrap();
    assert!(publishes.contains("status=\"200\"") && publishes.ends_with(" 2"), "{publishes}");
}

#[actix_web::test]
async fn refusals_are_counted_by_the_code_of_their_problem() {
    let log = Log::start();
    log.publish("[7]").await;
    log.publish("[7]").await;
    log.publish("{").await;
    log.get("/nowhere").await;
    log.publish(event("t", "1")).await.ok();
    for (reason, count) in [("invalid_events", 2.0), ("not_json", 1.0), ("not_found", 1.0)] {
        let found = log.metric(&format!("sekali_refusals_total{{reason=\"{reason}\"}}")).await;
        assert!((found - count).abs() < 0.5, "{reason}: {found}");
    }
}

#[actix_web::test]
async fn metrics_do_not_grow_with_topics_ids_or_paths() {
    // invariant 8: what was ever seen does not grow the memory; a label for each topic would.
    let log = Log::configured("[metrics]\ntopics = 1");
    log.publish(array([event("t", "1"), event("t", "2")])).await.ok();
    log.publish(event("a-topic-of-mine", "an-id-of-mine")).await.ok();
    log.get("/events/a-topic-of-mine/an-id-of-mine").await.ok();
    for number in 0..20 {
        log.get(&format!("/nowhere-{number}")).await;
    }
    let text = log.get("/metrics").await.ok().text().to_owned();
    for grown in ["a-topic-of-mine", "an-id-of-mine", "nowhere"] {
        assert!(!text.contains(grown), "{grown} is a label: {text}");
    }
}

#[actix_web::test]
async fn the_openapi_document_lists_every_path_and_its_problems() {
    let log = Log::start();
    let answer = log.get("/openapi.json").await.ok();
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let listed: BTreeSet<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "/publish",
        "/events",
        "/events/{topic}/{event_id}",
        "/events/lookup",
        "/event",
        "/topic",
        "/topics",
        "/topics/{topic}",
        "/stats",
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
    ];
    assert_eq!(listed, BTreeSet::from(expected));
    let statuses: Vec<_> =
        document["paths"]["/publish"]["post"]["responses"].as_object().unwrap().keys().collect();
    for status in ["200", "400", "408", "413", "415", "422", "429", "500", "503"] {
        assert!(statuses.iter().any(|found| *found == status), "{status} in {statuses:?}");
    }
}

#[actix_web::test]
async fn every_reference_of_the_openapi_document_leads_somewhere() {
    let log = Log::start();
    let document = log.read("/openapi.json").await;
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads away"));
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect_references(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            references.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect_references(member, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, references)),
        _ => {}
    }
}

#[actix_web::test]
async fn the_page_to_try_it_works_without_a_network() {
    let log = Log::start();
    let answer = log.get("/docs").await;
    assert_eq!((answer.status, answer.header("location")), (307, Some("docs/")));
    let page = log.get("/docs/").await.ok();
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    let html = page.text().to_owned();
    assert_no_address_elsewhere("the page", &html);
    let assets = assets_of(&html);
    assert!(assets.len() >= 3, "{assets:?}");
    for asset in assets {
        check_asset(&log, &asset).await;
    }
    let settings = log.get("/docs/swagger-initializer.js").await.ok();
    assert!(settings.text().contains("/openapi.json"), "it shows our document: {}", settings.text());
    assert_no_address_elsewhere("its settings", settings.text());
}

/// What a page loads: the values of `src` and `href`.
fn assets_of(html: &str) -> Vec<String> {
    ["src=\"", "href=\""]
        .into_iter()
        .flat_map(|attribute| html.split(attribute).skip(1))
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect()
}

async fn check_asset(log: &Client, asset: &str) {
    let answer = log.get(&format!("/docs/{}", asset.trim_start_matches("./"))).await.ok();
    assert!(!answer.body.is_empty(), "{asset}");
    // The bundles name addresses in their code (name spaces, their own project); what they load, the settings say.
    if answer.header("content-type").unwrap().starts_with("text/css") {
        assert!(!answer.text().contains("url(http"), "{asset} loads something from elsewhere");
    }
}

fn assert_no_address_elsewhere(what: &str, text: &str) {
    for address in ["http://", "https://", "src=\"//", "href=\"//"] {
        assert!(!text.contains(address), "{what} names {address}: {text}");
    }
}
