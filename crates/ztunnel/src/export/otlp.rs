//! OTLP's messages, as far as logs and spans need them, with the field numbers that are published; and how records become
//! them.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use mesh::Reporter;

use super::Sender;
use crate::telemetry::{Attribute, Exported, Span as Spanned};

/// A kind of telemetry: the call that takes it, and what the call is given.
pub(super) trait Signal {
    /// The message.
    type Request: Message + Clone + Default + 'static;
    /// The path of the call.
    const EXPORT: &str;

    /// A message with these records, in their order, as far as they are something of this kind.
    fn request(sender: &Sender, records: &[Exported]) -> Self::Request;
}

/// Records as log records.
pub(super) struct Logs;

/// Records as spans.
pub(super) struct Spans;

impl Signal for Logs {
    type Request = ExportLogsServiceRequest;
    const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

    fn request(sender: &Sender, records: &[Exported]) -> Self::Request {
        let log_records = records.iter().map(log_record).collect();
        let scope_logs = vec![ScopeLogs { scope: scope(), log_records }];
        ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { resource: resource(sender), scope_logs }] }
    }
}

impl Signal for Spans {
    type Request = ExportTraceServiceRequest;
    const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    fn request(sender: &Sender, records: &[Exported]) -> Self::Request {
        let spans = records.iter().filter_map(|record| Some(span(record, record.span()?))).collect();
        let scope_spans = vec![ScopeSpans { scope: scope(), spans }];
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource: resource(sender), scope_spans }] }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportLogsServiceRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(super) spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) name: String,
    #[prost(int32, tag = "6")]
    pub(super) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(super) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub(super) end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub(super) attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    pub(super) status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(int32, tag = "3")]
    pub(super) code: i32,
}

/// The answer to either call: their fields have the same numbers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(super) log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Scope {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LogRecord {
    #[prost(fixed64, tag = "1")]
    pub(super) time_unix_nano: u64,
    #[prost(int32, tag = "2")]
    pub(super) severity_number: i32,
    #[prost(string, tag = "3")]
    pub(super) severity_text: String,
    #[prost(message, optional, tag = "5")]
    pub(super) body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    pub(super) attributes: Vec<KeyValue>,
    #[prost(bytes = "vec", tag = "9")]
    pub(super) trace_id: Vec<u8>,
    #[prost(fixed64, tag = "11")]
    pub(super) observed_time_unix_nano: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyValue {
    #[prost(oneof = "Kind", tags = "1, 3")]
    pub(super) value: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

fn text(text: impl Into<String>) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Kind::Text(text.into())) })
}

fn pair(key: &str, value: Option<AnyValue>) -> KeyValue {
    KeyValue { key: key.to_owned(), value }
}

/// Who sends.
fn resource(sender: &Sender) -> Option<Resource> {
    let mut attributes = vec![
        pair("service.name", text("ztunnel")),
        pair("service.version", text(&*sender.version)),
        pair("k8s.cluster.name", text(&*sender.cluster)),
    ];
    attributes.extend(sender.node.as_ref().map(|node| pair("k8s.node.name", text(&**node))));
    Some(Resource { attributes })
}

fn scope() -> Option<Scope> {
    Some(Scope { name: "access".to_owned() })
}

/// A connection that ended. Kinds and codes are those of `trace.proto`: the end that opened the next hop's connection is a
/// client, the one that it reached a server.
fn span(exported: &Exported, span: Spanned) -> Span {
    let (name, kind) = match span.reporter {
        Reporter::Source => ("outbound connection", 3),
        Reporter::Destination => ("inbound connection", 2),
    };
    Span {
        trace_id: exported.trace_id().to_vec(),
        span_id: span.own.unwrap_or_else(|| rand::random::<u64>().max(1)).to_be_bytes().to_vec(),
        parent_span_id: span.parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
        name: name.to_owned(),
        kind,
        start_time_unix_nano: nanoseconds(span.begun),
        end_time_unix_nano: nanoseconds(exported.at),
        attributes: exported.attributes().into_iter().map(attribute).collect(),
        status: span.error.map(|message| Status { message, code: 2 }),
    }
}

fn log_record(exported: &Exported) -> LogRecord {
    // The numbers of the levels are those of the specification ("Severity Fields").
    let (severity_number, severity_text) = if exported.failed() { (17, "ERROR") } else { (9, "INFO") };
    let time_unix_nano = nanoseconds(exported.at);
    LogRecord {
        time_unix_nano,
        severity_number,
        severity_text: severity_text.to_owned(),
        body: text(exported.message()),
        attributes: exported.attributes().into_iter().map(attribute).collect(),
        trace_id: exported.trace_id().to_vec(),
        observed_time_unix_nano: time_unix_nano,
    }
}

fn attribute((key, value): (String, Attribute)) -> KeyValue {
    let value = match value {
        Attribute::Text(text) => Kind::Text(text),
        Attribute::Number(number) => Kind::Number(i64::try_from(number).unwrap_or(i64::MAX)),
    };
    KeyValue { key, value: Some(AnyValue { value: Some(value) }) }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
