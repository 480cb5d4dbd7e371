//! Accounting: who talked to whom, as logs and metrics tell it, and the one record that every connection ends in.
//!
//! A [`Flow`] holds what is known when a connection opens; a [`Tally`] what went through it; a [`Record`] both, and how
//! it ended. Values follow the label and field rules of spec admin-and-telemetry 3 and 4; printing them is telemetry's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Authority;
use crate::admit::Admission;
use crate::authorize::Decision;
use crate::cause::Cause;
use crate::connect::{Baggage, TraceId, Traceparent};
use crate::identity::Identity;
use crate::name::Text;
use crate::refusal::{Denial, ResponseFlag};
use crate::route::{Hop, Route};
use crate::service::Service;
use crate::workload::{Locality, Workload};

/// Which end of a connection this ztunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's: connections captured on their way out.
    Source,
    /// The server's: connections captured on their way in.
    Destination,
}

impl Reporter {
    /// The `reporter` label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }

    /// The direction of capture.
    pub fn direction(self) -> Direction {
        match self {
            Self::Source => Direction::Outbound,
            Self::Destination => Direction::Inbound,
        }
    }
}

/// Direction of capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Out of a pod.
    Outbound,
    /// Into a pod.
    Inbound,
}

impl Direction {
    /// The `direction` field of the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecurityPolicy {
    /// Mutual TLS: it goes through HBONE.
    MutualTls,
    /// Not by us.
    Unknown,
}

impl SecurityPolicy {
    /// The `connection_security_policy` label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::Unknown => "unknown",
        }
    }
}

/// One side of a connection, as telemetry tells it.
///
/// `None` is what is not known: `unknown` in metrics, absent in the log. No part is ever an empty text.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Party {
    /// Log `*.workload`: name of the pod, else the canonical service.
    pub pod: Option<Text>,
    /// Metrics `*_workload`: name of the owner.
    pub workload: Option<Arc<str>>,
    /// Metrics `*_canonical_service`.
    pub canonical_service: Option<Arc<str>>,
    /// Metrics `*_canonical_revision`.
    pub canonical_revision: Option<Arc<str>>,
    /// Both: namespace.
    pub namespace: Option<Arc<str>>,
    /// Metrics `*_principal`; log `*.identity`, only of connections with mutual TLS ([`Flow::proven`]).
    pub principal: Option<Identity>,
    /// Metrics `*_app`.
    pub app: Option<Arc<str>>,
    /// Metrics `*_version`.
    pub version: Option<Arc<str>>,
    /// Both: cluster.
    pub cluster: Option<Arc<str>>,
    /// Metrics `*_region` and `*_zone`: `Some` if the workload itself is known, though its parts may be empty.
    pub locality: Option<Arc<Locality>>,
}

/// An empty text means not known.
fn known(text: &Arc<str>) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.clone())
}

impl Party {
    /// A side that the control plane knows. Its identity is the caller's to fill in.
    pub fn of(workload: &Workload) -> Self {
        Self {
            pod: Some(&workload.name)
                .filter(|name| !name.is_empty())
                .cloned()
                .or_else(|| known(&workload.deployment.canonical_name).map(Text::from)),
            workload: known(&workload.deployment.workload_name),
            canonical_service: known(&workload.deployment.canonical_name),
            canonical_revision: known(&workload.deployment.canonical_revision),
            namespace: known(workload.namespace.shared()),
            principal: None,
            app: known(&workload.deployment.canonical_name),
            version: known(&workload.deployment.canonical_revision),
            cluster: known(workload.deployment.cluster_id.shared()),
            locality: Some(workload.locality.clone()),
        }
    }

    /// A side that is known only by what it says of itself. Its identity is the caller's to fill in.
    pub fn claimed(baggage: &Baggage) -> Self {
        let part = |text: &Option<Arc<str>>| text.clone().unwrap_or_default();
        let locality = Locality { region: part(&baggage.region), zone: part(&baggage.zone), ..Locality::default() };
        Self {
            pod: baggage.service_name.clone().map(Text::from),
            workload: baggage.workload_name.clone(),
            canonical_service: baggage.service_name.clone(),
            canonical_revision: baggage.revision.clone(),
            namespace: baggage.namespace.clone(),
            principal: None,
            app: baggage.workload_name.clone(),
            version: baggage.revision.clone(),
            cluster: baggage.cluster.clone(),
            locality: (locality != Locality::default()).then(|| locality.into()),
        }
    }
}

