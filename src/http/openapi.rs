//! The contract as a document, generated from the handlers, and a page to try it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{self, ContentBuilder, Ref, RefOr};
use utoipa::{IntoResponses, Modify, OpenApi};
use utoipa_swagger_ui::Config;

use super::failure::{Failure, is_for_later};
use super::trace::X_REQUEST_ID;
use super::{events, guard, keys, observe, publish, topics};
use crate::api::{Code, PROBLEM_JSON, Problem};

/// The whole document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "sekali",
        description = "An idempotent event log: each `(topic, event_id)` is stored exactly once, durably, \
            before it is acknowledged. Every error is a problem document (RFC 9457) with a stable code.",
    ),
    paths(
        publish::publish,
        events::events,
        keys::event,
        keys::event_by_query,
        keys::lookup,
        topics::topics,
        topics::one,
        topics::one_by_query,
        observe::stats,
        observe::live,
        observe::ready,
        observe::health,
        observe::metrics,
    ),
    // Relative to this document, so that the page also calls a log behind the path prefix of a
    // proxy.
    servers((url = ".")),
    components(schemas(Problem)),
    modifiers(&Named),
    tags(
        (name = "publish", description = "Send events"),
        (name = "read", description = "Read what is stored"),
        (name = "observe", description = "How the log is doing"),
    ),
)]
struct Document;

/// What every answer has, whatever it is.
struct Named;

impl Modify for Named {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let id =
            HeaderBuilder::new().description(Some("Names the request, as the server's log does")).build();
        for path in document.paths.paths.values_mut() {
            for operation in [&mut path.get, &mut path.post].into_iter().flatten() {
                for answer in operation.responses.responses.values_mut() {
                    if let RefOr::T(answer) = answer {
                        answer.headers.insert(X_REQUEST_ID.to_string(), id.clone().into());
                    }
                }
            }
        }
    }
}

/// The document as text, made once.
static DOCUMENT: LazyLock<String> =
    LazyLock::new(|| Document::openapi().to_pretty_json().unwrap_or_default() + "\n");

/// The page needs no network: it reads our document and asks no validator on the internet about it.
/// The address of the document is relative, so that the page also works behind the path prefix of a
/// proxy.
static PAGE: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    Arc::new(Config::from("../openapi.json").validator_url("none").try_it_out_enabled(true))
});

/// What the page may load and who may show it: as the console's, but Swagger UI makes HTML of texts (those of our document and of
/// answers, which it cleans), has pictures in its style sheet, and writes one style sheet into the page, which has this hash.
const POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='; connect-src 'self'; img-src 'self' data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /openapi.json`
pub(super) async fn document() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(DOCUMENT.as_str())
}

/// `GET /docs`: leads on to the page, relative to the address that the client used.
pub(super) async fn to_page() -> HttpResponse {
    HttpResponse::TemporaryRedirect().insert_header((LOCATION, "docs/")).finish()
}

/// `GET /docs/...`
pub(super) async fn page(request: HttpRequest) -> Result<HttpResponse, Failure> {
    let path = request.match_info().query("file");
    match utoipa_swagger_ui::serve(path, PAGE.clone()) {
        Ok(Some(file)) => {
            let mut response = HttpResponse::Ok();
            guard::protect(&mut response, POLICY);
            Ok(response.content_type(file.content_type).body(file.bytes.into_owned()))
        }
        Ok(None) => Err(Failure::new(Code::NotFound, "the page has no such file")),
        Err(error) => Err(Failure::internal(&error)),
    }
}

/// The error answers with these codes, by status.
fn problems(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    let statuses: BTreeSet<_> = codes.iter().map(|code| code.status()).collect();
    statuses.into_iter().map(|status| (status.to_string(), problem(status, codes).into())).collect()
}

fn problem(status: u16, codes: &[Code]) -> ResponseBuilder {
    let described: Vec<_> = codes
        .iter()
        .filter(|code| code.status() == status)
        .map(|code| format!("`{}`: {}", code.as_str(), code.row().2))
        .collect();
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new().description(described.join("; ")).content(PROBLEM_JSON, content);
    if !StatusCode::from_u16(status).is_ok_and(is_for_later) {
        return response;
    }
    let seconds = HeaderBuilder::new().description(Some("Seconds to wait before trying again")).build();
    response.header("Retry-After", seconds)
}

