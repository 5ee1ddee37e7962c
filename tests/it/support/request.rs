//! A request of the tests' own client, filled step by step.

use actix_web::web::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};

/// A request to be filled.
pub(crate) struct Request(hyper::Request<Full<Bytes>>);

impl Request {
    /// A request without headers.
    pub(super) fn new(method: impl AsRef<str>, url: &str) -> Self {
        let mut http = hyper::Request::new(Full::default());
        *http.uri_mut() = url.parse().unwrap();
        Self(http).method(method)
    }

    /// Another method.
    pub(crate) fn method(mut self, method: impl AsRef<str>) -> Self {
        *self.0.method_mut() = hyper::Method::from_bytes(method.as_ref().as_bytes()).unwrap();
        self
    }

    /// The type of the body.
    pub(crate) fn content_type(self, text: &str) -> Self {
        self.insert_header((CONTENT_TYPE.as_str(), text))
    }

    /// A header in place of others of its name.
    pub(crate) fn insert_header(mut self, (name, value): (&str, impl AsRef<[u8]>)) -> Self {
        self.0.headers_mut().insert(header(name), HeaderValue::from_bytes(value.as_ref()).unwrap());
        self
    }

    /// A header beside others of its name.
    pub(crate) fn append_header(mut self, (name, value): (&str, impl AsRef<[u8]>)) -> Self {
        self.0.headers_mut().append(header(name), HeaderValue::from_bytes(value.as_ref()).unwrap());
        self
    }

    /// The request with its body.
    pub(super) fn with(self, body: Bytes) -> hyper::Request<Full<Bytes>> {
        self.0.map(|_| Full::new(body))
    }
}

fn header(name: &str) -> HeaderName {
    name.parse().unwrap()
}
