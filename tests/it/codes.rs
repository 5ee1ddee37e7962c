//! Every code of a problem document, provoked through a socket.

use actix_web::http::Method;
use sekali::api::Code;

use crate::support::{Answer, Log, Raw, array, event, ids};

/// Limits that are easily passed.
const TIGHT: &str = "
    [server]
    body_timeout = \"200ms\"
    [limits]
    body = \"8KiB\"
    event = \"1KiB\"
    batch_events = 10
    new_topics_per_minute = 3
    in_flight_bytes = \"40KiB\"
    [store]
    lock_timeout = \"50ms\"
    # With several, it is not known which of the new topics are those within the limit.
    writers = 1
";

/// The answer with this code, or why it cannot be provoked here. There is an arm for every code: the compiler
/// asks for it.
async fn provoke(log: &Log, code: Code) -> Result<Answer, &'static str> {
    Ok(match code {
        Code::NotJson => log.publish("this is not JSON").await,
        Code::BadEncoding => encoded(log, "gzip").await,
        Code::CrossOrigin => {
            let request = log.post("/publish").insert_header(("sec-fetch-site", "cross-site"));
            log.send(request, event("orders", "1")).await
        }
        Code::NotFound => log.get("/nowhere").await,
        Code::EventNotFound => log.get("/events/orders/nothing").await,
        Code::TopicNotFound => log.get("/topics/nothing").await,
        Code::MethodNotAllowed => log.send(log.request(Method::DELETE, "/events"), "").await,
        Code::NotAcceptable => log.get_as("/events?topic=orders", "text/html").await,
        Code::HeadTimeout => return Err("bytes must come slowly: hostile/deadlines.rs"),
        Code::BodyTimeout => return Err("bytes must come slowly: a_body_that_comes_too_slowly_is_given_up"),
        Code::HistoryChanged => log.get("/events?topic=orders&after=1&history=k3f9").await,
        Code::BodyTooLarge => log.publish(" ".repeat(8 * 1024 + 1)).await,
        Code::RatioTooLarge => return Err("needs a body of more than 1 MiB: bodies.rs"),
        Code::BatchTooLarge => log.publish(array(ids("orders", 0..11))).await,
        Code::EventTooLarge => log.publish(event("orders", "1").replace("{}", &large())).await,
        Code::UnsupportedType => log.publish_as("text/csv", "a,b").await,
        Code::UnsupportedEncoding => encoded(log, "compress").await,
        Code::HostNotAllowed => {
            let host = format!("evil.example:{}", log.address().port());
            log.send(log.request(Method::GET, "/stats").insert_header(("host", host)), "").await
        }
        Code::InvalidEvents => log.publish("{}").await,
        Code::InvalidParameter => log.get("/events").await,
        Code::TooManyRequests => return Err("needs more than the share of an address: src/http/failure.rs"),
        Code::TooManyTopics => {
            let topics = (0..4).map(|number| event(&format!("new-{number}"), "1"));
            log.publish(array(topics)).await
        }
        Code::StoreDamaged => return Err("needs a damaged store: damage.rs"),
        Code::Internal => return Err("a fault of ours: there is none that a test knows of"),
        Code::Overloaded => return Err("needs requests in flight: overload.rs"),
        Code::ShuttingDown => {
            return Err("a connection is closed before it can be told: stopping.rs, src/http/tests");
        }
        Code::DiskLow | Code::StoreFull => return Err("needs a small disk or a small limit: full_disk.rs"),
        Code::StoreUnavailable => {
            let _locked = log.locked();
            // Of a topic that exists: no more can be made here.
            log.publish(event("new-0", "2")).await
        }
    })
}

#[actix_web::test]
async fn every_code_that_can_be_provoked_has_its_problem_document() {
    let log = Log::configured(TIGHT);
    let mut left = Vec::new();
    for code in Code::ALL {
        match provoke(&log, code).await {
            Ok(answer) => drop(answer.problem(code)),
            Err(reason) => left.push((code.as_str(), reason)),
        }
    }
    assert_eq!(left.len(), 10, "{left:?}");
}

