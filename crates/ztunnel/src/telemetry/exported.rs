//! Records on their way to somebody else than the log: with the fields of their lines, under the same names.
//!
//! They wait in a queue that is bounded; when it is full they are dropped and counted. Nobody who makes a record waits.
//! Logs and spans are queues of their own: a collector of one that is slow costs the other nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use mesh::{Cause, Direction, Record, Reporter};
use tokio::sync::mpsc;

use super::access_log::{self, Denial, Fields};
use super::closing::Closing;
use super::logging::Value;

/// Records that wait: some seconds of a busy node, and some megabytes.
const MAX_QUEUED: usize = 8192;

/// Something that happened to a connection, to be told elsewhere.
#[derive(Clone, Debug)]
pub struct Exported {
    /// When.
    pub at: SystemTime,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// It ended.
    Ended(Record, Closing),
    /// It was refused before it was known who talks to whom.
    Denied { source: SocketAddr, destination: SocketAddr, direction: Direction, cause: Cause, error: String },
}

/// What a span says besides its trace and its attributes (W3C Trace Context §3.2.2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its id; none if it has not been told to anybody, so that any will do.
    pub own: Option<u64>,
    /// The span that it belongs to: on its way in, that of the ztunnel on its way out.
    pub parent: Option<u64>,
    /// Which end of the connection it is of.
    pub reporter: Reporter,
    /// When the connection opened. It ended when the record was made.
    pub begun: SystemTime,
    /// What went wrong, in words.
    pub error: Option<String>,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Words, names and addresses.
    Text(String),
    /// Bytes.
    Number(u64),
}

impl Exported {
    /// What the line says before its fields.
    #[must_use]
    pub fn message(&self) -> &'static str {
        match self.what {
            What::Ended(..) => access_log::COMPLETE,
            What::Denied { .. } => access_log::FAILED,
        }
    }

    /// Whether there is anything to complain of.
    #[must_use]
    pub fn failed(&self) -> bool {
        match &self.what {
            What::Ended(record, _) => record.outcome.error().is_some(),
            What::Denied { .. } => true,
        }
    }

    /// The id of the connection (W3C Trace Context §3.2.2.3), or nothing.
    #[must_use]
    pub fn trace_id(&self) -> Box<[u8]> {
        match &self.what {
            What::Ended(record, _) => record.flow.trace.0.to_be_bytes().into(),
            What::Denied { .. } => Box::default(),
        }
    }

    /// The connection as a span; none of one that ended before it was known who talks to whom.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        let What::Ended(record, _) = &self.what else { return None };
        let flow = &record.flow;
        let (own, parent) = match flow.reporter {
            Reporter::Source => (Some(flow.hop), None),
            Reporter::Destination => (None, Some(flow.hop)),
        };
        let named = |hop: Option<u64>| hop.filter(|hop| *hop != 0);
        Some(Span {
            own: named(own),
            parent: named(parent),
            reporter: flow.reporter,
            begun: self.at.checked_sub(record.duration).unwrap_or(self.at),
            error: record.outcome.error().map(str::to_owned),
        })
    }

    /// The fields, in their order.
    #[must_use]
    pub fn attributes(&self) -> Vec<(String, Attribute)> {
        let mut attributes = Attributes(Vec::new());
        match &self.what {
            What::Ended(record, closing) => access_log::fields_of(&mut attributes, record, closing),
            What::Denied { source, destination, direction, cause, error } => {
                let (source, destination, direction, cause) = (*source, *destination, *direction, *cause);
                Denial { source, destination, direction, cause, error }.fields(&mut attributes);
            }
        }
        attributes.0
    }
}

/// Fields as they come.
struct Attributes(Vec<(String, Attribute)>);

impl Fields for Attributes {
    fn field(&mut self, name: &str, value: Value<'_>) {
        let value = match value {
            Value::Text(text) => Attribute::Text(text.to_owned()),
            Value::Quoted(shown) | Value::Bare(shown) => Attribute::Text(shown.to_string()),
            Value::Unsigned(number) => Attribute::Number(number),
            Value::Signed(number) => Attribute::Text(number.to_string()),
            Value::Float(number) => Attribute::Text(number.to_string()),
            Value::Bool(truth) => Attribute::Text(truth.to_string()),
        };
        self.0.push((name.to_owned(), value));
    }
}

/// Where records go that are to be told elsewhere. Clones share it.
#[derive(Clone, Debug)]
pub struct Exporter {
    queue: mpsc::Sender<Exported>,
    dropped: Arc<AtomicU64>,
}

impl Exporter {
    /// An exporter, and what comes out of it.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Exported>) {
        let (queue, records) = mpsc::channel(MAX_QUEUED);
        (Self { queue, dropped: Arc::default() }, records)
    }

    /// Records that found no room, since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn ended(&self, record: &Record, closing: &Closing) {
        self.put(|| What::Ended(record.clone(), closing.clone()));
    }

    pub(super) fn denied(&self, denial: &Denial<'_>) {
        let Denial { source, destination, direction, cause, error } = *denial;
        self.put(|| What::Denied { source, destination, direction, cause, error: error.to_owned() });
    }

    fn put(&self, what: impl FnOnce() -> What) {
        match self.queue.try_reserve() {
            Ok(place) => place.send(Exported { at: SystemTime::now(), what: what() }),
            Err(_) => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// Who is told of connections besides the log.
#[derive(Clone, Debug, Default)]
pub struct Exporters {
    /// Records as they are in the log.
    pub logs: Option<Exporter>,
    /// Connections as spans.
    pub spans: Option<Exporter>,
}

impl Exporters {
    pub(super) fn ended(&self, record: &Record, closing: &Closing) {
        self.logs.iter().chain(&self.spans).for_each(|exporter| exporter.ended(record, closing));
    }

    pub(super) fn denied(&self, denial: &Denial<'_>) {
        self.logs.iter().for_each(|exporter| exporter.denied(denial));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh::{Outcome, Tally};

    use super::*;
    use crate::telemetry::fixtures::outbound;

    fn record() -> Record {
        Record {
            flow: Arc::new(outbound()),
            tally: Tally { upstream_bytes: 7, downstream_bytes: 9 },
            duration: Duration::from_millis(3),
            outcome: Outcome::failed(Cause::Http2, "no".into()),
            decided: None,
        }
    }

    #[test]
    fn a_record_has_the_fields_of_its_line() {
        let (exporter, mut records) = Exporter::new();
        exporter.ended(&record(), &Closing::default());
        let exported = records.try_recv().unwrap();
        let attributes = exported.attributes();
        let names: Vec<&str> = attributes.iter().map(|(name, _)| name.as_str()).collect();
        let known: Vec<&str> =
            access_log::manual::FIELDS.iter().map(|(name, _)| *name).filter(|name| names.contains(name)).collect();
        assert_eq!(names, known);
        assert!(attributes.contains(&("bytes_sent".into(), Attribute::Number(7))));
        assert!(attributes.contains(&("reason".into(), Attribute::Text("http2".into()))));
        assert!(exported.failed() && exported.message() == "connection complete");
        assert_eq!(*exported.trace_id(), 7_u128.to_be_bytes());
    }

    #[test]
    fn what_finds_no_room_is_counted_and_nobody_waits() {
        let (exporter, records) = Exporter::new();
        for _ in 0..MAX_QUEUED + 3 {
            exporter.ended(&record(), &Closing::default());
        }
        assert_eq!((exporter.dropped(), records.len()), (3, MAX_QUEUED));
    }
}
