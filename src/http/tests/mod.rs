//! Handlers, called as the server calls them, over a store that is only pretended.

mod bodies;
mod fake;
mod follows;
mod problems;
mod reads;
mod turns;

use std::sync::Arc;

use actix_web::App;
use actix_web::middleware::from_fn;
use actix_web::test::{self, TestRequest};
use actix_web::web::Data;
use serde_json::Value;

pub(crate) use fake::{Fake, settings};

use super::{State, routes, watch};
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::store::Engine;

/// A state over a pretended store with these settings.
fn state(fake: Fake, settings: &Settings) -> Arc<State> {
    let (engine, metrics) = (Arc::new(fake), Arc::new(Metrics::new()));
    let (reader, news) = (engine.reader(), engine.news());
    let pipeline = Pipeline::start(settings, engine, metrics.clone()).unwrap();
    Arc::new(State::new(settings, reader, news, pipeline, metrics))
}

/// What came back.
struct Answer {
    status: u16,
    head: actix_web::http::header::HeaderMap,
    /// Whether a body of unknown length may come in chunks.
    chunks: bool,
    body: Result<String, String>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.head.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        self.body.as_ref().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap()
    }

    /// Status and code of a problem document.
    fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{:?}", self.body);
        let document = self.json();
        assert_eq!(document["status"], self.status);
        (self.status, document["code"].as_str().unwrap().to_owned())
    }
}

async fn send(state: Arc<State>, request: TestRequest) -> Answer {
    let app = App::new().app_data(Data::from(state)).wrap(from_fn(watch::watch)).configure(routes);
    let response = test::call_service(&test::init_service(app).await, request.to_request()).await;
    let (status, head) = (response.status().as_u16(), response.headers().clone());
    let chunks = response.response().head().chunked();
    let body = test::try_read_body(response).await;
    let body =
        body.map_err(|error| error.to_string()).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    Answer { status, head, chunks, body }
}

async fn get(state: &Arc<State>, uri: &str) -> Answer {
    send(state.clone(), TestRequest::get().uri(uri)).await
}