/// The service that a connection is meant for, as telemetry tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceLabels {
    /// Log `dst.service`, metrics `destination_service`.
    pub hostname: Arc<str>,
    /// Metrics `destination_service_namespace`.
    pub namespace: Arc<str>,
    /// Metrics `destination_service_name`.
    pub name: Text,
}

impl From<&Service> for ServiceLabels {
    fn from(service: &Service) -> Self {
        Self {
            hostname: service.hostname.shared().clone(),
            namespace: service.namespace.shared().clone(),
            name: service.name.clone(),
        }
    }
}

/// Everything that telemetry tells of a connection from the moment it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Which end reports.
    pub reporter: Reporter,
    /// Log `src.addr`.
    pub source_address: SocketAddr,
    /// Log `dst.addr`: the address dialled; inbound, the address at which the connection arrived.
    pub destination_address: SocketAddr,
    /// What the client dialled.
    pub original_destination: SocketAddr,
    /// Log `dst.hbone_addr`: what the CONNECT request asks for.
    pub hbone_authority: Option<Authority>,
    /// The client.
    pub source: Party,
    /// The next hop: endpoint, waypoint or gateway; inbound, the local workload.
    pub destination: Party,
    /// The service meant, also when a waypoint or gateway is the next hop.
    pub service: Option<ServiceLabels>,
    /// How the connection is protected.
    pub security: SecurityPolicy,
    /// Its id.
    pub trace: TraceId,
    /// A hop of it (W3C Trace Context §3.2.2.4): on its way out this one, on its way in the one before; 0 if nobody named
    /// that.
    pub hop: u64,
}

impl Flow {
    /// A connection on its way out.
    pub fn outbound(route: &Route, trace: Traceparent) -> Self {
        let (authority, security) = match &route.hop {
            Hop::Tcp { .. } => (None, SecurityPolicy::Unknown),
            Hop::Hbone { authority, .. } | Hop::DoubleHbone { authority, .. } => {
                (Some(authority.clone()), SecurityPolicy::MutualTls)
            }
        };
        let tls = security == SecurityPolicy::MutualTls;
        let own = tls.then(|| route.source.identity());
        let next = route.destination.as_ref().map(|workload| workload.identity());
        Self {
            reporter: Reporter::Source,
            source_address: route.client,
            destination_address: route.hop.dial(),
            original_destination: route.target,
            hbone_authority: authority,
            source: Party { principal: own, ..Party::of(&route.source) },
            destination: Party {
                principal: next,
                ..route.destination.as_ref().map(|workload| Party::of(workload)).unwrap_or_default()
            },
            service: route.service.as_deref().map(ServiceLabels::from),
            security,
            trace: trace.trace,
            hop: trace.parent,
        }
    }

    /// A connection on its way in.
    pub fn inbound(admission: &Admission, trace: Traceparent) -> Self {
        let peer = admission.tuple().identity.clone();
        let security =
            if admission.authority().is_some() { SecurityPolicy::MutualTls } else { SecurityPolicy::Unknown };
        let source = match admission.source() {
            Some(workload) => Party::of(workload),
            None => Party::claimed(admission.baggage()),
        };
        let own = admission.destination().identity();
        Self {
            reporter: Reporter::Destination,
            source_address: admission.tuple().source,
            destination_address: admission.arrived_at(),
            original_destination: admission.arrived_at(),
            hbone_authority: admission.authority().cloned(),
            source: Party { principal: peer, ..source },
            destination: Party { principal: Some(own), ..Party::of(admission.destination()) },
            service: admission.service().map(|service| ServiceLabels::from(&**service)),
            security,
            trace: trace.trace,
            hop: trace.parent,
        }
    }

    /// The same connection once the far end of a double tunnel is known, which then takes the gateway's place.
    ///
    /// `baggage` is what the inner response said; a response that said nothing is an empty one, and one that could not
    /// be read leaves the gateway's labels in place (spec data-plane 5.4).
    pub fn through_gateway(self, baggage: Option<&Baggage>, identity: Option<Identity>) -> Self {
        let destination = match baggage {
            Some(baggage) => Party { principal: identity, ..Party::claimed(baggage) },
            None => self.destination,
        };
        Self { destination, ..self }
    }

    /// What a side has proven to be: nothing without mutual TLS, whatever its principal ought to be.
    pub fn proven<'a>(&self, side: &'a Party) -> Option<&'a Identity> {
        side.principal.as_ref().filter(|_| self.security == SecurityPolicy::MutualTls)
    }
}

