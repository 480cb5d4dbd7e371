//! The access log: one line per connection, with the fields that operators and their tools know, in their order (spec
//! admin-and-telemetry 4, data-plane 19.2). What is not known is absent. Additions come after the existing fields.

mod filter;
pub mod manual;

use std::net::SocketAddr;
use std::time::SystemTime;

use mesh::{Cause, Direction, Flow, Party, Record};
use tracing::Level;

pub use filter::{Filter, Sample, Wells};

use super::closing::{Closing, Path};
use super::logging::{ACCESS, Format, Line, Value};

/// What a line says of a connection that ended.
pub(super) const COMPLETE: &str = "connection complete";
/// What it says of one that was refused early.
pub(super) const FAILED: &str = "connection failed";

/// Takes fields, in their order.
pub(super) trait Fields {
    fn field(&mut self, name: &str, value: Value<'_>);

    /// A field that is absent when it is not known.
    fn known(&mut self, name: &str, value: Option<&str>) {
        if let Some(text) = value {
            self.field(name, Value::Text(text));
        }
    }
}

impl Fields for Line<'_> {
    fn field(&mut self, name: &str, value: Value<'_>) {
        Line::field(self, name, value);
    }
}

/// The level of a record's line.
pub(super) fn level(record: &Record) -> Level {
    if record.outcome.error().is_some() { Level::ERROR } else { Level::INFO }
}

/// A connection that opened.
pub(super) fn opened(out: &mut String, format: Format, at: SystemTime, flow: &Flow) {
    let mut line = Line::begin(out, format, at, Level::DEBUG, ACCESS);
    line.message(&"connection opened");
    parties(&mut line, flow);
    line.end();
}

/// A connection that ended.
pub(super) fn complete(out: &mut String, format: Format, at: SystemTime, record: &Record, closing: &Closing) {
    let mut line = Line::begin(out, format, at, level(record), ACCESS);
    line.message(&COMPLETE);
    fields_of(&mut line, record, closing);
    line.end();
}

/// The fields of a connection that ended.
pub(super) fn fields_of(line: &mut impl Fields, record: &Record, closing: &Closing) {
    parties(line, &record.flow);
    line.field("bytes_sent", Value::Unsigned(record.bytes_sent()));
    line.field("bytes_recv", Value::Unsigned(record.bytes_recv()));
    line.field("duration", Value::Quoted(&format_args!("{}ms", record.duration.as_millis())));
    line.known("error", record.outcome.error());
    line.known("reason", record.outcome.reason());
    line.known("peer_reason", record.outcome.peer_reason());
    line.known("reset_by", record.outcome.reset_by().map(mesh::End::as_str));
    if let Some(decided) = &record.decided {
        line.field("policy", Value::Text(&decided.policy));
        if let Some(rule) = decided.rule {
            line.field("rule", Value::Unsigned(rule as u64));
        }
    }
    whereabouts(line, record.outcome.cause());
    line.known("closed_first", closing.closed_first.map(mesh::End::as_str));
    line.known("tls_group", closing.tls_group.as_deref());
    path(line, ["app_rtt", "app_retransmits"], closing.app.as_ref());
    path(line, ["peer_rtt", "peer_retransmits"], closing.peer.as_ref());
}

fn path(line: &mut impl Fields, [round_trip, retransmits]: [&str; 2], path: Option<&Path>) {
    if let Some(path) = path {
        line.field(round_trip, Value::Quoted(&format_args!("{}us", path.round_trip.as_micros())));
        line.field(retransmits, Value::Unsigned(path.retransmits.into()));
    }
}

/// A connection that ended before it was known who talks to whom.
pub(super) struct Denial<'a> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) direction: Direction,
    pub(super) cause: Cause,
    pub(super) error: &'a str,
}

impl Denial<'_> {
    pub(super) fn write(&self, out: &mut String, format: Format, at: SystemTime) {
        let mut line = Line::begin(out, format, at, Level::WARN, ACCESS);
        line.message(&FAILED);
        self.fields(&mut line);
        line.end();
    }

    pub(super) fn fields(&self, line: &mut impl Fields) {
        line.field("src.addr", Value::Bare(&self.source));
        line.field("dst.addr", Value::Bare(&self.destination));
        line.field("direction", Value::Text(self.direction.as_str()));
        line.field("error", Value::Text(self.error));
        line.field("reason", Value::Text(self.cause.meaning().code));
        whereabouts(line, Some(self.cause));
    }
}

/// How far a connection that failed had come, and where to look.
fn whereabouts(line: &mut impl Fields, cause: Option<Cause>) {
    if let Some(cause) = cause {
        let meaning = cause.meaning();
        line.field("stage", Value::Text(meaning.stage.as_str()));
        line.field("side", Value::Text(meaning.side.as_str()));
    }
}

/// The fields that all lines about a connection share.
fn parties(line: &mut impl Fields, flow: &Flow) {
    line.field("src.addr", Value::Bare(&flow.source_address));
    party(line, ["src.workload", "src.namespace", "src.identity", "src.cluster"], (flow, &flow.source));
    line.field("dst.addr", Value::Bare(&flow.destination_address));
    if let Some(authority) = &flow.hbone_authority {
        line.field("dst.hbone_addr", Value::Bare(authority));
    }
    line.known("dst.service", flow.service.as_ref().map(|service| &*service.hostname));
    party(line, ["dst.workload", "dst.namespace", "dst.identity", "dst.cluster"], (flow, &flow.destination));
    line.field("direction", Value::Text(flow.reporter.direction().as_str()));
}

fn party(line: &mut impl Fields, [workload, namespace, identity, cluster]: [&str; 4], (flow, party): (&Flow, &Party)) {
    line.known(workload, party.pod.as_deref());
    line.known(namespace, party.namespace.as_deref());
    if let Some(known) = flow.proven(party) {
        line.field(identity, Value::Quoted(known));
    }
    line.known(cluster, party.cluster.as_deref());
}

#[cfg(test)]
mod tests;
