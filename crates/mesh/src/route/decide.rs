//! The tree of decisions that makes a route (spec data-plane 5.2 to 5.5).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Hop, MOST_OTHERS, Outbound, Route};
use crate::address::{Authority, NetworkAddress};
use crate::ask::{Halt, Need, Resolution};
use crate::balance::{Chosen, Draw, PortRule, choose};
use crate::gateway;
use crate::identity::Identity;
use crate::refusal::{Gateway, Refusal};
use crate::retry::{Pick, PickRole};
use crate::service::{IpFamilies, Mode, Service};
use crate::view::Addressed;
use crate::workload::{GatewayAddress, GatewayDestination, Protocol, Workload};

/// One decision in the making.
pub(super) struct Router<'a> {
    pub(super) request: &'a Outbound<'a>,
    /// The app's end, canonical.
    pub(super) client: SocketAddr,
    /// Where the app wants to go, canonical.
    pub(super) target: SocketAddr,
    pub(super) draw: &'a mut dyn Draw,
    /// What was chosen last.
    pub(super) pick: Option<Pick>,
    /// What was chosen before.
    pub(super) beyond: Option<Pick>,
    /// More addresses of the host that was resolved last.
    pub(super) others: Vec<IpAddr>,
}

/// A workload that traffic is to be sent to, and how it came to that.
struct Upstream {
    workload: Arc<Workload>,
    /// The port at which to reach it.
    port: u16,
    /// The service that it was chosen from.
    service: Option<Arc<Service>>,
    /// The address that was asked for, which decides among the workload's addresses.
    asked: IpAddr,
}

impl Upstream {
    /// Identities of which the workload has to prove one.
    fn expect(&self) -> Arc<[Identity]> {
        let service = self.service.iter().flat_map(|service| service.identities());
        service.chain([self.workload.identity()]).collect()
    }

    /// Identities of which a workload in another network has to prove one. The gateway may choose any endpoint of the
    /// service, so what the service says goes; if it says nothing, only the workload chosen here will do.
    fn expect_behind_gateway(&self) -> Arc<[Identity]> {
        let service: Vec<Identity> = self.service.iter().flat_map(|service| service.identities()).collect();
        if service.is_empty() { Arc::new([self.workload.identity()]) } else { service.into() }
    }
}

impl<'a> Router<'a> {
    pub(super) fn route(mut self) -> Result<Route, Halt> {
        if self.target.ip().is_loopback() && self.request.settings.illegal_ports.contains(&self.target.port()) {
            return Err(Refusal::Recursion.into());
        }
        match self.addressed()? {
            None => Ok(self.passthrough()),
            Some(Addressed::Service(service)) => self.for_service(service),
            Some(Addressed::Workload(workload)) => self.for_workload(workload),
        }
    }

