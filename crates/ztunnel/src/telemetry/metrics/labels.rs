//! Labels: their names, their order and their values (spec admin-and-telemetry 3).

use std::fmt::{self, Write};
use std::ops::Range;

use mesh::{Flow, Hostname, Identity, Locality, Party, Reporter, ResponseFlag, Workload};
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};

/// Value of a label that is not known.
const UNKNOWN: &str = "unknown";
/// Value of `request_protocol`: nothing above TCP is looked at.
const PROTOCOL: &str = "tcp";

/// The labels of connections before `response_flags`, and the one after it.
const NAMES: [&str; 22] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "request_protocol",
    "connection_security_policy",
];
/// Before which of [`NAMES`] the flag stands.
const FLAG_BEFORE: usize = 21;
/// The last labels, which are there only if the workload of one side is known.
const LOCALITY_NAMES: [&str; 4] = ["source_region", "source_zone", "destination_region", "destination_zone"];

/// Labels that are always there: without them a series would not say what it counts.
const ALWAYS: [&str; 2] = ["reporter", FLAG];
/// The label between [`NAMES`].
const FLAG: &str = "response_flags";

/// Which labels connections are counted by (`METRICS_LABELS`). Series that differ in others only are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown(u32);

impl Default for Shown {
    /// All of them.
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Shown {
    /// Only those, besides `reporter` and `response_flags`.
    ///
    /// # Errors
    /// The first name that is no label of connections.
    pub fn only<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        let mut shown = Self(0);
        for always in ALWAYS {
            shown.0 |= Self::bit(always).unwrap_or_default();
        }
        for name in names {
            shown.0 |= Self::bit(name).ok_or(name)?;
        }
        Ok(shown)
    }

    /// All labels of connections that are counted by when nothing else is asked for, in their order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let (before, after) = NAMES.split_at(FLAG_BEFORE);
        before.iter().chain(std::iter::once(&FLAG)).chain(after).chain(&LOCALITY_NAMES).copied()
    }

    /// No more than 32 labels have a place.
    fn bit(name: &str) -> Option<u32> {
        let at = Self::names().position(|known| known == name)?;
        Some(1 << at)
    }

    fn shows(self, place: usize) -> bool {
        self.0 & (1 << place) != 0
    }
}

/// The place among all labels of the one at `at` of [`NAMES`].
const fn place(at: usize) -> usize {
    if at < FLAG_BEFORE { at } else { at + 1 }
}

/// The place of the first of [`LOCALITY_NAMES`] among all labels.
const LOCALITY: usize = NAMES.len() + 1;

/// A label's value, borrowed from what a flow says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Identity(&'a Identity),
}

/// What tells series apart: the values of all labels but the flag, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Values<'a> {
    values: [Value<'a>; NAMES.len()],
    locality: Option<[Value<'a>; LOCALITY_NAMES.len()]>,
}

impl<'a> Values<'a> {
    pub(super) fn of(flow: &'a Flow, shown: Shown) -> Self {
        let (source, destination, service) = (&flow.source, &flow.destination, flow.service.as_ref());
        let mut values = [
            Value::Text(flow.reporter.as_str()),
            text(source.workload.as_deref()),
            text(source.canonical_service.as_deref()),
            text(source.canonical_revision.as_deref()),
            text(source.namespace.as_deref()),
            principal(source),
            text(source.app.as_deref()),
            text(source.version.as_deref()),
            text(source.cluster.as_deref()),
            text(service.map(|service| &*service.hostname)),
            text(service.map(|service| &*service.namespace)),
            text(service.map(|service| &*service.name)),
            text(destination.workload.as_deref()),
            text(destination.canonical_service.as_deref()),
            text(destination.canonical_revision.as_deref()),
            text(destination.namespace.as_deref()),
            principal(destination),
            text(destination.app.as_deref()),
            text(destination.version.as_deref()),
            text(destination.cluster.as_deref()),
            Value::Text(PROTOCOL),
            Value::Text(flow.security.as_str()),
        ];
        let [from, to] = [source, destination].map(|party| party.locality.as_deref());
        let region = |place: Option<&'a Locality>| text(place.map(|place| &*place.region));
        let zone = |place: Option<&'a Locality>| text(place.map(|place| &*place.zone));
        let known = from.is_some() || to.is_some();
        let mut locality = known.then(|| [region(from), zone(from), region(to), zone(to)]);
        // What is not shown tells nothing apart.
        if shown != Shown::default() {
            for (_, value) in values.iter_mut().enumerate().filter(|(at, _)| !shown.shows(place(*at))) {
                *value = Value::Text(UNKNOWN);
            }
            for (_, value) in locality.iter_mut().flatten().enumerate().filter(|(at, _)| !shown.shows(LOCALITY + at)) {
                *value = Value::Text(UNKNOWN);
            }
            locality = locality.filter(|_| (0..LOCALITY_NAMES.len()).any(|at| shown.shows(LOCALITY + at)));
        }
        Self { values, locality }
    }
}

fn text(value: Option<&str>) -> Value<'_> {
    Value::Text(value.filter(|text| !text.is_empty()).unwrap_or(UNKNOWN))
}