const READ: [Code; 7] = [
    Code::CrossOrigin,
    Code::HostNotAllowed,
    Code::InvalidParameter,
    Code::StoreDamaged,
    Code::Internal,
    Code::ShuttingDown,
    Code::StoreUnavailable,
];

const BODY: [Code; 12] = [
    Code::NotJson,
    Code::BadEncoding,
    Code::BodyTimeout,
    Code::BodyTooLarge,
    Code::RatioTooLarge,
    Code::BatchTooLarge,
    Code::EventTooLarge,
    Code::UnsupportedType,
    Code::UnsupportedEncoding,
    Code::InvalidEvents,
    Code::TooManyRequests,
    Code::Overloaded,
];

/// How `POST /publish` can fail.
pub(super) struct PublishProblems;
/// How `POST /events/lookup` can fail.
pub(super) struct LookupProblems;
/// How a read can fail.
pub(super) struct ReadProblems;
/// How `GET /events` can fail.
pub(super) struct EventsProblems;
/// How a read of one event can fail.
pub(super) struct EventProblems;
/// How a read of one topic can fail.
pub(super) struct TopicProblems;
/// How the question can fail whether the process is alive.
pub(super) struct LiveProblems;
/// How a health check can fail.
pub(super) struct HealthProblems;
/// How `GET /metrics` can fail.
pub(super) struct MetricsProblems;

impl IntoResponses for PublishProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[&BODY[..], &READ, &[Code::TooManyTopics, Code::DiskLow, Code::StoreFull]].concat())
    }
}

impl IntoResponses for LookupProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[&BODY[..], &READ].concat())
    }
}

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&READ)
    }
}

impl IntoResponses for EventsProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[&READ[..], &[Code::NotAcceptable, Code::HistoryChanged, Code::Overloaded]].concat())
    }
}

impl IntoResponses for EventProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[&READ[..], &[Code::EventNotFound]].concat())
    }
}

impl IntoResponses for TopicProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[&READ[..], &[Code::TopicNotFound]].concat())
    }
}

impl IntoResponses for LiveProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[Code::CrossOrigin, Code::HostNotAllowed])
    }
}

impl IntoResponses for HealthProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            Code::CrossOrigin,
            Code::HostNotAllowed,
            Code::ShuttingDown,
            Code::StoreUnavailable,
            Code::DiskLow,
            Code::StoreFull,
        ])
    }
}

impl IntoResponses for MetricsProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[Code::CrossOrigin, Code::HostNotAllowed, Code::Internal, Code::ShuttingDown])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_document_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &*DOCUMENT).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == *DOCUMENT,
            "docs/openapi.json is stale: run `UPDATE=1 cargo test --lib openapi`"
        );
    }

    #[test]
    fn the_page_sends_no_option_that_nobody_chose() {
        // The page fills an example in and sends it: then every first try would go without results.
        let document: serde_json::Value = serde_json::from_str(&DOCUMENT).unwrap();
        let operations = document["paths"].as_object().unwrap().values().filter_map(|path| path.as_object());
        for parameter in
            operations.flatten().filter_map(|(_, operation)| operation["parameters"].as_array()).flatten()
        {
            let (name, filled) = (&parameter["name"], parameter.get("example").is_some());
            assert_eq!(filled, parameter["required"] == true, "{name}");
        }
    }

    #[test]
    fn every_answer_names_its_request() {
        let document: serde_json::Value = serde_json::from_str(&DOCUMENT).unwrap();
        let operations = document["paths"].as_object().unwrap().values().filter_map(|path| path.as_object());
        let answers: Vec<_> =
            operations.flatten().flat_map(|(_, of)| of["responses"].as_object().unwrap()).collect();
        assert!(answers.len() > 40, "{}", answers.len());
        for (status, answer) in answers {
            assert!(answer["headers"]["x-request-id"].is_object(), "{status}: {answer}");
        }
    }

    #[test]
    fn only_statuses_that_exist_are_documented() {
        assert!(!DOCUMENT.contains("\"401\""));
    }
}
