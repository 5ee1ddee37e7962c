//! An answer of the log, with the checks that hold for every answer of its kind.

use actix_web::web::Bytes;
use hyper::header::HeaderMap;
use sekali::api::{Code, PROBLEM_JSON, Problem};
use serde_json::Value;

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the answer {}: {}", self.status, self.text()))
    }

    /// This answer, which must be a 200.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.text());
        self
    }

    /// The problem document of this code, with everything that RFC 9457 and the contract ask of it.
    #[track_caller]
    pub(crate) fn problem(&self, code: Code) -> Problem {
        let (status, name, title) = code.row();
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some(PROBLEM_JSON));
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.code, name, "{problem:?}");
        assert_eq!((problem.status, &*problem.title), (status, title));
        assert_eq!(problem.kind, format!("urn:sekali:problem:{name}"));
        assert!(!problem.detail.is_empty(), "a detail for a person");
        let retry_after = self.header("retry-after").map(|seconds| seconds.parse::<u32>().unwrap());
        let later = matches!(status, 429 | 503 | 507);
        assert_eq!(retry_after.is_some(), later, "Retry-After comes with 429, 503 and 507, and nothing else");
        assert_ne!(retry_after, Some(0), "a client that waits 0 seconds would hammer the log");
        problem
    }

    /// Where each event at fault is and what it breaks: `0 topic empty`; `-` where no field is at fault.
    #[track_caller]
    pub(crate) fn faults(&self, code: Code) -> Vec<String> {
        let errors = self.problem(code).errors;
        errors
            .iter()
            .map(|error| {
                let field = error.fault.field.as_deref().unwrap_or("-");
                assert!(!error.fault.detail.is_empty(), "a detail for a person");
                format!("{} {field} {}", error.index, error.fault.code)
            })
            .collect()
    }

    /// The fate of each event: `accepted 1`, `duplicate 1`, `conflict 1`, `rejected topic empty`.
    #[track_caller]
    pub(crate) fn fates(&self) -> Vec<String> {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["results"].as_array().expect("results").iter().map(fate).collect()
    }

    /// The counts: received, accepted, duplicates, conflicts, rejected.
    #[track_caller]
    pub(crate) fn counts(&self) -> [u64; 5] {
        assert_eq!(self.status, 200, "{}", self.text());
        let body = self.json();
        ["received", "accepted", "duplicates", "conflicts", "rejected"]
            .map(|name| body[name].as_u64().unwrap_or_else(|| panic!("{name} in {body}")))
    }
}

fn fate(result: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let status = text(&result["status"]);
    match result["status"].as_str() {
        Some("rejected") => {
            format!("rejected {} {}", text(&result["error"]["field"]), text(&result["error"]["code"]))
        }
        Some("duplicate") if result["conflict"] == true => format!("conflict {}", result["seq"]),
        _ => {
            assert_eq!(result.get("conflict"), None, "said only where it is true: {result}");
            format!("{status} {}", result["seq"])
        }
    }
}