#[actix_web::test]
async fn a_body_that_comes_too_slowly_is_given_up() {
    let log = Log::configured(TIGHT);
    let mut raw = Raw::publishing(log.address(), "Content-Length: 100\r\n");
    raw.send("[");
    let answer = raw.answer();
    assert_eq!(answer.status, 408, "{}", answer.body);
    assert!(
        answer.head.to_ascii_lowercase().contains("content-type: application/problem+json"),
        "{}",
        answer.head
    );
    assert!(answer.body.contains("\"code\":\"body_timeout\""), "{}", answer.body);
    assert!(log.metric("sekali_in_flight_bytes").await.abs() < 0.5, "its bytes are given back");
}

#[actix_web::test]
async fn a_body_that_says_that_it_is_too_large_is_refused_before_it_is_sent() {
    let log = Log::configured(TIGHT);
    let mut raw = Raw::publishing(log.address(), "Content-Length: 1000000000\r\n");
    let answer = raw.answer();
    assert_eq!(answer.status, 413, "{}", answer.body);
    assert!(answer.body.contains("\"code\":\"body_too_large\""), "{}", answer.body);
}

#[actix_web::test]
async fn a_chunked_body_that_becomes_too_large_is_refused_on_the_way() {
    let log = Log::configured(TIGHT);
    let mut raw = Raw::publishing(log.address(), "Transfer-Encoding: chunked\r\n");
    raw.send(format!("3000\r\n{}", " ".repeat(0x3000)));
    assert_eq!(raw.answer().status, 413);
}

#[actix_web::test]
async fn what_is_over_the_body_or_batch_limit_is_413_also_with_skip() {
    let log = Log::configured(TIGHT);
    log.publish_skipping(" ".repeat(9_000)).await.problem(Code::BodyTooLarge);
    log.publish_skipping(array(ids("t", 0..11))).await.problem(Code::BatchTooLarge);
    assert_eq!(log.read("/stats").await["topics_total"], 0, "nothing is stored");
    assert_eq!(log.publish(array(ids("t", 0..10))).await.counts(), [10, 10, 0, 0, 0]);
}

#[actix_web::test]
async fn an_event_over_its_size_is_413_or_rejected_with_skip() {
    let log = Log::configured(TIGHT);
    let body = array([event("t", "1"), event("t", "2").replace("{}", &large()), event("t", "3")]);
    assert_eq!(log.publish(body.clone()).await.faults(Code::EventTooLarge), ["1 - event_too_large"]);
    let fates = log.publish_skipping(body).await.fates();
    assert_eq!(fates, ["accepted 1", "rejected - event_too_large", "accepted 2"]);
}

