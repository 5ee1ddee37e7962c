//! One request and its answer over HTTP/1.1.
//!
//! The connection goes straight to the server that the address names: no proxy of the environment
//! (`HTTP_PROXY`), no redirect, no path that is rewritten on its way. hyper skips interim answers (1xx),
//! reads an answer without a length to the end of the connection, and fails when an answer ends before
//! its length or its last chunk.

use std::error::Error;
use std::time::Duration;

use actix_web::web::{Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use hyper::{Method, Response, Uri};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;

use super::error::{ClientError, Refused};
use super::lines::Body;
use super::{retry_after, url};
use crate::api::HISTORY_HEADER;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take; over the server's own `server.request_timeout`.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// How long the document of an error status may take; the status alone says enough.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read as a whole, in bytes.
const ANSWER_MAX: usize = 64 << 20;
/// How long an unused connection is kept: shorter than the other end keeps one (the log 75 s, proxies
/// between as a rule 5 s or more). hyper sends a request again by itself where a connection was closed
/// before the first byte was written.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// The transport to one server.
#[derive(Clone)]
pub(super) struct Http {
    client: legacy::Client<HttpConnector, Full<Bytes>>,
    /// The address, without a slash at its end.
    pub(super) url: String,
}

/// A request, without its address.
pub(super) struct Request {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Request {
    /// A request for a path, with its query, that expects this media type.
    pub(super) fn get(path: impl Into<String>, accept: &'static str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(hyper::header::ACCEPT, HeaderValue::from_static(accept));
        Self { method: Method::GET, path: path.into(), headers, body: Bytes::new() }
    }

    /// A request that sends a body of this media type.
    pub(super) fn post(path: impl Into<String>, content_type: &'static str, body: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { method: Method::POST, path: path.into(), headers, body }
    }

    /// The same request with one header more.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<HeaderValue>) -> Self {
        self.headers.insert(HeaderName::from_static(name), value.into());
        self
    }
}

impl Http {
    /// A transport to the server at this address; nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Url`] when the address cannot be used.
    pub(super) fn new(address: &str) -> Result<Self, ClientError> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_ALIVE)
            .build(connector);
        Ok(Self { client, url: url::check(address)? })
    }

    /// Sends a request and reads its answer, which must be a whole JSON document, within
    /// [`ANSWER_TIMEOUT`].
    pub(super) async fn read<T: DeserializeOwned>(&self, request: Request) -> Result<T, ClientError> {
        let exchange = async {
            let bytes = self.collect(self.send(request).await?.into_body()).await?;
            // An answer without a length ends where its connection does: only its content shows a cut.
            serde_json::from_slice(&bytes).map_err(|error| {
                if error.is_eof() {
                    self.broken("the answer was cut off".to_owned())
                } else {
                    self.unreadable(error.to_string())
                }
            })
        };
        tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_| self.timeout(ANSWER_TIMEOUT))?
    }

    /// Sends a request and gives the body of the answer as it arrives, and the history that the answer
    /// names, if it names one.
    pub(super) async fn stream(&self, request: Request) -> Result<(Body, Option<String>), ClientError> {
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, self.send(request));
        let (head, incoming) = sent.await.map_err(|_| self.timeout(ANSWER_TIMEOUT))??.into_parts();
        let history =
            head.headers.get(HISTORY_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let chunks = incoming.into_data_stream();
        let body = chunks.map(|chunk| chunk.map_err(|error| reason(&error))).boxed_local();
        Ok((body, history))
    }

    /// Sends a request; an answer with another status than 200 is an error.
    pub(super) async fn send(&self, request: Request) -> Result<Response<Incoming>, ClientError> {
        let Request { method, path, headers, body } = request;
        let address = format!("{}{path}", self.url);
        let uri: Uri = address.parse().map_err(|error| {
            ClientError::Url(format!("{} is no address of a server: {error}", address.escape_debug()))
        })?;
        let mut http = hyper::Request::new(Full::new(body));
        *http.method_mut() = method;
        *http.uri_mut() = uri;
        *http.headers_mut() = headers;
        let answer = self.client.request(http).await.map_err(|error| self.unanswered(&error))?;
        let (head, incoming) = answer.into_parts();
        match head.status.as_u16() {
            200 => Ok(Response::from_parts(head, incoming)),
            status @ (100..=199 | 201..=299) => {
                let reason = format!("HTTP status {status}, where 200 is expected");
                Err(self.unreadable(reason))
            }
            status => Err(self.refused(status, &head.headers, incoming).await),
        }
    }

    async fn refused(&self, status: u16, headers: &HeaderMap, incoming: Incoming) -> ClientError {
        // The status decides, also where the document is cut off or is none of ours.
        let problem = match tokio::time::timeout(REFUSAL_TIMEOUT, self.collect(incoming)).await {
            Ok(Ok(bytes)) => serde_json::from_slice(&bytes).ok(),
            _ => None,
        };
        let location = headers.get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()));
        ClientError::Refused(Box::new(Refused {
            url: self.url.clone(),
            status,
            retry_after: retry_after::of(headers),
            location: location.map(|text| text.escape_debug().to_string()),
            problem,
        }))
    }

    async fn collect(&self, mut incoming: Incoming) -> Result<Bytes, ClientError> {
        let mut bytes = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| self.broken(reason(&error)))?;
            if let Some(data) = frame.data_ref() {
                bytes.extend_from_slice(data);
            }
            if bytes.len() > ANSWER_MAX {
                return Err(self.unreadable(format!("the answer is longer than {ANSWER_MAX} bytes")));
            }
        }
        Ok(bytes.freeze())
    }

    /// The error of a request that has no answer.
    fn unanswered(&self, error: &legacy::Error) -> ClientError {
        let url = self.url.clone();
        if error.is_connect() {
            return ClientError::Unreachable { url, reason: reason(error) };
        }
        let cause = error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
        match cause {
            Some(cause) if cause.is_incomplete_message() || cause.is_closed() || cause.is_canceled() => {
                self.broken("closed before the end of the answer's head".to_owned())
            }
            Some(cause) if cause.is_parse() => self.unreadable(reason(cause)),
            Some(cause) => self.broken(reason(cause)),
            None => self.broken(reason(error)),
        }
    }

    /// The connection ended before the answer did.
    pub(super) fn broken(&self, reason: String) -> ClientError {
        ClientError::Broken { url: self.url.clone(), reason }
    }

    /// The answer is not one of the contract.
    pub(super) fn unreadable(&self, reason: String) -> ClientError {
        ClientError::Unreadable { url: self.url.clone(), reason }
    }

    /// No answer in time.
    pub(super) fn timeout(&self, waited: Duration) -> ClientError {
        ClientError::Timeout { url: self.url.clone(), waited }
    }
}

/// The innermost cause, which says what the network said; the outer ones name layers of the library.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
