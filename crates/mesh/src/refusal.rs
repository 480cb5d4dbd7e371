//! Every way in which a decision says no.
//!
//! A refusal is a value, not a failure: nothing went wrong here, the answer is no. What each means for the peer, the
//! metrics and the operator is its [`Cause`]. The wording is what operators know and search for (spec data-plane 19.1).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::address::{Authority, InvalidAuthority};
use crate::ask::Need;
use crate::cause::Cause;
use crate::name::{Hostname, LocalWorkload, PolicyName, Uid};
use crate::workload::{GatewayAddress, GatewayDestination, Protocol, Workload};

/// A connection is not to be; `Display` is the wording of the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The destination is one of our own ports.
    #[error("attempted recursive call to ourselves")]
    Recursion,
    /// The control plane has not announced the workload that this instance stands for.
    #[error("failed to fetch information about local workload: {0}")]
    UnknownLocalWorkload(LocalWorkload),
    /// The service addressed has no endpoint to offer.
    #[error("no healthy upstream: {0}")]
    NoHealthyUpstream(SocketAddr),
    /// Another network is reached by service only, and no service was addressed.
    #[error("no service for target address: {0}")]
    NoService(SocketAddr),
    /// The workload chosen cannot be reached from here.
    #[error("no valid routing destination for workload: Workload{{{name} with uid {uid} ({protocol})}}")]
    NoRoutingDestination {
        /// Name of the workload.
        name: Arc<str>,
        /// Its key.
        uid: Uid,
        /// How it would be reached.
        protocol: Protocol,
    },
    /// A waypoint that traffic has to go through cannot be resolved.
    #[error("unknown waypoint: waypoint {0} not found")]
    UnknownWaypoint(Gateway),
    /// The gateway of another network cannot be resolved.
    #[error("unknown network gateway: network gateway {0} not found")]
    UnknownNetworkGateway(Gateway),
    /// Resolving the host name of the workload chosen failed.
    #[error("no ip addresses were resolved for workload: {0}")]
    Unresolved(Uid),
    /// The host name of the workload chosen has no address.
    #[error("ip addresses were resolved for workload {0}, but valid dns response had no A/AAAA records")]
    NoAddressRecords(Uid),
    /// The request's method is not CONNECT.
    #[error("expected method CONNECT, got {0}")]
    NotConnect(String),
    /// The request's authority names no host and port.
    #[error(transparent)]
    NoAuthority(#[from] InvalidAuthority),
    /// The address asked for is not served here.
    #[error("ip mismatch: {local} != {requested}")]
    IpMismatch {
        /// The address at which the request arrived.
        local: IpAddr,
        /// The address asked for.
        requested: IpAddr,
    },
    /// The host name asked for is no service's.
    #[error("no service or workload for hostname: {0}")]
    UnknownHostname(Hostname),
    /// The service port asked for leads to no port of the local workload.
    #[error("requested service {0} found, but cannot resolve port")]
    UnresolvablePort(Authority),
    /// The app wants to be told an address that was asked for, and the service has none.
    #[error("requested service {0} found, but has no IP addresses")]
    NoVip(Hostname),
    /// Authorization policies do not allow the connection.
    #[error("connection closed due to policy rejection: {0}")]
    Denied(Denial),
    /// Authorization policies no longer allow a connection that they had allowed.
    #[error("connection closed due to policy change")]
    NoLongerAllowed(Denial),
}

/// The longest text of a peer's that a refusal repeats, in bytes: enough to recognise it, too little to flood a log.
const MAX_EXCERPT: usize = 256;

/// The beginning of a text that a peer sent.
pub(crate) fn excerpt(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_EXCERPT)].to_owned()
}

/// How a gateway or waypoint that could not be resolved was referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway(pub GatewayAddress);

impl std::fmt::Display for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.destination {
            GatewayDestination::Hostname(name) => name.hostname.fmt(f),
            GatewayDestination::Address(address) => write!(f, "{address}:{}", self.0.hbone_port),
        }
    }
}

