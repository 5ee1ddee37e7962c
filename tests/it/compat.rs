//! `compat.first_version`: clients of the first version run unmodified, and by default nothing of
//! it is there.

use actix_web::http::Method;
use futures_util::stream::{self, StreamExt};
use sekali::api::Code;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{Answer, Client, Command, Ended, Log, Process, array, event, lines};

/// The configuration that this is about.
const ON: &str = "[compat]\nfirst_version = true\n";

/// The variable that sets it, too.
const VARIABLE: &str = "SEKALI_COMPAT_FIRST_VERSION";

/// What the stress test of the first version sends, how much of it is new, and how many requests
/// are open at once.
const SENT: usize = 5_000;
const UNIQUE: usize = 4_000;
const AT_ONCE: usize = 100;

/// Members of an object that another one has not.
fn beyond(more: &Value, less: &Value) -> Value {
    let less = less.as_object().unwrap();
    let members = more.as_object().unwrap().iter().filter(|(name, _)| !less.contains_key(*name));
    members.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// An event as Python clients write it: `json.dumps` with its spaces, and a time without an offset.
fn from_python(id: usize, index: usize) -> String {
    format!(
        "{{\"topic\": \"stress\", \"event_id\": \"id-{id}\", \"timestamp\": \"2025-10-24T07:08:09.000123\", \
         \"source\": \"stress\", \"payload\": {{\"index\": {index}}}}}"
    )
}

async fn posted(client: &Client, path: &str, body: String) -> Answer {
    client.send(client.post(path).content_type("application/json"), body).await
}

#[actix_web::test]
async fn the_stress_test_of_the_first_version_passes() {
    let log = Log::configured(ON);
    let client = log.another_client();
    let send = |index: usize| {
        let client = client.clone();
        let body = from_python(if index < UNIQUE { index } else { index * 7 % UNIQUE }, index);
        async move { posted(&client, "/publish", body).await.status }
    };
    let statuses: Vec<_> = stream::iter((0..SENT).map(send)).buffer_unordered(AT_ONCE).collect().await;
    assert_eq!(statuses, vec![200; SENT]);
    let stats = log.read("/stats").await;
    let (runtime, persistent) = (&stats["runtime_stats (in-memory)"], &stats["persistent_stats (from_db)"]);
    assert_eq!(runtime["total_events_received"], SENT);
    assert_eq!(runtime["total_duplicate_events_dropped"], SENT - UNIQUE);
    assert_eq!(persistent["total_unique_events_processed"], UNIQUE);
    assert_eq!(persistent["known_topics"], json!(["stress"]));
    let listed = log.read("/events?topic=stress").await;
    assert_eq!((&listed["topic"], &listed["count"]), (&json!("stress"), &json!(UNIQUE)));
}

#[actix_web::test]
async fn a_publisher_of_the_first_version_reads_the_counts_of_each_batch() {
    let log = Log::configured(ON);
    let told = |answer: &Answer| {
        let answer = answer.clone().ok().json();
        let names = ["total_received_in_batch", "newly_processed", "duplicates_dropped_in_batch"];
        (answer["message"].clone(), names.map(|name| answer[name].as_u64().unwrap()))
    };
    let message = json!("Events processed");
    let batch = array([event("a", "1"), event("b", "1"), event("a", "1")]);
    assert_eq!(told(&log.publish(batch.clone()).await), (message.clone(), [3, 2, 1]));
    assert_eq!(told(&log.publish(event("a", "1")).await), (message.clone(), [1, 0, 1]));
    assert_eq!(told(&log.publish(format!("{{\"events\":{batch}}}")).await), (message.clone(), [3, 0, 3]));
    let as_lines = log.publish_as("application/x-ndjson", lines([event("c", "1")])).await;
    assert_eq!(told(&as_lines), (message.clone(), [1, 1, 0]));
    assert_eq!(told(&log.publish("[]").await), (message.clone(), [0, 0, 0]));
    // An event that is rejected was received, and is neither new nor a duplicate.
    let skipping = log.publish_skipping(array([event("c", "2"), event("", "2")])).await;
    assert_eq!(told(&skipping), (message.clone(), [2, 1, 0]));
    let minimal = log.post("/publish").insert_header(("prefer", "return=minimal"));
    let minimal = log.send(minimal.content_type("application/json"), event("c", "1")).await;
    assert_eq!(told(&minimal), (message, [1, 0, 1]));
    assert_eq!(minimal.json().get("results"), None);
    assert_eq!(minimal.header("preference-applied"), Some("return=minimal"));
}

#[actix_web::test]
async fn the_members_of_the_first_version_are_beside_those_of_today_and_only_where_they_are_wanted() {
    let bodies = [array([event("a", "1"), event("b", "1"), event("a", "1")]), event("b", "1")];
    let run = async |log: &Log| {
        let mut answers = Vec::new();
        for body in bodies.clone() {
            answers.push(log.publish(body).await.ok().json());
        }
        (answers, log.read("/stats").await)
    };
    let (default, compatible) = (Log::start(), Log::configured(ON));
    let (plain, plain_stats) = run(&default).await;
    let (more, more_stats) = run(&compatible).await;
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&plain[0]), ["accepted", "conflicts", "duplicates", "received", "rejected", "results"]);
    for (plain, more) in plain.iter().zip(&more) {
        let expected = json!({
            "message": "Events processed", "total_received_in_batch": plain["received"],
            "newly_processed": plain["accepted"], "duplicates_dropped_in_batch": plain["duplicates"],
        });
        assert_eq!(beyond(more, plain), expected);
        assert_eq!(beyond(plain, more), json!({}));
        assert!(plain.as_object().unwrap().iter().all(|(name, value)| more[name] == *value), "{more}");
    }
    assert_eq!(
        names(&plain_stats),
        [
            "durability",
            "history",
            "persistent",
            "runtime",
            "shards",
            "topics",
            "topics_total",
            "uptime_seconds"
        ]
    );
    let uptime = &more_stats["uptime"];
    assert!(uptime.as_f64().unwrap() > 0.0 && *uptime == more_stats["uptime_seconds"], "{more_stats}");
    assert_eq!(
        beyond(&more_stats, &plain_stats),
        json!({
            "runtime_stats (in-memory)": {"total_events_received": 4, "total_duplicate_events_dropped": 2},
            "persistent_stats (from_db)": {"total_unique_events_processed": 2, "known_topics": ["a", "b"]},
            "received": 4, "unique_processed": 2, "duplicate_dropped": 2, "uptime": uptime,
        })
    );
    assert_eq!(beyond(&plain_stats, &more_stats), json!({}));
    assert_eq!(more_stats["topics"], json!(["a", "b"]));
}

