//! Whether a connection that reaches a pod is meant for it, and what its app is to be handed (spec data-plane 10, 11).
//!
//! Nothing here asks who the peer is: that is [`crate::authorize()`]'s, which turns an [`Admission`] into a permit.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::address::{Authority, canonical};
use crate::ask::{Halt, Learnt};
use crate::authorize::UnknownPolicy;
use crate::connect::{Baggage, ProxyHeader, baggage, forwarded};
use crate::identity::Identity;
use crate::name::NetworkId;
use crate::refusal::{Refusal, excerpt};
use crate::service::Service;
use crate::view::View;
use crate::workload::Workload;

mod decide;

use decide::Asked;

/// One CONNECT request, as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct HboneRequest<'a> {
    /// The peer's end of the tunnel's TCP connection, canonical.
    pub peer: SocketAddr,
    /// Our end of it, canonical.
    pub local: SocketAddr,
    /// Who the peer has proven to be.
    pub identity: Option<&'a Identity>,
    /// `:method`.
    pub method: &'a str,
    /// `:authority`.
    pub authority: &'a str,
    /// All lines of `baggage`.
    pub baggage: &'a [&'a [u8]],
    /// The first line of `forwarded`.
    pub forwarded: Option<&'a [u8]>,
    /// The first line of `x-forwarded-network`.
    pub forwarded_network: Option<&'a [u8]>,
}

/// What the operator set about connections that reach a pod.
#[derive(Clone, Debug)]
pub struct AdmitSettings {
    /// The network of this node.
    pub network: NetworkId,
    /// Our own ports, never a destination (spec data-plane 1.2).
    pub illegal_ports: Vec<u16>,
    /// Whether apps see the peer's address as the source: the listener is transparent.
    pub preserve_source: bool,
    /// Whether apps that take the PROXY protocol are dialled by loopback (spec data-plane 10.6).
    pub localhost_app_tunnel: bool,
    /// Whether baggage is read from requests and put into responses.
    pub baggage: bool,
    /// What to make of policies that a workload refers to and that are not known.
    pub unknown_policy: UnknownPolicy,
    /// Whether an address that is not known is asked for before it is taken for a stranger's.
    pub on_demand: bool,
}

/// Everything that authorization looks at (spec data-plane 13.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The peer of the connection.
    pub source: SocketAddr,
    /// The address at which the app is reached: the workload's own, with the port that is dialled.
    pub destination: SocketAddr,
    /// Who the peer has proven to be.
    pub identity: Option<Identity>,
    /// The network of both addresses.
    pub network: NetworkId,
}

/// A connection that is meant for the local workload, and what its app is to be handed.
#[derive(Clone, Debug)]
pub struct Admission {
    tuple: Tuple,
    arrived_at: SocketAddr,
    app: SocketAddr,
    source_ip: Option<IpAddr>,
    proxy_header: Option<ProxyHeader>,
    authority: Option<Authority>,
    destination: Arc<Workload>,
    source: Option<Arc<Workload>>,
    baggage: Baggage,
    response_baggage: bool,
    service: Option<Arc<Service>>,
    unknown_policy: UnknownPolicy,
}

impl Admission {
    /// What authorization looks at.
    pub fn tuple(&self) -> &Tuple {
        &self.tuple
    }

    /// The address at which the connection arrived: the original destination.
    pub fn arrived_at(&self) -> SocketAddr {
        self.arrived_at
    }

    /// Where to dial the app.
    pub fn app(&self) -> SocketAddr {
        self.app
    }

    /// The address that the app shall see as the source; `None` leaves it to the kernel.
    pub fn source_ip(&self) -> Option<IpAddr> {
        self.source_ip
    }