#[actix_web::test]
async fn a_method_that_a_path_does_not_know_is_answered_with_those_it_knows() {
    let log = Log::start();
    for (path, allowed) in [
        ("/publish", "POST"),
        ("/events/lookup", "POST"),
        ("/events", "GET, HEAD"),
        ("/events/t/1", "GET, HEAD"),
        ("/topics", "GET, HEAD"),
        ("/topics/t", "GET, HEAD"),
        ("/event", "GET, HEAD"),
        ("/topic", "GET, HEAD"),
        ("/stats", "GET, HEAD"),
        ("/health", "GET, HEAD"),
        ("/health/live", "GET, HEAD"),
        ("/health/ready", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/", "GET, HEAD"),
        ("/console/base.css", "GET, HEAD"),
    ] {
        let answer = log.send(log.request(Method::PUT, path), "").await;
        answer.problem(Code::MethodNotAllowed);
        assert_eq!(answer.header("allow"), Some(allowed), "{path}");
    }
    log.get("/publish").await.problem(Code::MethodNotAllowed);
}

#[actix_web::test]
async fn parameters_that_are_wrong_unknown_or_there_twice_are_named() {
    let log = Log::start();
    for (path, name) in [
        ("/events", "topic"),
        ("/events?topic=", "topic"),
        ("/events?topic=a%00b", "topic"),
        ("/events?topic=t&topic=t", "topic"),
        ("/events?topic=t&limit=0", "limit"),
        ("/events?topic=t&limit=10001", "limit"),
        ("/events?topic=t&limit=ten", "limit"),
        ("/events?topic=t&after=-1", "after"),
        ("/events?topic=t&after=1.5", "after"),
        ("/events?topic=t&before=x", "before"),
        ("/events?topic=t&order=up", "order"),
        ("/events?topic=t&colour=red", "colour"),
        ("/events/%FF/1", "topic"),
        ("/event", "topic"),
        ("/event?event_id=1", "topic"),
        ("/event?topic=t", "event_id"),
        ("/event?topic=t&event_id=", "event_id"),
        ("/event?topic=t&event_id=%0A", "event_id"),
        ("/event?topic=t&event_id=%FF", "event_id"),
        ("/event?topic=t&event_id=1&event_id=1", "event_id"),
        ("/event?topic=t&event_id=1&after=1", "after"),
        ("/topic", "topic"),
        ("/topic?topic=", "topic"),
        ("/topic?topic=t&topic=t", "topic"),
        ("/topic?topic=t&event_id=1", "event_id"),
        ("/topics?limit=1001", "limit"),
        ("/topics?limit=0", "limit"),
        ("/stats?since=1", "since"),
    ] {
        let detail = log.get(path).await.problem(Code::InvalidParameter).detail;
        assert!(detail.contains(&format!("parameter {name} ")), "{path}: {detail}");
    }
    let wrong = log.send(log.post("/publish?invalid=ignore"), event("t", "1")).await;
    assert!(wrong.problem(Code::InvalidParameter).detail.contains("parameter invalid "));
}

#[actix_web::test]
async fn paths_without_parameters_look_at_no_query_or_refuse_one() {
    let log = Log::start();
    for path in ["/health", "/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs/", "/"] {
        log.get(&format!("{path}?since=1&since=2")).await.ok();
    }
    for path in ["/stats", "/topics/t", "/events/t/1"] {
        log.get(&format!("{path}?since=1")).await.problem(Code::InvalidParameter);
    }
    log.send(log.post("/events/lookup?since=1"), "[]").await.problem(Code::InvalidParameter);
}

#[actix_web::test]
async fn a_url_over_64_kib_is_400_without_a_document() {
    let log = Log::start();
    for (bytes, status) in [(60 << 10, 404), (64 << 10, 400)] {
        let mut raw = Raw::open(log.address());
        raw.send(format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(bytes)));
        let answer = raw.answer();
        assert_eq!((answer.status, answer.body.is_empty()), (status, status == 400), "{}", answer.head);
    }
}

#[actix_web::test]
async fn a_list_of_events_that_is_no_list_is_an_invalid_parameter() {
    let log = Log::start();
    for body in [r#"{"events":7}"#, r#"{"events":[],"more":1}"#, r#"{"more":1,"events":[]}"#] {
        log.publish(body).await.problem(Code::InvalidParameter);
    }
}

#[actix_web::test]
async fn a_body_that_is_not_json_is_400_however_it_is_broken() {
    let log = Log::start();
    let nested = "[".repeat(100_000);
    let twice = format!("{}{}", event("t", "1"), event("t", "2"));
    let cut = format!("[{},", event("t", "1"));
    for body in ["", "nope", "[1,]", "{\"events\":[", &cut, &nested, &twice, "[\u{feff}]"] {
        log.publish(body.to_owned()).await.problem(Code::NotJson);
    }
    log.publish(b"[\"\xff\"]".to_vec()).await.problem(Code::NotJson);
    assert_eq!(log.read("/stats").await["topics_total"], 0, "nothing is stored");
}

#[actix_web::test]
async fn a_format_that_is_not_given_is_406() {
    let log = Log::start();
    for accept in ["text/html", "image/*", "application/json;q=0", "application/xml, text/plain"] {
        log.get_as("/events?topic=t", accept).await.problem(Code::NotAcceptable);
    }
    for accept in ["application/json", "*/*", "application/*;q=0.1", "text/html, application/x-ndjson;q=0.5"]
    {
        log.get_as("/events?topic=t", accept).await.ok();
    }
}

fn large() -> String {
    format!("{{\"text\":\"{}\"}}", "x".repeat(1_024))
}

async fn encoded(log: &Log, encoding: &str) -> Answer {
    log.send(log.post("/publish").insert_header(("content-encoding", encoding)), "[]").await
}
