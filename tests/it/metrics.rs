//! Whoever watches the log by its metrics finds them: the dashboard, the alert rules and the document name only metrics
//! that the server has, and the document names all of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::{Log, array, event};

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The names of metrics in a text, without what a histogram adds to its own.
fn named(text: &str, histograms: &BTreeSet<String>) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("sekali_")).map(|word| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        base.filter(|base| histograms.contains(*base)).unwrap_or(word).to_owned()
    });
    names.collect()
}

/// Every metric of a server, and those of them that are histograms.
async fn served() -> (BTreeSet<String>, BTreeSet<String>) {
    let log = Log::start();
    log.publish(array([event("t", "1"), event("t", "1")])).await.ok();
    log.publish("[7]").await;
    let answer = log.get("/metrics").await.ok();
    let types: Vec<Vec<&str>> = answer
        .text()
        .lines()
        .filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').collect()))
        .collect();
    let of = |kind: Option<&str>| {
        let wanted = types.iter().filter(|words| kind.is_none_or(|kind| words[1] == kind));
        wanted.map(|words| words[0].to_owned()).collect()
    };
    (of(None), of(Some("histogram")))
}

#[actix_web::test]
async fn the_dashboard_and_the_alerts_name_only_metrics_that_there_are() {
    let (metrics, histograms) = served().await;
    for path in ["config/grafana-dashboard.json", "config/alerts.yml"] {
        let named = named(&file(path), &histograms);
        assert!(named.len() > 9, "{path} names {named:?}");
        let unknown: Vec<_> = named.difference(&metrics).collect();
        assert!(unknown.is_empty(), "{path} names {unknown:?}, and there are {metrics:#?}");
    }
    let dashboard: serde_json::Value = serde_json::from_str(&file("config/grafana-dashboard.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 9);
}

#[test]
fn the_dashboard_shows_the_bounds_that_a_hostile_client_meets() {
    let dashboard: serde_json::Value = serde_json::from_str(&file("config/grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let shows = |panel: &&serde_json::Value, wanted: &str| {
        let targets = panel["targets"].as_array().unwrap();
        targets.iter().any(|target| target["expr"].as_str().unwrap().contains(wanted))
    };
    for together in [
        &["sum(sekali_connections{", "sekali_connections_limit{"][..],
        &["sum by (reason) (rate(sekali_connections_refused_total{"],
        &["sum by (reason) (rate(sekali_connections_ended_total{"],
        &["sum by (reason) (rate(sekali_refusals_total{"],
        &["sekali_in_flight_bytes{", "sekali_in_flight_limit_bytes{"],
        &["sekali_answer_bytes{", "sekali_answer_limit_bytes{"],
        &["sekali_store_disk_free_bytes{", "sekali_store_disk_limit_bytes{"],
        &["sekali_answers_cut_total{"],
    ] {
        let is_shown = |panel: &&serde_json::Value| together.iter().all(|wanted| shows(panel, wanted));
        assert!(panels.iter().any(|panel| is_shown(&panel)), "no panel shows {together:?}");
    }
    // Panels do not lie on each other, and each is there once.
    let mut places: Vec<_> = panels.iter().map(|panel| panel["gridPos"].to_string()).collect();
    let mut ids: Vec<_> = panels.iter().map(|panel| panel["id"].to_string()).collect();
    places.sort_unstable();
    ids.sort_unstable();
    places.dedup();
    ids.dedup();
    assert_eq!((places.len(), ids.len()), (panels.len(), panels.len()));
}

/// Nodes that share a store each tell of all of it.
#[test]
fn the_dashboard_takes_what_is_of_the_whole_store_from_one_instance_and_never_adds_it_up() {
    let text = file("config/grafana-dashboard.json");
    let mut found = 0;
    for of_the_store in ["sekali_store_bytes", "sekali_topic_"] {
        for (at, _) in text.match_indices(of_the_store) {
            let before = text[..at].trim_end_matches("(rate(").trim_end();
            let is_one = before.ends_with("max(")
                || before.rsplit('(').nth(1).is_some_and(|by| by.ends_with("max by "));
            assert!(is_one, "{}", &text[at - 60..at + 40]);
            found += 1;
        }
    }
    assert!(found > 6, "{found}");
}

#[actix_web::test]
async fn the_document_describes_every_metric_and_no_other() {
    let (metrics, histograms) = served().await;
    let document = file("docs/OPERATIONS.md");
    let rows = document.lines().filter(|line| line.starts_with("| `sekali_"));
    let described: BTreeSet<String> =
        rows.flat_map(|row| named(row.split('|').nth(1).unwrap(), &histograms)).collect();
    let missing: Vec<_> = metrics.difference(&described).collect();
    let unknown: Vec<_> = described.difference(&metrics).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "not described: {missing:#?}, not there: {unknown:#?}");
}

/// `up` is no metric of ours: Prometheus makes it for each target, and it is all that tells that there is nothing to ask.
#[actix_web::test]
async fn every_alert_asks_for_a_metric_of_ours_or_whether_there_is_anybody_to_ask() {
    let (metrics, histograms) = served().await;
    let alerts = file("config/alerts.yml");
    let rules: Vec<_> = alerts.split("- alert: ").skip(1).collect();
    let is_up = |rule: &&&str| rule.contains("expr: up{job=\"sekali\"} == 0");
    for rule in &rules {
        assert!(is_up(&rule) || !named(rule, &histograms).is_disjoint(&metrics), "{rule}");
    }
    assert_eq!(rules.iter().filter(is_up).count(), 1);
    assert!(
        file("docs/OPERATIONS.md").contains("job_name: sekali "),
        "the example names the job of that alert"
    );
}

#[actix_web::test]
async fn an_alert_has_a_line_of_its_own_in_the_document() {
    let (alerts, document) = (file("config/alerts.yml"), file("docs/OPERATIONS.md"));
    let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        assert!(document.contains(&format!("`{name}`")), "{name}");
    }
}