fn principal(party: &Party) -> Value<'_> {
    party.principal.as_ref().map_or(Value::Text(UNKNOWN), Value::Identity)
}

/// All labels of a connection as they are printed.
pub(super) struct Labels<'a> {
    pub(super) values: Values<'a>,
    pub(super) shown: Shown,
    pub(super) flag: ResponseFlag,
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let flag = Value::Text(self.flag.as_str());
        for (at, (name, value)) in NAMES.into_iter().zip(self.values.values).enumerate() {
            if at == FLAG_BEFORE {
                put(encoder, FLAG, flag)?;
            }
            if self.shown.shows(place(at)) {
                put(encoder, name, value)?;
            }
        }
        let locality = LOCALITY_NAMES.into_iter().zip(self.values.locality.into_iter().flatten()).enumerate();
        let mut shown = locality.filter(|(at, _)| self.shown.shows(LOCALITY + at));
        shown.try_for_each(|(_, (name, value))| put(encoder, name, value))
    }
}

/// The one label of `istio_tcp_sockets_open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reporting(pub(super) Reporter);

impl EncodeLabelSet for Reporting {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        put(encoder, "reporter", Value::Text(self.0.as_str()))
    }
}

/// Labels of connections that ended before it was known who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Denied {
    pub(super) reporter: Reporter,
    pub(super) flag: ResponseFlag,
}

impl EncodeLabelSet for Denied {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        put(encoder, "reporter", Value::Text(self.reporter.as_str()))?;
        put(encoder, FLAG, Value::Text(self.flag.as_str()))
    }
}

/// Labels of `istio_on_demand_dns_total`, of host names that are looked up: for whom, and which. Both are the control plane's to name, so that there are no
/// more of them than it wishes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lookup {
    /// Of the labels that connections have of their source.
    source: [Box<str>; SOURCE_NAMES.end - SOURCE_NAMES.start],
    hostname: Box<str>,
}

/// Which of [`NAMES`] tell of the source.
const SOURCE_NAMES: Range<usize> = 1..9;

impl Lookup {
    pub(super) fn new(source: Option<&Workload>, hostname: &Hostname) -> Self {
        let principal = source.map(|source| source.identity().to_string());
        let party = source.map(Party::of).unwrap_or_default();
        let values = [
            party.workload.as_deref(),
            party.canonical_service.as_deref(),
            party.canonical_revision.as_deref(),
            party.namespace.as_deref(),
            principal.as_deref(),
            party.app.as_deref(),
            party.version.as_deref(),
            party.cluster.as_deref(),
        ];
        Self { source: values.map(|value| value.unwrap_or(UNKNOWN).into()), hostname: hostname.as_str().into() }
    }
}

impl EncodeLabelSet for Lookup {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut source = NAMES[SOURCE_NAMES].iter().zip(&self.source);
        source.try_for_each(|(name, value)| put(encoder, name, Value::Text(value)))?;
        put(encoder, "hostname", Value::Text(&self.hostname))
    }
}

/// Labels of `istio_build`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Build {
    pub(super) component: &'static str,
    pub(super) tag: String,
}

impl EncodeLabelSet for Build {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        put(encoder, "component", Value::Text(self.component))?;
        put(encoder, "tag", Value::Text(&self.tag))
    }
}

fn put(encoder: &mut LabelSetEncoder<'_>, name: &str, value: Value<'_>) -> fmt::Result {
    let mut label = encoder.encode_label();
    let mut key = label.encode_label_key()?;
    key.write_str(name)?;
    let mut out = key.encode_label_value()?;
    match value {
        Value::Text(text) => Escaped(&mut out).write_str(text)?,
        Value::Identity(identity) => write!(Escaped(&mut out), "{identity}")?,
    }
    out.finish()
}

/// Writes on what stands between quotes (OpenMetrics 1.0.0, escaping), which the library leaves to its users.
struct Escaped<'a, W>(&'a mut W);

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, mut text: &str) -> fmt::Result {
        while let Some(at) = text.find(['"', '\\', '\n']) {
            let (plain, rest) = text.split_at(at);
            self.0.write_str(plain)?;
            self.0.write_str(match rest.as_bytes().first() {
                Some(b'"') => "\\\"",
                Some(b'\\') => "\\\\",
                _ => "\\n",
            })?;
            text = rest.get(1..).unwrap_or_default();
        }
        self.0.write_str(text)
    }
}