/// Why authorization policies do not allow a connection (wording: spec data-plane 13.3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// A DENY policy matches.
    #[error("explicitly denied by: {namespace}/{name}")]
    Explicit {
        /// Namespace of the policy.
        namespace: crate::name::Namespace,
        /// Name of the policy.
        name: Arc<str>,
        /// Which of its rules, counted from 0.
        rule: usize,
    },
    /// There are ALLOW policies and none matches.
    #[error("allow policies exist, but none allowed")]
    NotAllowed,
    /// The workload refers to a policy that the control plane has not announced.
    #[error("policy {0} applies to the workload but is not known yet")]
    UnknownPolicy(PolicyName),
}

impl Refusal {
    /// That `workload` cannot be reached from here.
    pub(crate) fn no_routing_destination(workload: &Workload) -> Self {
        Self::NoRoutingDestination {
            name: workload.name.as_str().into(),
            uid: workload.uid.clone(),
            protocol: workload.protocol,
        }
    }

    /// What the caller could wait for, briefly, before it takes no for an answer.
    pub fn need(&self) -> Option<Need> {
        match self {
            Self::Denied(Denial::UnknownPolicy(name)) | Self::NoLongerAllowed(Denial::UnknownPolicy(name)) => {
                Some(Need::Policy(name.clone()))
            }
            _ => None,
        }
    }

    /// What authorization policies say, if it is they who refuse.
    pub fn denial(&self) -> Option<&Denial> {
        match self {
            Self::Denied(denial) | Self::NoLongerAllowed(denial) => Some(denial),
            _ => None,
        }
    }

    /// The refusal's row in the table.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Recursion => Cause::Recursion,
            Self::UnknownLocalWorkload(_) => Cause::UnknownLocalWorkload,
            Self::NoHealthyUpstream(_) => Cause::NoHealthyUpstream,
            Self::NoService(_) => Cause::NoService,
            Self::NoRoutingDestination { .. } => Cause::NoDestination,
            Self::UnknownWaypoint(_) => Cause::UnknownWaypoint,
            Self::UnknownNetworkGateway(_) => Cause::UnknownGateway,
            Self::Unresolved(_) => Cause::Unresolved,
            Self::NoAddressRecords(_) => Cause::NoAddressRecords,
            Self::NotConnect(_) => Cause::NotConnect,
            Self::NoAuthority(_) => Cause::NoAuthority,
            Self::IpMismatch { .. } => Cause::IpMismatch,
            Self::UnknownHostname(_) => Cause::UnknownHostname,
            Self::UnresolvablePort(_) => Cause::UnresolvablePort,
            Self::NoVip(_) => Cause::NoVip,
            Self::Denied(_) => Cause::Denied,
            Self::NoLongerAllowed(_) => Cause::NoLongerAllowed,
        }
    }

    /// The HTTP status that an HBONE peer gets (spec data-plane 6.5).
    pub fn status(&self) -> u16 {
        self.cause().meaning().status
    }

    /// The flag that metrics get (spec data-plane 19.3).
    pub fn flag(&self) -> ResponseFlag {
        self.cause().meaning().flag
    }
}

/// The `response_flags` label of metrics: how a connection ended (spec data-plane 19.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ResponseFlag {
    /// Well, or cut by a drain.
    #[default]
    None,
    /// A policy did not allow it.
    Deny,
    /// The destination could not be reached, and every failure without a flag of its own.
    Connect,
    /// TLS could not be set up.
    TlsFailure,
    /// HTTP/2 failed.
    H2HandshakeFailure,
    /// Dialling an HBONE port timed out.
    NetworkPolicy,
    /// There was no certificate.
    IdentityError,
    /// The peer's certificate was revoked.
    CertRevoked,
}

impl ResponseFlag {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::CertRevoked => "CERT_REVOKED",
        }
    }
}

#[cfg(test)]
mod tests;
