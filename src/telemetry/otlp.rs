//! A span for each request, to an OpenTelemetry collector: OTLP over HTTP, with the addresses, headers and times of the
//! standard's own environment variables (`OTEL_EXPORTER_OTLP_ENDPOINT` and others).
//!
//! A span is made of the line that the server writes about a request (target `sekali::requests`), so that a server that
//! sends spans does nothing else for them, and no more gets out this way than that way. A request of a trace is a child of the caller's
//! span, and is left out where the caller does not record the trace.

use std::env;
use std::fmt::Debug;
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue, Value, time};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{self, Layer};
use tracing_subscriber::registry::LookupSpan;

/// The lines that are spans.
const REQUESTS: &str = "sekali::requests";

/// The variables that name a collector; without one nothing is sent.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Where spans go. Those on their way are sent when this is dropped.
pub(super) struct Spans(SdkTracerProvider);

impl Spans {
    /// What the environment asks for; `None` where it names no collector.
    pub(super) fn of_environment() -> Result<Option<Self>, ExporterBuildError> {
        if ENDPOINTS.iter().all(|name| env::var_os(name).is_none()) {
            return Ok(None);
        }
        let exporter = SpanExporter::builder().with_http().build()?;
        // `OTEL_SERVICE_NAME` names it otherwise.
        let mut resource = Resource::builder();
        if env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("sekali");
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Some(Self(provider)))
    }

    /// What makes spans of lines.
    pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let lines = Targets::new().with_target(REQUESTS, LevelFilter::DEBUG);
        Lines(self.0.tracer("sekali")).with_filter(lines)
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

struct Lines(SdkTracer);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let ended = time::now();
        let started = ended.checked_sub(Duration::from_micros(line.micros)).unwrap_or(ended);
        let parent = line.parent();
        let status = if line.status >= 500 { Status::error("") } else { Status::Unset };
        let mut span = self
            .0
            .span_builder(format!("{} {}", line.method, line.route))
            .with_kind(SpanKind::Server)
            .with_start_time(started)
            .with_attributes(line.attributes)
            .start_with_context(&self.0, &parent);
        opentelemetry::trace::Span::set_status(&mut span, status);
        opentelemetry::trace::Span::end_with_timestamp(&mut span, ended);
    }
}

/// What a line says.
#[derive(Default)]
struct Line {
    request_id: String,
    parent_id: String,
    sampled: bool,
    method: String,
    route: String,
    status: u64,
    micros: u64,
    attributes: Vec<KeyValue>,
}

impl Line {
    /// The caller's span, where the request is part of a trace.
    fn parent(&self) -> Context {
        match (TraceId::from_hex(&self.request_id), SpanId::from_hex(&self.parent_id)) {
            (Ok(trace), Ok(span)) if span != SpanId::INVALID => {
                let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
                let caller = SpanContext::new(trace, span, flags, true, TraceState::default());
                Context::new().with_remote_span_context(caller)
            }
            _ => Context::new(),
        }
    }

    /// Takes a value over as an attribute, by OpenTelemetry's name for it where there is one.
    fn keep(&mut self, name: &'static str, value: impl Into<Value>) {
        let name = match name {
            "method" => "http.request.method",
            "route" => "http.route",
            "path" => "url.path",
            "status" => "http.response.status_code",
            "code" => "error.type",
            "received_bytes" => "http.request.body.size",
            "sent_bytes" => "http.response.body.size",
            // Those of the span itself, and the text of the line.
            "parent_id" | "sampled" | "micros" | "message" => return,
            "request_id" => "sekali.request_id",
            "topics" => "sekali.topics",
            "accepted" => "sekali.accepted",
            "duplicates" => "sekali.duplicates",
            "conflicts" => "sekali.conflicts",
            "rejected" => "sekali.rejected",
            "decide_micros" => "sekali.decide_micros",
            other => other,
        };
        self.attributes.push(KeyValue::new(name, value));
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "request_id" => value.clone_into(&mut self.request_id),
            "parent_id" => value.clone_into(&mut self.parent_id),
            "method" => value.clone_into(&mut self.method),
            "route" => value.clone_into(&mut self.route),
            _ => {}
        }
        self.keep(field.name(), value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "sampled" {
            self.sampled = value;
        }
        self.keep(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "status" => self.status = value,
            "micros" => self.micros = value,
            _ => {}
        }
        self.keep(field.name(), i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
