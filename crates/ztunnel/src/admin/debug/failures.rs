//! The last connections that failed: `/debug/failures`.

use serde::Serialize;

use super::{Question, Side, Way, limit, parameter};
use crate::identity::certificate::rfc3339;
use crate::telemetry::{Failure, MAX_FAILURES, Telemetry};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failures {
    failures: Vec<Row>,
    /// Since the start of the process, kept or not.
    seen: u64,
}

/// A failure, as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    app_path: Option<Way>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_from_client: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_from_server: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_first: Option<&'static str>,
    pub(super) code: &'static str,
    pub(super) destination: Side,
    direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    pub(super) error: String,
    flag: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hbone_address: Option<String>,
    hint: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_path: Option<Way>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    side: &'static str,
    pub(super) source: Side,
    stage: &'static str,
    pub(super) time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_group: Option<String>,
}

/// The latest first; `code` is a reason, `namespace` and `workload` are of either side.
pub(super) fn tell(telemetry: &Telemetry, query: &str) -> Result<Failures, Question> {
    let limit = limit(query, MAX_FAILURES)?;
    let [code, namespace, workload] = ["code", "namespace", "workload"].map(|name| parameter(query, name));
    let (last, seen) = telemetry.failures();
    let (namespace, workload) = (namespace.as_deref(), workload.as_deref());
    let wanted = |row: &Row| {
        code.as_deref().is_none_or(|code| code == row.code)
            && (row.source.is_of(namespace, workload) || row.destination.is_of(namespace, workload))
    };
    let failures = last.iter().map(|failure| row(failure)).filter(wanted).take(limit).collect();
    Ok(Failures { failures, seen })
}

pub(super) fn row(failure: &Failure) -> Row {
    let meaning = failure.cause.meaning();
    let record = failure.record.as_ref();
    let flow = record.map(|record| &record.flow);
    let closing = record.map(|record| &record.closing);
    Row {
        app_path: closing.and_then(|closing| closing.app).map(Way::from),
        bytes_from_client: record.map(|record| record.tally.upstream_bytes),
        bytes_from_server: record.map(|record| record.tally.downstream_bytes),
        closed_first: closing.and_then(|closing| closing.closed_first).map(mesh::End::as_str),
        code: meaning.code,
        destination: match flow {
            Some(flow) => Side::of(flow, &flow.destination, failure.destination),
            None => Side::unknown(failure.destination),
        },
        direction: failure.direction.as_str(),
        duration_ms: record.map(|record| u64::try_from(record.duration.as_millis()).unwrap_or(u64::MAX)),
        error: failure.error.to_string(),
        flag: meaning.flag.as_str(),
        hbone_address: flow.and_then(|flow| flow.hbone_authority.as_ref()).map(ToString::to_string),
        hint: meaning.hint,
        id: flow.map(|flow| format!("{:032x}", flow.trace.0)),
        number: failure.number,
        original_destination: flow.map(|flow| flow.original_destination.to_string()),
        peer_path: closing.and_then(|closing| closing.peer).map(Way::from),
        peer_reason: failure.peer_reason.as_deref().map(str::to_owned),
        service: flow.and_then(|flow| flow.service.as_ref()).map(|service| service.hostname.to_string()),
        side: meaning.side.as_str(),
        source: match flow {
            Some(flow) => Side::of(flow, &flow.source, failure.source),
            None => Side::unknown(failure.source),
        },
        stage: meaning.stage.as_str(),
        time: rfc3339(failure.at),
        tls_group: closing.and_then(|closing| closing.tls_group.as_deref()).map(str::to_owned),
    }
}