    /// What the target belongs to, in the source's network. Where the node is said to be in another network than its
    /// workload, that one counts too: better to find no way to a service than to take it for a stranger.
    fn addressed(&self) -> Result<Option<Addressed<'a>>, Halt> {
        let request: &'a Outbound<'a> = self.request;
        let Outbound { view, source, settings, .. } = request;
        let second = Some(&settings.network).filter(|network| **network != source.network);
        for network in [Some(&source.network), second].into_iter().flatten() {
            let address = NetworkAddress::new(network.clone(), self.target.ip());
            let found = view.find(&address, Some(&source.namespace));
            if found.is_some() {
                return Ok(found);
            }
            self.on_demand(Need::Address(address))?;
        }
        Ok(None)
    }

    fn for_service(&mut self, service: &Arc<Service>) -> Result<Route, Halt> {
        if let Some(waypoint) = self.service_waypoint(service) {
            let upstream = self.resolve_waypoint(&waypoint)?;
            if upstream.workload.network != self.request.source.network {
                return self.through_gateway(&upstream, service);
            }
            return self.through_waypoint(&upstream, Some(service));
        }
        if service.mode() == Mode::Passthrough {
            return Ok(self.passthrough());
        }
        let source = &self.request.source;
        let chosen = self
            .choose(service, self.target.port(), PortRule::Declared, PickRole::Endpoint)
            .ok_or(Refusal::NoHealthyUpstream(self.target))?;
        let upstream = Upstream {
            workload: chosen.workload,
            port: chosen.port,
            service: Some(service.clone()),
            asked: self.target.ip(),
        };
        if upstream.workload.network != source.network {
            return self.through_gateway(&upstream, service);
        }
        self.direct(&upstream)
    }

    fn for_workload(&mut self, workload: &Arc<Workload>) -> Result<Route, Halt> {
        let Outbound { view, source, .. } = self.request;
        if workload.network != source.network {
            return Err(Refusal::NoService(self.target).into());
        }
        let foreign = |waypoint: &&GatewayAddress| !gateway::is_source(view, waypoint, source, self.client.ip());
        if let Some(waypoint) = workload.waypoint.as_deref().filter(foreign) {
            let upstream = self.resolve_waypoint(waypoint)?;
            // Another network's gateway is asked for services only.
            if upstream.workload.network != source.network {
                return Err(Refusal::NoService(self.target).into());
            }
            return self.through_waypoint(&upstream, None);
        }
        let (port, asked) = (self.target.port(), self.target.ip());
        self.direct(&Upstream { workload: workload.clone(), port, service: None, asked })
    }

    /// The waypoint of a service that this connection goes through, if any: none if it comes from one of them.
    fn service_waypoint(&mut self, service: &Service) -> Option<GatewayAddress> {
        let Outbound { view, source, .. } = self.request;
        let total: u64 = service.waypoints().map(|(_, weight)| u64::from(weight)).sum();
        let mut all = service.waypoints();
        if total == 0 || all.any(|(waypoint, _)| gateway::is_source(view, waypoint, source, self.client.ip())) {
            return None;
        }
        let mut point = match service.waypoints().nth(1) {
            Some(_) => self.draw.below(total),
            None => 0,
        };
        let (waypoint, _) = service.waypoints().find(|(_, weight)| {
            let falls_here = point < u64::from(*weight);
            point = point.saturating_sub(u64::from(*weight));
            falls_here
        })?;
        Some(waypoint.clone())
    }

    fn resolve_waypoint(&mut self, waypoint: &GatewayAddress) -> Result<Upstream, Halt> {
        let resolved = self.resolve(waypoint, PortRule::Waypoint)?;
        resolved.ok_or_else(|| Refusal::UnknownWaypoint(Gateway(waypoint.clone())).into())
    }

    /// A workload for a reference to a waypoint or a network gateway (spec data-plane 5.3).
    fn resolve(&mut self, reference: &GatewayAddress, rule: PortRule) -> Result<Option<Upstream>, Halt> {
        let asked = match &reference.destination {
            GatewayDestination::Address(address) => address.ip,
            GatewayDestination::Hostname(_) => self.target.ip(),
        };
        let port = reference.hbone_port;
        match gateway::referred(self.request.view, reference) {
            None => {
                self.on_demand(match &reference.destination {
                    GatewayDestination::Address(address) => Need::Address(address.clone()),
                    GatewayDestination::Hostname(name) => Need::Host(name.clone()),
                })?;
                Ok(None)
            }
            Some(Addressed::Workload(workload)) => {
                Ok(Some(Upstream { workload: workload.clone(), port, service: None, asked }))
            }
            Some(Addressed::Service(service)) => {
                let by_address = matches!(reference.destination, GatewayDestination::Address(_));
                if by_address && service.mode() == Mode::Passthrough {
                    return Ok(None);
                }
                let chosen = self.choose(service, port, rule, PickRole::Way);
                Ok(chosen.map(|chosen| Upstream {
                    workload: chosen.workload,
                    port: chosen.port,
                    service: Some(service.clone()),
                    asked,
                }))
            }
        }
    }

    fn choose(&mut self, service: &Service, port: u16, rule: PortRule, role: PickRole) -> Option<Chosen> {
        let Outbound { view, source, past, .. } = self.request;
        let chosen = choose(view, service, source, (port, rule), past, self.draw)?;
        let (uid, others) = (chosen.workload.uid.clone(), chosen.others);
        self.beyond = self.pick.take();
        self.pick = Some(Pick { service: service.key(), port, uid, role, others });
        Some(chosen)
    }

    /// To an address that the mesh does not know, or that it is told to leave alone.
    fn passthrough(&self) -> Route {
        self.to(Hop::Tcp { target: self.target }, None, None)
    }

    fn through_waypoint(&mut self, waypoint: &Upstream, service: Option<&Arc<Service>>) -> Result<Route, Halt> {
        let next = SocketAddr::new(self.address(waypoint)?, waypoint.port);
        let hop = Hop::Hbone { next, authority: Authority::Address(self.target), expect: waypoint.expect() };
        Ok(self.to(hop, Some(&waypoint.workload), service))
    }

    fn direct(&mut self, upstream: &Upstream) -> Result<Route, Halt> {
        let ip = self.address(upstream)?;
        let target = SocketAddr::new(ip, upstream.port);
        let hop = match upstream.workload.protocol {
            Protocol::Tcp => Hop::Tcp { target },
            Protocol::Hbone => {
                // The far end is asked for the address that it is reached at: another one would be another request.
                self.others.clear();
                Hop::Hbone {
                    next: SocketAddr::new(ip, self.request.settings.hbone_port),
                    authority: Authority::Address(target),
                    expect: upstream.expect(),
                }
            }
        };
        let others = self.others.iter().map(|ip| SocketAddr::new(*ip, upstream.port)).collect();
        Ok(Route { others, ..self.to(hop, Some(&upstream.workload), upstream.service.as_ref()) })
    }

    /// To a workload of another network, by that network's gateway (spec data-plane 5.4).
    fn through_gateway(&mut self, upstream: &Upstream, service: &Arc<Service>) -> Result<Route, Halt> {
        let Some(reference) = upstream.workload.network_gateway.as_deref() else {
            return Err(Refusal::no_routing_destination(&upstream.workload).into());
        };
        let gateway = self
            .resolve(reference, PortRule::Declared)?
            .ok_or_else(|| Refusal::UnknownNetworkGateway(Gateway(reference.clone())))?;
        let hop = Hop::DoubleHbone {
            gateway: SocketAddr::new(self.address(&gateway)?, gateway.port),
            gateway_expect: gateway.expect(),
            authority: Authority::Host { host: service.hostname.clone(), port: self.target.port() },
            inner_expect: upstream.expect_behind_gateway(),
        };
        Ok(self.to(hop, Some(&gateway.workload), Some(service)))
    }

    /// Which of a workload's addresses to dial (spec data-plane 4.5).
    fn address(&mut self, upstream: &Upstream) -> Result<IpAddr, Halt> {
        let workload = &upstream.workload;
        if workload.addresses.contains(&upstream.asked) {
            return Ok(upstream.asked);
        }
        let families = upstream.service.as_ref().map_or(IpFamilies::Automatic, |service| service.ip_families);
        let accepted = || workload.addresses.iter().copied().filter(|ip| families.accept(*ip));
        let same_family = accepted().find(|ip| ip.is_ipv4() == upstream.asked.is_ipv4());
        if let Some(ip) = same_family.or_else(|| accepted().next()) {
            return Ok(ip);
        }
        if workload.hostname.is_empty() {
            return Err(Refusal::no_routing_destination(workload).into());
        }
        self.resolved(upstream)
    }

    /// One of the addresses that a workload's host name resolves to (spec data-plane 4.6), and others to try beside it.
    fn resolved(&mut self, upstream: &Upstream) -> Result<IpAddr, Halt> {
        let workload = &upstream.workload;
        let addresses = match self.request.learnt.resolution(&workload.hostname) {
            None => {
                let need = Need::Resolve { workload: workload.uid.clone(), hostname: workload.hostname.clone() };
                return Err(Halt::Need(need));
            }
            Some(Resolution::Failed) => return Err(Refusal::Unresolved(workload.uid.clone()).into()),
            Some(Resolution::Addresses(addresses)) => addresses,
        };
        let of_family = |same: bool| -> Vec<IpAddr> {
            addresses.iter().copied().filter(|ip| (ip.is_ipv4() == upstream.asked.is_ipv4()) == same).collect()
        };
        let mut choices = of_family(true);
        if choices.is_empty() {
            choices = of_family(false);
        }
        let drawn = match choices.len() {
            0 | 1 => 0,
            n => usize::try_from(self.draw.below(n as u64)).unwrap_or(0),
        };
        let first = choices.get(drawn).copied().ok_or_else(|| Refusal::NoAddressRecords(workload.uid.clone()))?;
        self.others = others(first, addresses);
        Ok(first)
    }

    /// Where the control plane announces things only when asked, asks for what is not known, once.
    fn on_demand(&self, need: Need) -> Result<(), Halt> {
        if self.request.settings.on_demand && !self.request.learnt.has_asked(&need) {
            return Err(Halt::Need(need));
        }
        Ok(())
    }

    fn to(&self, hop: Hop, destination: Option<&Arc<Workload>>, service: Option<&Arc<Service>>) -> Route {
        Route {
            hop,
            source: self.request.source.clone(),
            destination: destination.cloned(),
            service: service.cloned(),
            client: self.client,
            target: self.target,
            pick: self.pick.clone(),
            beyond: self.beyond.clone(),
            others: Box::default(),
        }
    }
}

/// The addresses to try after the first, the families in turn: whatever is wrong with one of them, the other is next.
fn others(first: IpAddr, all: &[IpAddr]) -> Vec<IpAddr> {
    let of = |v4: bool| all.iter().copied().filter(move |ip| *ip != first && ip.is_ipv4() == v4);
    let (mut same, mut other) = (of(first.is_ipv4()), of(!first.is_ipv4()));
    let pairs = std::iter::from_fn(|| match (other.next(), same.next()) {
        (None, None) => None,
        pair => Some(pair),
    });
    pairs.flat_map(|(other, same)| [other, same]).flatten().take(MOST_OTHERS).collect()
}