/// Bytes that went through a connection, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tally {
    /// From client to server: metrics `received` (spec data-plane 16.4).
    pub upstream_bytes: u64,
    /// From server to client: metrics `sent`.
    pub downstream_bytes: u64,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Complete,
    /// With an error.
    Failed {
        /// Why.
        cause: Cause,
        /// The wording of the log.
        error: String,
        /// The code that the peer gave, if it was the peer that refused.
        peer_reason: Option<Box<str>>,
    },
    /// One of the apps aborted it (TCP RST), which was passed on to the other as such. Not a failure of the mesh.
    Reset {
        /// The end that did.
        by: End,
    },
    /// Cut by a drain.
    Drained,
}

/// An end of a user's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The app that opened it.
    Client,
    /// The app that accepted it.
    Server,
}

impl End {
    /// The end as logs name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// The log's wording for connections that a drain cut (spec data-plane 18.2).
const DRAINED: &str = "connection closed due to connection drain";

impl Outcome {
    /// With an error that was found on this side.
    pub fn failed(cause: Cause, error: String) -> Self {
        Self::Failed { cause, error, peer_reason: None }
    }

    /// What went wrong, if anything did.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Complete | Self::Reset { .. } | Self::Drained => None,
            Self::Failed { cause, .. } => Some(*cause),
        }
    }

    /// The flag that metrics get.
    pub fn flag(&self) -> ResponseFlag {
        self.cause().map_or(ResponseFlag::None, |cause| cause.meaning().flag)
    }

    /// The code of what went wrong, if anything did.
    pub fn reason(&self) -> Option<&'static str> {
        self.cause().map(|cause| cause.meaning().code)
    }

    /// The code that the peer gave, if it was the peer that refused.
    pub fn peer_reason(&self) -> Option<&str> {
        match self {
            Self::Complete | Self::Reset { .. } | Self::Drained => None,
            Self::Failed { peer_reason, .. } => peer_reason.as_deref(),
        }
    }

    /// The end that aborted the connection, if one did.
    pub fn reset_by(&self) -> Option<End> {
        match self {
            Self::Reset { by } => Some(*by),
            Self::Complete | Self::Failed { .. } | Self::Drained => None,
        }
    }

    /// The wording of the log, if there is anything to complain of.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Complete | Self::Reset { .. } => None,
            Self::Failed { error, .. } => Some(error),
            Self::Drained => Some(DRAINED),
        }
    }
}

/// The policy that decided about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Normally `namespace/name`.
    pub policy: Arc<str>,
    /// Which of its rules, counted from 0; `None` for a policy that is not known.
    pub rule: Option<usize>,
}

impl Decided {
    /// What decided at admission, if any policy did.
    pub fn of(decision: &Decision) -> Option<Self> {
        match decision {
            Decision::Allowed(by) | Decision::Denied(by) => {
                Some(Self { policy: by.policy.key.shared().clone(), rule: Some(by.rule) })
            }
            Decision::Unknown(name) => Some(Self { policy: name.shared().clone(), rule: None }),
            Decision::NoAllowPolicies | Decision::NotAllowed => None,
        }
    }

    /// What a denial is for, if any policy said it.
    pub fn of_denial(denial: &Denial) -> Option<Self> {
        match denial {
            Denial::Explicit { namespace, name, rule } => {
                Some(Self { policy: format!("{namespace}/{name}").into(), rule: Some(*rule) })
            }
            Denial::UnknownPolicy(name) => Some(Self { policy: name.shared().clone(), rule: None }),
            Denial::NotAllowed => None,
        }
    }
}

/// The one record that every connection ends in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who talked to whom.
    pub flow: Arc<Flow>,
    /// How much.
    pub tally: Tally,
    /// From its opening to its end.
    pub duration: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// The policy that allowed or denied it, if one did: known to the destination only.
    pub decided: Option<Decided>,
}

impl Record {
    /// The log's `bytes_sent`: what the local workload sent (spec data-plane 16.4).
    pub fn bytes_sent(&self) -> u64 {
        match self.flow.reporter {
            Reporter::Source => self.tally.upstream_bytes,
            Reporter::Destination => self.tally.downstream_bytes,
        }
    }

    /// The log's `bytes_recv`: what the local workload received (spec data-plane 16.4).
    pub fn bytes_recv(&self) -> u64 {
        match self.flow.reporter {
            Reporter::Source => self.tally.downstream_bytes,
            Reporter::Destination => self.tally.upstream_bytes,
        }
    }
}

#[cfg(test)]
mod tests;