#[actix_web::test]
async fn what_was_counted_in_memory_begins_again_with_the_process_and_what_was_stored_does_not() {
    let log = Log::configured(ON);
    log.publish(array([event("a", "1"), event("a", "2"), event("a", "1")])).await.ok();
    let log = log.restarted_with(ON);
    log.publish(event("a", "2")).await.ok();
    let stats = log.read("/stats").await;
    assert_eq!(
        stats["runtime_stats (in-memory)"],
        json!({"total_events_received": 1, "total_duplicate_events_dropped": 1})
    );
    assert_eq!(
        stats["persistent_stats (from_db)"],
        json!({"total_unique_events_processed": 2, "known_topics": ["a"]})
    );
    let all = ["received", "unique_processed", "duplicate_dropped"].map(|name| stats[name].as_u64().unwrap());
    assert_eq!(all, [4, 2, 2], "received is the sum of the others, also after a restart");
}

#[actix_web::test]
async fn extra_fields_of_an_event_are_ignored_and_by_default_refused() {
    let (default, compatible) = (Log::start(), Log::configured(ON));
    let extra =
        event("a", "1").replacen('{', "{\"level\": \"info\", \"seq\": 9, \"tags\": [{\"k\": null}], ", 1);
    let refused = default.publish(extra.clone()).await.faults(Code::InvalidEvents);
    assert_eq!(refused, ["0 level unknown_field", "0 seq unknown_field", "0 tags unknown_field"]);
    assert_eq!(compatible.publish(extra.clone()).await.fates(), ["accepted 1"]);
    assert_eq!(compatible.publish(array([extra.clone()])).await.fates(), ["duplicate 1"]);
    assert_eq!(compatible.publish(format!("{{\"events\":[{extra}]}}")).await.fates(), ["duplicate 1"]);
    let as_lines = compatible.publish_as("application/x-ndjson", lines([&extra])).await;
    assert_eq!(as_lines.fates(), ["duplicate 1"]);
    // What the log itself gives can be sent to it.
    let given = compatible.read("/events?topic=a").await["events"][0].to_string();
    assert!(given.contains("received_at") && !given.contains("level"), "{given}");
    assert_eq!(compatible.publish(given).await.fates(), ["duplicate 1"]);
    // No rule but this one is another.
    let missing = extra.replacen("\"event_id\"", "\"eventId\"", 1);
    assert_eq!(compatible.publish(missing).await.faults(Code::InvalidEvents), ["0 event_id missing_field"]);
    let twice = extra.replacen("\"source\"", "\"topic\":\"b\",\"source\"", 1);
    assert_eq!(compatible.publish(twice).await.faults(Code::InvalidEvents), ["0 topic duplicate_field"]);
    let key = json!([{"topic": "a", "event_id": "1", "level": "info"}]);
    assert_eq!(compatible.lookup(key).await.faults(Code::InvalidEvents), ["0 level unknown_field"]);
}

