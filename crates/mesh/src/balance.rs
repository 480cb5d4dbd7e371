//! Choosing an endpoint of a service (spec data-plane 4.4, state-and-dns 7.3 to 7.5).
//!
//! Each connection gets a fresh, independent choice among the endpoints that have most in common with its source, by
//! weight. Choosing costs a draw from a prepared pool; only where the pool's endpoints turn out to be unusable for
//! this connection are all endpoints looked at.

use std::sync::Arc;

use crate::service::{Mode, Scope, Service};
use crate::view::View;
use crate::view::endpoints::{Endpoints, value};
use crate::view::pool::Member;
use crate::workload::Workload;

/// The caller's randomness; tests script it.
pub trait Draw {
    /// A number below `bound`, all equally likely. `bound` is at least 1.
    fn below(&mut self, bound: u64) -> u64;
}

impl<D: Draw + ?Sized> Draw for &mut D {
    fn below(&mut self, bound: u64) -> u64 {
        (**self).below(bound)
    }
}

/// Which ports of a service may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortRule {
    /// Those that the service declares.
    Declared,
    /// Those, and any port of endpoints that have an application tunnel: the service is a waypoint.
    Waypoint,
}

/// An endpoint chosen, and the port to reach it at.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) workload: Arc<Workload>,
    pub(crate) port: u16,
}

/// How often to draw before looking at all endpoints: endpoints that are unusable for just this connection are rare, so
/// a second draw nearly always settles it.
const DRAWS: usize = 4;

/// What is asked of a service.
struct Choice<'a> {
    service: &'a Service,
    source: &'a Workload,
    port: u16,
    rule: PortRule,
}

/// Chooses an endpoint of `service` for its port `port`; `None` if there is none to choose.
pub(crate) fn choose(
    view: &View,
    service: &Service,
    source: &Workload,
    port: u16,
    rule: PortRule,
    draw: &mut dyn Draw,
) -> Option<Chosen> {
    if rule == PortRule::Declared && service.ports.get(port).is_none() {
        return None;
    }
    let endpoints = view.endpoints_of(&service.key())?;
    let choice = Choice { service, source, port, rule };
    let member = choice.draw(endpoints, draw)?;
    Some(Chosen { workload: member.workload.clone(), port: choice.target_port(member)? })
}

impl Choice<'_> {
    fn draw<'a>(&self, endpoints: &'a Endpoints, draw: &mut dyn Draw) -> Option<&'a Member> {
        let pool = endpoints.nearest(self.source)?;
        for _ in 0..DRAWS {
            if pool.weight() == 0 {
                break;
            }
            // Drawing again after an unusable endpoint gives each usable one its share of what is usable.
            let member = pool.at(draw.below(pool.weight()))?;
            if self.usable(member) {
                return Some(member);
            }
        }
        self.scan(endpoints, draw)
    }

    /// The choice by definition: all endpoints filtered, ranked and weighed.
    fn scan<'a>(&self, endpoints: &'a Endpoints, draw: &mut dyn Draw) -> Option<&'a Member> {
        let mut best = 0;
        let mut nearest: Vec<&Member> = Vec::new();
        for member in endpoints.members().filter(|member| member.eligible && self.usable(member)) {
            let Some(rank) = rank(endpoints.preferences(), self.source, &member.workload) else {
                continue;
            };
            if rank > best || nearest.is_empty() {
                best = rank;
                nearest.clear();
            }
            if rank == best {
                nearest.push(member);
            }
        }
        let weight = |member: &Member| u64::from(member.workload.capacity);
        let total: u64 = nearest.iter().map(|member| weight(member)).sum();
        if total == 0 {
            return None;
        }
        let mut point = draw.below(total);
        nearest.into_iter().find(|member| {
            let falls_here = point < weight(member);
            point = point.saturating_sub(weight(member));
            falls_here
        })
    }

    /// Whether an endpoint can serve this connection at all (spec state-and-dns 7.3).
    fn usable(&self, member: &Member) -> bool {
        let workload = &member.workload;
        let addressable = !workload.addresses.is_empty() || !workload.hostname.is_empty();
        let behind_gateway = workload.network != self.source.network && workload.network_gateway.is_some();
        let serves = match (self.rule, self.service.ports.get(self.port)) {
            (PortRule::Declared, Some(0)) => member.ports().get(self.port).is_some(),
            (PortRule::Declared, declared) => declared.is_some(),
            (PortRule::Waypoint, declared) => declared.is_some() || workload.application_tunnel.is_some(),
        };
        (addressable || behind_gateway) && serves
    }

    fn target_port(&self, member: &Member) -> Option<u16> {
        let own = member.ports().get(self.port);
        let declared = || self.service.ports.get(self.port).filter(|target| *target > 0);
        let tunnelled = || member.workload.application_tunnel?.port.map(|_| self.port);
        own.or_else(declared).or_else(tunnelled)
    }
}

/// How much an endpoint has in common with the source; `None` if that is not enough (spec state-and-dns 7.4).
fn rank(preferences: Option<(&[Scope], Mode)>, source: &Workload, endpoint: &Workload) -> Option<usize> {
    let Some((scopes, mode)) = preferences else {
        return Some(0);
    };
    let common = |scope: &Scope| value(*scope, source) == value(*scope, endpoint);
    if mode == Mode::Strict {
        return scopes.iter().all(common).then_some(0);
    }
    let in_a_row = |scopes: &[Scope]| scopes.iter().take_while(|scope| common(scope)).count();
    Some(match scopes {
        // Any endpoint of the source's network is better than all others, which are still told apart.
        [Scope::Network, rest @ ..] if common(&Scope::Network) => scopes.len() + in_a_row(rest),
        [Scope::Network, rest @ ..] => in_a_row(rest),
        scopes => in_a_row(scopes),
    })
}

#[cfg(test)]
mod tests;
