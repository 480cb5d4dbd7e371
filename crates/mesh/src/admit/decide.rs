//! The steps by which a connection is found to be meant for the local workload (spec data-plane 10.4 to 10.8).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::AdmitSettings;
use crate::address::{Authority, NetworkAddress};
use crate::ask::{Halt, Learnt, Need};
use crate::gateway;
use crate::name::{Hostname, NamespacedHostname};
use crate::refusal::Refusal;
use crate::service::Service;
use crate::view::View;
use crate::workload::{TunnelProtocol, Workload};

/// A connection that asks for something of the local workload.
pub(super) struct Asked<'a> {
    pub(super) view: &'a View,
    pub(super) destination: &'a Arc<Workload>,
    /// The address at which it arrived.
    pub(super) local: SocketAddr,
    pub(super) learnt: &'a Learnt,
    pub(super) settings: &'a AdmitSettings,
}

/// What the app is to be handed.
pub(super) struct Target {
    /// The workload's own address with the port to dial.
    pub(super) app: SocketAddr,
    /// The loopback address by which to dial instead.
    pub(super) loopback: Option<IpAddr>,
    /// The address that the app is told was asked for.
    pub(super) told: Option<SocketAddr>,
    /// The service asked for by name.
    pub(super) service: Option<Arc<Service>>,
}

impl Asked<'_> {
    /// Whether what is asked for is served here; a host name always is, as far as this goes (spec data-plane 10.4).
    pub(super) fn validate(&self, authority: &Authority) -> Result<(), Halt> {
        let Authority::Address(requested) = authority else {
            return Ok(());
        };
        let local = self.local.ip();
        if requested.ip() == local || self.destination.application_tunnel.is_some() {
            return Ok(());
        }
        let address = NetworkAddress::new(self.settings.network.clone(), requested.ip());
        let workloads = self.view.workloads_at(&address);
        let service = self.view.service_at(&address, None);
        if workloads.is_empty() && service.is_none() {
            self.on_demand(Need::Address(address))?;
        }
        let of_workloads = workloads.iter().filter_map(|workload| workload.waypoint.as_deref());
        let of_service = service.into_iter().flat_map(|service| {
            let extras = &service.extras;
            extras.waypoint.iter().chain(extras.weighted_waypoints.iter().map(|weighted| &weighted.destination))
        });
        let mut waypoints = of_workloads.chain(of_service);
        if waypoints.any(|waypoint| gateway::is_local(self.view, waypoint, self.destination, local)) {
            return Ok(());
        }
        Err(Refusal::IpMismatch { local, requested: requested.ip() }.into())
    }

    /// What the app is to be handed (spec data-plane 10.5, 10.6).
    pub(super) fn target(&self, authority: &Authority) -> Result<Target, Halt> {
        let service = match authority {
            Authority::Address(_) => None,
            Authority::Host { host, .. } => Some(self.named(host)?),
        };
        let port = match service {
            None => authority.port(),
            Some(service) => {
                let target = self.target_port(service, authority.port());
                target.ok_or_else(|| Refusal::UnresolvablePort(authority.clone()))?
            }
        };
        let tunnel = self.destination.application_tunnel;
        let dialled = tunnel.and_then(|tunnel| tunnel.port).unwrap_or(port);
        if [port, dialled].iter().any(|port| self.settings.illegal_ports.contains(port)) {
            return Err(Refusal::Recursion.into());
        }
        let app = SocketAddr::new(self.local.ip(), dialled);
        let proxied = tunnel.is_some_and(|tunnel| tunnel.protocol == TunnelProtocol::Proxy);
        Ok(Target {
            app,
            loopback: (proxied && self.settings.localhost_app_tunnel).then(|| loopback(app.ip())),
            told: if proxied { Some(self.told(authority, service)?) } else { None },
            service: service.cloned(),
        })
    }

    /// The service that the local workload means by a host name.
    fn named(&self, host: &Hostname) -> Result<&Arc<Service>, Halt> {
        let namespace = &self.destination.namespace;
        let named = self.view.service_named(host, namespace);
        if named.is_none() {
            self.on_demand(Need::Host(NamespacedHostname { namespace: namespace.clone(), hostname: host.clone() }))?;
        }
        named.ok_or_else(|| Refusal::UnknownHostname(host.clone()).into())
    }

    /// The port of the local workload behind a service port.
    fn target_port(&self, service: &Service, port: u16) -> Option<u16> {
        let endpoint = self.view.endpoint(&service.key(), &self.destination.uid);
        let own = endpoint.and_then(|endpoint| endpoint.ports.get(port));
        own.or_else(|| service.ports.get(port)).filter(|target| *target > 0)
    }

    /// The address that was asked for; of a host name, one of the service's.
    fn told(&self, authority: &Authority, service: Option<&Arc<Service>>) -> Result<SocketAddr, Refusal> {
        match (authority, service) {
            (Authority::Address(address), _) => Ok(*address),
            (Authority::Host { host, .. }, None) => Err(Refusal::UnknownHostname(host.clone())),
            (Authority::Host { host, port }, Some(service)) => {
                let far = |vip: &&NetworkAddress| (vip.network != self.settings.network, vip.ip.is_ipv6());
                let vip = service.vips.iter().min_by_key(far).ok_or_else(|| Refusal::NoVip(host.clone()))?;
                Ok(SocketAddr::new(vip.ip, *port))
            }
        }
    }

    /// The workload that the connection comes from, if the mesh knows it; behind another network's gateway it does not
    /// (spec data-plane 10.7).
    pub(super) fn source(&self, peer: SocketAddr, network: Option<&[u8]>) -> Result<Option<Arc<Workload>>, Halt> {
        let visible = |value: &&[u8]| value.iter().all(|b| (0x20..0x7f).contains(b) || *b == b'\t');
        let own = self.settings.network.as_str().as_bytes();
        if network.filter(visible).is_some_and(|network| !network.eq_ignore_ascii_case(own)) {
            return Ok(None);
        }
        let address = NetworkAddress::new(self.settings.network.clone(), peer.ip());
        let source = self.view.workload_at(&address);
        if source.is_none() {
            self.on_demand(Need::Address(address))?;
        }
        Ok(source.cloned())
    }

    /// The service that was probably meant: the one that the peer says, else the first that leads to the port
    /// (spec data-plane 10.8).
    pub(super) fn service(
        &self,
        named: Option<Arc<Service>>,
        forwarded: Option<&Hostname>,
        port: u16,
    ) -> Option<Arc<Service>> {
        let candidates: Vec<Arc<Service>> = match named {
            Some(service) => vec![service],
            None => {
                let memberships = self.destination.services.iter();
                memberships.filter_map(|membership| self.view.service(&membership.service).cloned()).collect()
            }
        };
        let said = candidates.iter().find(|service| forwarded == Some(&service.hostname));
        let leads_here = |service: &&Arc<Service>| {
            let endpoint = self.view.endpoint(&service.key(), &self.destination.uid);
            let own = endpoint.iter().flat_map(|endpoint| endpoint.ports.iter());
            service.ports.iter().chain(own).any(|(_, target)| target == port)
        };
        said.or_else(|| candidates.iter().find(leads_here)).cloned()
    }

    /// Where the control plane announces things only when asked, asks for what is not known, once.
    fn on_demand(&self, need: Need) -> Result<(), Halt> {
        if self.settings.on_demand && !self.learnt.has_asked(&need) {
            return Err(Halt::Need(need));
        }
        Ok(())
    }
}

fn loopback(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}
