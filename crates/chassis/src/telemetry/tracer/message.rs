//! The messages of OTLP's trace service, as far as they are used here, and a batch of spans as one of them. Field
//! numbers are those of opentelemetry-proto's `trace.proto`, `common.proto` and `trace_service.proto`.

use prost::Message;

use super::span::{Kind, Recorded, Value};
use crate::telemetry::TraceContext;

/// `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Response {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

/// `InstrumentationScope`.
#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Link {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 2, 3")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Any {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Flag(bool),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// `STATUS_CODE_ERROR`.
const STATUS_ERROR: i32 = 2;
/// The semantic conventions that define the names of attributes.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";
/// Bits of `flags` beside those of the trace context: it is known whether the parent is in another process, and it is.
const PARENT_IS_REMOTE_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

/// A batch as a request.
pub(super) fn request(resource: &[(String, String)], version: &str, batch: &[Recorded]) -> Request {
    let text = |text: &str| Value::from(text.to_owned());
    let attributes = resource.iter().map(|(name, value)| key_value(name, text(value))).collect();
    let scope = Scope { name: "tinjis".to_owned(), version: version.to_owned() };
    let spans = batch.iter().map(span).collect();
    let resource_spans = ResourceSpans {
        resource: Some(Resource { attributes }),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
        schema_url: SCHEMA_URL.to_owned(),
    };
    Request { resource_spans: vec![resource_spans] }
}

fn span(recorded: &Recorded) -> Span {
    let (trace_id, span_id) = bytes(&recorded.context);
    let attributes = recorded.attributes.iter();
    let is_remote = recorded.kind == Kind::Server && recorded.parent.is_some();
    let remote = if is_remote { PARENT_IS_REMOTE } else { 0 };
    Span {
        trace_id,
        span_id,
        parent_span_id: recorded.parent.map(|parent| bytes(&parent).1).unwrap_or_default(),
        name: recorded.name.to_string(),
        kind: match recorded.kind {
            Kind::Internal => 1,
            Kind::Server => 2,
            Kind::Client => 3,
        },
        start_time_unix_nano: recorded.began_ns,
        end_time_unix_nano: recorded.ended_ns,
        attributes: attributes.map(|(name, value)| key_value(name, value.clone())).collect(),
        links: recorded.links.iter().map(link).collect(),
        status: recorded.is_failed.then_some(Status { code: STATUS_ERROR }),
        flags: u32::from(recorded.context.is_sampled()) | PARENT_IS_REMOTE_KNOWN | remote,
    }
}

fn link(to: &TraceContext) -> Link {
    let (trace_id, span_id) = bytes(to);
    Link { trace_id, span_id }
}

fn bytes(context: &TraceContext) -> (Vec<u8>, Vec<u8>) {
    let (trace_id, span_id) = context.ids();
    (trace_id.to_be_bytes().to_vec(), span_id.to_be_bytes().to_vec())
}

fn key_value(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => Any::Text(text.into_owned()),
        Value::Number(number) => Any::Number(number),
        Value::Flag(flag) => Any::Flag(flag),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}