    /// What to write to the app before anything else.
    pub fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.proxy_header.as_ref()
    }

    /// What the CONNECT request asked for; `None` if the connection came in plain TCP.
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// The local workload.
    pub fn destination(&self) -> &Arc<Workload> {
        &self.destination
    }

    /// The workload that the connection comes from, if the mesh knows it.
    pub fn source(&self) -> Option<&Arc<Workload>> {
        self.source.as_ref()
    }

    /// What the peer says of itself; for telemetry only.
    pub fn baggage(&self) -> &Baggage {
        &self.baggage
    }

    /// The service that was probably meant; for telemetry only (spec data-plane 10.8).
    pub fn service(&self) -> Option<&Arc<Service>> {
        self.service.as_ref()
    }

    /// The `baggage` header of the answer, if there is to be one.
    pub fn response_baggage(&self) -> Option<String> {
        self.response_baggage.then(|| baggage::write(&self.destination))
    }

    /// What to make of policies that the workload refers to and that are not known.
    pub fn unknown_policy(&self) -> UnknownPolicy {
        self.unknown_policy
    }
}

/// Decides whether a CONNECT request is meant for `destination`, the workload that the listener stands for.
///
/// [`Halt::Need`] is as for [`crate::route()`].
pub fn admit_hbone(
    view: &View,
    destination: &Arc<Workload>,
    request: &HboneRequest<'_>,
    learnt: &Learnt,
    settings: &AdmitSettings,
) -> Result<Admission, Halt> {
    if request.method != "CONNECT" {
        return Err(Refusal::NotConnect(excerpt(request.method)).into());
    }
    let authority: Authority = request.authority.parse().map_err(Refusal::from)?;
    let (peer, local) = (canonical(request.peer), canonical(request.local));
    let asked = Asked { view, destination, local, learnt, settings };
    asked.validate(&authority)?;
    let target = asked.target(&authority)?;
    let source = asked.source(peer, request.forwarded_network)?;
    let forwarded_host = request.forwarded.and_then(forwarded::host);
    let identity = request.identity.cloned();
    let preserved = settings.preserve_source.then(|| peer.ip());
    Ok(Admission {
        arrived_at: local,
        app: target.loopback.map_or(target.app, |loopback| SocketAddr::new(loopback, target.app.port())),
        source_ip: target.loopback.or(preserved),
        proxy_header: target.told.map(|told| ProxyHeader {
            source: peer,
            destination: told,
            identity: identity.clone(),
        }),
        authority: Some(authority),
        destination: destination.clone(),
        source,
        baggage: read_baggage(request, settings),
        response_baggage: settings.baggage,
        service: asked.service(target.service, forwarded_host.as_ref(), target.app.port()),
        unknown_policy: settings.unknown_policy,
        tuple: Tuple { source: peer, destination: target.app, identity, network: settings.network.clone() },
    })
}

/// What the peer says of itself; a header that cannot be read says nothing.
fn read_baggage(request: &HboneRequest<'_>, settings: &AdmitSettings) -> Baggage {
    let read = settings.baggage.then(|| baggage::parse(request.baggage.iter().copied()).ok());
    read.flatten().unwrap_or_default()
}

/// Decides whether a connection in plain TCP is meant for `destination`, the workload that the listener stands for.
///
/// [`Halt::Need`] is as for [`crate::route()`].
pub fn admit_plaintext(
    view: &View,
    destination: &Arc<Workload>,
    peer: SocketAddr,
    original_destination: SocketAddr,
    learnt: &Learnt,
    settings: &AdmitSettings,
) -> Result<Admission, Halt> {
    let (peer, local) = (canonical(peer), canonical(original_destination));
    if settings.illegal_ports.contains(&local.port()) {
        return Err(Refusal::Recursion.into());
    }
    let asked = Asked { view, destination, local, learnt, settings };
    Ok(Admission {
        tuple: Tuple { source: peer, destination: local, identity: None, network: settings.network.clone() },
        arrived_at: local,
        app: local,
        source_ip: settings.preserve_source.then(|| peer.ip()),
        proxy_header: None,
        authority: None,
        destination: destination.clone(),
        source: asked.source(peer, None)?,
        baggage: Baggage::default(),
        response_baggage: false,
        service: asked.service(None, None, local.port()),
        unknown_policy: settings.unknown_policy,
    })
}

#[cfg(test)]
mod tests;
