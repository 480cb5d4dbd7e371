//! OTLP's messages, as far as logs need them, with the field numbers that are published; and how a record becomes one.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::Sender;
use crate::telemetry::{Attribute, Exported};

/// The path of the call.
pub(super) const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportLogsServiceRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportLogsServiceResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_log_records: i64,
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

/// A request with these records, in their order.
pub(super) fn request(sender: &Sender, records: &[Exported]) -> ExportLogsServiceRequest {
    let mut attributes = vec![
        pair("service.name", text("ztunnel")),
        pair("service.version", text(&*sender.version)),
        pair("k8s.cluster.name", text(&*sender.cluster)),
    ];
    attributes.extend(sender.node.as_ref().map(|node| pair("k8s.node.name", text(&**node))));
    let scope_logs = ScopeLogs {
        scope: Some(Scope { name: "access".to_owned() }),
        log_records: records.iter().map(log_record).collect(),
    };
    let resource = Some(Resource { attributes });
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { resource, scope_logs: vec![scope_logs] }] }
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