#[actix_web::test]
async fn a_slash_at_the_end_of_the_first_versions_paths_is_accepted_and_of_no_other() {
    let (default, compatible) = (Log::start(), Log::configured(ON));
    default
        .send(default.post("/publish/").content_type("application/json"), event("a", "1"))
        .await
        .problem(Code::NotFound);
    for path in ["/events/?topic=a", "/stats/"] {
        default.get(path).await.problem(Code::NotFound);
    }
    assert_eq!(posted(&compatible, "/publish/", event("a", "1")).await.fates(), ["accepted 1"]);
    let skipped = posted(&compatible, "/publish/?invalid=skip", array(["7"])).await;
    assert_eq!(skipped.fates(), ["rejected - not_an_object"]);
    assert_eq!(compatible.read("/events/?topic=a").await, compatible.read("/events?topic=a").await);
    assert_eq!(compatible.read("/stats/").await["unique_processed"], 1);
    for path in ["/events/?topic=a", "/stats/"] {
        let head = compatible.send(compatible.request(Method::HEAD, path), "").await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        posted(&compatible, path, String::new()).await.problem(Code::MethodNotAllowed);
    }
    compatible.get("/publish/").await.problem(Code::MethodNotAllowed);
    for path in ["/publish//", "//publish", "/events//", "/stats/x", "/Stats/", "/topics/", "/health/"] {
        compatible.get(path).await.problem(Code::NotFound);
    }
    // Both ways of writing a path are one path to those who count.
    let metrics = compatible.get("/metrics").await;
    assert!(metrics.text().contains("route=\"/stats\"") && !metrics.text().contains("route=\"/stats/\""));
}

#[actix_web::test]
async fn the_environment_and_a_flag_set_it_too() {
    let directory = tempdir().unwrap();
    let has_it = async |arguments: &[&str], environment: &[(&str, &str)]| {
        let process =
            Process::run(directory.path(), &[&["--bind", "127.0.0.1:0"], arguments].concat(), environment);
        let stats = process.read("/stats").await;
        stats.get("unique_processed").is_some()
    };
    assert!(!has_it(&[], &[]).await);
    assert!(has_it(&[], &[(VARIABLE, "true")]).await);
    assert!(!has_it(&[], &[(VARIABLE, "false")]).await);
    assert!(has_it(&["--compat-first-version"], &[]).await);
    assert!(!has_it(&["--compat-first-version=false"], &[(VARIABLE, "true")]).await);
}

#[actix_web::test]
async fn a_setting_that_is_neither_true_nor_false_is_refused_by_name() {
    let ended = Ended::of(&["serve", "--compat-first-version=maybe"]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let rule = "(SEKALI_COMPAT_FIRST_VERSION): compat.first_version: must be true or false, found \"maybe\"";
    assert!(ended.stderr.contains(rule), "{}", ended.stderr);
    let directory = tempdir().unwrap();
    let file = directory.path().join("sekali.toml");
    let check = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        Command::start(["check", "--config", file.to_str().unwrap()]).ended().await
    };
    assert_eq!(check(ON).await.code, Some(0));
    let ended = check("[compat]\nfirst_version = \"yes\"\nsecond_version = true\n").await;
    assert_ne!(ended.code, Some(0));
    for rule in [
        ":2: compat.first_version: must be true or false, found \"yes\"",
        ":3: compat.second_version: no such key; [compat] has first_version",
    ] {
        assert!(ended.stderr.contains(rule), "{}", ended.stderr);
    }
}
